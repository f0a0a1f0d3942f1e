// Names as lit_jax compares them: text/classes.py (species_key) and text/identity.py (binomial) say why.

const BLANKS = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u; // Python's, not JavaScript's
const NO_SPECIES = new Set("sp spp spec species indet nov gen ssp subsp var forma et".split(" "));
const DOUBTS = new Set(["cf", "aff", "nr", "?"]);
const CROSS = new Set(["×", "x"]);
const LETTERS = { æ: "ae", œ: "oe", Æ: "Ae", Œ: "Oe", ø: "o", Ø: "O", "’": "'", "‘": "'", "ʼ": "'" };

/** Full case folding of Unicode, letter by letter; JavaScript has lower case only. */
export function casefold(text) {
  return text.replace(/[^\0-\x7f]/gu, foldedLetter).replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function foldedLetter(letter) {
  const code = letter.codePointAt(0);
  if (code === 0x131 || (code >= 0x13a0 && code <= 0x13f5)) return letter; // dotless i; Cherokee folds to capitals
  if ((code >= 0xab70 && code <= 0xabbf) || (code >= 0x13f8 && code <= 0x13fd)) return letter.toUpperCase();
  return letter.toLowerCase().toUpperCase().toLowerCase();
}

export const splitBlanks = (text) => text.split(BLANKS).filter(Boolean);

export const speciesKey = (name) => casefold(splitBlanks(name.normalize("NFC").replaceAll("_", " ")).join(" "));

/** Whether a value only says that nothing is known, such as "sp." or "×". */
export function isPlaceholder(value) {
  const words = (casefold(value).match(/[\p{L}\p{N}_]+/gu) ?? []).map((word) => word.replace(/^_+|_+$/g, ""));
  return words.every((word) => word === "" || NO_SPECIES.has(word) || DOUBTS.has(word) || CROSS.has(word));
}

const plain = (word) => casefold((word.match(/[\p{L}\p{N}]/gu) ?? []).join(""));

/** Genus and epithet of a scientific name without author, year, subspecies and doubts; empty where there is none. */
export function binomial(name) {
  let text = [...name].map((letter) => LETTERS[letter] ?? letter).join("").normalize("NFD");
  text = text.replace(/([A-Za-z])[\u0300-\u036f]+/g, "$1").normalize("NFC");
  text = text.replace(/\([^)]*\)?|\[[^\]]*\]?|(?<![\p{L}\p{N}_])'[^']*'(?![\p{L}\p{N}_])|"[^"]*"/gu, " ");
  text = text.replace(/[._]/g, " ").replace(/([×?,&])/g, " $1 ");
  let words = splitBlanks(text).filter((word) => "×?,&".includes(word) || /[\p{L}\p{N}_]/u.test(word));
  words = words.filter((word) => !DOUBTS.has(casefold(word)));
  if (words.some((word, i) => CROSS.has(casefold(word)) && i >= 2 && i + 1 < words.length)) return "";
  words = words.filter((word) => !CROSS.has(casefold(word)));
  if (words.length < 2) return "";
  const [first, epithet] = words.slice(0, 2).map(plain);
  return [...first].length < 2 || !isEpithet(words, epithet) ? "" : `${first} ${epithet}`;
}

function isEpithet(words, epithet) {
  if (NO_SPECIES.has(epithet) || [...epithet].length < 2 || !/^\p{L}+$/u.test(epithet)) return false;
  const upper = (text) => text === text.toUpperCase() && text !== text.toLowerCase();
  const behind = words[2] ?? "";
  return !(upper([...words[1]][0]) && !upper(words[0]) && (/^(,|&|et|ex)$/.test(behind) || /^\p{Nd}+$/u.test(behind)));
}
