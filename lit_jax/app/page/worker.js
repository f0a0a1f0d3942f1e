// Decoding, resizing and the model, in a thread of their own, so that the page always answers.

import { BadPhoto, checked, MOST_PIXELS, taken } from "./photos.js";
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
    const bitmap = await decoded(file, kind);
    try {
      if (bitmap.width * bitmap.height > MOST_PIXELS) throw new BadPhoto("tooLarge");
      const { size, view } = about;
      const begun = performance.now();
      const pixels = square(bitmap.width, bitmap.height, stripsOf(bitmap), size, view);
      const resized = performance.now();
      const output = await imageSession.run({ photos: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
      const milliseconds = { resize: resized - begun, model: performance.now() - resized };
      return { vector: output.embeddings.data.slice(), thumbnail: await thumbnail(bitmap), moving, milliseconds, ...taken(bytes) };
    } finally {
      bitmap.close();
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

async function decoded(file, kind) {
  try {
    // Turned upright as the EXIF says; colours as they are, as Python reads them.
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new BadPhoto(kind === "heic" || kind === "tiff" || kind === "avif" ? kind : "broken");
  }
}

/** The pixels of some rows, over white where the photo is see-through. Canvases of whole photos are too large for phones. */
function stripsOf(bitmap) {
  return (top, count) => {
    const canvas = new OffscreenCanvas(bitmap.width, count);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, bitmap.width, count);
    context.drawImage(bitmap, 0, -top);
    return context.getImageData(0, 0, bitmap.width, count).data;
  };
}

async function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, bitmap.width * scale), Math.max(1, bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
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
