// The page: photos in, answers out.

import * as answers from "./answers.js";
import * as files from "./files.js";
import { keeper } from "./kept.js";
import { entriesOf, finder } from "./lists.js";
import { speciesKey } from "./names.js";
import { darwinCore } from "./records.js";

const SHOWN = 5; // likeliest species, look-alikes
const FITTING = 12; // photos a phrase
const FRESH = 10 * 60 * 1000; // milliseconds for which a photo is of the place where the device is now
const ITALIC = new Set([answers.SPECIES, "genus"]);

const $ = (id) => document.getElementById(id);
const plurals = new Intl.PluralRules(STRINGS.lang);

/** A sentence of strings.json; its form is chosen by the number n. */
function t(key, values = {}) {
  const form = STRINGS[key] ?? STRINGS[`${key}_${plurals.select(values.n ?? 2)}`] ?? STRINGS[`${key}_other`];
  return form.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? values[name].toLocaleString(STRINGS.lang) : String(values[name]));
}

/** An element with attributes and what is in it. */
function el(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}

const state = {
  app: null, vectors: null, rungs: null, seen: null, find: null, kept: null,
  photos: [], // {id, name, state, vector, scores, steps, thumbnail, address, date, place, error, detail, card}
  sure: 0.8, limits: [], list: null, chosen: [], phrases: [], // {text, vector}
  withTime: false, withPlace: false,
};

// The model

let worker;
const waiting = new Map();

function ask(job, given = {}, moved = []) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, job, ...given }, moved);
  });
}

function answered({ data: { id, result, error, detail } }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(Object.assign(new Error(detail), { code: error, detail }));
  else resolve(result);
}

async function startModel(app) {
  let done = 0, full = false;
  const total = Object.values(app.files).reduce((sum, { bytes }) => sum + bytes, 0);
  const tell = (bytes) => {
    done += bytes;
    $("progress").value = done / total;
    const [have, all] = [done, total].map((value) => (value / 1e6).toFixed(1));
    $("loading-text").textContent = t("loadingTold", { done: have, total: all });
  };
  const bytes = {};
  for (const [name, facts] of Object.entries(app.files)) {
    bytes[name] = await files.fileBytes(name, facts, tell, () => { full = true; });
  }
  if (full) notice("storageFull");
  $("loading-text").textContent = t("starting");
  app.classes = jsonOf(bytes["classes.json"]);
  state.vectors = files.unpackedVectors(bytes["vectors.bin"], app.vectors);
  // A worker made of a line takes over what the page forbids itself, which a worker of a file would not.
  const source = await files.script("worker.js");
  const line = typeof source === "string" ? `import ${JSON.stringify(source)};` : source;
  const kind = typeof source === "string" ? "module" : "classic"; // from the disk there are no other workers
  worker = new Worker(URL.createObjectURL(new Blob([line], { type: "text/javascript" })), { type: kind });
  worker.onmessage = answered;
  const failed = new Promise((_, reject) => { worker.onerror = (event) => reject(new Error(event.message ?? "worker")); });
  const units = bytes["units.json"] ? jsonOf(bytes["units.json"]) : null;
  const given = {
    app: { size: app.size, view: app.view, text: app.text }, runtime: await files.script("ort.js"), units,
    wasm: bytes["ort.wasm"], image: bytes["image.onnx"], text: bytes["text.onnx"], tokenizer: bytes.tokenizer,
  };
  const moved = [given.wasm, given.image, given.text, given.tokenizer].filter(Boolean).map((one) => one.buffer);
  await Promise.race([ask("start", given, moved), failed]);
  return full;
}

const jsonOf = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

// Start

async function start() {
  fillTexts(document);
  if (document.documentElement.classList.contains("stopped")) return;
  $("loading").hidden = false;
  try {
    state.app = await files.description();
    const full = await startModel(state.app);
    setUp(state.app);
    state.kept = await keeper(state.app.digest, () => notice("storageFull"));
    await restore();
    await keepOffline(full);
  } catch (error) {
    $("loading").hidden = true;
    $("stop").textContent = error instanceof files.BadFile
      ? t(error.code, { file: error.file }) : t("modelFailed", { detail: error.detail ?? error.message });
    $("stop").hidden = false;
    return;
  }
  $("loading").hidden = true;
  for (const id of ["controls", "bar"]) $(id).hidden = false;
  $("status").textContent = t("ready", { n: state.chosen.length });
  render();
  document.documentElement.classList.add("ready");
}

