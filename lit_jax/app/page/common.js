// What all parts of the page share: its state, its sentences, and how elements are made.

export const $ = (id) => document.getElementById(id);
const plurals = new Intl.PluralRules(STRINGS.lang);

/** A sentence of strings.json; its form is chosen by the number n. */
export function t(key, values = {}) {
  const form = STRINGS[key] ?? STRINGS[`${key}_${plurals.select(values.n ?? 2)}`] ?? STRINGS[`${key}_other`];
  return form.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? values[name].toLocaleString(STRINGS.lang) : String(values[name]));
}

/** An element with attributes and what is in it. */
export function el(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}

/** What the page knows. */
export const state = {
  app: null, vectors: null, rungs: null, seen: null, find: null, kept: null,
  photos: [], // {id, name, state, vector, scores, steps, thumbnail, address, date, place, error, detail, card}
  sure: 0.8, limits: [], list: null, chosen: [], phrases: [], // {text, vector}
  withTime: false, withPlace: false,
};

/** Draws the page anew, or one photo of it; cards.js puts its functions here. */
export const view = { render() {}, draw() {} };

export const rankName = (rank) => STRINGS[`rank_${rank}`] ?? rank;

export function notice(key) {
  const known = [...$("notices").children].some((one) => one.dataset.key === key);
  if (!known) $("notices").append(el("li", { "data-key": key, role: "status" }, t(key)));
}

export function remembered(name) {
  try {
    return localStorage.getItem(`lit_jax ${location.pathname} ${name}`);
  } catch {
    return null;
  }
}

/** Keeps a text for the next visit; null forgets it. */
export function remember(name, value) {
  const key = `lit_jax ${location.pathname} ${name}`;
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch { // no room, or not allowed: it is asked again next time
  }
}
