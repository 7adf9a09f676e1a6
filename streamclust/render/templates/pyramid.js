"use strict";
const view = JSON.parse(document.getElementById("view").textContent);
const TILE = 256, map = document.getElementById("map"), $ = id => document.getElementById(id);
const state = { x: 0.5, y: 0.5, zoom: 0, layer: view.layers[0].id, under: true };
const layerOf = id => view.layers.find(layer => layer.id === id) || view.layers[0];
const el = (tag, props = {}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const count = n => n.toLocaleString("en-US");
const MOST = view.zoom + 4;

// A stack holds the tiles of one folder. Tiles of the level before stay until those of the next have come.
class Stack {
  constructor(below) { this.box = el("div", { className: "stack" + (below ? " under" : "") }); this.tiles = new Map(); this.gone = new Set(); map.append(this.box); }
  show(layer) {
    if (this.folder === (layer && layer.folder)) return;
    this.box.replaceChildren(); this.tiles.clear(); this.gone.clear(); this.layer = layer; this.folder = layer && layer.folder;
  }
  missing(z, x, y) {  // a tile without rows has no file, nor has any tile below it
    for (; z >= 0; z--, x >>= 1, y >>= 1) if (this.gone.has(`${z}/${x}/${y}`)) return true;
    return false;
  }
  draw() {
    if (!this.layer) return;
    const w = map.clientWidth, h = map.clientHeight, level = clamp(Math.round(state.zoom + Math.log2(devicePixelRatio || 1)), 0, this.layer.zoom);
    const size = TILE * 2 ** (state.zoom - level), n = 2 ** level, left = w / 2 - state.x * n * size, top = h / 2 - state.y * n * size;
    const wanted = new Set();
    for (let y = Math.max(0, Math.floor(-top / size)); y <= Math.min(n - 1, Math.floor((h - top) / size)); y++)
      for (let x = Math.max(0, Math.floor(-left / size)); x <= Math.min(n - 1, Math.floor((w - left) / size)); x++) {
        const key = `${level}/${x}/${y}`;
        if (this.missing(level, x, y)) continue;
        wanted.add(key);
        if (!this.tiles.has(key)) this.add(key, level, x, y);
      }
    const waiting = [...wanted].some(key => !this.tiles.get(key).ready);
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key) && (tile.level === level || !waiting)) { tile.img.remove(); this.tiles.delete(key); continue; }
      const s = TILE * 2 ** (state.zoom - tile.level), m = 2 ** tile.level, x = w / 2 + (tile.x / m - state.x) * m * s, y = h / 2 + (tile.y / m - state.y) * m * s;
      const x0 = Math.round(x), y0 = Math.round(y);  // whole pixels: no seams
      tile.img.style.cssText = `left:${x0}px;top:${y0}px;width:${Math.round(x + s) - x0}px;height:${Math.round(y + s) - y0}px;` + (tile.level !== level && wanted.size ? (waiting ? "" : "visibility:hidden") : "");
      tile.img.className = (tile.ready ? "ready" : "") + (s > 2.5 * TILE ? " large" : "");
      if (tile.level === level) tile.img.style.visibility = waiting && [...this.tiles.values()].some(t => t.level !== level && t.ready) ? "hidden" : "";
    }
  }
  add(key, level, x, y) {
    const img = el("img", { alt: "", draggable: false }), tile = { img, level, x, y, ready: false };
    img.onload = () => { tile.ready = true; later(); };
    img.onerror = () => { this.gone.add(key); img.remove(); this.tiles.delete(key); later(); };
    this.tiles.set(key, tile); this.box.append(img);
    img.src = `${this.folder}/${key}.png?${view.version}`;
  }
}

const under = new Stack(true), upper = new Stack(false), badges = el("div", { className: "stack" });
map.append(badges);
let waiting = false;
const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } };

function draw() {
  const layer = layerOf(state.layer);
  under.show(layer.under && state.under ? view.layers[0] : null);
  upper.show(layer); under.draw(); upper.draw(); drawBadges(layer); drawBar(layer);
  const at = { x: view.frame.left + state.x * view.frame.side, y: view.frame.top - state.y * view.frame.side };
  where.textContent = `x ${at.x.toFixed(2)}  y ${at.y.toFixed(2)}  ·  level ${state.zoom.toFixed(1)}` + (state.zoom > layer.zoom + 0.5 ? ` (drawn to ${layer.zoom})` : "");
  history.replaceState(null, "", `#${state.layer}/${state.zoom.toFixed(2)}/${state.x.toFixed(5)}/${state.y.toFixed(5)}`);
}

function drawBadges(layer) {
  badges.replaceChildren();
  const one = view.clusters.find(c => c.layer === layer.id);
  for (const c of layer.kind === "clusters" ? view.clusters : one ? [one] : []) if (c.peak) {
    const s = TILE * 2 ** state.zoom, badge = el("div", { className: "badge", textContent: state.zoom > 2.4 && c.name ? c.name : c.id });
    badge.style.cssText = `color:${c.colour};left:${map.clientWidth / 2 + (c.peak[0] - state.x) * s}px;top:${map.clientHeight / 2 + (c.peak[1] - state.y) * s}px`;
    badges.append(badge);
  }
}

