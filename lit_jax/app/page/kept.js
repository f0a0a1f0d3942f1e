// The photos of a session, kept on the device until they are forgotten: small pictures, vectors, times and places. So
// a phone may put the page away while its camera is open. Another model's vectors are of no use and are dropped.

const NAME = `lit_jax ${location.pathname}`, STORE = "photos"; // pages of one host share what is kept

/**
 * Opens what is kept; the functions of it do nothing where the browser keeps nothing.
 * @param model its digest
 * @param width numbers of a vector
 * @param tell hears the keys of sentences: no more room, something that is not of this app
 */
export async function keeper(model, width, tell) {
  const base = await openedBase().catch(() => null);
  const asked = (mode, act) => new Promise((resolve) => {
    if (!base) return resolve(null);
    try {
      const change = base.transaction(STORE, mode);
      const request = act(change.objectStore(STORE));
      change.oncomplete = () => resolve(request?.result ?? null);
      change.onabort = change.onerror = () => {
        if (change.error?.name === "QuotaExceededError") tell("storageFull");
        resolve(null);
      };
    } catch { // of another page, which has no such store or keys
      resolve(null);
    }
  });
  return {
    put: (photo) => asked("readwrite", (store) => store.put({ ...photo, model })),
    drop: (id) => asked("readwrite", (store) => store.delete(id)),
    async all() {
      const found = (await asked("readonly", (store) => store.getAll())) ?? [];
      const whole = found.filter((one) => one.model === model && isPhoto(one, width));
      const others = found.filter((one) => !whole.includes(one));
      await Promise.all(others.map(({ id }) => this.drop(id)));
      if (others.some((one) => one.model === model || typeof one.model !== "string")) tell("keptDamaged");
      return whole.sort((a, b) => a.added - b.added);
    },
  };
}

/** Whether what was kept is what `put` was given. */
function isPhoto({ name, vector, thumbnail, date, place, added }, width) {
  const isVector = vector instanceof Float32Array && vector.length === width && vector.every(Number.isFinite);
  const isPlace = !place || (Number.isFinite(place.latitude) && Number.isFinite(place.longitude));
  return typeof name === "string" && isVector && thumbnail instanceof Blob && typeof (date ?? "") === "string" && isPlace
    && Number.isFinite(added);
}

function openedBase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
