// The model, which works in a thread of its own: worker.js.

import { $, notice, state, t } from "./common.js";
import * as files from "./files.js";

let worker;
const waiting = new Map();

export function ask(job, given = {}, moved = []) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, job, ...given }, moved);
  });
}

function answered({ data: { id, result, error, detail } }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(Object.assign(new Error(detail), { code: error, detail }));
  else resolve(result);
}

export async function startModel(app) {
  let done = 0, full = false;
  const total = Object.values(app.files).reduce((sum, { bytes }) => sum + bytes, 0);
  const tell = (bytes) => {
    done += bytes;
    $("progress").value = done / total;
    const [have, all] = [done, total].map((value) => (value / 1e6).toFixed(1));
    $("loading-text").textContent = t("loadingTold", { done: have, total: all });
  };
  const bytes = {};
  for (const [name, facts] of Object.entries(app.files)) {
    bytes[name] = await files.fileBytes(name, facts, tell, () => { full = true; });
  }
  if (full) notice("storageFull");
  $("loading-text").textContent = t("starting");
  app.classes = jsonOf(bytes["classes.json"]);
  state.vectors = files.unpackedVectors(bytes["vectors.bin"], app.vectors);
  // A worker made of a line takes over what the page forbids itself, which a worker of a file would not.
  const source = await files.script("worker.js");
  const line = typeof source === "string" ? `import ${JSON.stringify(source)};` : source;
  const kind = typeof source === "string" ? "module" : "classic"; // from the disk there are no other workers
  worker = new Worker(URL.createObjectURL(new Blob([line], { type: "text/javascript" })), { type: kind });
  worker.onmessage = answered;
  const failed = new Promise((_, reject) => { worker.onerror = (event) => reject(new Error(event.message ?? "worker")); });
  const units = bytes["units.json"] ? jsonOf(bytes["units.json"]) : null;
  const given = {
    app: { size: app.size, view: app.view, text: app.text }, runtime: await files.script("ort.js"), units,
    wasm: bytes["ort.wasm"], image: bytes["image.onnx"], text: bytes["text.onnx"], tokenizer: bytes.tokenizer,
  };
  const moved = [given.wasm, given.image, given.text, given.tokenizer].filter(Boolean).map((one) => one.buffer);
  await Promise.race([ask("start", given, moved), failed]);
  return full;
}

const jsonOf = (bytes) => JSON.parse(new TextDecoder().decode(bytes));
