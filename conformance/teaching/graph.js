"use strict";
// Moving, zooming, choosing and finding in a drawn graph.
const $ = id => document.getElementById(id);
const nodes = JSON.parse($("facts").textContent);
const stage = $("stage"), drawing = $("drawing"), boxes = [...document.querySelectorAll(".node")];
const whole = drawing.viewBox.baseVal, home = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
const makers = new Map(), users = new Map();
nodes.forEach((node, place) => {
  for (const name of node.outputs) makers.set(name, place);
  for (const name of node.inputs) users.set(name, [...(users.get(name) || []), place]);
});
let view = { ...home }, chosen = -1, hits = [], hit = -1;

function show(next) {
  view = next;
  drawing.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

function zoom(factor, x = view.x + view.width / 2, y = view.y + view.height / 2) {
  const width = Math.min(Math.max(view.width * factor, 120), 4 * home.width + 4000), scale = width / view.width;
  show({ x: x - (x - view.x) * scale, y: y - (y - view.y) * scale, width, height: view.height * scale });
}

function place(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
  return [point.x, point.y];
}

function near(index, close) {
  const node = nodes[index], box = stage.getBoundingClientRect(), width = close ? Math.min(view.width, 900) : view.width;
  const height = width * box.height / box.width;
  show({ x: node.x + 82 - width / 2, y: node.y + 20 - height / 2, width, height });
}

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

function linked(names, target) {
  return names.map(name => {
    const index = target(name);
    if (index === undefined) return element("span", name + " ");
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", () => choose(index, true));
    return button;
  });
}

function choose(index, move) {
  boxes.forEach((box, each) => box.classList.toggle("chosen", each === index));
  chosen = index;
  const node = nodes[index], card = $("card"), list = element("dl");
  const rows = [["name", [node.name]], ["makes", [node.shape || "a scalar, or what is not known"]]];
  if (node.attributes) rows.push(["attributes", [node.attributes]]);
  if (node.weights.length) rows.push(["constants", node.weights.map(text => element("div", text))]);
  if (node.parameters) rows.push(["parameters", [node.parameters.toLocaleString("en")]]);
  if (node.macs) rows.push(["multiply–accumulates", [node.macs.toLocaleString("en")]]);
  if (node.inputs.length) rows.push(["computed from", linked(node.inputs, name => makers.get(name))]);
  const fed = [...new Set(node.outputs.flatMap(name => users.get(name) || []))];
  if (fed.length) rows.push(["feeds", linked(fed.map(each => nodes[each].name), name => fed.find(each => nodes[each].name === name))]);
  for (const [word, values] of rows) {
    const value = element("dd");
    value.append(...values);
    list.append(element("dt", word), value);
  }
  card.replaceChildren(element("h2", node.operation), list);
  if (move) near(index, true);
  location.replace("#" + encodeURIComponent(node.name));
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  hits = wanted ? nodes.flatMap((node, index) => (node.name + " " + node.operation).toLowerCase().includes(wanted) ? [index] : []) : [];
  boxes.forEach((box, index) => box.classList.toggle("found", hits.includes(index)));
  $("hits").textContent = wanted ? `${hits.length} found` : "";
  hit = -1;
}

function next() {
  if (!hits.length) return;
  hit = (hit + 1) % hits.length;
  choose(hits[hit], true);
}

let from = null;
stage.addEventListener("pointerdown", event => { from = { at: place(event), moved: false, node: event.target.closest(".node") }; stage.setPointerCapture(event.pointerId); });
stage.addEventListener("pointermove", event => {
  if (!from) return;
  const [x, y] = place(event), dx = from.at[0] - x, dy = from.at[1] - y;
  if (Math.hypot(dx, dy) > view.width / 300) from.moved = true;
  if (from.moved) show({ ...view, x: view.x + dx, y: view.y + dy });
});
stage.addEventListener("pointerup", () => {
  if (from && !from.moved && from.node) choose(Number(from.node.dataset.place), false);
  from = null;
});
stage.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(event.deltaY / 500), ...place(event)); }, { passive: false });
stage.addEventListener("keydown", event => {
  const step = { "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1.4), "0": () => show({ ...home }) }[event.key];
  if (step) { event.preventDefault(); step(); return; }
  const node = nodes[chosen];
  const up = node && node.inputs.map(name => makers.get(name)).find(each => each !== undefined);
  const down = node && node.outputs.flatMap(name => users.get(name) || [])[0];
  const row = node && nodes.flatMap((each, index) => each.y === node.y ? [index] : []).sort((a, b) => nodes[a].x - nodes[b].x);
  const to = { ArrowUp: up, ArrowDown: node ? down : 0, ArrowLeft: row && row[row.indexOf(chosen) - 1], ArrowRight: row && row[row.indexOf(chosen) + 1] };
  if (event.key in to) { event.preventDefault(); if (to[event.key] !== undefined) choose(to[event.key], true); }
});
$("find").addEventListener("input", event => find(event.target.value));
$("find").addEventListener("keydown", event => { if (event.key === "Enter") next(); });
$("next").addEventListener("click", next);
$("in").addEventListener("click", () => zoom(0.7));
$("out").addEventListener("click", () => zoom(1.4));
$("all").addEventListener("click", () => show({ ...home }));

document.documentElement.classList.add("js");
const named = nodes.findIndex(node => "#" + encodeURIComponent(node.name) === location.hash);
if (named >= 0) choose(named, true); else near(0, true);
document.documentElement.dataset.ready = "yes";
