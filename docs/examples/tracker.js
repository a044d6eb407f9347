// A tracker for `mobileinst check-tracker --command 'node docs/examples/tracker.js'`.
// One JSON object per line in, one per line out; the protocol is docs/check-tracker.md.
"use strict";

const RESOLUTION = 2 ** 40; // Cosines become integers: sums and ties are exact.

function unit(kernel) {
  const largest = Math.max(...kernel.map(Math.abs));
  if (!kernel.every(Number.isFinite)) throw new Error("a kernel is not finite");
  if (largest === 0) return kernel; // Its cosine with everything is 0.
  const scaled = kernel.map((value) => value / largest);
  const norm = Math.sqrt(scaled.reduce((sum, value) => sum + value * value, 0));
  return scaled.map((value) => value / norm);
}

function requireLength(kernels, dimension) {
  if (kernels.some((kernel) => kernel.length !== dimension)) throw new Error("kernels differ in length");
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

// The square cost matrix, padded with zeros: slots and queries that stand for "nothing".
function costs(previous, current) {
  const [rows, columns] = [previous.map(unit), current.map(unit)];
  const size = Math.max(rows.length, columns.length);
  return Array.from({ length: size }, (_, i) =>
    Array.from({ length: size }, (_, j) =>
      i < rows.length && j < columns.length ? -Math.round(dot(rows[i], columns[j]) * RESOLUTION) : 0));
}

// Shortest augmenting paths with potentials (Kuhn 1955, Munkres 1957): owner[column] = row, and the potentials.
function hungarian(cost) {
  const n = cost.length;
  const u = new Array(n + 1).fill(0), v = new Array(n + 1).fill(0), owner = new Array(n + 1).fill(n);
  for (let row = 0; row < n; row++) {
    const least = new Array(n + 1).fill(Infinity), used = new Array(n + 1).fill(false);
    const from = new Array(n + 1).fill(n);
    let column = n;
    owner[n] = row;
    do {
      used[column] = true;
      const at = owner[column];
      let delta = Infinity, next = n;
      for (let j = 0; j < n; j++) {
        if (used[j]) continue;
        const reduced = cost[at][j] - u[at] - v[j];
        if (reduced < least[j]) [least[j], from[j]] = [reduced, column];
        if (least[j] < delta) [delta, next] = [least[j], j];
      }
      for (let j = 0; j <= n; j++) {
        if (used[j]) { u[owner[j]] += delta; v[j] -= delta; } else least[j] -= delta;
      }
      column = next;
    } while (owner[column] !== n);
    do { owner[column] = owner[from[column]]; column = from[column]; } while (column !== n);
  }
  return { owner: owner.slice(0, n), tight: (i, j) => cost[i][j] - u[i] - v[j] === 0 };
}

// Of all optimal assignments the first in dictionary order: fix slot after slot at its lowest possible query.
function firstOfTies(owner, tight, slots, queries) {
  const n = owner.length, fixed = new Array(n).fill(false);
  function rematch(row, seen) {
    for (let j = 0; j < n; j++) {
      if (fixed[j] || seen[j] || !tight(row, j)) continue;
      seen[j] = true;
      if (owner[j] === -1 || rematch(owner[j], seen)) { owner[j] = row; return true; }
    }
    return false;
  }
  for (let slot = 0; slot < slots; slot++) {
    const now = owner.indexOf(slot);
    for (let query = 0; query < Math.min(now, queries); query++) {
      if (fixed[query] || !tight(slot, query)) continue;
      const before = owner.slice();
      const displaced = owner[query];
      owner[now] = -1;
      owner[query] = slot;
      fixed[query] = true;
      if (rematch(displaced, new Array(n).fill(false))) break;
      fixed[query] = false;
      before.forEach((value, j) => { owner[j] = value; });
    }
    fixed[owner.indexOf(slot)] = true;
  }
  return owner;
}

function associate(previous, current) {
  requireLength([...previous, ...current], (previous[0] ?? current[0] ?? []).length);
  const { owner, tight } = hungarian(costs(previous, current));
  firstOfTies(owner, tight, previous.length, current.length);
  const permutation = new Array(previous.length).fill(-1);
  owner.forEach((row, j) => { if (row < previous.length && j < current.length) permutation[row] = j; });
  return permutation;
}

// logits[n][y][x] = Σ over channels of kernels[n][c] · features[c][y][x].
const maskLogits = (kernels, features) => kernels.map((kernel) =>
  features[0].map((line, y) => line.map((_, x) => dot(kernel, features.map((plane) => plane[y][x])))));

// A keyframe: the query that continues each slot. One network processes the whole video.
function nextOrder({ frame, kernels }, now) {
  if (!Array.isArray(now.kernels)) throw new Error("a keyframe needs kernels");
  requireLength(now.kernels, now.mask_features.length);
  if (frame === 0) {
    now.kernels.forEach(unit); // Refuses what is not finite.
    return now.kernels.map((_, i) => i);
  }
  if (now.kernels.length !== kernels.length) throw new Error("the number of kernels changes in the video");
  return associate(kernels, now.kernels);
}

function video({ frames, keyframe_interval: interval, state }) {
  let { frame, order, kernels } = state ?? { frame: 0, order: [], kernels: [] };
  const answers = frames.map((now) => {
    const keyframe = frame % interval === 0;
    if (keyframe) {
      order = nextOrder({ frame, kernels }, now);
      kernels = order.map((query) => now.kernels[query]);
    }
    frame += 1;
    return { keyframe, order, masks: maskLogits(kernels, now.mask_features) };
  });
  return { frames: answers, state: { frame, order, kernels } };
}

const MASK = 0.45; // Probability above which a pixel belongs to a mask.
const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// The mean of the probabilities that belong to the mask, 0 if none does.
function maskness(logits) {
  const above = logits.flat().map(sigmoid).filter((value) => value > MASK);
  return above.reduce((sum, value) => sum + value, 0) / (above.length + 1e-6);
}

// COCO's run lengths: down the columns, beginning with the pixels outside; null for an empty mask.
function runLengths(logits) {
  const [height, width] = [logits.length, logits[0].length];
  const counts = [0];
  let inside = false;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (sigmoid(logits[y][x]) > MASK !== inside) { inside = !inside; counts.push(0); }
      counts[counts.length - 1] += 1;
    }
  }
  return counts.length === 1 ? null : { size: [height, width], counts };
}

