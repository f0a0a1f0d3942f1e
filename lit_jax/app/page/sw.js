// Keeps the page itself for use without a network; files.js keeps the model's files. The first two lines are written
// by the command, so that another version of the app is another service worker.
const VERSION = "@VERSION@";
const SHELL = "@SHELL@".split(" ");
const PREFIX = `lit_jax page ${new URL("./", location.href).pathname} `;

self.addEventListener("install", (event) => {
  const all = SHELL.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(PREFIX + VERSION).then((cache) => cache.addAll(all)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== PREFIX + VERSION) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(old());
});

self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  if (event.request.method !== "GET" || address.origin !== location.origin) return;
  const answer = async () => {
    const cache = await caches.open(PREFIX + VERSION);
    const asked = event.request.mode === "navigate" ? new URL("./", location.href).href : event.request;
    return (await cache.match(asked)) ?? fetch(event.request);
  };
  event.respondWith(answer());
});
