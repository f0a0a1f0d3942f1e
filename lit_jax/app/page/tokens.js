// Texts to tokens: SentencePiece models of the BPE kind, and BERT's word pieces. Other tokenizers are not known here;
// lit_jax/app/texts.py leaves out free-text questions where a model has one of them.

import { splitBlanks } from "./names.js";

const utf8 = new TextEncoder();
const SPACE = "▁";
const NORMAL = 1, UNKNOWN = 2, USER = 4, BYTE = 6; // kinds of pieces

/** A tokenizer from the bytes of its file: reads a text as `context` ids that end with the end token. */
export function tokenReader(bytes, { kind, context, start, end, pad }) {
  const pieces = kind === "wordpiece" ? wordPieces(JSON.parse(new TextDecoder().decode(bytes))) : bytePairs(bytes);
  return (text) => {
    const kept = [...start, ...pieces(text).filter((id) => id !== end)].slice(0, context - 1);
    const row = new Int32Array(context).fill(pad);
    row.set(kept);
    row[kept.length] = end;
    return row;
  };
}

// SentencePiece

/** The function of a SentencePiece BPE model from a text to ids. */
export function bytePairs(bytes) {
  const model = readModel(bytes);
  const fold = normalizer(model.normalizer);
  return (text) => joined([...fold(text)], model).flatMap((piece) => {
    const id = model.ids.get(piece);
    if (id !== undefined) return [id];
    return model.byteFallback ? [...utf8.encode(piece)].map((byte) => model.byteIds[byte]) : [model.unknown];
  });
}

/** Joins the pair that makes the best piece, again and again; of equal ones the leftmost. */
function joined(symbols, { scores }) {
  const worth = (i) => scores.get(symbols[i] + symbols[i + 1]) ?? -Infinity;
  const values = symbols.slice(1).map((_, i) => worth(i));
  while (values.length) {
    let best = 0;
    for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
    if (values[best] === -Infinity) break;
    symbols.splice(best, 2, symbols[best] + symbols[best + 1]);
    values.splice(best, 1);
    if (best > 0) values[best - 1] = worth(best - 1);
    if (best < values.length) values[best] = worth(best);
  }
  return symbols;
}

/** The parts of a model's file, which is a protocol buffer. */
function readModel(bytes) {
  const model = { ids: new Map(), scores: new Map(), byteIds: [], unknown: 0, byteFallback: false, normalizer: {} };
  let id = 0;
  for (const [field, value] of fields(bytes)) {
    if (field === 1) addPiece(model, value, id++);
    if (field === 2) model.byteFallback = Boolean(Object.fromEntries(fields(value))[35]);
    if (field === 3) model.normalizer = Object.fromEntries(fields(value));
  }
  return model;
}

function addPiece(model, bytes, id) {
  const piece = Object.fromEntries(fields(bytes));
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(piece[1]);
  const kind = piece[3] ?? NORMAL;
  if (kind === BYTE) model.byteIds[parseInt(text.slice(3, 5), 16)] = id;
  else if (kind === UNKNOWN) model.unknown = id;
  else if (kind === NORMAL || kind === USER) {
    model.ids.set(text, id);
    model.scores.set(text, piece[2] ?? 0);
  }
}

function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const number = () => {
    let value = 0, factor = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const key = number();
    const field = Math.floor(key / 8), form = key % 8;
    if (form === 0) yield [field, number()];
    else if (form === 2) {
      const length = number();
      yield [field, bytes.subarray(at, (at += length))];
    } else {
      yield [field, form === 5 ? view.getFloat32(at, true) : view.getFloat64(at, true)];
      at += form === 5 ? 4 : 8;
    }
  }
}

/** A model's own rules for letters (its table of replacements) and for blanks. */
function normalizer(spec) {
  const replaced = replacer(spec[2]);
  const [dummy, extra, escape] = [3, 4, 5].map((field) => spec[field] ?? 1); // the defaults of its format
  return (text) => {
    let result = replaced(text);
    if (extra) result = result.replace(/ +/g, " ").replace(/^ | $/g, "");
    if (!result) return "";
    if (dummy) result = ` ${result}`;
    return escape ? result.replaceAll(" ", SPACE) : result;
  };
}

/** Replaces the longest texts that the table knows. The table: a double array of the keys, and the replacements. */
function replacer(table) {
  if (!table?.length) return (text) => text;
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  const size = view.getUint32(0, true);
  const node = (place) => (4 * place < size ? view.getUint32(4 + 4 * place, true) : 0);
  const offset = (unit) => (unit >>> 10) << ((unit & 512) >>> 6);
  const replacements = table.subarray(4 + size);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const longest = (bytes, from) => {
    let place = offset(node(0)), found = null;
    for (let at = from; at < bytes.length; at++) {
      place ^= bytes[at];
      const unit = node(place);
      if (((unit & 0x800000ff) >>> 0) !== bytes[at]) break;
      place ^= offset(unit);
      if ((unit >>> 8) & 1) found = { length: at + 1 - from, at: node(place) & 0x7fffffff };
    }
    return found;
  };
  return (text) => {
    const bytes = utf8.encode(text);
    let result = "";
    for (let at = 0; at < bytes.length;) {
      const found = longest(bytes, at);
      if (found) {
        result += decoder.decode(replacements.subarray(found.at, replacements.indexOf(0, found.at)));
        at += found.length;
      } else {
        const length = bytes[at] < 128 ? 1 : bytes[at] < 224 ? 2 : bytes[at] < 240 ? 3 : 4;
        result += decoder.decode(bytes.subarray(at, (at += length)));
      }
    }
    return result;
  };
}

// Word pieces (BERT, MiniLM)

const LONGEST_WORD = 100; // letters; a longer one is unknown, as in BERT's own code

/** The function of a tokenizer.json of BERT's kind from a text to ids, without the special ones. */
export function wordPieces({ model, normalizer: rules }) {
  const ids = new Map(Object.entries(model.vocab));
  const unknown = ids.get(model.unk_token);
  return (text) => splitBlanks(bertText(text, rules)).flatMap(bertWords).flatMap((word) => {
    const letters = [...word];
    if (letters.length > LONGEST_WORD) return [unknown];
    const found = [];
    for (let from = 0; from < letters.length;) {
      let to = letters.length, id;
      for (; to > from; to--) {
        id = ids.get((from ? "##" : "") + letters.slice(from, to).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [unknown];
      found.push(id);
      from = to;
    }
    return found;
  });
}

function bertText(text, rules) {
  let result = text.replace(/[\0\ufffd]|(?![\t\n\r])\p{C}/gu, "").replace(/[\s]/gu, " ");
  if (rules.handle_chinese_chars ?? true) {
    result = result.replace(/[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu, " $& ");
  }
  if (rules.strip_accents ?? rules.lowercase) result = result.normalize("NFD").replace(/\p{Mn}/gu, "");
  return rules.lowercase ? [...result].map((letter) => letter.toLowerCase()).join("") : result;
}

const bertWords = (word) => word.match(/[!-/:-@[-`{-~]|\p{P}|[^!-/:-@[-`{-~\p{P}]+/gu) ?? [];
