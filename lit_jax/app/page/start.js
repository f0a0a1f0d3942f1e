// Before any module: says in a sentence why the app cannot start. Plain script, since modules do not load from file://.
"use strict";
(() => {
  const one = document.getElementById("file:app.json");
  const modules = "noModule" in HTMLScriptElement.prototype;
  const tell = (key) => {
    document.documentElement.classList.add("stopped");
    document.getElementById("stop").textContent = globalThis.STRINGS[key];
    document.getElementById("stop").hidden = false;
  };
  if (location.protocol === "file:" && !one) tell("openedAsFolder");
  const needed = ["WebAssembly", "OffscreenCanvas", "createImageBitmap", "DecompressionStream"];
  if (!modules || !needed.every((name) => name in globalThis)) tell("oldBrowser");
})();
