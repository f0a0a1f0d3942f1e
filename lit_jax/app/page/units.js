// Units of a text and their numbers: lit_jax/text/units.py.

import { isPlaceholder, speciesKey } from "./names.js";

const LENGTHS = [3, 4, 5];
const trimmed = (part) => part.replace(/^[ .]+|[ .]+$/g, "");

/** The distinct units of a text, in order; kind is phrases, words or letters. */
export function units(text, kind) {
  const parts = speciesKey(text).split(",").filter((part) => !isPlaceholder(part)).map(trimmed);
  if (kind === "phrases") return [...new Set(parts)];
  const words = parts.flatMap((part) => part.match(/[\p{L}\p{N}_]+/gu) ?? []);
  if (kind === "words") return [...new Set(words)];
  const found = new Set();
  for (const word of words) {
    const marked = [..."<", ...word, ">"];
    for (const length of LENGTHS) {
      for (let at = 0; at + length <= marked.length; at++) found.add(marked.slice(at, at + length).join(""));
    }
  }
  return [...found];
}

/** Reads texts as numbers of units, slots of them, -1 behind the last; also counts those that are known. */
export function unitReader({ kinds, vocabulary, slots }) {
  const numbers = new Map();
  kinds.forEach((kind, place) => vocabulary[place].forEach((unit) => numbers.set(`${kind} ${unit}`, numbers.size)));
  const total = numbers.size;
  return (text) => {
    const ids = kinds.flatMap((kind, place) =>
      units(text, kind).map((unit) => numbers.get(`${kind} ${unit}`) ?? total + place));
    const row = new Int32Array(slots).fill(-1);
    row.set(ids.slice(0, slots));
    return { row, known: ids.filter((id) => id < total).length };
  };
}