function fillTexts(root) {
  document.documentElement.lang = STRINGS.lang;
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const template of root.querySelectorAll("template")) fillTexts(template.content);
}

function setUp(app) {
  const count = app.vectors.rows;
  const columns = {};
  for (const [column, [values, places]] of Object.entries(app.classes.columns)) {
    columns[column] = places ? places.map((place) => values[place]) : values;
  }
  state.columns = columns;
  state.names = columns.name ?? columns.common_name;
  state.seen = Uint8Array.from({ length: count }, () => 0);
  for (const k of app.classes.seen) state.seen[k] = 1;
  state.rungs = answers.ladder(columns);
  state.find = finder(columns);
  state.sure = Number(remembered("sure") ?? app.sure);
  state.withTime = remembered("time") === "yes";
  state.withPlace = remembered("place") === "yes";
  const limits = JSON.parse(remembered("limits") ?? "{}");
  state.limits = (limits.model === app.digest && limits.limits) || [];
  if (limits.model === app.digest && limits.list) state.list = { ...limits.list, classes: new Set(limits.list.classes) };
  choose();
  $("sure").value = Math.round(100 * state.sure);
  $("with-time").checked = state.withTime;
  $("with-place").checked = state.withPlace;
  const others = Object.keys(columns).filter((column) => app.classes.columns[column][1] && column !== "name");
  const offered = [...answers.RANKS.filter((rank) => columns[rank]), ...others.filter((one) => !answers.RANKS.includes(one))];
  $("limit-column").append(...offered.map((column) => el("option", { value: column }, STRINGS[`rank_${column}`] ?? column)));
  offerValues();
  $("words-told").textContent = app.text ? t(app.text.tokens ? "wordsTold" : "wordsLetters") : app.textNote;
  $("words-ask").hidden = !app.text;
  $("words-open").hidden = !app.text;
  aboutTexts(app);
}

function aboutTexts(app) {
  const told = [
    ["aboutPrivacy"], ["aboutConfidence", { note: app.note }],
    ["aboutClasses", { n: app.vectors.rows, seen: app.classes.seen.length }],
    ["aboutModel", { model: app.model, step: app.step, madeBy: app.madeBy }], ["aboutKeep"],
    ["aboutLicence", { version: app.runtime }],
  ].map(([key, values]) => el("p", {}, t(key, values)));
  if (app.textNote) told.push(el("p", {}, app.textNote));
  for (const note of app.notes) told.push(el("p", { class: "told" }, note));
  $("about-text").append(el("p", { id: "offline", class: "told" }), ...told);
}

async function keepOffline(full) {
  const tell = (key) => { $("offline").textContent = t(key); };
  if (files.isOneFile()) return tell("offlineOneFile");
  if (!navigator.serviceWorker) return tell("offlineInsecure");
  if (full) return tell("storageFull");
  const before = navigator.serviceWorker.controller;
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    registration.addEventListener("updatefound", () => {
      const next = registration.installing;
      next?.addEventListener("statechange", () => before && next.state === "activated" && notice("newVersion"));
    });
    navigator.serviceWorker.ready.then(async () => {
      tell("offlineReady");
      document.documentElement.classList.add("offline-ready");
      await navigator.storage?.persist?.();
      await files.dropOldFiles(state.app.files);
    });
  } catch {
    tell("storageFull");
    notice("storageFull");
  }
}

function notice(key) {
  const known = [...$("notices").children].some((one) => one.dataset.key === key);
  if (!known) $("notices").append(el("li", { "data-key": key, role: "status" }, t(key)));
}

