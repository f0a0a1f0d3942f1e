// What the EXIF of a photo says: when and where it was taken, as lit_jax/data/exif.py reads it, and how it is to be
// turned. What is missing, damaged or impossible is left out.

const FIRST_PHOTO = 1826; // as lit_jax.data.exif, which says why
const FARTHEST = 14 * 60; // minutes of a time zone from UTC
const TIMES = [[0x9003, 0x9011], [0x9004, 0x9012]]; // each with its offset, the better one first
const ORIENTATION = 0x0112, EXIF = 0x8769, GPS = 0x8825;
const LATITUDE = [1, 2, "NS", 90], LONGITUDE = [3, 4, "EW", 180], STATUS = 9;
const MOST = 64; // values of a tag; those that are read have fewer
const WIDTHS = { 2: 1, 3: 2, 4: 4, 5: 8, 10: 8 }; // bytes of a value: text, short, long, fractions

export const number = (bytes, at, count, little) => {
  let value = 0;
  for (let i = 0; i < count; i++) value = value * 256 + (bytes[little ? at + count - 1 - i : at + i] ?? 0);
  return value;
};

const letters = (bytes, at, count) => String.fromCharCode(...bytes.subarray(at, at + count));

/** Time (ISO 8601, without a zone where the camera tells none) and place of a photo of one of the kinds of photos.js. */
export function taken(bytes, kind) {
  const tiff = tiffOf(bytes, kind);
  if (!tiff) return {};
  const main = tags(tiff, tiff.first), exif = tags(tiff, main[EXIF]?.[0]), gps = tags(tiff, main[GPS]?.[0]);
  const date = TIMES.map(([time, offset]) => dateOf(exif[time], exif[offset])).find(Boolean), place = placeOf(gps);
  return { ...(date ? { date } : {}), ...(place ? { place } : {}) };
}

/** How the EXIF of a WebP says that it is to be turned, 1 to 8, and the photo with the 1 in its place. */
export function withoutTurn(bytes) {
  const tiff = tiffOf(bytes, "webp");
  const at = tiff && entries(tiff, tiff.first).findLast(({ tag, kind, count }) => tag === ORIENTATION && kind === 3 && count === 1)?.at;
  const turn = at ? number(tiff.bytes, at, 2, tiff.little) : 1;
  if (!(turn > 1 && turn < 9)) return { turn: 1, bytes };
  const changed = bytes.slice(), from = tiff.bytes.byteOffset - bytes.byteOffset + at;
  changed.set(tiff.little ? [1, 0] : [0, 1], from);
  return { turn, bytes: changed };
}

function dateOf(time, offset) {
  const found = /^(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)/.exec(typeof time === "string" ? time : "");
  if (!found || found[1] < FIRST_PHOTO) return "";
  const [year, month, ...rest] = found.slice(1).map(Number), date = new Date(Date.UTC(year, month - 1, ...rest));
  const text = `${found.slice(1, 4).join("-")}T${found.slice(4).join(":")}`;
  return date.toISOString().slice(0, 19) === text ? text + zoneOf(offset) : ""; // hour 24 is another day's hour 0
}

function zoneOf(offset) {
  const found = /^[+-](\d\d):(\d\d)/.exec(typeof offset === "string" ? offset : "");
  if (!found || found[2] > 59 || 60 * found[1] + Number(found[2]) > FARTHEST) return "";
  return found[0] === "-00:00" ? "+00:00" : found[0];
}

function placeOf(gps) {
  const [latitude, longitude] = [LATITUDE, LONGITUDE].map((side) => degreesOf(gps, ...side));
  if (latitude === null || longitude === null || word(gps[STATUS]) === "V") return null;
  return latitude || longitude ? { latitude, longitude } : null; // 0, 0 is what receivers without a place write
}

function degreesOf(gps, reference, tag, sides, most) {
  const side = word(gps[reference]), parts = gps[tag];
  if (side.length !== 1 || !sides.includes(side) || !Array.isArray(parts) || parts.length !== 3) return null;
  const value = parts[0] + parts[1] / 60 + parts[2] / 3600; // a fraction with zero below is no finite number
  const isReal = Number.isFinite(value) && Math.min(...parts) >= 0 && Math.max(parts[1], parts[2]) <= 60 && value <= most;
  return isReal ? (side === sides[1] ? 0 - value : value) : null;
}

const word = (value) => (typeof value === "string" ? value.replace(/^[\0 ]+|[\0 ]+$/g, "") : "");

// Where it is: EXIF is a small TIFF, which every format packs in its own way

const PACKINGS = { jpeg: ofJpeg, png: ofPng, webp: ofWebp, avif: ofBoxes, heic: ofBoxes };

function tiffOf(bytes, kind) {
  let inside = PACKINGS[kind]?.(bytes) ?? null;
  if (inside && letters(inside, 0, 6) === "Exif\0\0") inside = inside.subarray(6);
  const order = inside ? letters(inside, 0, 4) : "";
  if (order !== "II*\0" && order !== "MM\0*") return null;
  const little = order[0] === "I";
  return { bytes: inside, little, first: number(inside, 4, 4, little) };
}

