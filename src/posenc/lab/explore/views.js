"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const whole = (x) => Math.round(x).toLocaleString("en");
const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 0.01 && Math.abs(x) < 1e4 ? String(Number(x.toPrecision(3))) : x.toExponential(1).replace("e+", "e"));
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

const RULES = { none: "none", linear: "linear", ntk: "NTK", yarn: "YaRN", llama3: "Llama 3" };
if (DATA.file) RULES.file = `as in ${DATA.file.name}`;
const DIMS = [...new Set([16, 32, 64, 80, 96, 128, 256, DATA.start.dim])].sort((a, b) => a - b);
const TWO_D = 64, GRID = 15;

let state, patch = { row: 7, column: 7 };
const asked = {};

function start() {
  state = { ...DATA.start, query: 40, key: 8, together: false, content: "same", dtype: "float32", base2d: 100, head: 0 };
  // The head may have channels that are not rotated; they keep their share when the rotated ones change.
  state.still = DATA.start.head_dim - DATA.start.dim;
}

// Controls: [id, from the slider to the state, back, in words]
const power = (b) => [(x) => b ** x, (x) => Math.log(x) / Math.log(b)];
const SLIDERS = {
  base: [...power(10), whole],
  trained: [(x) => Math.round(2 ** x), Math.log2, whole],
  tokens: [(x) => Math.round(2 ** x), Math.log2, whole],
  factor: [Number, Number, (x) => String(x)],
  query: [Number, Number, whole],
  key: [Number, Number, whole],
  base2d: [...power(10), (x) => short(x)],
};

function wire() {
  $("#dim").innerHTML = DIMS.map((d) => `<option>${d}</option>`).join("");
  $("#rule").innerHTML = Object.entries(RULES).map(([id, name]) => `<option value="${id}">${escaped(name)}</option>`).join("");
  $("#head").innerHTML = DATA.mixed.map((_, h) => `<option>${h}</option>`).join("");
  for (const [id, [from]] of Object.entries(SLIDERS))
    $("#" + id).addEventListener("input", (event) => {
      const value = from(Number(event.target.value));
      if (state.together && (id === "query" || id === "key")) {
        const other = id === "query" ? "key" : "query", step = value - state[id];
        state[other] = Math.min(512, Math.max(0, state[other] + step));
      }
      set({ [id]: value });
    });
  $("#dim").addEventListener("change", (event) => set({ dim: Number(event.target.value) }));
  $("#rule").addEventListener("change", (event) => set({ rule: event.target.value }));
  $("#head").addEventListener("change", (event) => set({ head: Number(event.target.value) }));
  $("#together").addEventListener("change", (event) => set({ together: event.target.checked }));
  for (const name of ["content", "dtype"])
    for (const radio of $$(`input[name=${name}]`)) radio.addEventListener("change", () => set({ [name]: radio.value }));
  $("#reset").addEventListener("click", () => { stop(); start(); patch = { row: 7, column: 7 }; draw(); });
  $("#play").addEventListener("click", () => (timer ? stop() : play()));
  wireOthers();
  for (const id of ["axial", "mixed"]) wireMap($("#" + id));
}

let timer = null;
function play() {
  $("#play").textContent = "■ Stop";
  $("#play").setAttribute("aria-pressed", "true");
  timer = setInterval(() => {
    state.query = state.query >= 512 ? 0 : state.query + 1;
    if (state.together) state.key = state.key >= 512 ? 0 : state.key + 1;
    showControls(); drawHands();
  }, 90);
}
function stop() {
  clearInterval(timer);
  timer = null;
  $("#play").textContent = "▶ Turn";
  $("#play").setAttribute("aria-pressed", "false");
}

function set(change) {
  Object.assign(state, change);
  draw();
}

function showControls() {
  for (const [id, [, to, words]] of Object.entries(SLIDERS)) {
    $("#" + id).value = to(state[id]);
    const said = words(state[id]);
    $(`[data-of=${id}]`).textContent = said;
    $("#" + id).setAttribute("aria-valuetext", said);
  }
  $("#dim").value = state.dim; $("#rule").value = state.rule; $("#head").value = state.head;
  $("#together").checked = state.together;
  $$("input[name=content]").forEach((r) => (r.checked = r.value === state.content));
  $$("input[name=dtype]").forEach((r) => (r.checked = r.value === state.dtype));
  // Rates of a file are what they are: the controls that would change them rest.
  const given = state.rule === "file";
  for (const id of ["base", "dim"]) $("#" + id).disabled = given;
  $("#factor").disabled = given || state.rule === "none";
}

