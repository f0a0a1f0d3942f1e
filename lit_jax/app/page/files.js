// The files of the app: from the page itself where all is in one file, else from the cache or the network. Each must
// be the one that the app was made with.

export class BadFile extends Error {
  constructor(code, name) {
    super(`${code}: ${name}`);
    Object.assign(this, { code, file: name });
  }
}

const held = (name) => document.getElementById(`file:${name}`);

export const isOneFile = () => held("app.json") !== null;

/** The bytes of a part of the page that is base64. */
async function unpacked(name) {
  const text = held(name)?.textContent ?? "-"; // which is no base64
  try {
    const direct = await fetch(`data:application/octet-stream;base64,${text.trim()}`);
    return new Uint8Array(await direct.arrayBuffer());
  } catch {
    throw new BadFile("fileWrong", name);
  }
}

/** What the app says of itself. The page was made with it, and knows what content it must have. */
export async function description() {
  const name = "app.json", sha256 = document.documentElement.dataset.app;
  const bytes = isOneFile() ? await unpacked(name) : await received(name, name, () => {});
  if (await isRight(bytes, { bytes: bytes.length, sha256 })) return JSON.parse(new TextDecoder().decode(bytes));
  await refetched(name);
  throw new BadFile("fileWrong", name);
}

/** A script of the app: its address, or, where all is in one file, itself. */
export async function script(name) {
  return isOneFile() ? unpacked(name) : new URL(name, document.baseURI).href;
}

/**
 * Refuses scripts and styles that are not those that the app was made with.
 * @param shell SHA-256 of each by name
 */
export async function checkShell(shell) {
  const read = async (name) => {
    if (!isOneFile()) return received(name, name, () => {});
    return held(name) ? unpacked(name) : new TextEncoder().encode(document.querySelector("script[type=module]").textContent);
  };
  const run = Object.entries(shell).filter(([name]) => /\.(js|css)$/.test(name));
  await Promise.all(run.map(async ([name, sha256]) => {
    const bytes = await read(name);
    if (await isRight(bytes, { bytes: bytes.length, sha256 })) return;
    await refetched(name);
    throw new BadFile("fileWrong", name);
  }));
}

/** Puts a fresh file in the place of a damaged one that the browser may have kept: the page is loaded again then. */
const refetched = (name) => (isOneFile() ? null : fetch(name, { cache: "reload" }).catch(() => {}));

/**
 * The bytes of a file, checked.
 * @param name of the file
 * @param facts its bytes and sha256
 * @param tell hears the bytes that have come in
 * @param full hears that the browser has no room to keep it
 */
export async function fileBytes(name, facts, tell, full) {
  const element = held(name);
  if (element) {
    const bytes = await unpacked(name);
    element.remove(); // the text is larger than the bytes, and is not needed twice
    tell(bytes.length);
    if (!(await isRight(bytes, facts))) throw new BadFile("fileWrong", name);
    return opened(bytes, facts);
  }
  // Under its digest, so that a new version of the app does not take the old file for its own.
  const address = new URL(`${name}${facts.gzip ? ".packed" : ""}?${facts.sha256.slice(0, 16)}`, document.baseURI).href;
  const cache = await keptFiles();
  const known = await cache?.match(address);
  if (known) {
    const bytes = new Uint8Array(await known.arrayBuffer());
    if (await isRight(bytes, facts)) {
      tell(bytes.length);
      return opened(bytes, facts);
    }
    await cache.delete(address);
  }
  const bytes = await received(address, name, tell);
  if (!(await isRight(bytes, facts))) throw new BadFile("fileWrong", name);
  if (cache) await cache.put(address, new Response(bytes)).catch(full);
  return opened(bytes, facts);
}

/** The content of a file, which is compressed where that makes it smaller: few hosts do it for such files. */
async function opened(bytes, { gzip }) {
  if (!gzip) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function received(address, name, tell) {
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) throw new BadFile(answer ? "fileMissing" : "fileUnreachable", name);
  const parts = [];
  try {
    for (const reader = answer.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      tell(value.length);
    }
  } catch {
    throw new BadFile("fileUnreachable", name);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Whether the bytes are those that the app was made with; without HTTPS only their number can be told. */
async function isRight(bytes, { bytes: size, sha256 }) {
  if (bytes.length !== size) return false;
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

const filesName = () => `lit_jax files ${new URL("./", document.baseURI).pathname}`;
const keptFiles = async () => (globalThis.caches ? caches.open(filesName()).catch(() => null) : null);

/** Drops kept files of earlier versions of the app. */
export async function dropOldFiles(files) {
  const cache = isOneFile() ? null : await keptFiles();
  const wanted = new Set(Object.values(files).map(({ sha256 }) => sha256.slice(0, 16)));
  for (const request of (await cache?.keys()) ?? []) {
    if (!wanted.has(new URL(request.url).search.slice(1))) await cache.delete(request);
  }
}

/** float32 numbers of what is stored as float32, float16 or int8 with a scale a row. */
export function unpackedVectors(bytes, { rows, width, stored }) {
  const count = rows * width;
  if (stored === "fp32") return new Float32Array(bytes.slice().buffer);
  if (stored === "int8") {
    const scales = new Float32Array(bytes.slice(0, 4 * rows).buffer);
    const values = new Int8Array(bytes.buffer, bytes.byteOffset + 4 * rows, count);
    return Float32Array.from(values, (value, i) => value * scales[Math.floor(i / width)]);
  }
  return Float32Array.from(new Uint16Array(bytes.slice().buffer), ofHalf);
}

function ofHalf(half) {
  const exponent = (half >> 10) & 31, fraction = half & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return half & 0x8000 ? -size : size;
}
