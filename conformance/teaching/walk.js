"use strict";
const $ = id => document.getElementById(id);
const factsText = $("facts").textContent, facts = JSON.parse(factsText), payload = JSON.parse($("payload").textContent);
const state = { query: facts.start.query, row: facts.start.row, column: facts.start.column, frame: 0, interval: 1, digits: 9, head: -1, fault: 0, method: "optimal", track: facts.start.query, order: null, chapter: "" };

// Arrays.

const table = Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n >>> 0; });
function crc32(bytes) { let c = 0xffffffff; for (const b of bytes) c = table[(c ^ b) & 255] ^ (c >>> 8); return (c ^ 0xffffffff) >>> 0; }
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}
const arrays = {}, damaged = [];
for (const [name, entry] of Object.entries(payload.arrays)) {
  let bytes = new Uint8Array();
  try { bytes = Uint8Array.from(atob(entry.data), c => c.charCodeAt(0)); } catch { damaged.push(name); }
  if (crc32(bytes) !== entry.crc) damaged.push(name);
  const count = entry.shape.reduce((a, b) => a * b, 1), view = new DataView(bytes.buffer);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const last = entry.kind === "f4" ? 4 * i + 4 : entry.kind === "f2" ? 2 * i + 2 : entry.kind === "bits" ? (i >> 3) + 1 : i + 1;
    if (last > bytes.length) break;
    values[i] = entry.kind === "f4" ? view.getFloat32(4 * i, true) : entry.kind === "f2" ? half(view.getUint16(2 * i, true)) : entry.kind === "bits" ? (bytes[i >> 3] >> (7 - (i & 7))) & 1 : bytes[i];
  }
  arrays[name] = { values, shape: entry.shape, low: entry.low, step: entry.step };
}
if (crc32(new TextEncoder().encode(factsText)) !== payload.facts_crc) damaged.push("facts");

// The network's last step: M = K · X_mask.

const [dim, height, width] = arrays.features0.shape, queries = arrays.kernels0.shape[0], cells = height * width;
const keyframe = frame => frame - frame % state.interval;
const features = frame => arrays["features" + frame].values;
const kernels = frame => arrays["kernels" + frame].values;
function product(kernel, feature, channel, cell, query) { return kernel[query * dim + channel] * feature[channel * cells + cell]; }
function masks(from, frame) {
  const kernel = kernels(from), feature = features(frame), made = new Float64Array(queries * cells);
  for (let q = 0; q < queries; q++) for (let c = 0; c < dim; c++) {
    const k = kernel[q * dim + c];
    for (let p = 0; p < cells; p++) made[q * cells + p] += k * feature[c * cells + p];
  }
  return made;
}
const cache = new Map();
function masksOf(frame) {
  const key = keyframe(frame) + ":" + frame;
  if (!cache.has(key)) cache.set(key, masks(keyframe(frame), frame));
  return cache.get(key);
}
const sigmoid = x => 1 / (1 + Math.exp(-x));
const cut = Math.log(facts.threshold / (1 - facts.threshold));

function selfcheck() {
  const own = masks(0, 0), network = arrays.logits.values;
  const kernel = kernels(0), feature = features(0);
  let largest = 0, bound = 0, most = 0;
  for (let q = 0; q < queries; q++) for (let p = 0; p < cells; p++) {
    let size = 0;
    for (let c = 0; c < dim; c++) size += Math.abs(product(kernel, feature, c, p, q));
    const allowed = size * (2 ** -11 + 2 ** -22) + Math.abs(network[q * cells + p]) * 2 ** -23 + 1e-12;
    const off = Math.abs(own[q * cells + p] - network[q * cells + p]);
    if (!(off / allowed <= most)) { most = off / allowed; bound = allowed; }
    if (!(off <= largest)) largest = off;
  }
  let sums = true;
  for (let f = 1; f < facts.frames; f++) {
    const made = masks(f, f), total = made.reduce((a, b) => a + b, 0), size = made.reduce((a, b) => a + Math.abs(b), 0);
    sums = sums && Math.abs(total - facts.sums[f]) <= size * 2 ** -8;
  }
  const fine = most <= 1 && sums && damaged.length === 0;
  const said = `${(queries * cells).toLocaleString("en")} logits recomputed here, largest difference ${largest.toPrecision(3)}, at most ${(100 * most).toFixed(0)} % of what 16-bit storage allows`;
  $("selfcheck").className = fine ? "right" : "wrong";
  $("selfcheck").textContent = fine ? `✓ ${said}` : `✗ This page is damaged${damaged.length ? ` (${damaged.join(", ")})` : ""}: ${said}`;
}

