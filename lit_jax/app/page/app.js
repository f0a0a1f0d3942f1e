// The page: photos in, answers out. Here it starts, and here it listens.

import * as answers from "./answers.js";
import { render } from "./cards.js";
import { $, el, notice, rankName, remember, remembered, state, t } from "./common.js";
import { ask, startModel } from "./engine.js";
import * as files from "./files.js";
import { addLimit, limit, offerValues, restoreLimits, useList } from "./judging.js";
import { keeper } from "./kept.js";
import { finder, textOf } from "./lists.js";
import { addPhotos, allowPlace, calmForget, forgetAll, restore, resultsFile, save } from "./session.js";

async function start() {
  fillTexts(document);
  if (document.documentElement.classList.contains("stopped")) return;
  $("loading").hidden = false;
  try {
    state.app = await files.description();
    await files.checkShell(state.app.shell);
    const full = await startModel(state.app);
    setUp(state.app);
    state.kept = await keeper(state.app.digest, state.app.vectors.width, notice);
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
  const sure = Number(remembered("sure") ?? app.sure);
  state.sure = sure >= 0 && sure < 1 ? sure : app.sure;
  state.withTime = remembered("time") === "yes";
  state.withPlace = remembered("place") === "yes";
  if (!restoreLimits()) notice("keptDamaged");
  $("sure").value = Math.round(100 * state.sure);
  $("with-time").checked = state.withTime;
  $("with-place").checked = state.withPlace;
  const others = Object.keys(columns).filter((column) => app.classes.columns[column][1] && column !== "name");
  const offered = [...answers.RANKS.filter((rank) => columns[rank]), ...others.filter((one) => !answers.RANKS.includes(one))];
  $("limit-column").append(...offered.map((column) => el("option", { value: column }, rankName(column))));
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
    const watch = () => {
      const next = registration.installing;
      next?.addEventListener("statechange", () => {
        if (before && next.state === "activated") notice("newVersion");
        if (next.state === "redundant" && !registration.active) {
          tell("offlineFailed");
          notice("offlineFailed");
        }
      });
    };
    watch();
    registration.addEventListener("updatefound", watch);
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
    await useList(textOf(new Uint8Array(await $("list-file").files[0].arrayBuffer())));
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
