// Before any module: says in a sentence why the app cannot start. Plain script, since modules do not load from file://.
"use strict";
(() => {
  const one = document.getElementById("file:app.json");
  const modules = "noModule" in HTMLScriptElement.prototype;
  const tell = (key, file = "") => {
    document.documentElement.classList.add("stopped");
    const damaged = "The file {file} is damaged. Load the page again."; // where the sentences are
    const text = globalThis.STRINGS?.[key] ?? damaged;
    document.getElementById("stop").textContent = text.replace("{file}", file || "strings.js");
    document.getElementById("stop").hidden = false;
  };
  // A script that is damaged or missing cannot say so itself.
  addEventListener("error", ({ target, filename }) => {
    const now = document.documentElement.classList, from = String(filename ?? target?.src ?? target?.href ?? "");
    const isOwn = from.startsWith(new URL("./", location.href).href); // and not of an extension of the browser
    if (!isOwn || now.contains("ready") || now.contains("stopped")) return;
    tell("fileWrong", from.split("/").at(-1).split("?")[0] || "index.html");
    // Fresh ones for the next visit, in the place of damaged ones that the browser may have kept.
    const afresh = (name) => fetch(name, { cache: "reload" });
    if (!one) afresh("app.json").then((answer) => answer.json()).then(({ shell }) => Object.keys(shell).forEach(afresh)).catch(() => {});
  }, true);
  if (location.protocol === "file:" && !one) tell("openedAsFolder");
  if (!globalThis.STRINGS) tell("fileWrong");
  const needed = ["WebAssembly", "OffscreenCanvas", "createImageBitmap", "DecompressionStream"];
  if (!modules || !needed.every((name) => name in globalThis)) tell("oldBrowser");
})();