// Drawing.

function shown(value) { return state.digits >= 17 ? String(value) : String(Number(value.toPrecision(state.digits))); }
function put(id, value) { $(id).textContent = shown(value); $(id).dataset.value = value; }
function element(name, attributes, text) {
  const made = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function paint(canvas, rows, columns, colour) {
  canvas.width = columns; canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let p = 0; p < rows * columns; p++) { const shade = colour(p); for (let k = 0; k < 3; k++) image.data[4 * p + k] = shade[k]; image.data[4 * p + 3] = 255; }
  context.putImageData(image, 0, 0);
}
const mix = (a, b, t) => a.map((x, i) => x + (b[i] - x) * Math.min(1, Math.max(0, t)));
const bright = t => t < .5 ? mix([0, 32, 76], [124, 123, 120], 2 * t) : mix([124, 123, 120], [255, 233, 69], 2 * t - 1);
const diverging = t => t < 0 ? mix([247, 247, 247], [179, 88, 6], -t) : mix([247, 247, 247], [0, 84, 150], t);
const luminance = colour => colour.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const colourOf = query => rgb(facts.colours[query % facts.colours.length]);
const pictures = facts.pictures.map(source => { const image = new Image(); image.src = source; return image; });
const [inputHeight, inputWidth] = facts.padded, [seenHeight, seenWidth] = facts.resized;

function drawPicture(canvas, frame, layers, cell) {
  const scale = Math.max(1, Math.round(640 / inputWidth));
  canvas.width = inputWidth * scale; canvas.height = inputHeight * scale;
  const context = canvas.getContext("2d");
  context.fillStyle = "#777"; context.fillRect(0, 0, canvas.width, canvas.height);
  if (pictures[frame].complete) context.drawImage(pictures[frame], 0, 0, seenWidth * scale, seenHeight * scale);
  const y = canvas.height / height, x = canvas.width / width;
  for (const [values, colour] of layers) {
    const inside = (r, c) => r >= 0 && c >= 0 && r < height && c < width && values(r * width + c);
    for (let p = 0; p < cells; p++) if (values(p)) {
      const r = Math.floor(p / width), c = p % width;
      context.fillStyle = `rgba(${colour.join(",")},.4)`; context.fillRect(c * x, r * y, Math.ceil(x), Math.ceil(y));
      for (const [shade, far] of [["#000", 0], ["#fff", 2]]) {
        context.fillStyle = shade;
        if (!inside(r - 1, c)) context.fillRect(c * x, r * y + far, x, 2);
        if (!inside(r + 1, c)) context.fillRect(c * x, (r + 1) * y - 2 - far, x, 2);
        if (!inside(r, c - 1)) context.fillRect(c * x + far, r * y, 2, y);
        if (!inside(r, c + 1)) context.fillRect((c + 1) * x - 2 - far, r * y, 2, y);
      }
    }
  }
  if (cell) for (const [line, colour] of [[4, "#000"], [2, "#fff"]]) {
    context.lineWidth = line; context.strokeStyle = colour;
    context.strokeRect(cell[1] * x - 1, cell[0] * y - 1, x + 2, y + 2);
  }
}
function bars(id, values) {
  const svg = $(id), most = Math.max(...values.map(Math.abs), 1e-9), step = 640 / values.length;
  svg.replaceChildren(element("svg:line", { x1: 0, x2: 640, y1: 45, y2: 45 }), ...values.map((v, i) =>
    element("svg:rect", { x: i * step + .5, width: Math.max(step - 1, .5), y: v < 0 ? 45 : 45 - 44 * v / most, height: 44 * Math.abs(v) / most, class: v < 0 ? "minus" : "plus" })));
}

// Chapters.

