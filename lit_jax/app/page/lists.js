// Lists of names that people bring, such as the species of a region: which of the classes they name. A list is text,
// one name a line, or a table (commas, semicolons or tabs) with a column of names. What is read as what is the same as
// in Python (base/tables.py and text/labels.py), which say why.

import { binomial, speciesKey } from "./names.js";

const NAME_COLUMNS = ["name", "species", "specificepithet", "scientificname", "commonname", "vernacularname"];
const SYNONYM_COLUMNS = ["synonym", "synonyms"];
const NO_VALUE = new Set(["", "nan", "<na>", "#n/a", "n/a", "null"]); // text/classes.py says why
const UNKNOWN = new Set([...NO_VALUE, ..."na,none,nil,unknown,not assigned,unassigned,not available,-,--,–,—,?".split(",")]);
const SEPARATORS = [",", ";", "\t"];
const NAMED_SEPARATOR = /^[ \t]*"?sep=([^\p{L}\p{N}_\s"]|\t)"?[ \t]*(?:\n|$)/iu;
const LIST_MARK = /^\s*(?:\d{1,6}[.)]|[-*•–])\s+(?=\S)/u;
const PATH_OF_RANKS = /^\d+(?:_[^_]+){5,}?_([^_]+(?:_[^_]+)*)$/u;
const FAR = 0.3; // share of a name's letters that may differ for it to be called near
const SOUGHT = 20; // missing names for which the nearest is looked for

/** A list that is no sound table; `line` is where the row begins. */
export class BadTable extends Error {
  constructor(line) {
    super(`line ${line}`);
    this.line = line;
  }
}

/** The text of a file: UTF-8, UTF-16 with its mark, or else the code page of Windows in Western Europe. */
export function textOf(bytes) {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** Rows of a table as RFC 4180 has it, with any separator: cells, and the line on which they begin. */
function rowsOf(text, separator, before = 0) {
  let quoted = false, closed = false, line = 1 + before;
  const rows = [{ line, cells: [""] }];
  for (let i = 0; i < text.length; i++) {
    const letter = text[i], { cells, line: begin } = rows.at(-1);
    if (letter === "\n") line++;
    if (quoted && letter === '"' && text[i + 1] === '"') cells[cells.length - 1] += text[++i];
    else if (quoted && letter === '"') [quoted, closed] = [false, true];
    else if (quoted) cells[cells.length - 1] += letter;
    else if (letter === separator || letter === "\n") {
      closed = false;
      if (letter === "\n") rows.push({ line, cells: [""] });
      else cells.push("");
    } else if (closed) throw new BadTable(begin);
    else if (letter === '"' && cells.at(-1) === "") quoted = true;
    else cells[cells.length - 1] += letter;
  }
  if (quoted) throw new BadTable(rows.at(-1).line);
  return rows.filter(({ cells }) => cells.length > 1 || cells[0] !== "");
}

/** Rows of a table with tabs: as Excel quotes them, or without quotes, as GBIF has them. */
function rowsOfTabs(text, before) {
  const lines = text.split("\n").map((line, i) => ({ line: i + 1 + before, cells: line.split("\t") }));
  const rows = lines.filter(({ cells }) => cells.length > 1 || cells[0] !== "");
  const full = rows.filter(({ cells }) => cells.some((cell) => cell.trim()));
  if (!full.every(({ cells }) => cells.length === full[0].cells.length)) {
    try {
      const quoted = rowsOf(text, "\t", before);
      if (quoted.every(({ cells }) => cells.length === quoted[0].cells.length)) return quoted;
    } catch {
      // Its quotes are letters.
    }
  }
  return rows.map(({ line, cells }) => ({ line, cells: cells.map(unquoted) }));
}

function unquoted(cell) {
  const whole = /^"((?:[^"]|"")*)"$/u.exec(cell);
  return whole ? whole[1].replaceAll('""', '"') : cell;
}

const column = (cell) => cell.replace(/[\s_"]/gu, "").toLowerCase();

/** The names of each entry of a list; throws `BadTable` for a table with a quote that is not closed. */
export function entriesOf(text) {
  const whole = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  const [said, named] = NAMED_SEPARATOR.exec(whole) ?? [""];
  const body = whole.slice(said.length);
  const lines = body.split("\n"), top = Math.max(0, lines.findIndex((line) => line.trim())), first = lines[top];
  const known = (named ? [named] : SEPARATORS).find((separator) =>
    first.split(separator).some((cell) => NAME_COLUMNS.includes(column(cell))));
  const isTable = known && first.includes(known); // otherwise a list, which may have a heading
  const entries = isTable ? entriesOfTable(body, known, said ? 1 : 0) : lines.slice(top + Boolean(known)).map(entryOfLine);
  return entries.map((names) => [...new Set(names.flatMap(namesIn))]).filter((names) => names.length);
}

const entryOfLine = (line) => [line.replace(LIST_MARK, "").trim().replace(/^"([^"]*)"$/u, "$1")];

function entriesOfTable(text, separator, before) {
  const rows = separator === "\t" ? rowsOfTabs(text, before) : rowsOf(text, separator, before);
  const top = rows.findIndex(({ cells }) => cells.some((cell) => cell.trim()));
  const header = rows[top].cells.map(column);
  return rows.slice(top + 1).map(({ line, cells }) => {
    if (cells.slice(header.length).some((cell) => cell.trim())) throw new BadTable(line);
    return namesOfRow(Object.fromEntries(header.map((name, i) => [name, valueOf(name, cells[i] ?? "")]).reverse()));
  });
}

function valueOf(name, cell) {
  const none = /^(genus|specificepithet)$/.test(name) ? UNKNOWN : NO_VALUE;
  return none.has(cell.trim().replace(/\s+/gu, " ").toLowerCase()) ? "" : cell.trim();
}

function namesOfRow(row) {
  const named = NAME_COLUMNS.map((name) => {
    const cell = row[name] ?? "";
    const isEpithet = cell && /^(species|specificepithet)$/.test(name) && !/\s/u.test(cell);
    return row.genus && isEpithet ? `${row.genus} ${cell}` : cell;
  });
  const others = SYNONYM_COLUMNS.flatMap((name) => (row[name] ?? "").split(/[;|\n]/));
  return [...named, ...others.map((name) => name.trim())];
}

/** A label and its parts: a line may have several. */
function namesIn(text) {
  const label = text.trim();
  if (PATH_OF_RANKS.test(label)) return [label.split("_").slice(6).join(" ")];
  const parts = label.split(/[,;\t]/).map((part) => part.replace(/^[ \t"]+|[ \t"]+$/g, ""));
  return [label, ...parts].filter((name) => /\p{L}/u.test(name));
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
