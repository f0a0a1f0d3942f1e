// Decoding, resizing and the model, in a thread of their own, so that the page always answers.

import { taken, withoutTurn } from "./exif.js";
import { BadPhoto, checked, MOST_PIXELS } from "./photos.js";
import { square } from "./pixels.js";
import { tokenReader } from "./tokens.js";
import { unitReader } from "./units.js";

const THUMBNAIL = 320; // pixels of the longer side
const TEXTS = 16; // at a time

let ort, about, imageSession, textSession, readText;

const jobs = {
  /** Gets the model ready. */
  async start({ app, runtime, wasm, image, text, tokenizer, units }) {
    about = app;
    // From the disk a worker imports only what it made itself.
    const own = () => URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
    ort = await import(typeof runtime === "string" ? runtime : own());
    ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
    ort.env.wasm.wasmBinary = wasm;
    ort.env.logLevel = "error";
    imageSession = await session(image);
    if (text) {
      textSession = await session(text);
      readText = textReader(app.text, tokenizer, units);
    }
  },

  /** A photo: its vector, a small picture, when and where it was taken. */
  async photo({ file }) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const { kind, moving } = checked(bytes);
    const picture = await decoded(file, bytes, kind);
    try {
      const { width, height } = picture;
      if (width * height > MOST_PIXELS) throw new BadPhoto("tooLarge");
      const { size, view } = about;
      const begun = performance.now();
      const pixels = square(width, height, stripsOf(picture), size, view);
      const resized = performance.now();
      const output = await imageSession.run({ photos: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
      const milliseconds = { resize: resized - begun, model: performance.now() - resized };
      return { vector: output.embeddings.data.slice(), thumbnail: await thumbnail(picture), moving, milliseconds, ...taken(bytes, kind) };
    } finally {
      picture.bitmap.close();
    }
  },

  /** Vectors of texts, and how many units of each the model knows. */
  async texts({ texts }) {
    const vectors = [], known = [];
    for (let from = 0; from < texts.length; from += TEXTS) {
      const rows = texts.slice(from, from + TEXTS).map(readText);
      const width = rows[0].row.length;
      const input = new Int32Array(rows.length * width);
      rows.forEach(({ row }, i) => input.set(row, i * width));
      const output = await textSession.run({ texts: new ort.Tensor("int32", input, [rows.length, width]) });
      const depth = output.embeddings.dims[1];
      rows.forEach((row, i) => {
        vectors.push(output.embeddings.data.slice(i * depth, (i + 1) * depth));
        known.push(row.known);
      });
    }
    return { vectors, known };
  },
};

const session = (bytes) =>
  ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });

/** Tokens first, then units, as lit_jax.text.units.Reading. */
function textReader({ tokens, units: facts }, tokenizer, vocabulary) {
  const read = tokens ? tokenReader(tokenizer, tokens) : null;
  const readUnits = facts ? unitReader({ ...facts, vocabulary }) : null;
  return (text) => {
    const ids = read ? read(text) : new Int32Array();
    const { row, known } = readUnits ? readUnits(text) : { row: new Int32Array(), known: 1 };
    return { row: Int32Array.from([...ids, ...row]), known: read ? 1 : known };
  };
}

/** A picture as it is stored, how it is to be turned when it is drawn, and its width and height after that. */
async function decoded(file, bytes, kind) {
  // Browsers turn photos upright as the EXIF says, but for WebP, where some do and some do not: here none may.
  const { turn, bytes: given } = kind === "webp" ? withoutTurn(bytes) : { turn: 1, bytes };
  try {
    // Colours as they are, as Python reads them.
    const bitmap = await createImageBitmap(given === bytes ? file : new Blob([given]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const [width, height] = turn > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
    return { bitmap, turn, width, height };
  } catch {
    throw new BadPhoto(kind === "heic" || kind === "tiff" || kind === "avif" ? kind : "broken");
  }
}

/** Draws a picture upright over white, moved or scaled by a matrix. */
function drawn(context, { bitmap, turn }, scaled) {
  const { width: w, height: h } = bitmap;
  const turns = [
    [1, 0, 0, 1, 0, 0], [-1, 0, 0, 1, w, 0], [-1, 0, 0, -1, w, h], [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, h, 0], [0, -1, -1, 0, h, w], [0, -1, 1, 0, 0, w],
  ];
  context.fillStyle = "white";
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  context.transform(...scaled);
  context.transform(...turns[turn - 1]);
  context.drawImage(bitmap, 0, 0);
}

/** The pixels of some rows. Canvases of whole photos are too large for phones. */
function stripsOf(picture) {
  return (top, count) => {
    const canvas = new OffscreenCanvas(picture.width, count);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    drawn(context, picture, [1, 0, 0, 1, 0, -top]);
    return context.getImageData(0, 0, picture.width, count).data;
  };
}

async function thumbnail(picture) {
  const { width, height } = picture, scale = Math.min(1, THUMBNAIL / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, width * scale), Math.max(1, height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  drawn(context, picture, [canvas.width / width, 0, 0, canvas.height / height, 0, 0]);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}

let queue = Promise.resolve(); // one job after the other: two photos at once would need twice the memory

onmessage = ({ data: { id, job, ...given } }) => {
  queue = queue.then(() => jobs[job](given)).then(
    (result) => postMessage({ id, result }),
    (error) => postMessage({ id, error: codeOf(error), detail: String(error?.message ?? error) }),
  );
};

/** The key of a sentence. Memory that does not suffice is the commonest of unforeseen errors on a phone. */
function codeOf(error) {
  if (error instanceof BadPhoto) return error.code;
  if (["NotReadableError", "NotFoundError"].includes(error?.name)) return "unopened";
  return error instanceof RangeError || /memory|alloc/i.test(String(error)) ? "memory" : "unexpected";
}