function drawMask() {
  const { query, row, column, frame } = state, from = keyframe(frame), cell = row * width + column;
  const kernel = kernels(from), feature = features(frame), made = masksOf(frame), at = query * cells;
  drawPicture($("picture"), frame, [[p => made[at + p] > cut, colourOf(query)]], [row, column]);
  const extent = Math.max(...Array.from({ length: cells }, (_, p) => Math.abs(made[at + p])), 1e-9);
  const inside = (r, c) => r >= 0 && c >= 0 && r < height && c < width && made[at + r * width + c] > cut;
  const zoom = 8;
  paint($("mask"), height * zoom, width * zoom, p => {
    const x = p % (width * zoom), y = Math.floor(p / (width * zoom)), r = Math.floor(y / zoom), c = Math.floor(x / zoom), here = inside(r, c);
    const edge = here && ((y % zoom === 0 && !inside(r - 1, c)) || (y % zoom === zoom - 1 && !inside(r + 1, c)) || (x % zoom === 0 && !inside(r, c - 1)) || (x % zoom === zoom - 1 && !inside(r, c + 1)));
    return edge ? [0, 0, 0] : diverging(made[at + r * width + c] / extent);
  });
  const products = Array.from({ length: dim }, (_, c) => [c, kernel[query * dim + c], feature[c * cells + cell], product(kernel, feature, c, cell, query)]);
  const sum = products.reduce((total, each) => total + each[3], 0), size = products.reduce((total, each) => total + Math.abs(each[3]), 0);
  bars("kernel", products.map(each => each[1])); bars("feature", products.map(each => each[2]));
  products.sort((a, b) => Math.abs(b[3]) - Math.abs(a[3]));
  const line = (head, ...numbers) => { const row = element("tr"); row.append(element("th", { scope: "row" }, head), ...numbers.map(v => element("td", { class: "n" }, v === "" ? "" : shown(v)))); return row; };
  const rest = products.slice(8).reduce((total, each) => total + each[3], 0);
  $("arithmetic").tBodies[0].replaceChildren(...products.slice(0, 8).map(each => line(...each)), line(`other ${dim - 8}`, "", "", rest), line("sum", "", "", sum));
  put("logit", sum); put("probability", sigmoid(sum)); put("bound", size * (2 ** -11 + 2 ** -22));
  $("decision").textContent = sum > cut ? "in the mask" : "not in the mask";
  if (frame === 0) put("network-logit", arrays.logits.values[at + cell]);
  else { $("network-logit").textContent = "its own number, which is kept here for frame 0 only"; delete $("network-logit").dataset.value; }
  for (const input of document.querySelectorAll("#queries input")) input.checked = Number(input.value) === query;
}

function pixels(frame) {
  const canvas = element("canvas"); canvas.width = seenWidth; canvas.height = seenHeight;
  const context = canvas.getContext("2d"); context.drawImage(pictures[frame], 0, 0);
  return context.getImageData(0, 0, seenWidth, seenHeight).data;
}
function drawPlanes() {
  const seen = pixels(state.frame), mean = [123.675, 116.28, 103.53], deviation = [58.395, 57.12, 57.375];
  for (let k = 0; k < 3; k++) paint($("plane-" + k), seenHeight, seenWidth, p => diverging((seen[4 * p + k] - mean[k]) / deviation[k] / 2.6));
  paint($("plane-bgr"), seenHeight, seenWidth, p => [seen[4 * p + 2], seen[4 * p + 1], seen[4 * p]]);
}

function drawMap(chapter) {
  const name = $("map-" + chapter).value, map = arrays[name];
  if (!map) return;
  const [channels, rows, columns] = map.shape, channel = Math.min(Math.max(0, Math.round(Number($("channel-" + chapter).value)) || 0), channels - 1);
  $("map-shape-" + chapter).textContent = `${channels} channels of ${rows}×${columns}, ${shown(map.low[channel])} to ${shown(map.low[channel] + 255 * map.step[channel])}`;
  $("channel-" + chapter).max = channels - 1;
  paint($("map-canvas-" + chapter), rows, columns, p => bright(map.values[channel * rows * columns + p] / 255));
  const high = height / rows, wide = width / columns, top = Math.floor(state.row / high) * high, left = Math.floor(state.column / wide) * wide;
  drawPicture($("map-picture-" + chapter), 0, [[p => { const r = Math.floor(p / width), c = p % width; return r >= top && r < top + high && c >= left && c < left + wide; }, [255, 233, 69]]], [state.row, state.column]);
}

