// Files to pictures: what kind of file it is, and whether it is whole. A file that cannot be read ends in a BadPhoto,
// whose code is the key of a sentence in strings.json.

import { number } from "./exif.js";

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
