// Lists of names that people bring, such as the species of a region: which of the classes they name. A list is text,
// one name a line, or a table (commas, semicolons or tabs) with a column of names.

import { binomial, speciesKey } from "./names.js";

const NAME_COLUMNS = ["name", "common_name", "scientificname", "species", "vernacularname"];
const SYNONYM_COLUMNS = ["synonym", "synonyms"];
const FAR = 0.3; // share of a name's letters that may differ for it to be called near
const SOUGHT = 20; // missing names for which the nearest is looked for

/** Rows of a table as RFC 4180 has it, with any separator. */
export function rowsOf(text, separator) {
  const rows = [[""]];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const letter = text[i], row = rows.at(-1);
    if (quoted) {
      if (letter !== '"') row[row.length - 1] += letter;
      else if (text[i + 1] === '"') row[row.length - 1] += text[++i];
      else quoted = false;
    } else if (letter === '"' && row.at(-1) === "") quoted = true;
    else if (letter === separator) row.push("");
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[i + 1] === "\n") i++;
      rows.push([""]);
    } else row[row.length - 1] += letter;
  }
  return rows.filter((row) => row.some((cell) => cell.trim()));
}

/** The names of each entry of a list. */
export function entriesOf(text) {
  const lines = text.replace(/^\ufeff/, "");
  const first = lines.split(/\r?\n/).find((line) => line.trim()) ?? "";
  for (const separator of ["\t", ";", ","]) {
    const header = (rowsOf(first, separator)[0] ?? []).map((cell) => cell.trim().toLowerCase());
    const named = header.flatMap((cell, i) => (NAME_COLUMNS.includes(cell) ? [i] : []));
    if (named.length) {
      const rows = rowsOf(lines, separator).slice(1);
      return rows.map((row) => named.map((i) => (row[i] ?? "").trim()).filter(Boolean)).filter((row) => row.length);
    }
  }
  const whole = lines.split(/\r?\n/).map((line) => line.trim()).filter((line) => /\p{L}/u.test(line));
  return whole.map((line) => [...new Set([line, ...line.split(",").map((part) => part.trim())])]);
}

/** A function from the entries of a list to the classes that they name. */
export function finder(columns) {
  const byKey = new Map(), byBinomial = new Map();
  const put = (map, key, k) => key && map.set(key, [...(map.get(key) ?? []), k]);
  const names = columns.name ?? columns.common_name;
  names.forEach((name, k) => {
    const synonyms = SYNONYM_COLUMNS.flatMap((column) => (columns[column]?.[k] ?? "").split(/[;|\n]/));
    const all = [name, columns.common_name?.[k] ?? "", ...synonyms];
    for (const key of new Set(all.map(speciesKey))) put(byKey, key, k);
    put(byBinomial, binomial(name), k);
  });
  return (entries) => {
    const found = new Set(), missing = [], assumed = [];
    for (const entry of entries) {
      const key = entry.map(speciesKey).find((one) => byKey.has(one));
      const other = key ?? entry.map(binomial).find((one) => byBinomial.has(one));
      const classes = key ? byKey.get(key) : (byBinomial.get(other) ?? []);
      classes.forEach((k) => found.add(k));
      if (!classes.length) missing.push(entry[0]);
      else if (!key) assumed.push([entry[0], names[classes[0]]]);
    }
    return { found, missing: missing.map((name, i) => [name, i < SOUGHT ? nearest(name, byKey, names) : ""]), assumed };
  };
}

/** The name that is spelled most like another one; empty if none is near. */
function nearest(name, byKey, names) {
  const key = speciesKey(name);
  let near = "", least = Math.max(1, Math.floor(FAR * key.length)) + 1;
  for (const [other, classes] of byKey) {
    if (Math.abs(other.length - key.length) >= least) continue;
    const apart = distance(key, other, least);
    if (apart < least) [near, least] = [names[classes[0]], apart];
  }
  return near;
}

/** Letters to change, add or drop to come from one text to another, or `most` if it is as many. */
function distance(one, other, most) {
  let row = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] !== other[j - 1])));
    }
    if (Math.min(...next) >= most) return most;
    row = next;
  }
  return row[other.length];
}
