// Files to pictures: what kind of file it is, whether it is whole, and when and where it was taken. A file that cannot
// be read ends in a BadPhoto, whose code is the key of a sentence in strings.json.

export const MOST_PIXELS = 100_000_000; // as lit_jax.data.photo

export class BadPhoto extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const KINDS = [
  ["jpeg", /^\xff\xd8\xff/], ["png", /^\x89PNG\r\n\x1a\n/], ["gif", /^GIF8[79]a/], ["webp", /^RIFF[^]{4}WEBP/],
  ["bmp", /^BM[^]{12}/], ["avif", /^[^]{4}ftyp(?=[^]{0,56}?avi[fs])/],
  ["heic", /^[^]{4}ftyp(?=(?:[^]{4}){0,14}?(?:hei[cxms]|hev[cxms]|mif1|msf1))/], ["tiff", /^(?:II[*+]\0|MM\0[*+])/],
  ["video", /^(?:[^]{4}ftyp|\x1aE\xdf\xa3|RIFF[^]{4}AVI |\0\0\x01[\xb3\xba]|[^]{4}(?:moov|mdat|wide))/],
];

/** The kind that the first bytes announce; the name plays no part. */
export function kindOf(bytes) {
  const head = String.fromCharCode(...bytes.subarray(0, 80));
  return KINDS.find(([, form]) => form.test(head))?.[0] ?? "";
}

/** Refuses what cannot be decoded here, and what was cut short, which decoders often pass in silence. */
export function checked(bytes) {
  if (!bytes.length) throw new BadPhoto("empty");
  const kind = kindOf(bytes);
  if (kind === "video" || !kind) throw new BadPhoto(kind || "notAPhoto");
  const size = kind === "jpeg" ? jpegSize(bytes) : kind === "png" ? pngSize(bytes) : null;
  if (kind === "webp" && bytes.length < 8 + number(bytes, 4, 4, true)) throw new BadPhoto("truncated");
  if (size && size[0] * size[1] > MOST_PIXELS) throw new BadPhoto("tooLarge");
  return { kind, moving: kind === "gif" && isMoving(bytes) };
}

const number = (bytes, at, count, little) => {
  let value = 0;
  for (let i = 0; i < count; i++) value = value * 256 + (bytes[little ? at + count - 1 - i : at + i] ?? 0);
  return value;
};

/** Walks the markers of a JPEG to its end, which must be there; its width and height. */
function jpegSize(bytes) {
  let at = 2, size = null;
  while (at < bytes.length) {
    at = bytes.indexOf(0xff, at);
    if (at < 0) break;
    while (bytes[at] === 0xff) at++;
    const marker = bytes[at++];
    if (marker === undefined) break;
    if (marker === 0xd9) return size;
    if (marker === 0 || (marker >= 0xd0 && marker <= 0xd7)) continue;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      size = [number(bytes, at + 5, 2), number(bytes, at + 3, 2)];
    }
    at += number(bytes, at, 2);
  }
  throw new BadPhoto("truncated");
}

function pngSize(bytes) {
  const tail = String.fromCharCode(...bytes.subarray(-64));
  if (!tail.includes("IEND\xaeB`\x82")) throw new BadPhoto("truncated");
  return [number(bytes, 16, 4), number(bytes, 20, 4)];
}

/** Whether a GIF has a second picture: graphic control blocks come before each. */
function isMoving(bytes) {
  let found = 0;
  for (let at = 0; (at = bytes.indexOf(0x21, at)) >= 0; at++) {
    if (bytes[at + 1] === 0xf9 && bytes[at + 2] === 4 && bytes[at + 7] === 0 && ++found > 1) return true;
  }
  return false;
}

/** Date (ISO 8601, without a zone where the camera tells none) and place of a JPEG as its EXIF has them. */
export function taken(bytes) {
  try {
    return exifOf(bytes);
  } catch { // EXIF that cannot be read says nothing
    return {};
  }
}

function exifOf(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, 65536));
  const start = text.indexOf("Exif\0\0");
  if (kindOf(bytes) !== "jpeg" || start < 0) return {};
  const tiff = bytes.subarray(start + 6);
  const little = tiff[0] === 0x49;
  const main = tags(tiff, number(tiff, 4, 4, little), little);
  const exif = main[0x8769] ? tags(tiff, main[0x8769][0], little) : {};
  const gps = main[0x8825] ? tags(tiff, main[0x8825][0], little) : {};
  const date = /^(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)/.exec(exif[0x9003] ?? "");
  const zone = /^[+-]\d\d:\d\d/.exec(exif[0x9011] ?? "")?.[0] ?? "";
  const degrees = (parts, side) => {
    const value = parts[0] + parts[1] / 60 + parts[2] / 3600;
    return /[SW]/.test(side ?? "") ? -value : value;
  };
  const place = gps[2]?.length === 3 && gps[4]?.length === 3
    ? { latitude: degrees(gps[2], gps[1]), longitude: degrees(gps[4], gps[3]) } : null;
  const known = place && Number.isFinite(place.latitude) && Number.isFinite(place.longitude);
  return {
    ...(date ? { date: `${date[1]}-${date[2]}-${date[3]}T${date[4]}${zone}` } : {}), ...(known ? { place } : {}),
  };
}

/** The entries of a directory of EXIF: whole numbers, fractions and texts. */
function tags(tiff, at, little) {
  const found = {};
  for (let i = 0; i < number(tiff, at, 2, little); i++) {
    const entry = at + 2 + 12 * i;
    const kind = number(tiff, entry + 2, 2, little), count = number(tiff, entry + 4, 4, little);
    const width = { 2: 1, 3: 2, 4: 4, 5: 8 }[kind];
    if (!width || count > 1000) continue;
    const from = width * count > 4 ? number(tiff, entry + 8, 4, little) : entry + 8;
    const each = Array.from({ length: count }, (_, n) => {
      const here = from + n * width;
      if (kind === 5) return number(tiff, here, 4, little) / number(tiff, here + 4, 4, little);
      return number(tiff, here, width, little);
    });
    found[number(tiff, entry, 2, little)] = kind === 2 ? String.fromCharCode(...each).replace(/\0.*/, "") : each;
  }
  return found;
}