function drawGrid(id, frame, weights, [rows, columns]) {
  const canvas = $(id); drawPicture(canvas, frame, []);
  const context = canvas.getContext("2d"), y = canvas.height / rows, x = canvas.width / columns, most = Math.max(...weights, 1e-9);
  weights.forEach((weight, p) => {
    const left = p % columns * x, top = Math.floor(p / columns) * y;
    context.fillStyle = `rgba(0,20,50,${.82 - .82 * weight / most})`; context.fillRect(left, top, x, y);
    context.strokeStyle = "#ffffff66"; context.strokeRect(left, top, x, y);
    if (rows * columns > 400) return;
    context.font = `bold ${Math.max(12, Math.min(y / 3, 22))}px system-ui`; context.textAlign = "center"; context.lineWidth = 4; context.strokeStyle = "#000"; context.fillStyle = "#fff";
    const words = 100 * weight < .05 ? "0" : (100 * weight).toFixed(1);
    context.strokeText(words, left + x / 2, top + y / 2 + 6); context.fillText(words, left + x / 2, top + y / 2 + 6); context.lineWidth = 1;
  });
}
function attention(kind, query) {
  const found = arrays[kind];
  if (!found) return null;
  const [heads, rows, tokens] = found.shape, chosen = state.head < 0 || state.head >= heads ? [...Array(heads).keys()] : [state.head];
  return Array.from({ length: tokens }, (_, t) => chosen.reduce((sum, h) => sum + found.values[(h * rows + query) * tokens + t], 0) / chosen.length);
}
function drawAttention() {
  const at = keyframe(state.frame);
  for (const [kind, id, grid] of [["global", "attention-global", facts.tokens.X6], ["local", "attention-local", facts.tokens.X_L]]) {
    const weights = attention(kind + at, state.query);
    if (weights && weights.length === grid[0] * grid[1]) drawGrid(id, at, weights, grid);
    if (kind === "global" && weights) $("attention-table").tBodies[0].replaceChildren(...Array.from({ length: grid[0] }, (_, r) => {
      const row = element("tr"); row.append(element("th", { scope: "row" }, `row ${r}`), ...weights.slice(r * grid[1], (r + 1) * grid[1]).map(w => element("td", { class: "n" }, (100 * w).toFixed(2)))); return row; }));
  }
}
function drawBackbone() {
  const found = arrays.backbone_attention, [rows, columns] = facts.tokens.X6;
  if (!found || found.shape[2] !== rows * columns) return;
  const token = Math.min(rows - 1, Math.floor(state.row * rows / height)) * columns + Math.min(columns - 1, Math.floor(state.column * columns / width));
  drawGrid("attention-backbone", 0, Array.from(found.values.slice(token * rows * columns, (token + 1) * rows * columns)), [rows, columns]);
}

function drawFrame() {
  const frame = state.frame, from = keyframe(frame), made = masksOf(frame);
  const speaking = facts.queries[from].map((each, q) => [each.score, q]).filter(([score]) => score > facts.speaking);
  drawPicture($("reused"), frame, speaking.map(([, q]) => [p => made[q * cells + p] > cut, colourOf(q)]));
  $("frame-kind").textContent = from === frame ? `Frame ${frame} is a keyframe: everything runs.` : `Frame ${frame} uses the kernels of frame ${from}: only the backbone and the mask decoder run.`;
  $("frame-number").textContent = frame;
  const most = facts.ages.length ? facts.ages[facts.ages.length - 1][0] : 1, x = 40 + 370 * (frame - from) / Math.max(1, most);
  $("age-line").setAttribute("x1", x); $("age-line").setAttribute("x2", x);
}

// Association.

