// What is to be seen of the session: a card a photo, the phrases, the counts.

import * as answers from "./answers.js";
import { $, el, rankName, state, t, view } from "./common.js";
import { all, answerOf, commonName, dot, headline, ITALIC, likelyOf, limit, similarity } from "./judging.js";
import { forget } from "./session.js";

const SHOWN = 5; // likeliest species, look-alikes
const FITTING = 12; // photos a phrase

export function render() {
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

function drawCounts() {
  const counts = new Map([[t("photos"), state.photos.length]]);
  for (const photo of state.photos) {
    const kind = photo.state === "failed" ? t("unread") : photo.state === "done" ? rankName(answerOf(photo).rank) || t("notSure") : "";
    if (kind) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  $("counts").replaceChildren(...[...counts].map(([name, count]) => el("div", {}, el("dt", {}, name), el("dd", {}, count.toLocaleString(STRINGS.lang)))));
}

Object.assign(view, { render, draw });