function requireScores({ kernels, class_logits: logits, objectness }) {
  for (const scores of [logits, objectness]) {
    if (scores.length !== kernels.length) throw new Error("each kernel needs its scores");
    if (!scores.flat().every(Number.isFinite)) throw new Error("a score is not finite");
  }
}

// A slot without a track gives birth to one at or above `birth`; a track below `death` ends.
function liveOn(slots, state, { birth, death }) {
  slots.forEach((slot) => {
    const best = Math.max(...slot.scores);
    if (slot.identity === null && best >= birth) slot.identity = state.born++;
    else if (slot.identity !== null && best < death) slot.identity = null;
  });
}

function online(request) {
  const { frames, keyframe_interval: interval, rescore } = request;
  const state = structuredClone(request.state ?? { frame: 0, keyframes: 0, born: 0, slots: [] });
  const answers = frames.map((now) => {
    if (state.frame % interval === 0) {
      const order = nextOrder({ frame: state.frame, kernels: state.slots.map((slot) => slot.kernel) }, now);
      const before = state.slots;
      requireScores(now);
      state.slots = order.map((query, i) => {
        const kernel = now.kernels[query];
        const weight = rescore ? maskness(maskLogits([kernel], now.mask_features)[0]) : 1;
        const objectness = sigmoid(now.objectness[query][0]);
        const scores = now.class_logits[query].map((logit) => weight * Math.sqrt(sigmoid(logit) * objectness));
        const sums = scores.map((score, label) => score + (before[i]?.sums[label] ?? 0));
        return { kernel, scores, sums, identity: before[i]?.identity ?? null };
      });
      state.keyframes += 1;
      liveOn(state.slots, state, request);
    }
    state.frame += 1;
    const logits = maskLogits(state.slots.map((slot) => slot.kernel), now.mask_features);
    const tracks = state.slots.map(({ identity, sums }, i) => {
      const best = Math.max(...sums);
      return { identity, label: sums.indexOf(best), score: best / state.keyframes, segmentation: runLengths(logits[i]) };
    });
    const living = tracks.filter((track) => track.identity !== null);
    return { tracks: living.sort((one, other) => one.identity - other.identity) };
  });
  return { frames: answers, state };
}

function answer(request) {
  if (request.op === "associate") return { permutation: associate(request.previous, request.current) };
  if (request.op === "video") return video(request);
  if (request.op === "online") return online(request);
  return { unsupported: `op ${request.op}` };
}

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  let reply;
  try { reply = answer(JSON.parse(line)); } catch (error) { reply = { error: error.message }; }
  process.stdout.write(JSON.stringify(reply) + "\n");
});
