// Keeps the page itself for use without a network; files.js keeps the model's files. The first two lines are written
// by the command, so that another version of the app is another service worker.
const VERSION = "@VERSION@";
const SHELL = "@SHELL@"; // by name the SHA-256; empty of what a host or a translator may change
const HOME = "./"; // index.html
const SCOPE = new URL("./", location.href);
const PREFIX = `lit_jax page ${SCOPE.pathname} `;

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(PREFIX + VERSION);
    await Promise.all(Object.entries(SHELL).map(async ([name, sha256]) => {
      const fresh = await fetch(new Request(name, { cache: "reload" }));
      if (!fresh.ok || !(await isRight(await fresh.clone().arrayBuffer(), sha256))) throw new Error(`${name} is damaged`);
      await cache.put(name, fresh);
    }));
    await self.skipWaiting();
  };
  event.waitUntil(keep().catch(async (error) => {
    await caches.delete(PREFIX + VERSION);
    throw error; // nothing is kept, and the next visit tries again
  }));
});

async function isRight(bytes, sha256) {
  if (!sha256) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

self.addEventListener("activate", (event) => {
  const old = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== PREFIX + VERSION) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(old());
});

/** What is kept, if it is whole; else what the host sends, which is kept in its place if that is. */
async function answer(request, name) {
  const isWhole = async (one) => isRight(await one.clone().arrayBuffer(), SHELL[name]);
  const cache = await caches.open(PREFIX + VERSION), known = await cache.match(name);
  if (known && (await isWhole(known))) return known;
  const fresh = await fetch(request);
  if (fresh.ok && (await isWhole(fresh))) await cache.put(name, fresh.clone());
  return fresh;
}

/** The name of one of the app's own files; null of any other page or file below it, which is none of its business. */
function ownFile({ origin, pathname, search }, navigates) {
  if (origin !== SCOPE.origin || !pathname.startsWith(SCOPE.pathname) || (search && !navigates)) return null;
  const name = pathname.slice(SCOPE.pathname.length);
  const own = ["", "index.html"].includes(name) ? HOME : name;
  return Object.hasOwn(SHELL, own) ? own : null;
}

self.addEventListener("fetch", (event) => {
  const name = ownFile(new URL(event.request.url), event.request.mode === "navigate");
  if (event.request.method !== "GET" || name === null) return;
  event.respondWith(answer(event.request, name));
});
