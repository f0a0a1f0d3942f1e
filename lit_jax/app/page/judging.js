// What is said of photos: the answer of each among the species to choose from, and which these are.

import * as answers from "./answers.js";
import { $, el, rankName, remember, remembered, state, t, view } from "./common.js";
import { BadTable, entriesOf } from "./lists.js";
import { speciesKey } from "./names.js";

export const ITALIC = new Set([answers.SPECIES, "genus"]);

export const dot = (vector, k) => {
  const { vectors } = state, width = vector.length;
  let sum = 0;
  for (let i = 0, at = k * width; i < width; i++, at++) sum += vector[i] * vectors[at];
  return sum;
};

export const all = () => Array.from({ length: state.app.vectors.rows }, (_, k) => k);

export function judge(photo) {
  if (photo.state !== "done") return;
  photo.scores ??= Float32Array.from(all(), (k) => dot(photo.vector, k));
  photo.steps = answers.steps(likelyOf(photo), state.rungs);
}

export function likelyOf(photo) {
  const { margin, trained, factors } = state.app;
  return answers.probabilities(photo.scores, state.chosen, { margin, trained, factors, seen: state.seen });
}

/** The answer of a photo as it is told and written down. */
export function answerOf(photo) {
  const step = answers.climbed(photo.steps, state.sure);
  if (!step) return { rank: "", name: "", commonName: "", ranks: {}, confidence: photo.steps.at(-1).confidence, seen: true };
  const { ofClass } = state.rungs.find(({ rank }) => rank === step.rank).groups;
  const members = state.chosen.filter((k) => ofClass[k] === step.group);
  return {
    ...step, commonName: step.rank === answers.SPECIES ? commonName(members[0]) : "",
    ranks: answers.above(state.columns, members[0], step.rank), seen: members.some((k) => state.seen[k]),
  };
}

export function commonName(k) {
  const common = state.columns.common_name?.[k] ?? "";
  return common === state.names[k] ? "" : common;
}

export function headline(photo) {
  if (photo.state === "failed") return { name: t("unread"), below: t(photo.error, { detail: photo.detail }), plain: true };
  if (photo.state !== "done") return { name: t(photo.state), below: photo.name, plain: true };
  const answer = answerOf(photo);
  if (!answer.rank) return { name: t("notSure"), below: t("notSureTold"), plain: true, answer };
  const [{ name, confidence }] = photo.steps;
  const below = answer.rank === answers.SPECIES ? answer.commonName : t("perhaps", { name, share: answers.percent(confidence) });
  return { name: answer.name, below, answer, italic: ITALIC.has(answer.rank) };
}

export function similarity(photo, { vector }) {
  return vector.reduce((sum, value, i) => sum + value * photo.vector[i], 0);
}

// What is chosen from

export function choose() {
  const wanted = new Map();
  for (const { column, value } of state.limits) wanted.set(column, [...(wanted.get(column) ?? []), speciesKey(value)]);
  state.chosen = all().filter((k) => {
    if (state.list && !state.list.classes.has(k)) return false;
    return [...wanted].every(([column, keys]) => keys.includes(speciesKey(state.columns[column][k])));
  });
  return state.chosen.length > 0;
}

/** The limits of the last visit, if they are of this model; false if what is kept is none, which is then forgotten. */
export function restoreLimits() {
  const text = remembered("limits");
  const works = text === null || takeLimits(text);
  if (!works) {
    Object.assign(state, { limits: [], list: null });
    remember("limits", null);
  }
  choose();
  return works;
}

function takeLimits(text) {
  try {
    const { model, limits, list } = JSON.parse(text);
    if (typeof model !== "string") return false;
    if (model !== state.app.digest) return true; // of an earlier version
    state.limits = limits.map(({ column, value }) => ({ column, value }));
    state.list = list && { classes: new Set(list.classes) };
    return choose();
  } catch {
    return false;
  }
}

/** Tries other limits; those that leave nothing are taken back. */
export function limit(change) {
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
  view.render();
  return works;
}

export function addLimit() {
  const column = $("limit-column").value, value = $("limit-value").value.trim();
  if (!value) return;
  const known = state.columns[column].find((one) => speciesKey(one) === speciesKey(value));
  const told = rankName(column);
  if (!known) return tellLimit(t("limitUnknown", { column: told, value }));
  $("limit-value").value = "";
  if (!limit(() => { state.limits = [...state.limits, { column, value: known }]; })) tellLimit(t("limitNone"));
}

const tellLimit = (text) => { $("limit-among").textContent = text; };

export async function useList(text) {
  const told = $("list-told");
  let entries;
  try {
    entries = entriesOf(text);
  } catch (error) {
    if (!(error instanceof BadTable)) throw error;
    return void (told.textContent = t("listBroken", { line: error.line }));
  }
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

export function offerValues() {
  const values = [...new Set(state.columns[$("limit-column").value] ?? [])].filter(Boolean).sort();
  $("limit-values").replaceChildren(...values.slice(0, 3000).map((value) => el("option", { value })));
}