/** The rates without a rule, those with it, and what multiplies cos and sin. */
function current() {
  const plain = state.rule === "file" ? Float64Array.from(DATA.file.plain) : rates({ ...state, rule: "none" });
  return { plain, w: rates(state, DATA.file), gain: attentionFactor(state, DATA.file) };
}

// Plots, as SVG in a box as wide as the page has room for, so that text keeps its size on a phone.

let W = 640;
const H = 300, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 40;
function measure() {
  const room = Math.round(Math.min(760, Math.max(300, $("main").clientWidth)));
  if (room === W) return false;
  W = room;
  return true;
}
function axes({ x, y, xlog, ylog, xlabel, ylabel }) {
  const fx = xlog ? Math.log10 : Number, fy = ylog ? Math.log10 : Number;
  const [x0, x1] = x.map(fx), [y0, y1] = y.map(fy);
  const px = (v) => LEFT + ((fx(v) - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const py = (v) => H - BOTTOM - ((fy(v) - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  let frame = "";
  for (const v of ticks(y, ylog)) frame += `<line class="grid" x1="${LEFT}" x2="${W - RIGHT}" y1="${py(v)}" y2="${py(v)}"/><text class="tick" x="${LEFT - 6}" y="${py(v) + 4}" text-anchor="end">${named(v)}</text>`;
  for (const v of ticks(x, xlog)) frame += `<text class="tick" x="${px(v)}" y="${H - BOTTOM + 16}" text-anchor="middle">${named(v)}</text>`;
  frame += `<line class="axis" x1="${LEFT}" x2="${W - RIGHT}" y1="${H - BOTTOM}" y2="${H - BOTTOM}"/>`;
  frame += `<text x="${(LEFT + W - RIGHT) / 2}" y="${H - 6}" text-anchor="middle">${xlabel}</text>`;
  frame += `<text transform="translate(13 ${(H - BOTTOM + TOP) / 2}) rotate(-90)" text-anchor="middle">${ylabel}</text>`;
  return { px, py, frame };
}
function ticks([low, high], log) {
  if (log) {
    const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9), step = Math.max(1, Math.ceil((to - from) / 6));
    return Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => 10 ** (from + i * step));
  }
  const raw = (high - low) / 5, size = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(i * step);
  return out;
}
const named = (v) => (Math.abs(v) >= 1e6 ? `${Number((v / 1e6).toPrecision(3))}M` : Math.abs(v) >= 1e4 ? `${Number((v / 1e3).toPrecision(3))}k` : short(v));
const path = (points) => "M" + points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
const line = (points, hue, extra = "") => `<path d="${path(points)}" fill="none" stroke="var(--${hue})" stroke-width="2" ${extra}/>`;
const svg = (content, w = W, h = H) => `<svg viewBox="0 0 ${w} ${h}" aria-hidden="true">${content}</svg>`;
function put(section, picture, caption) {
  $(`#${section} .plot`).innerHTML = svg(picture);
  $(`#${section} figcaption`).textContent = caption;
}

// 1. Hands

function drawHands() {
  const { plain, w } = current(), count = turns(plain, state.trained), box = $("#hands .dials");
  if (box.childElementCount !== w.length)
    box.innerHTML = Array.from(w, () => `<svg viewBox="-32 -32 64 64" aria-hidden="true"><title></title><circle class="face" r="28"/><line class="hk"/><line class="hq"/></svg>`).join("");
  [...box.children].forEach((dial, i) => {
    dial.classList.toggle("unfinished", count[i] < 1);
    $("title", dial).textContent = `pair ${i}: ${short(TURN / w[i])} tokens per turn`;
    for (const [hand, position, length] of [["hq", state.query, 25], ["hk", state.key, 19]]) {
      const angle = position * w[i], end = $("." + hand, dial);
      end.setAttribute("x2", (length * Math.sin(angle)).toFixed(2));
      end.setAttribute("y2", (-length * Math.cos(angle)).toFixed(2));
    }
  });
  const distance = state.query - state.key, mean = alike(Array.from(w, (r) => [r, 0]), distance, 0);
  $("#hands .reading").textContent = `Distance ${distance} tokens. Mean cosine of the angle between the hands: ${mean.toFixed(4)} (1 for the same position). Move both together: it does not change.`;
}

// 2. Wavelengths

function drawWavelengths() {
  const { plain, w } = current(), waves = Array.from(w, (r) => TURN / r), before = Array.from(plain, (r) => TURN / r);
  const finite = [...waves, ...before].filter(Number.isFinite), high = Math.max(...finite, state.trained * 2, state.tokens);
  const a = axes({ x: [-0.5, w.length - 0.5], y: [4, high * 1.3], ylog: true, xlabel: "pair of channels", ylabel: "tokens per turn" });
  const width = Math.max(2, ((W - LEFT - RIGHT) / w.length) * 0.7), floor = a.py(4);
  let picture = a.frame;
  waves.forEach((v, i) => {
    if (!Number.isFinite(v)) return;
    const hue = before[i] > state.trained ? "purple" : "blue", top = a.py(v);
    picture += `<rect x="${a.px(i) - width / 2}" y="${top}" width="${width}" height="${floor - top}" fill="var(--${hue})" opacity=".8"><title>pair ${i}: ${whole(v)} tokens per turn</title></rect>`;
    if (Math.abs(v / before[i] - 1) > 1e-9) picture += `<line x1="${a.px(i) - width / 2}" x2="${a.px(i) + width / 2}" y1="${a.py(before[i])}" y2="${a.py(before[i])}" stroke="var(--ink)" stroke-width="2"/>`;
  });
  for (const [value, name, hue] of [[state.trained, "trained length", "ink"], [state.tokens, "length to read", "vermilion"]])
    picture += `<line x1="${LEFT}" x2="${W - RIGHT}" y1="${a.py(value)}" y2="${a.py(value)}" stroke="var(--${hue})" stroke-dasharray="6 4"/><text x="${LEFT + 6}" y="${a.py(value) - 5}" style="fill:var(--${hue})">${name}</text>`;
  const slow = before.filter((v) => v > state.trained).length;
  put("wavelengths", picture, `${slow} of ${w.length} pairs (purple) never complete a turn within ${whole(state.trained)} tokens: they tell beginning from end.` + (state.rule === "none" ? "" : " Short marks: the wavelength before the rule."));
}

// 3. Score by distance

function drawDistance() {
  const { w, gain } = current(), same = state.content === "same", size = 2 * w.length + state.still;
  const longest = state.tokens, xs = [0, ...Array.from({ length: 399 }, (_, i) => longest ** ((i + 1) / 399))];
  const stats = xs.map((d) => moments(w, size, d, same, gain));
  const samples = [1, 2, 3].map((seed) => {
    const q = normals(seed, size), k = same ? q : normals(seed + 100, size);
    return xs.map((d) => score(w, q, k, d, gain));
  });
  const low = Math.min(...stats.map((s) => s.mean - 2 * s.deviation)), high = Math.max(...stats.map((s) => s.mean + 2 * s.deviation));
  const a = axes({ x: [0.8, longest], xlog: true, y: [low - 0.3, high + 0.3], xlabel: "distance in tokens", ylabel: "score q · k / √head_dim" });
  const at = (d) => Math.max(d, 0.8), upper = stats.map((s, i) => [a.px(at(xs[i])), a.py(s.mean + 2 * s.deviation)]);
  const lower = stats.map((s, i) => [a.px(at(xs[i])), a.py(s.mean - 2 * s.deviation)]).reverse();
  let picture = a.frame + `<path d="${path([...upper, ...lower])}Z" fill="var(--band)"/>`;
  samples.forEach((ys, n) => (picture += line(ys.map((y, i) => [a.px(at(xs[i])), a.py(y)]), ["green", "gold", "pink"][n], 'opacity=".8" style="stroke-width:1"')));
  picture += line(stats.map((s, i) => [a.px(at(xs[i])), a.py(s.mean)]), "blue", 'style="stroke-width:3"');
  const far = moments(w, size, state.trained, same, gain);
  put("distance", picture, `Blue: the exact mean over random vectors, band: two standard deviations; thin: three examples. At distance 0: ${stats[0].mean.toFixed(2)} ± ${stats[0].deviation.toFixed(2)}; at ${whole(state.trained)}: ${far.mean.toFixed(2)} ± ${far.deviation.toFixed(2)}.` + (same ? "" : " Independent vectors score 0 in the mean at every distance, with the same spread: RoPE by itself makes nothing decay."));
}

// 4. Unseen angles

function unseenOf(rule) {
  const s = { ...state, rule }, plain = current().plain, w = rates(s, DATA.file), list = arcs(plain, w, state.trained, state.tokens);
  return { list, count: list.filter((arc) => arc.unseen > 1e-9).length, largest: Math.max(...list.map((arc) => arc.unseen)), slowed: plain[0] / w[0], gain: attentionFactor(s, DATA.file) };
}
function drawUnseen() {
  const { list, count } = unseenOf(state.rule);
  const a = axes({ x: [-0.5, list.length - 0.5], y: [0, TURN], xlabel: "pair of channels", ylabel: "angle reached, radians" });
  const width = Math.max(2, ((W - LEFT - RIGHT) / list.length) * 0.7);
  let picture = a.frame;
  list.forEach((arc, i) => {
    const bar = (from, to, hue) => (to > from ? `<rect x="${a.px(i) - width / 2}" y="${a.py(to)}" width="${width}" height="${a.py(from) - a.py(to)}" fill="var(--${hue})" opacity=".85"/>` : "");
    picture += bar(0, arc.seen, "blue") + (arc.unseen ? bar(arc.seen, arc.reached, "vermilion") : "");
  });
  put("unseen", picture, `Blue: angles that distances within ${whole(state.trained)} tokens reach. Red: angles that only longer distances reach, up to ${whole(state.tokens)} tokens, with the rule ${RULES[state.rule]}: ${count} of ${list.length} pairs.`);
  // A file's rates have a base and a width of their own: no rule of the controls stands beside them.
  const rows = Object.keys(RULES).filter((rule) => (rule === "file") === (state.rule === "file"));
  $("#unseen tbody").innerHTML = rows.map((rule) => {
    const u = unseenOf(rule), name = escaped(RULES[rule]) + (rule === "none" || rule === "file" ? "" : `, ${state.factor}`);
    return `<tr${rule === state.rule ? ' class="current"' : ""}><th>${name}</th><td>${u.count} of ${u.list.length}</td><td>${u.largest.toFixed(2)} rad</td><td>${short(u.slowed)}×</td><td>${u.gain.toFixed(3)}</td></tr>`;
  }).join("");
}

// 5. Rounding

function worstNear(w, position, dtype) {
  let worst = 0; // the largest over odd neighbours, which a coarse format cannot hold
  for (let i = 0; i < 16; i++) worst = Math.max(worst, angleError(w, Math.round(position * (1 + i / 16)) | 1, dtype));
  return worst;
}
function drawRounding() {
  const { w } = current(), xs = Array.from({ length: 81 }, (_, i) => 2 ** (i / 4));
  const a = axes({ x: [1, 2 ** 20], xlog: true, y: [1e-8, 1e4], ylog: true, xlabel: "position in tokens", ylabel: "error of the angle, radians" });
  const curve = (dtype) => xs.map((x) => [a.px(x), a.py(Math.max(1e-8, worstNear(w, x, dtype)))]);
  let picture = a.frame + line([[a.px(1), a.py(6e-8)], [a.px(2 ** 20), a.py(6e-8)]], "green");
  for (const [dtype, hue] of [["float32", "blue"], ["bfloat16", "vermilion"]]) picture += line(curve(dtype), hue, state.dtype === dtype ? 'style="stroke-width:3.5"' : 'opacity=".45"');
  picture += `<line x1="${LEFT}" x2="${W - RIGHT}" y1="${a.py(Math.PI)}" y2="${a.py(Math.PI)}" stroke="var(--bad)" stroke-dasharray="6 4"/><text x="${LEFT + 6}" y="${a.py(Math.PI) - 5}" style="fill:var(--bad)">half a turn</text><text x="${W - RIGHT}" y="${a.py(6e-8) - 6}" text-anchor="end" style="fill:var(--green)">posenc: angles in float64, cos and sin rounded once</text>`;
  put("rounding", picture, `Position, rate and product rounded to ${state.dtype}: the largest error over all pairs near position 100,000 is ${short(worstNear(w, 1e5, state.dtype))} rad, near 1,000,000 ${short(worstNear(w, 1e6, state.dtype))} rad. The green line is the error of cos and sin in posenc.`);
}

// 6. Other encodings

let drawn = new Set(["RoPE", "ALiBi", "Sinusoidal"]), codes = Object.keys(DATA.codes)[0];
const HUE = ["green", "purple", "blue", "gold", "pink", "vermilion", "grey"];
function wireOthers() {
  const names = ["RoPE", ...Object.keys(DATA.curves)];
  $("#others .checks").innerHTML = names.map((name, i) => `<label class="check"><input type="checkbox" value="${escaped(name)}" ${drawn.has(name) ? "checked" : ""}><span class="swatch" style="background:var(--${HUE[i % HUE.length]})"></span>${escaped(name)}</label>`).join("");
  for (const box of $$("#others .checks input")) box.addEventListener("change", () => { box.checked ? drawn.add(box.value) : drawn.delete(box.value); drawOthers(); });
  $("#others figure .row").innerHTML = Object.keys(DATA.codes).map((name) => `<label class="check"><input type="radio" name="codes" value="${escaped(name)}" ${name === codes ? "checked" : ""}>${escaped(name)}</label>`).join("");
  for (const radio of $$("input[name=codes]")) radio.addEventListener("change", () => { codes = radio.value; drawOthers(); });
}
function drawOthers() {
  const { w } = current(), last = DATA.distances - 1, pairs = Array.from(w, (r) => [r, 0]);
  const all = { RoPE: { values: Array.from({ length: last + 1 }, (_, d) => alike(pairs, d, 0)) }, ...DATA.curves };
  const a = axes({ x: [0, last], y: [-1.05, 1.05], xlabel: "distance in tokens", ylabel: "scaled effect" });
  let picture = a.frame;
  Object.keys(all).forEach((name, i) => {
    if (!drawn.has(name)) return;
    const values = all[name].values, most = Math.max(...values.map(Math.abs)) || 1;
    picture += line(values.map((v, d) => [a.px(d), a.py(v / most)]), HUE[i % HUE.length]);
  });
  put("others", picture, Object.keys(all).filter((n) => drawn.has(n) && all[n].note).map((n) => `${n}: ${all[n].note}`).join(" "));
  const shown = DATA.codes[codes], rows = shown.values.length, columns = shown.values[0].length, most = Math.max(...shown.values.flat().map(Math.abs)) || 1;
  let cells = "";
  shown.values.forEach((row, y) => row.forEach((v, x) => (cells += `<rect x="${x * 16}" y="${y * 5}" width="16.3" height="5.3" fill="var(--${v < 0 ? "vermilion" : "blue"})" fill-opacity="${Math.abs(v / most).toFixed(2)}"/>`)));
  $("#others .codes").innerHTML = svg(cells, columns * 16, rows * 5);
  $$("#others figcaption")[1].textContent = `${shown.note} Positions 0 (top) to ${rows - 1}, channels 0 (left) to ${columns - 1}. Blue is above zero, red below.`;
}

// 7. Patches

const directions = { axial: () => axial(state.base2d, TWO_D), mixed: () => DATA.mixed[state.head].map(([y, x]) => [y, x]) };
function wireMap(map) {
  const at = (event) => {
    const box = map.getBoundingClientRect(), cell = (v, size) => Math.min(GRID - 1, Math.max(0, Math.floor((v / size) * GRID)));
    patch = { row: cell(event.clientY - box.top, box.height), column: cell(event.clientX - box.left, box.width) };
    drawPatches();
  };
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); at(event); });
  map.addEventListener("pointermove", (event) => event.buttons && at(event));
  map.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const move = (v, s) => Math.min(GRID - 1, Math.max(0, v + s));
    patch = { row: move(patch.row, step[0]), column: move(patch.column, step[1]) };
    drawPatches();
  });
}
function drawPatches() {
  const sentences = [];
  for (const id of ["axial", "mixed"]) {
    const dirs = directions[id]();
    let cells = "";
    for (let row = 0; row < GRID; row++)
      for (let column = 0; column < GRID; column++) {
        const v = alike(dirs, row - patch.row, column - patch.column);
        cells += `<rect x="${column * 20}" y="${row * 20}" width="20.2" height="20.2" fill="var(--${v < 0 ? "vermilion" : "blue"})" fill-opacity="${Math.abs(v).toFixed(3)}"/>`;
      }
    cells += `<rect x="${patch.column * 20 + 1}" y="${patch.row * 20 + 1}" width="18" height="18" fill="none" stroke="var(--ink)" stroke-width="2.5"/>`;
    $("#" + id).innerHTML = svg(`<rect width="300" height="300" fill="var(--raised)"/>${cells}`, 300, 300);
    sentences.push(`${id}: 3 to the right ${alike(dirs, 0, 3).toFixed(3)}, 3 down and 3 to the right ${alike(dirs, 3, 3).toFixed(3)}, 3 down and 3 to the left ${alike(dirs, 3, -3).toFixed(3)}`);
  }
  $("#patches .reading").textContent = `Patch ${patch.row}, ${patch.column} of ${GRID} × ${GRID}. ${sentences.join("; ")}.`;
}

