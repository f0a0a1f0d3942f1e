// From scores of classes to answers, as lit_jax/prediction/answers.py: the margin of seen species, two temperatures by
// kind, sums over ranks, and the climb where the model is not sure.

export const SPECIES = "species";
export const RANKS = ["kingdom", "phylum", "class", "order", "family", "genus"];

/** Groups of classes at a rank; two are the same only if all ranks above are too. Null where the rank is not known. */
export function grouped(columns, rank) {
  const names = columns.name ?? columns.common_name;
  if (rank === SPECIES) return { ofClass: Int32Array.from(names.keys()), names };
  if (!columns[rank]?.some(Boolean)) return null;
  const path = RANKS.slice(0, RANKS.indexOf(rank) + 1).filter((one) => columns[one]);
  const numbers = new Map(), found = [];
  const ofClass = Int32Array.from(columns[rank], (name, k) => {
    if (!name) return -1;
    const key = JSON.stringify(path.map((one) => columns[one][k]));
    if (!numbers.has(key)) {
      numbers.set(key, found.length);
      found.push(name);
    }
    return numbers.get(key);
  });
  return { ofClass, names: found };
}

/** The ranks that the classes have, narrowest first. */
export function ladder(columns) {
  return [SPECIES, ...[...RANKS].reverse()]
    .map((rank) => ({ rank, groups: grouped(columns, rank) })).filter(({ groups }) => groups);
}

/**
 * Softmax over the classes to choose from, at the factor of the kind of species that comes first.
 * @param scores of K classes, as the model gives them
 * @param chosen numbers of the classes to choose from
 * @param confidence margin, trained, factors, and seen, which of the K had photos in training
 * @returns Float64Array of K, 0 for classes that are not to be chosen
 */
export function probabilities(scores, chosen, { margin, trained, factors, seen }) {
  const held = (k) => scores[k] - (seen[k] ? margin : 0);
  let best = chosen[0];
  for (const k of chosen) if (held(k) > held(best)) best = k;
  const factor = factors[seen[best] ? "seen" : "unseen"] ?? trained;
  const likely = new Float64Array(scores.length);
  const top = held(best);
  let sum = 0;
  for (const k of chosen) sum += likely[k] = Math.exp(factor * (held(k) - top));
  for (const k of chosen) likely[k] /= sum;
  return likely;
}

/** The sums of a rank's groups. */
export function summed(likely, { ofClass, names }) {
  const sums = new Float64Array(names.length);
  for (let k = 0; k < likely.length; k++) if (ofClass[k] >= 0) sums[ofClass[k]] += likely[k];
  return sums;
}

/** Numbers of the most likely ones, the first first; of equal ones the one that comes first. */
export function best(sums, count) {
  const order = Array.from(sums.keys()).filter((i) => sums[i] > 0);
  return order.sort((a, b) => sums[b] - sums[a] || a - b).slice(0, count);
}

/** The most likely group of each rank, narrowest first: what the climb goes over. */
export function steps(likely, rungs) {
  return rungs.map(({ rank, groups }) => {
    const sums = summed(likely, groups);
    let group = 0;
    for (let i = 1; i < sums.length; i++) if (sums[i] > sums[group]) group = i;
    return { rank, group, name: groups.names[group], confidence: Math.min(sums[group], 1) };
  });
}

/** The narrowest step that is likely enough; null if none is. */
export const climbed = (found, sure) => found.find(({ confidence }) => confidence >= sure) ?? null;

/** The ranks above an answer, widest first, as far as they are known, of its first class. */
export function above(columns, member, rank) {
  const wider = rank === SPECIES ? RANKS : RANKS.slice(0, RANKS.indexOf(rank));
  return Object.fromEntries(wider.filter((one) => columns[one]?.[member]).map((one) => [one, columns[one][member]]));
}

/** A probability for people, rounded down, lest 79.9 % looks like the 80 % that were asked for. */
export const percent = (share) => {
  const whole = Math.floor(100 * share + 1e-9);
  return whole ? `${whole} %` : "<1 %";
};
