// The photos of a session, kept on the device until they are forgotten: small pictures, vectors, times and places. So
// a phone may put the page away while its camera is open. Another model's vectors are of no use and are dropped.

const NAME = "lit_jax", STORE = "photos";

/** Opens what is kept; the functions of it do nothing where the browser keeps nothing. `full` hears of no more room. */
export async function keeper(model, full) {
  const base = await openedBase().catch(() => null);
  const where = `${location.pathname} ${model}`;
  const asked = (mode, act) => new Promise((resolve) => {
    if (!base) return resolve(null);
    const change = base.transaction(STORE, mode);
    const request = act(change.objectStore(STORE));
    change.oncomplete = () => resolve(request?.result ?? null);
    change.onabort = change.onerror = () => {
      if (change.error?.name === "QuotaExceededError") full();
      resolve(null);
    };
  });
  return {
    put: (photo) => asked("readwrite", (store) => store.put({ ...photo, where })),
    drop: (id) => asked("readwrite", (store) => store.delete(id)),
    async all() {
      const found = (await asked("readonly", (store) => store.getAll())) ?? [];
      const here = found.filter((photo) => photo.where.startsWith(`${location.pathname} `));
      here.filter((photo) => photo.where !== where).forEach((photo) => this.drop(photo.id));
      return here.filter((photo) => photo.where === where).sort((a, b) => a.added - b.added);
    },
  };
}

function openedBase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