// Questions, with answers computed from the controls

const QUESTIONS = {
  turns() {
    const { plain } = current(), count = turns(plain, state.trained).filter((t) => t >= 1).length;
    return { text: `How many of the ${plain.length} pairs complete at least one turn within ${whole(state.trained)} tokens?`, right: count, choices: numbersNear(count, plain.length), because: `Pair i turns ${whole(state.trained)} × rate / 2π times; the slowest ${plain.length - count} stay below one turn.` };
  },
  decay() {
    const { w, gain } = current(), size = 2 * w.length + state.still, near = moments(w, size, 1, false, gain).deviation, far = moments(w, size, state.trained, false, gain).deviation;
    return { text: "Query and key are independent random vectors. What happens to the size of their score as the distance grows?", right: "it stays", choices: ["it shrinks", "it stays", "it grows"], because: `The standard deviation is ${near.toFixed(3)} at distance 1 and ${far.toFixed(3)} at ${whole(state.trained)}: a rotation keeps norms, and turned noise is noise. Only vectors that are alike lose by distance.` };
  },
  unseen() {
    const u = unseenOf(state.rule);
    return { text: `The model reads ${whole(state.tokens)} tokens with the rule ${RULES[state.rule]}. How many of the ${u.list.length} pairs reach angles that training never saw?`, right: u.count, choices: numbersNear(u.count, u.list.length), because: `A pair that completed a turn in training has seen every angle; of the others, ${u.count} are turned further than before.` };
  },
  rounding() {
    const { w } = current(), error = worstNear(w, 1e6, state.dtype), right = nearest(error), steps = [1e-6, 1e-3, 0.1, 10, 1000];
    return { text: `Angles are computed in ${state.dtype}. How large is the error near position one million, in radians?`, right: `about ${right}`, choices: [...new Set([...steps, right])].sort((a, b) => a - b).map((v) => `about ${v}`), because: `It is ${short(error)} rad; half a turn is 3.14. A number format has steps: ${state.dtype} holds ${state.dtype === "float32" ? 24 : 8} binary digits.` };
  },
};
const nearest = (x) => (x === 0 ? 0 : Number((10 ** Math.round(Math.log10(x))).toPrecision(1)));
function numbersNear(right, most) {
  const picked = new Set([right]);
  for (const v of [most, Math.round(most / 2), 0, Math.round(most / 4), Math.round((3 * most) / 4)]) if (picked.size < 4) picked.add(v);
  return [...picked].sort((a, b) => a - b);
}
function drawQuestions() {
  for (const box of $$(".question")) {
    const id = box.dataset.question, asking = QUESTIONS[id](), key = JSON.stringify([asking.text, asking.right]);
    if (asked[id] === key) continue;
    asked[id] = key;
    box.innerHTML = `<p>${escaped(asking.text)}</p><div class="row">${asking.choices.map((c) => `<button type="button">${escaped(c)}</button>`).join("")}</div><p class="answer" aria-live="polite"></p>`;
    for (const button of $$("button", box))
      button.addEventListener("click", () => {
        const right = String(asking.right);
        for (const other of $$("button", box)) other.classList.toggle("right", other.textContent === right);
        button.classList.toggle("wrong", button.textContent !== right);
        $(".answer", box).textContent = `${button.textContent === right ? "Right" : `No: ${right}`}. ${asking.because}`;
      });
  }
}

function draw() {
  showControls();
  for (const view of [drawHands, drawWavelengths, drawDistance, drawUnseen, drawRounding, drawOthers, drawPatches, drawQuestions]) view();
}
// Within another page, one section is enough: explore.html?view=unseen
const only = document.getElementById(new URLSearchParams(location.search).get("view") ?? "");
if (only?.matches("section")) {
  for (const element of [$("header"), $("footer"), ...$$("main section")]) element.hidden = element !== only;
}
addEventListener("resize", () => measure() && draw());
start(); wire(); measure(); draw();