function cosine(a, i, b, j) {
  let dot = 0, one = 0, two = 0;
  for (let c = 0; c < dim; c++) { const x = a[i * dim + c], y = b[j * dim + c]; dot += x * y; one += x * x; two += y * y; }
  return dot / Math.sqrt(one * two);
}
function assign(score) {  // Hungarian method by shortest augmenting paths; n tracks, n queries, largest total.
  const n = score.length, u = new Float64Array(n + 1), v = new Float64Array(n + 1), p = new Int32Array(n + 1), way = new Int32Array(n + 1);
  for (let i = 1; i <= n; i++) {
    p[0] = i; let j0 = 0; const least = new Float64Array(n + 1).fill(Infinity), used = new Uint8Array(n + 1);
    do {
      used[j0] = 1; let delta = Infinity, j1 = 0; const i0 = p[j0];
      for (let j = 1; j <= n; j++) if (!used[j]) {
        const reduced = -score[i0 - 1][j - 1] - u[i0] - v[j];
        if (reduced < least[j]) { least[j] = reduced; way[j] = j0; }
        if (least[j] < delta) { delta = least[j]; j1 = j; }
      }
      for (let j = 0; j <= n; j++) if (used[j]) { u[p[j]] += delta; v[j] -= delta; } else least[j] -= delta;
      j0 = j1;
    } while (p[j0]);
    do { const j1 = way[j0]; p[j0] = p[j1]; j0 = j1; } while (j0);
  }
  const found = new Array(n); for (let j = 1; j <= n; j++) found[p[j] - 1] = j - 1; return found;
}
function greedy(score) {
  const pairs = score.flatMap((row, i) => row.map((value, j) => [value, i, j])).sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2]);
  const found = new Array(score.length).fill(-1), taken = new Set();
  for (const [, i, j] of pairs) if (found[i] < 0 && !taken.has(j)) { found[i] = j; taken.add(j); }
  return found;
}
const totalOf = (score, found) => found.reduce((sum, j, i) => sum + score[i][j], 0);
function drawCosines() {
  const before = keyframe(state.frame), next = Math.min(before + state.interval, facts.frames - 1);
  const order = state.order || [...Array(queries).keys()], old = kernels(before), fresh = kernels(next);
  const score = Array.from({ length: queries }, (_, i) => order.map(j => cosine(old, i, fresh, j)));
  const found = state.method === "greedy" ? greedy(score) : assign(score), total = totalOf(score, found);
  const track = Math.min(state.track, queries - 1), barred = score.map(row => row.slice()); barred[track][found[track]] = -1e6;
  $("between").textContent = `Frame ${before} to frame ${next}${state.order ? ", the new queries shuffled" : ""}`;
  put("total", total); put("cosine", score[track][found[track]]); put("margin", total - totalOf(score, assign(barred)));
  $("track-name").textContent = track; $("successor").textContent = found[track];
  const few = Math.min(queries, 20), head = element("tr"); head.append(element("th", { scope: "col" }, "track"), ...Array.from({ length: few }, (_, j) => element("th", { scope: "col" }, j)));
  $("cosines").replaceChildren(head, ...score.slice(0, few).map((row, i) => {
    const line = element("tr"); line.append(element("th", { scope: "row" }, i), ...row.slice(0, few).map((value, j) => {
      const ground = diverging(value).map(Math.round), cell = element("td", { class: "n" + (found[i] === j ? " pair" : ""), style: `background:rgb(${ground});color:${luminance(ground) > .179 ? "#000" : "#fff"}` }, (found[i] === j ? "●" : "") + value.toFixed(2));
      cell.addEventListener("click", () => { state.track = i; $("track").value = i; drawCosines(); }); return cell; }));
    return line; }));
}

function drawFault() {
  const fault = facts.wrong[state.fault], wrong = arrays["wrong" + state.fault].values, right = arrays.logits.values, at = state.query * cells;
  if (!fault) return;
  $("fault-seen").textContent = `${fault.happens} ${fault.seen}; the largest error of a logit is ${shown(fault.error)}. Made in ${fault.step}. Try the judge on it: ${fault.command}`;
  drawPicture($("fault-right"), 0, [[p => right[at + p] > cut, colourOf(state.query)]]);
  drawPicture($("fault-mask"), 0, [[p => wrong[at + p], colourOf(state.query)]]);
  drawPicture($("fault-difference"), 0, [[p => { for (let q = 0; q < queries; q++) if (facts.queries[0][q].score > facts.speaking && (right[q * cells + p] > cut) !== (wrong[q * cells + p] > 0)) return true; return false; }, [213, 94, 0]]]);
  for (const [id, name] of [["fault-before", "before"], ["fault-step", "after"]]) { const map = arrays[name + state.fault]; paint($(id), map.shape[0], map.shape[1], p => bright(map.values[p] / 255)); }
}

// Exercises.

function check(chapter) {
  const given = Number($("answer-" + chapter).value.trim().replace(",", ".")), { answer, hint, wrong } = facts.exercises[chapter], verdict = $("verdict-" + chapter);
  const near = value => Math.abs(given - value) <= 2e-3 * Math.abs(value);
  const mistake = Object.entries(wrong).find(([, value]) => near(value) || given === value);
  const empty = $("answer-" + chapter).value.trim() === "" || Number.isNaN(given);
  verdict.className = !empty && near(answer) ? "right" : "wrong";
  verdict.textContent = empty ? "Give a number." : near(answer) ? "✓ Right." : mistake ? `✗ This is a known mistake: ${mistake[0]}.` : `✗ Not yet. ${hint}`;
}

