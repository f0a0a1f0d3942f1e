// The photos of a session, kept on the device until they are forgotten: small pictures, vectors, times and places. So
// a phone may put the page away while its camera is open. Another model's vectors are of no use and are dropped.

const NAME = `lit_jax ${location.pathname}`, STORE = "photos"; // pages of one host share what is kept
const EARLIER = "lit_jax"; // of the first version, in which all apps of a host kept their photos

/**
 * Opens what is kept; the functions of it do nothing where the browser keeps nothing.
 * @param model its digest
 * @param width numbers of a vector
 * @param tell hears the keys of sentences: no more room, something that is not of this app
 */
export async function keeper(model, width, tell) {
  const where = `${location.pathname} ${model}`; // of a photo that the first version kept
  const names = await namesOfBases();
  const isMoved = names.includes(EARLIER) && !names.includes(NAME);
  const earlier = isMoved ? await inEarlier("readonly", (store) => store.getAll()) : null;
  const moved = (earlier ?? []).filter((one) => one.where === where && typeof one.id === "string" && isPhoto(one, width));
  const base = await openedBase(moved.map(({ where, ...photo }) => ({ ...photo, model }))).catch(() => null);
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
    drop(id) {
      if (names.includes(EARLIER)) { // what is forgotten is not to be kept there either
        inEarlier("readwrite", (store) => {
          const request = store.get(id);
          request.onsuccess = () => request.result?.where === where && store.delete(id);
          return request;
        });
      }
      return asked("readwrite", (store) => store.delete(id));
    },
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

/** Opens the base of the app; where it is made, it is made with some photos in it, or not at all. */
function openedBase(photos) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(STORE, { keyPath: "id" });
      for (const photo of photos) store.put(photo);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}

/** Names of the bases of this host; none where the browser does not list them. */
async function namesOfBases() {
  try {
    return (await indexedDB.databases()).map(({ name }) => name);
  } catch {
    return [];
  }
}

/** The result of a request to the base of the first version, which stays as it is otherwise; null if it has none. */
function inEarlier(mode, act) {
  return new Promise((resolve) => {
    const request = indexedDB.open(EARLIER);
    request.onupgradeneeded = () => request.transaction.abort(); // it has gone meanwhile
    request.onerror = request.onblocked = () => resolve(null);
    request.onsuccess = () => {
      const end = (result) => {
        request.result.close();
        resolve(result);
      };
      try {
        const change = request.result.transaction(STORE, mode);
        const asked = act(change.objectStore(STORE));
        change.oncomplete = () => end(asked.result);
        change.onabort = () => end(null);
      } catch { // of another page, which has no such store
        end(null);
      }
    };
  });
}
