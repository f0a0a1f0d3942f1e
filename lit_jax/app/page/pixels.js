// Pixels to the square that the model reads, as lit_jax/data/resizing.py: the same antialiased filter, one rounding at
// the end. The photo comes in strips, so that only the narrow result of a large one is in memory.

const RADIUS = { bicubic: 2, bilinear: 1 };
const STRIP = 256; // rows of the photo at a time
const f = Math.fround;

/** Weights of the middle `cut` of `full` pixels that are made of `old` ones, in float32 from the first step on. */
export function weightsOf(old, full, cut, interpolation) {
  const step = f(1 / f(f(full) / f(old)));
  const stretch = Math.max(step, 1);
  const margin = f(half((full - cut) / 2));
  const reach = f(RADIUS[interpolation] * stretch);
  return Array.from({ length: cut }, (_, place) => {
    const centre = f(f(f(place + 0.5) * step) + f(step * margin));
    const first = Math.ceil(f(f(centre - reach) - 0.5));
    const count = Math.ceil(f(2 * reach)) + 1;
    const from = Math.max(first, 0), to = Math.min(first + count, old);
    const values = new Float32Array(Math.max(to - from, 0));
    let sum = 0;
    for (let i = from; i < to; i++) {
      values[i - from] = kernel(f(Math.abs(f(f(f(i) + 0.5) - centre) * f(1 / stretch))), interpolation);
      sum += values[i - from];
    }
    return { from, values: values.map((value) => value / sum) };
  });
}

/** The nearest whole number, half to even. */
function half(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

function kernel(x, interpolation) {
  if (interpolation === "bilinear") return Math.max(1 - x, 0);
  if (x <= 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/**
 * The photo as the model reads it.
 * @param width, height of the photo
 * @param rgba of a strip: (first row, number of rows) to RGBA bytes
 * @param size S of the square
 * @param view interpolation, resize and crop_fraction
 * @returns Uint8Array of S * S * 3
 */
export function square(width, height, rgba, size, view) {
  const side = Math.floor(size / view.crop_fraction + 1e-6);
  const short = Math.min(width, height);
  const full = view.resize === "square"
    ? [side, side] : [Math.floor((side * height) / short), Math.floor((side * width) / short)];
  const rows = weightsOf(height, full[0], size, view.interpolation);
  const columns = weightsOf(width, full[1], size, view.interpolation);
  const narrow = rows.map(() => new Float32Array(width * 3));
  const first = Math.min(...rows.map((row) => row.from));
  const last = Math.max(...rows.map((row) => row.from + row.values.length));
  for (let top = first; top < last; top += STRIP) {
    addStrip(narrow, rows, rgba(top, Math.min(STRIP, last - top)), top, Math.min(STRIP, last - top), width);
  }
  const out = new Uint8Array(size * size * 3);
  narrow.forEach((line, y) => columns.forEach(({ from, values }, x) => {
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let i = 0; i < values.length; i++) sum += values[i] * line[3 * (from + i) + channel];
      out[3 * (y * size + x) + channel] = Math.min(Math.max(half(f(sum)), 0), 255);
    }
  }));
  return out;
}

function addStrip(narrow, rows, pixels, top, count, width) {
  rows.forEach(({ from, values }, place) => {
    const line = narrow[place];
    const end = Math.min(from + values.length, top + count);
    for (let y = Math.max(from, top); y < end; y++) {
      const weight = values[y - from];
      for (let x = 0, at = (y - top) * width * 4; x < width * 3; x += 3, at += 4) {
        line[x] += weight * pixels[at];
        line[x + 1] += weight * pixels[at + 1];
        line[x + 2] += weight * pixels[at + 2];
      }
    }
  });
}