let shownBar = "";
function drawBar(layer) {
  const level = clamp(Math.round(state.zoom + Math.log2(devicePixelRatio || 1)), 0, layer.zoom), key = `${layer.id}/${level}`;
  if (key === shownBar) return;
  shownBar = key;
  const legend = $("legend");
  legend.replaceChildren(el("h2", { textContent: layer.heading }));
  if (layer.stops) {
    legend.append(el("div", { className: "bar", style: `background:linear-gradient(90deg,${layer.stops.join(",")})` }));
    const ticks = el("div", { className: "ticks" });
    let last = -1;
    for (const [text, at] of layer.ticks[level] || []) if (at - last > 0.14 && at > 0.02 && at < 0.97) { ticks.append(el("span", { textContent: text, style: `left:${100 * at}%` })); last = at; }
    legend.append(ticks);
  }
  if (layer.note) legend.append(el("p", { textContent: layer.note }));
  if (layer.kind === "clusters" || layer.kind === "cluster") for (const c of view.clusters) {
    const row = el("div", { className: "row" + (c.layer ? " link" : "") + (c.layer === layer.id ? " on" : ""), title: c.layer ? "Show it alone" : "" },
      el("span", { className: "chip", style: `background:${c.colour}` }), el("span", { className: "name", textContent: c.name ? `${c.id} ${c.name}` : `cluster ${c.id}` }), el("span", { className: "num", textContent: c.share }));
    if (c.layer) row.onclick = () => select(c.layer === layer.id ? "clusters" : c.layer);
    legend.append(row);
  }
  if (view.more && layer.kind === "clusters") legend.append(el("p", { textContent: view.more }));
}

function select(id) {
  state.layer = layerOf(id).id;
  const layer = layerOf(id), shown = layer.kind === "cluster" ? "clusters" : layer.id;
  for (const input of document.querySelectorAll("input[type=radio]")) input.checked = input.value === shown;
  $("under").parentElement.style.opacity = layer.under ? 1 : 0.4;
  later();
}

function zoomBy(steps, px = map.clientWidth / 2, py = map.clientHeight / 2) {
  const before = TILE * 2 ** state.zoom;
  state.zoom = clamp(state.zoom + steps, lowest(), MOST);
  const after = TILE * 2 ** state.zoom, dx = px - map.clientWidth / 2, dy = py - map.clientHeight / 2;
  move(dx / before - dx / after, dy / before - dy / after);
}
function move(dx, dy) { state.x = clamp(state.x + dx, 0, 1); state.y = clamp(state.y + dy, 0, 1); later(); }
const room = () => map.clientWidth > 720 ? 336 : 0;  // what the panel covers
const lowest = () => Math.min(0, Math.log2(Math.min(map.clientWidth, map.clientHeight) / TILE) - 0.5);
function home() {  // where nearly all rows are
  const [x0, y0, x1, y1] = view.home;
  state.zoom = Math.log2(Math.min((map.clientWidth - room()) / (x1 - x0), map.clientHeight / (y1 - y0)) / TILE) - 0.1;
  state.x = (x0 + x1) / 2 + room() / 2 / (TILE * 2 ** state.zoom); state.y = (y0 + y1) / 2; later();
}

const fingers = new Map();
map.onpointerdown = e => { map.setPointerCapture(e.pointerId); fingers.set(e.pointerId, e); map.classList.add("moving"); };
map.onpointerup = map.onpointercancel = e => { fingers.delete(e.pointerId); map.classList.remove("moving"); };
map.onpointermove = e => {
  const last = fingers.get(e.pointerId);
  if (!last) return;
  const s = TILE * 2 ** state.zoom;
  if (fingers.size === 2) {
    const other = [...fingers.values()].find(f => f.pointerId !== e.pointerId), apart = f => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY);
    zoomBy(Math.log2(apart(e) / apart(last)), (e.clientX + other.clientX) / 2, (e.clientY + other.clientY) / 2);
  } else move((last.clientX - e.clientX) / s, (last.clientY - e.clientY) / s);
  fingers.set(e.pointerId, e);
};
map.addEventListener("wheel", e => { e.preventDefault(); zoomBy(clamp(-e.deltaY * (e.deltaMode ? 0.05 : 0.002), -1, 1), e.clientX, e.clientY); }, { passive: false });
map.ondblclick = e => zoomBy(e.shiftKey ? -1 : 1, e.clientX, e.clientY);
addEventListener("keydown", e => {
  const s = 90 / (TILE * 2 ** state.zoom), keys = { "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(-0.5), 0: home,
    ArrowLeft: () => move(-s, 0), ArrowRight: () => move(s, 0), ArrowUp: () => move(0, -s), ArrowDown: () => move(0, s) };
  if (keys[e.key] && e.target.tagName !== "INPUT") { e.preventDefault(); keys[e.key](); }
});
addEventListener("resize", later);
$("in").onclick = () => zoomBy(1); $("out").onclick = () => zoomBy(-1); $("home").onclick = home;

const where = $("where");
$("title").textContent = view.title; $("subtitle").textContent = view.subtitle;
$("layers").append(el("h2", { textContent: "Layers" }));
for (const layer of view.layers) if (layer.kind !== "cluster") {
  const input = el("input", { type: "radio", name: "layer", value: layer.id, onchange: () => select(layer.id) });
  $("layers").append(el("label", {}, input, el("span", { className: "name", textContent: layer.name, title: layer.name }), el("span", { className: "num", textContent: count(layer.rows) })));
}
$("layers").append(el("label", {}, el("input", { type: "checkbox", id: "under", checked: true, onchange: e => { state.under = e.target.checked; later(); } }), el("span", { className: "name", textContent: "all rows in grey beneath" })));
for (const note of view.notes) $("notes").append(el("p", { textContent: note }));
if (view.images.length) {
  const p = el("p", { textContent: "Large images: " });
  view.images.forEach((image, i) => p.append(i ? ", " : "", el("a", { href: image, textContent: image })));
  $("notes").append(p);
}
const parts = decodeURIComponent(location.hash.slice(1)).split("/"), at = parts.length > 3 ? parts.splice(-3).map(Number) : [];
home();
if (at.length && at.every(isFinite)) Object.assign(state, { zoom: clamp(at[0], lowest(), MOST), x: at[1], y: at[2] });
select(parts.join("/"));