function remembered(name) {
  try {
    return localStorage.getItem(`lit_jax ${location.pathname} ${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`lit_jax ${location.pathname} ${name}`, value);
  } catch { // no room, or not allowed: it is asked again next time
  }
}

// Photos

async function addPhotos(given) {
  if (!state.kept) return; // not ready
  const lists = given.filter(isList);
  for (const file of lists) await useList(await file.text());
  const found = given.filter((file) => !isList(file)).map((file) => {
    const photo = { id: crypto.randomUUID?.() ?? String(Math.random()), name: file.name || t("take"), state: "waiting", added: Date.now(), file };
    state.photos.unshift(photo);
    return photo;
  });
  render();
  if (found.length) $("photos").firstElementChild.scrollIntoView({ block: "nearest" });
  for (const photo of found) queue.push(photo);
  await drain();
}

const isList = (file) => /^text\//.test(file.type) || /\.(txt|csv|tsv)$/i.test(file.name);
const queue = [];
let draining = false, done = 0;

async function drain() {
  if (draining) return;
  draining = true;
  while (queue.length) {
    const photo = queue.shift();
    $("status").textContent = t("naming", { done: done + 1, total: done + 1 + queue.length });
    await look(photo);
    done++;
  }
  draining = false;
  $("status").textContent = t("named", { n: done });
  done = 0;
}

async function look(photo) {
  const { file } = photo;
  photo.state = "looking";
  draw(photo);
  try {
    const { vector, thumbnail, date, place, moving, milliseconds } = await ask("photo", { file });
    Object.assign(photo, { state: "done", vector, thumbnail, moving, milliseconds });
    photo.date = date ?? new Date(file.lastModified).toISOString().replace(/\.\d+/, "");
    photo.place = place ?? null;
    state.kept.put(plainOf(photo));
    if (!place && state.withPlace && Date.now() - file.lastModified < FRESH) placeLater(photo);
  } catch (error) {
    Object.assign(photo, { state: "failed", error: error.code ?? "unexpected", detail: error.detail ?? error.message });
  }
  delete photo.file;
  if (!state.photos.includes(photo)) return state.kept.drop(photo.id); // forgotten meanwhile
  judge(photo);
  draw(photo);
  const told = photo.error ? t(photo.error, { detail: photo.detail }) : headline(photo).name;
  if (queue.length === 0) announce(photo, told);
}

/** A place may take long to come, and never does while its question is open: nothing waits for it. */
async function placeLater(photo) {
  photo.place = await here();
  if (!photo.place || !state.photos.includes(photo)) return;
  state.kept.put(plainOf(photo));
  draw(photo);
}

function announce(photo, told) {
  const answer = photo.error ? null : answerOf(photo);
  const confidence = answer ? answers.percent(answer.confidence) : "";
  $("spoken").textContent = t("said", { photo: photo.name, answer: told, confidence }).replace(/, $/, "");
}

const plainOf = ({ id, name, vector, thumbnail, date, place, moving, added }) =>
  ({ id, name, vector, thumbnail, date, place, moving, added });

async function restore() {
  for (const photo of await state.kept.all()) {
    state.photos.unshift({ ...photo, state: "done" });
    judge(state.photos[0]);
  }
}

function forget(photo) {
  state.photos = state.photos.filter((one) => one !== photo);
  queue.splice(0, queue.length, ...queue.filter((one) => one !== photo));
  if (photo.address) URL.revokeObjectURL(photo.address);
  state.kept.drop(photo.id);
  photo.card?.remove();
  render();
}

function here() {
  return new Promise((resolve) => {
    if (!navigator.geolocation) return resolve(null);
    navigator.geolocation.getCurrentPosition(
      ({ coords: { latitude, longitude, accuracy } }) => resolve({ latitude, longitude, accuracy }),
      () => resolve(null), { enableHighAccuracy: true, maximumAge: 60_000, timeout: 15_000 },
    );
  });
}

// Answers

const dot = (vector, k) => {
  const { vectors } = state, width = vector.length;
  let sum = 0;
  for (let i = 0, at = k * width; i < width; i++, at++) sum += vector[i] * vectors[at];
  return sum;
};

const all = () => Array.from({ length: state.app.vectors.rows }, (_, k) => k);

function judge(photo) {
  if (photo.state !== "done") return;
  photo.scores ??= Float32Array.from(all(), (k) => dot(photo.vector, k));
  photo.steps = answers.steps(likelyOf(photo), state.rungs);
}

function likelyOf(photo) {
  const { margin, trained, factors } = state.app;
  return answers.probabilities(photo.scores, state.chosen, { margin, trained, factors, seen: state.seen });
}

/** The answer of a photo as it is told and written down. */
function answerOf(photo) {
  const step = answers.climbed(photo.steps, state.sure);
  if (!step) return { rank: "", name: "", commonName: "", ranks: {}, confidence: photo.steps.at(-1).confidence, seen: true };
  const { ofClass } = state.rungs.find(({ rank }) => rank === step.rank).groups;
  const members = state.chosen.filter((k) => ofClass[k] === step.group);
  return {
    ...step, commonName: step.rank === answers.SPECIES ? commonName(members[0]) : "",
    ranks: answers.above(state.columns, members[0], step.rank), seen: members.some((k) => state.seen[k]),
  };
}

function commonName(k) {
  const common = state.columns.common_name?.[k] ?? "";
  return common === state.names[k] ? "" : common;
}

function headline(photo) {
  if (photo.state === "failed") return { name: t("unread"), below: t(photo.error, { detail: photo.detail }), plain: true };
  if (photo.state !== "done") return { name: t(photo.state), below: photo.name, plain: true };
  const answer = answerOf(photo);
  if (!answer.rank) return { name: t("notSure"), below: t("notSureTold"), plain: true, answer };
  const [{ name, confidence }] = photo.steps;
  const below = answer.rank === answers.SPECIES ? answer.commonName : t("perhaps", { name, share: answers.percent(confidence) });
  return { name: answer.name, below, answer, italic: ITALIC.has(answer.rank) };
}

// What is chosen from

function choose() {
  const wanted = new Map();
  for (const { column, value } of state.limits) wanted.set(column, [...(wanted.get(column) ?? []), speciesKey(value)]);
  state.chosen = all().filter((k) => {
    if (state.list && !state.list.classes.has(k)) return false;
    return [...wanted].every(([column, keys]) => keys.includes(speciesKey(state.columns[column][k])));
  });
  return state.chosen.length > 0;
}

/** Tries other limits; those that leave nothing are taken back. */
function limit(change) {
  const before = { limits: state.limits, list: state.list };
  change();
  const works = choose();
  if (!works) {
    Object.assign(state, before);
    choose();
  }
  const list = state.list && { ...state.list, classes: [...state.list.classes] };
  remember("limits", JSON.stringify({ model: state.app.digest, limits: state.limits, list }));
  state.photos.forEach(judge);
  render();
  return works;
}

function addLimit() {
  const column = $("limit-column").value, value = $("limit-value").value.trim();
  if (!value) return;
  const known = state.columns[column].find((one) => speciesKey(one) === speciesKey(value));
  const told = STRINGS[`rank_${column}`] ?? column;
  if (!known) return tellLimit(t("limitUnknown", { column: told, value }));
  $("limit-value").value = "";
  if (!limit(() => { state.limits = [...state.limits, { column, value: known }]; })) tellLimit(t("limitNone"));
}

const tellLimit = (text) => { $("limit-among").textContent = text; };

async function useList(text) {
  const told = $("list-told");
  const entries = entriesOf(text);
  if (!entries.length) return void (told.textContent = t("listEmpty"));
  const { found, missing, assumed } = state.find(entries);
  if (!found.size) return void (told.textContent = t("listNothing", { total: entries.length }));
  if (!limit(() => { state.list = { classes: found }; })) return void (told.textContent = t("limitNone"));
  const some = (texts) => texts.slice(0, 20).join(", ") + (texts.length > 20 ? ` ${t("andMore", { n: texts.length - 20 })}` : "");
  const lines = [t("listFound", { n: entries.length - missing.length, total: entries.length })];
  if (missing.length) {
    lines.push(t("listMissing", { names: some(missing.map(([name, near]) => (near ? t("listNear", { name, near }) : name))) }));
  }
  if (assumed.length) lines.push(t("listAssumed", { names: some(assumed.map(([name, other]) => t("listAs", { name, other }))) }));
  told.replaceChildren(...lines.map((line) => el("p", {}, line)));
  $("status").textContent = lines[0];
}

function offerValues() {
  const values = [...new Set(state.columns[$("limit-column").value] ?? [])].filter(Boolean).sort();
  $("limit-values").replaceChildren(...values.slice(0, 3000).map((value) => el("option", { value })));
}

// The page

function render() {
  const { chosen, app, photos } = state;
  const count = app.vectors.rows;
  $("sure-value").textContent = `${Math.round(100 * state.sure)} %`;
  $("sure-told").textContent = state.sure ? t("sureTold", { share: Math.round(100 * state.sure) }) : t("sureAlways");
  const among = chosen.length === count ? t("amongAll", { n: count }) : t("among", { n: chosen.length, total: count });
  $("among").textContent = $("limit-among").textContent = among;
  const chips = state.limits.map((one) => [one.value, () => limit(() => { state.limits = state.limits.filter((other) => other !== one); })]);
  if (state.list) chips.push([t("amongList", { n: state.list.classes.size }), () => limit(() => { state.list = null; })]);
  $("limits").replaceChildren(...chips.map(([text, onclick]) =>
    el("li", {}, text, el("button", { type: "button", "aria-label": t("remove", { what: text }), onclick }, "×"))));
  $("welcome").hidden = photos.length > 0;
  photos.forEach((photo, place) => {
    photo.card ??= newCard(photo);
    if ($("photos").children[place] !== photo.card) $("photos").insertBefore(photo.card, $("photos").children[place] ?? null);
    draw(photo);
  });
  drawPhrases();
  drawCounts();
}

function newCard(photo) {
  const card = $("card").content.cloneNode(true).firstElementChild;
  card.querySelector("details").addEventListener("toggle", () => drawInside(photo));
  return card;
}

function draw(photo) {
  const card = (photo.card ??= newCard(photo));
  const at = (selector) => card.querySelector(selector);
  const { name, below, answer, plain, italic } = headline(photo);
  if (photo.thumbnail && !photo.address) {
    photo.address = URL.createObjectURL(photo.thumbnail);
    at(".picture").src = photo.address;
  }
  at(".picture").hidden = photo.state === "failed";
  at(".picture").alt = photo.thumbnail ? photo.name : "";
  at(".file").textContent = photo.state === "failed" ? photo.name : "";
  card.className = ["card", photo.state === "failed" && "failed", ["waiting", "looking"].includes(photo.state) && "busy",
    answer && !answer.rank && "unsure"].filter(Boolean).join(" ");
  at(".answer").className = plain ? "answer plain" : "answer";
  at(".answer").replaceChildren(italic ? el("i", {}, name) : name);
  at(".common").textContent = below;
  at(".confidence").hidden = !answer;
  at("details").hidden = photo.state === "waiting" || photo.state === "looking";
  const facts = [];
  if (answer) {
    at(".confidence b").textContent = answers.percent(answer.confidence);
    at(".meter > span").style.width = `${100 * answer.confidence}%`;
    if (answer.rank) facts.push(el("li", {}, rankName(answer.rank)));
    if (!answer.seen) facts.push(el("li", { class: "unseen" }, t("noPhoto")));
    if (photo.moving) facts.push(el("li", {}, t("firstFrame")));
  }
  at(".facts").replaceChildren(...facts);
  drawInside(photo);
}

const rankName = (rank) => STRINGS[`rank_${rank}`] ?? rank;

function meter(share) {
  const bar = el("span");
  bar.style.width = `${100 * share}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, bar);
}

function speciesName(k, ...more) {
  const common = commonName(k);
  const small = [common, ...more].filter(Boolean).join(" · ");
  return el("span", { class: "name" }, el("i", {}, state.names[k]), ...(small ? [el("small", {}, small)] : []));
}

function drawInside(photo) {
  const details = photo.card.querySelector("details");
  if (!details.open) return;
  const parts = [];
  if (photo.state === "done") {
    const likely = likelyOf(photo);
    parts.push(...climbPart(photo), ...likeliestPart(likely), ...alikePart(likely), ...wordsPart(photo));
  }
  parts.push(el("h3", {}, t("file")), el("p", { class: "told" }, photo.name));
  const told = [state.withTime && photo.date, state.withPlace && photo.place && placeText(photo.place)].filter(Boolean);
  if (told.length) parts.push(el("p", { class: "told" }, `${t("taken")} ${told.join(", ")}`));
  parts.push(el("button", { type: "button", class: "warn", onclick: () => forget(photo) }, t("forget")));
  details.querySelector(".inside").replaceChildren(...parts);
}

const placeText = ({ latitude, longitude }) => `${latitude.toFixed(4)}, ${longitude.toFixed(4)}`;

function climbPart(photo) {
  const chosen = answers.climbed(photo.steps, state.sure);
  const rows = [...photo.steps].reverse().map((step) => el(
    "li", { "aria-current": step === chosen ? "true" : null },
    el("span", {}, rankName(step.rank)),
    el("span", {}, ITALIC.has(step.rank) ? el("i", {}, step.name) : step.name),
    el("b", {}, answers.percent(step.confidence)), meter(step.confidence),
  ));
  return [el("h3", {}, t("climb")), el("ol", { class: "steps" }, ...rows)];
}

function likeliestPart(likely) {
  const rows = answers.best(likely, SHOWN).map((k) => el(
    "li", {}, speciesName(k, state.seen[k] ? "" : t("noPhoto")),
    el("b", {}, answers.percent(likely[k])), meter(likely[k]),
  ));
  return [el("h3", {}, t("likeliest")), el("ol", { class: "ranked" }, ...rows)];
}

function alikePart(likely) {
  const [own] = answers.best(likely, 1);
  const width = state.app.vectors.width;
  const vector = state.vectors.subarray(own * width, (own + 1) * width);
  const near = all().map((k) => [dot(vector, k), k]).filter(([, k]) => k !== own);
  near.sort((a, b) => b[0] - a[0]);
  const among = new Set(state.chosen);
  const rows = near.slice(0, SHOWN).map(([, k]) => el("li", {}, speciesName(k, among.has(k) ? "" : t("notInLimit"))));
  if (!rows.length) return [];
  return [el("h3", {}, t("alike", { name: state.names[own] })), el("p", { class: "told" }, t("alikeTold")), el("ol", { class: "ranked" }, ...rows)];
}

function similarity(photo, { vector }) {
  return vector.reduce((sum, value, i) => sum + value * photo.vector[i], 0);
}

function wordsPart(photo) {
  const asked = state.phrases.filter(({ known }) => known);
  if (asked.length < 2) return [];
  const scores = asked.map((phrase) => similarity(photo, phrase));
  const weights = scores.map((score) => Math.exp(state.app.trained * (score - Math.max(...scores))));
  const sum = weights.reduce((a, b) => a + b);
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  const rows = order.map((i) => el("li", {}, el("span", {}, asked[i].text), el("b", {}, answers.percent(weights[i] / sum)), meter(weights[i] / sum)));
  return [el("h3", {}, t("inWords")), el("p", { class: "told" }, t("inWordsTold")), el("ol", { class: "ranked" }, ...rows)];
}

// Words

async function addPhrase() {
  const text = $("phrase").value.trim();
  if (!text || state.phrases.some((phrase) => phrase.text === text)) return;
  const { vectors: [vector], known: [known] } = await ask("texts", { texts: [text] });
  $("phrase").value = "";
  $("phrase-told").textContent = known ? "" : t("phraseUnknown", { phrase: text });
  if (known) state.phrases.unshift({ text, vector, known });
  render();
}

function drawPhrases() {
  const photos = state.photos.filter((photo) => photo.state === "done");
  $("phrases").replaceChildren(...state.phrases.map((phrase) => {
    const onclick = () => {
      state.phrases = state.phrases.filter((one) => one !== phrase);
      render();
    };
    const ranked = photos.map((photo) => [similarity(photo, phrase), photo]).sort((a, b) => b[0] - a[0]).slice(0, FITTING);
    const pictures = ranked.map(([score, photo]) => el("li", {}, el("img", {
      src: photo.address, alt: t("phraseFit", { photo: photo.name, score: score.toFixed(3) }),
    }), score.toFixed(3)));
    const head = el("div", { class: "head" }, phrase.text, el("button", { type: "button", "aria-label": t("remove", { what: phrase.text }), onclick }, "×"));
    return el("li", {}, head, pictures.length ? el("ol", { tabindex: "0", "aria-label": phrase.text }, ...pictures) : el("p", { class: "told" }, t("phraseNoPhotos")));
  }));
}

// Results

function drawCounts() {
  const counts = new Map([[t("photos"), state.photos.length]]);
  for (const photo of state.photos) {
    const kind = photo.state === "failed" ? t("unread") : photo.state === "done" ? rankName(answerOf(photo).rank) || t("notSure") : "";
    if (kind) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  $("counts").replaceChildren(...[...counts].map(([name, count]) => el("div", {}, el("dt", {}, name), el("dd", {}, count.toLocaleString(STRINGS.lang)))));
}

function resultsFile() {
  const { app } = state;
  const rows = [...state.photos].reverse().filter((photo) => photo.state === "done" || photo.state === "failed").map((photo) => ({
    name: photo.name, error: photo.error && t(photo.error, { detail: photo.detail }),
    answer: photo.state === "done" ? answerOf(photo) : null,
    date: state.withTime ? photo.date : "", place: state.withPlace ? photo.place : null,
  }));
  const about = { madeBy: app.madeBy, model: app.model, step: app.step, note: app.note, classes: state.chosen.length };
  const now = new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");
  return new File([darwinCore(rows, about)], `${now}-photos.csv`, { type: "text/csv" });
}

function save() {
  const file = resultsFile();
  const link = el("a", { href: URL.createObjectURL(file), download: file.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  $("status").textContent = t("saved");
}

async function allowPlace(allowed) {
  state.withPlace = allowed;
  remember("place", allowed ? "yes" : "no");
  $("place-told").textContent = allowed ? t("placeAsking") : "";
  if (allowed) $("place-told").textContent = t((await here()) ? "placeKnown" : "placeDenied");
  render();
}

function forgetAll() {
  const button = $("forget-all");
  if (!button.dataset.sure) {
    button.dataset.sure = "yes";
    button.textContent = t("forgetSure");
    return;
  }
  [...state.photos].forEach(forget);
  calmForget();
}

function calmForget() {
  delete $("forget-all").dataset.sure;
  $("forget-all").textContent = t("forgetAll");
}

// Events

function listen() {
  const on = (id, kind, act) => $(id).addEventListener(kind, act);
  for (const [button, input] of [["take", "take-file"], ["choose", "choose-files"], ["list-open", "list-file"]]) {
    on(button, "click", () => $(input).click());
  }
  for (const input of ["take-file", "choose-files"]) {
    on(input, "change", () => {
      addPhotos([...$(input).files]);
      $(input).value = "";
    });
  }
  on("list-file", "change", async () => {
    await useList(await $("list-file").files[0].text());
    $("list-file").value = "";
  });
  on("sure", "input", () => {
    state.sure = Number($("sure").value) / 100;
    remember("sure", state.sure);
    render();
  });
  on("limit-column", "change", offerValues);
  on("limit-add", "click", addLimit);
  on("list-use", "click", () => useList($("list").value));
  on("limit-clear", "click", () => limit(() => Object.assign(state, { limits: [], list: null })));
  on("phrase-add", "click", addPhrase);
  onEnter("limit-value", addLimit);
  onEnter("phrase", addPhrase);
  on("with-time", "change", () => {
    state.withTime = $("with-time").checked;
    remember("time", state.withTime ? "yes" : "no");
    render();
  });
  on("with-place", "change", () => allowPlace($("with-place").checked));
  on("save", "click", save);
  on("share", "click", () => navigator.share({ files: [resultsFile()] }).catch(() => {}));
  $("share").hidden = !navigator.canShare?.({ files: [new File([""], "a.csv", { type: "text/csv" })] });
  on("forget-all", "click", forgetAll);
  on("results", "close", calmForget);
  for (const button of document.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => $(button.dataset.opens).showModal());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  listenToDrops();
}

/** Enter in a field does what its button does, and does not close the sheet. */
function onEnter(id, act) {
  $(id).addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    act();
  });
}

function listenToDrops() {
  const mark = (is) => document.documentElement.classList.toggle("dragged", is);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    if (event.dataTransfer.files.length) addPhotos([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) addPhotos(pasted);
  });
}

listen();
start();
