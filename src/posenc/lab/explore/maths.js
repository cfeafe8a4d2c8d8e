// The formulas of the page, and nothing else: no DOM here. Tests run these in a browser against the library.
"use strict";
const TURN = 2 * Math.PI;

/** Radians per token of each pair. `s` has base, dim (rotated channels), rule, factor, trained; `file` has given rates. */
function rates(s, file) {
  if (s.rule === "file") return Float64Array.from(file.rates);
  const n = s.dim / 2, plain = Float64Array.from({ length: n }, (_, i) => s.base ** ((-2 * i) / s.dim));
  const p = s.parameters || {};
  if (s.rule === "linear") return plain.map((w) => w / s.factor);
  if (s.rule === "ntk") return plain.map((w, i) => w * s.factor ** ((-2 * i) / (s.dim - 2)));
  if (s.rule === "yarn") {
    const turnsAt = (times) => (s.dim * Math.log(s.trained / (TURN * times))) / (2 * Math.log(s.base));
    let low = turnsAt(p.beta_fast ?? 32), high = turnsAt(p.beta_slow ?? 1);
    if ((p.ends ?? "rounded") === "rounded") { low = Math.floor(low); high = Math.ceil(high); }
    low = Math.max(low, 0); high = Math.min(high, s.dim - 1);
    const width = high > low ? high - low : 0.001;
    return plain.map((w, i) => blend(1 - clip((i - low) / width), w, s.factor));
  }
  if (s.rule === "llama3") {
    const low = p.low_freq_factor ?? 1, high = p.high_freq_factor ?? 4;
    return plain.map((w) => {
      const turns = (s.trained * w) / TURN;
      return blend(high > low ? clip((turns - low) / (high - low)) : Number(turns >= low), w, s.factor);
    });
  }
  return plain;
}
const clip = (x) => Math.min(1, Math.max(0, x));
const blend = (kept, w, factor) => kept * w + (1 - kept) * (w / factor);

/** What cos and sin are multiplied by. */
function attentionFactor(s, file) {
  if (s.rule === "file") return file.attention_factor;
  if (s.rule !== "yarn") return 1;
  return s.parameters?.attention_factor ?? 0.1 * Math.log(s.factor) + 1;
}

/** Turns of each pair in the trained length, before any rule. */
function turns(plain, trained) {
  return Array.from(plain, (w) => (trained * Math.abs(w)) / TURN);
}

/** The score of a query and a key that stands `distance` tokens before it; channels are paired half and half. */
function score(w, q, k, distance, gain = 1) {
  const half = w.length, gain2 = gain * gain;
  let sum = 0;
  for (let i = 0; i < half; i++) {
    const c = Math.cos(w[i] * distance), s = Math.sin(w[i] * distance);
    sum += gain2 * (q[i] * (k[i] * c + k[i + half] * s) + q[i + half] * (k[i + half] * c - k[i] * s));
  }
  for (let i = 2 * half; i < q.length; i++) sum += q[i] * k[i];
  return sum / Math.sqrt(q.length);
}

/** Mean and standard deviation of a score at a distance, over vectors of independent standard normal channels. */
function moments(w, headDim, distance, same, gain = 1) {
  const still = headDim - 2 * w.length, gain2 = gain * gain;
  let trace = still, squares = still;
  for (const rate of w) {
    const c = Math.cos(rate * distance) * gain2;
    trace += 2 * c;
    squares += same ? 2 * c * c : 2 * gain2 * gain2;
  }
  return same
    ? { mean: trace / Math.sqrt(headDim), deviation: Math.sqrt((2 * squares) / headDim) }
    : { mean: 0, deviation: Math.sqrt(squares / headDim) };
}

/** For each pair: the angle that training reached and the one that `tokens` tokens reach, in radians, at most a turn. */
function arcs(plain, w, trained, tokens) {
  return Array.from(w, (rate, i) => {
    const seen = Math.min(TURN, Math.abs(plain[i]) * trained);
    const reached = Math.min(TURN, Math.abs(rate) * tokens);
    return { seen, reached, unseen: seen >= TURN ? 0 : Math.max(0, reached - seen) };
  });
}

const buffer = new DataView(new ArrayBuffer(4));
/** The nearest bfloat16, ties to even. */
function bfloat16(x) {
  buffer.setFloat32(0, x);
  const bits = buffer.getUint32(0);
  buffer.setUint32(0, (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000);
  return buffer.getFloat32(0);
}

/** The largest error of an angle over all pairs, in radians, when position, rate and product are rounded to a dtype. */
function angleError(w, position, dtype) {
  const round = { float32: Math.fround, bfloat16 }[dtype];
  let worst = 0;
  for (const rate of w) worst = Math.max(worst, Math.abs(round(round(position) * round(rate)) - position * rate));
  return worst;
}

/** How alike two patches with the same content are: the mean of cos(dy wy + dx wx) over all pairs. */
function alike(directions, dy, dx) {
  let sum = 0;
  for (const [wy, wx] of directions) sum += Math.cos(dy * wy + dx * wx);
  return sum / directions.length;
}

/** Axial RoPE: half of the pairs turn by the row, the others by the column. */
function axial(base, dim) {
  const one = Array.from({ length: dim / 4 }, (_, i) => base ** ((-4 * i) / dim));
  return [...one.map((w) => [w, 0]), ...one.map((w) => [0, w])];
}

/** Standard normal numbers from a seed (mulberry32 and Box-Muller). */
function normals(seed, count) {
  let a = seed >>> 0;
  const uniform = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(TURN * uniform()));
}

const maths = { rates, attentionFactor, turns, score, moments, arcs, bfloat16, angleError, alike, axial, normals };