// State and controls.

function clamp() {
  const whole = (value, most) => Math.min(Math.max(Math.round(Number(value)) || 0, 0), most);
  state.query = whole(state.query, queries - 1); state.track = whole(state.track, queries - 1);
  state.row = whole(state.row, height - 1); state.column = whole(state.column, width - 1); state.frame = whole(state.frame, facts.frames - 1);
}
function draw() {
  clamp();
  for (const name of ["query", "row", "column", "frame", "track"]) $(name).value = state[name];
  drawMask(); drawAttention(); drawBackbone(); drawFrame(); drawCosines(); drawMap(2); drawMap(4);
  if (facts.mistakes_shown) drawFault();
  const hash = `#${state.chapter}/q${state.query}/f${state.frame}/r${state.row}/c${state.column}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}
function readHash() {
  const [chapter, ...parts] = location.hash.slice(1).split("/");
  const keys = { q: "query", f: "frame", r: "row", c: "column" };
  for (const part of parts) if (keys[part[0]]) state[keys[part[0]]] = part.slice(1);
  state.chapter = /^\d+$/.test(chapter) && $(chapter) ? chapter : "";
  draw();
  if (state.chapter) $(state.chapter).scrollIntoView();
}
function controls() {
  for (const name of ["query", "row", "column", "frame", "track"]) $(name).addEventListener("input", event => { if (event.target.value !== "") { state[name] = event.target.value; draw(); } });
  for (const name of ["interval", "digits", "head", "fault"]) $(name) && $(name).addEventListener("change", event => { state[name] = Number(event.target.value); state.order = null; draw(); });
  $("method").addEventListener("change", event => { state.method = event.target.value; drawCosines(); });
  $("shuffle").addEventListener("click", () => { state.order = Array.from({ length: queries }, (_, i) => i).sort((a, b) => (a * 7919 + 13) % 104729 % queries - (b * 7919 + 13) % 104729 % queries || b - a); drawCosines(); });
  $("query").max = $("track").max = queries - 1; $("row").max = height - 1; $("column").max = width - 1;
  $("picture-button").addEventListener("click", event => {
    if (!event.detail) return;
    const box = $("picture").getBoundingClientRect();
    state.row = Math.floor((event.clientY - box.top) / box.height * height); state.column = Math.floor((event.clientX - box.left) / box.width * width); draw();
  });
  $("picture-button").addEventListener("keydown", event => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) { event.preventDefault(); state.row += move[0]; state.column += move[1]; draw(); }
  });
  $("queries").append(...facts.queries[0].map((each, q) => {
    const label = element("label"), input = element("input", { type: "radio", name: "query", value: q, id: "query-" + q });
    input.addEventListener("change", () => { state.query = q; draw(); });
    label.append(input, " ", element("span", { class: "swatch", style: `background:${facts.colours[q % facts.colours.length]}` }), ` ${q} ${each.label} ${each.score.toFixed(2)}`);
    return label;
  }));
  for (const chapter of [2, 4]) {
    const names = Object.keys(arrays).filter(name => arrays[name].low && (chapter === 2) === name.startsWith("X"));
    $("map-" + chapter).append(...names.map(name => element("option", {}, name)));
    for (const id of ["map-", "channel-"]) $(id + chapter).addEventListener("input", () => drawMap(chapter));
  }
  const heads = (arrays.global0 || arrays.local0 || { shape: [0] }).shape[0];
  $("head").append(...Array.from({ length: heads }, (_, h) => element("option", { value: h }, `head ${h}`)));
  facts.exercises.forEach((_, chapter) => {
    $("check-" + chapter).addEventListener("click", () => check(chapter));
    $("answer-" + chapter).addEventListener("keydown", event => { if (event.key === "Enter") check(chapter); });
  });
  window.addEventListener("hashchange", readHash);
}

document.documentElement.classList.add("js");
controls();
selfcheck();
Promise.all(pictures.map(image => image.decode().catch(() => 0))).then(() => { drawPlanes(); readHash(); document.documentElement.dataset.ready = "yes"; });