function ofJpeg(bytes) {
  for (let at = 2; at + 4 < bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda;) { // up to the first scan
    if (bytes[at + 1] === 0xff) { // filling
      at++;
      continue;
    }
    const length = number(bytes, at + 2, 2);
    if (bytes[at + 1] === 0xe1 && letters(bytes, at + 4, 6) === "Exif\0\0") return bytes.subarray(at + 4, at + 2 + length);
    at += 2 + length;
  }
  return null;
}

function ofPng(bytes) {
  for (let at = 8; at + 8 < bytes.length;) {
    const length = number(bytes, at, 4);
    if (letters(bytes, at + 4, 4) === "eXIf") return bytes.subarray(at + 8, at + 8 + length);
    at += 12 + length;
  }
  return null;
}

function ofWebp(bytes) {
  for (let at = 12; at + 8 < bytes.length;) {
    const length = number(bytes, at + 4, 4, true);
    if (letters(bytes, at, 4) === "EXIF") return bytes.subarray(at + 8, at + 8 + length);
    at += 8 + length + (length % 2);
  }
  return null;
}

/** The EXIF of AVIF and HEIC: an item of ISO/IEC 14496-12, whose place the box iloc tells. */
function ofBoxes(bytes) {
  const meta = boxes(bytes, 0, bytes.length).find(({ name }) => name === "meta");
  if (!meta) return null;
  const inside = boxes(bytes, meta.from + 4, meta.to), at = (name) => inside.find((box) => box.name === name);
  const [infos, places] = [at("iinf"), at("iloc")];
  const id = infos && places ? exifItem(bytes, infos) : null;
  const place = id === null ? null : placeOfItem(bytes, places, id);
  if (!place || place.how > 1 || (place.how === 1 && !at("idat"))) return null;
  const from = place.from + (place.how === 1 ? at("idat").from : 0);
  return bytes.subarray(from + 4 + number(bytes, from, 4), from + place.length);
}

function boxes(bytes, from, to) {
  const found = [];
  for (let at = from; at + 8 <= to;) {
    let size = number(bytes, at, 4), head = 8;
    if (size === 1) [size, head] = [number(bytes, at + 8, 8), 16];
    if (size === 0) size = to - at; // up to the end
    if (size < head) break;
    found.push({ name: letters(bytes, at + 4, 4), from: at + head, to: Math.min(to, at + size) });
    at += size;
  }
  return found;
}

function exifItem(bytes, { from, to }) {
  for (const info of boxes(bytes, from + (bytes[from] ? 8 : 6), to)) {
    const width = bytes[info.from] === 2 ? 2 : 4; // of the item's number: versions 2 and 3
    if (info.name === "infe" && letters(bytes, info.from + 4 + width + 2, 4) === "Exif") return number(bytes, info.from + 4, width);
  }
  return null;
}

/** Where the first part of an item is: how it is counted (0 in the file, 1 in the box idat), from where, how much. */
function placeOfItem(bytes, { from, to }, wanted) {
  const version = bytes[from], wide = version < 2 ? 2 : 4, sizes = number(bytes, from + 4, 2);
  const [ofStart, ofLength, ofBase, ofIndex] = [12, 8, 4, 0].map((shift) => (sizes >> shift) & 15);
  let at = from + 6;
  const next = (count) => number(bytes, (at += count) - count, count);
  for (let left = next(wide); left > 0 && at < to; left--) {
    const id = next(wide), how = version ? next(2) & 15 : 0;
    next(2); // in which file: always this one
    const base = next(ofBase);
    for (let part = 0, parts = next(2); part < parts && at < to; part++) {
      if (version) next(ofIndex);
      const start = next(ofStart), length = next(ofLength);
      if (id === wanted && part === 0) return { how, from: base + start, length };
    }
  }
  return null;
}

// What is in it

function entries({ bytes, little }, at) {
  const count = at ? number(bytes, at, 2, little) : 0, found = [];
  for (let entry = at + 2; found.length < count && entry + 12 <= bytes.length; entry += 12) {
    const kind = number(bytes, entry + 2, 2, little), many = number(bytes, entry + 4, 4, little);
    const inside = (WIDTHS[kind] ?? 0) * many <= 4;
    found.push({ tag: number(bytes, entry, 2, little), kind, count: many, at: inside ? entry + 8 : number(bytes, entry + 8, 4, little) });
  }
  return found;
}

/** The entries of a directory by their tags: texts, and lists of numbers. */
function tags(tiff, from) {
  const found = {}, { bytes, little } = tiff;
  for (const { tag, kind, count, at } of entries(tiff, from)) {
    const width = WIDTHS[kind];
    if (!width || count > MOST || at + width * count > bytes.length) continue;
    if (kind === 2) found[tag] = letters(bytes, at, count).replace(/\0[^]*/, "");
    else found[tag] = Array.from({ length: count }, (_, n) => valueOf(bytes, at + n * width, kind, little));
  }
  return found;
}

function valueOf(bytes, at, kind, little) {
  if (kind === 5) return number(bytes, at, 4, little) / number(bytes, at + 4, 4, little);
  if (kind === 10) return (number(bytes, at, 4, little) | 0) / (number(bytes, at + 4, 4, little) | 0);
  return number(bytes, at, WIDTHS[kind], little);
}
