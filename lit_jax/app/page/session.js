// The photos of a session: looked at one after the other, kept, forgotten, written down.

import * as answers from "./answers.js";
import { $, el, remember, state, t, view } from "./common.js";
import { ask } from "./engine.js";
import { answerOf, headline, judge, useList } from "./judging.js";
import { textOf } from "./lists.js";
import { darwinCore } from "./records.js";

const FRESH = 10 * 60 * 1000; // milliseconds for which a photo is of the place where the device is now

export async function addPhotos(given) {
  if (!state.kept) return; // not ready
  const lists = given.filter(isList);
  for (const file of lists) await useList(textOf(new Uint8Array(await file.arrayBuffer())));
  const found = given.filter((file) => !isList(file)).map((file) => {
    const photo = { id: crypto.randomUUID?.() ?? String(Math.random()), name: file.name || t("take"), state: "waiting", added: Date.now(), file };
    state.photos.unshift(photo);
    return photo;
  });
  view.render();
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
  view.draw(photo);
  try {
    const { vector, thumbnail, date, place, moving, milliseconds } = await ask("photo", { file });
    Object.assign(photo, { state: "done", vector, thumbnail, moving, milliseconds });
    photo.date = date ?? ""; // not the file's: that is often when it was copied
    photo.place = place ?? null;
    await state.kept.put(plainOf(photo));
    if (!place && state.withPlace && Date.now() - file.lastModified < FRESH) placeLater(photo);
  } catch (error) {
    Object.assign(photo, { state: "failed", error: error.code ?? "unexpected", detail: error.detail ?? error.message });
  }
  delete photo.file;
  if (!state.photos.includes(photo)) return state.kept.drop(photo.id); // forgotten meanwhile
  judge(photo);
  view.draw(photo);
  const told = photo.error ? t(photo.error, { detail: photo.detail }) : headline(photo).name;
  if (queue.length === 0) announce(photo, told);
}

/** A place may take long to come, and never does while its question is open: nothing waits for it. */
async function placeLater(photo) {
  photo.place = await here();
  if (!photo.place || !state.photos.includes(photo)) return;
  state.kept.put(plainOf(photo));
  view.draw(photo);
}

function announce(photo, told) {
  const answer = photo.error ? null : answerOf(photo);
  const confidence = answer ? answers.percent(answer.confidence) : "";
  $("spoken").textContent = t("said", { photo: photo.name, answer: told, confidence }).replace(/, $/, "");
}

const plainOf = ({ id, name, vector, thumbnail, date, place, moving, added }) =>
  ({ id, name, vector, thumbnail, date, place, moving, added });

export async function restore() {
  for (const photo of await state.kept.all()) {
    state.photos.unshift({ ...photo, state: "done" });
    judge(state.photos[0]);
  }
}

export function forget(photo) {
  state.photos = state.photos.filter((one) => one !== photo);
  queue.splice(0, queue.length, ...queue.filter((one) => one !== photo));
  if (photo.address) URL.revokeObjectURL(photo.address);
  state.kept.drop(photo.id);
  photo.card?.remove();
  view.render();
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

// Results

export function resultsFile() {
  const { app } = state;
  const rows = [...state.photos].reverse().filter((photo) => photo.state === "done" || photo.state === "failed").map((photo) => ({
    name: photo.name, error: photo.error && t(photo.error, { detail: photo.detail }),
    answer: photo.state === "done" ? answerOf(photo) : null,
    date: state.withTime ? photo.date : "", place: state.withPlace ? photo.place : null,
  }));
  const about = { madeBy: app.madeBy, model: app.model, note: app.note };
  const now = new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");
  return new File([darwinCore(rows, about)], `${now}-photos.csv`, { type: "text/csv" });
}

export function save() {
  const file = resultsFile();
  const link = el("a", { href: URL.createObjectURL(file), download: file.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  $("status").textContent = t("saved");
}

export async function allowPlace(allowed) {
  state.withPlace = allowed;
  remember("place", allowed ? "yes" : "no");
  $("place-told").textContent = allowed ? t("placeAsking") : "";
  if (allowed) $("place-told").textContent = t((await here()) ? "placeKnown" : "placeDenied");
  view.render();
}

export function forgetAll() {
  const button = $("forget-all");
  if (!button.dataset.sure) {
    button.dataset.sure = "yes";
    button.textContent = t("forgetSure");
    return;
  }
  [...state.photos].forEach(forget);
  calmForget();
}

export function calmForget() {
  delete $("forget-all").dataset.sure;
  $("forget-all").textContent = t("forgetAll");
}
