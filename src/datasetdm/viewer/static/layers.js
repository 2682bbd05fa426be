// An image with its layers on top of each other, and the switches that all images share.
import { get, imageAddress } from "./api.js";
import { $, el, svg } from "./dom.js";

const IMAGE_LAYERS = ["semantic", "uncertainty", "depth", "depth-uncertainty"];
export const LAYER_SIDE = 2048;  // pixels of the longer edge of layers over an image in full size
let layers = [];
let patterns = 0;
const on = new Set();
const watched = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting && shapesOn()) drawWhenSeen(entry.target);
}, { rootMargin: "200px" });

const shapesOn = () => on.has("instance") || on.has("keypoints");
const hue = n => `hsl(${(((n * 0.61803398875 + 0.1) % 1) * 360).toFixed(1)} 90% 55%)`;

export function setUp(found) {
  layers = found;
  for (const place of ["switches", "detail-switches"]) {
    $(place).replaceChildren(...layers.map((layer, i) =>
      el("button", { type: "button", "data-layer": layer.name, "aria-pressed": "false", onclick: () => flip(i) },
        layer.text, " ", el("kbd", {}, String(i + 1)))));
  }
  for (const slider of ["opacity", "detail-opacity"]) $(slider).addEventListener("input", e => setOpacity(e.target.value));
  setOpacity(0.5);
  const first = layers.findIndex(l => l.name === "semantic" || l.name === "instance");
  if (first >= 0) flip(first);
}

export function flip(i) {
  const layer = layers[i];
  if (!layer) return;
  on.has(layer.name) ? on.delete(layer.name) : on.add(layer.name);
  show();
}

export function allOff() {
  on.clear();
  show();
}

function show() {
  for (const { name } of layers) document.body.classList.toggle(`show-${name}`, on.has(name));
  for (const b of document.querySelectorAll("button[data-layer]")) b.setAttribute("aria-pressed", on.has(b.dataset.layer));
  $("depth-key").hidden = !on.has("depth");
  if (shapesOn()) for (const stack of document.querySelectorAll("#grid .stack")) { watched.unobserve(stack); watched.observe(stack); }
}

export const stepOpacity = by => setOpacity(Number($("opacity").value) + by);

function setOpacity(value) {
  const opacity = Math.min(1, Math.max(0, Number(value)));
  $("opacity").value = $("detail-opacity").value = opacity;
  document.documentElement.style.setProperty("--opacity", opacity);
}

// A stack for `item`: the image (in full size without `side`) and its layers. Those that are switched off are not fetched.
export function stack(item, side) {
  const images = layers.filter(l => IMAGE_LAYERS.includes(l.name)).map(l =>
    el("img", { class: `layer ${l.name}`, src: imageAddress(item, l.name, side ?? LAYER_SIDE), alt: "", loading: "lazy", decoding: "async" }));
  const base = el("img", { src: imageAddress(item, "image", side), alt: item.prompt || `image ${item.key}`, loading: "lazy", decoding: "async" });
  const node = el("span", { class: "stack" }, base, ...images);
  Object.assign(node, { item, side });
  if (side) watched.observe(node);
  return node;
}

async function drawWhenSeen(node) {
  watched.unobserve(node);
  if (node.hasShapes) return;
  node.hasShapes = true;
  node.append(draw(await get(`/api/sample/${node.item.row}/shapes`, { side: node.side }), false));
}

// Outlines and skeletons; `numbered` also writes each object's number and label.
export function draw(shapes, numbered) {
  const { width, height } = shapes;
  const unit = Math.max(width, height);
  const hatch = `hatch-${patterns++}`;
  const stripes = svg("pattern", { id: hatch, width: unit / 64, height: unit / 64, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { class: "stripe", width: unit / 160, height: unit / 64 }));
  const outlines = shapes.objects.flatMap((o, n) => {
    const path = { d: o.outline, "fill-rule": "evenodd", "data-object": n };
    const outline = svg("path", { ...path, class: o.crowd ? "crowd" : "object", style: { "--hue": hue(n) } });
    return o.crowd ? [outline, svg("path", { ...path, class: "hatch", style: { fill: `url(#${hatch})` } })] : [outline];
  });
  const above = y => y > unit / 20 ? y - unit / 90 : y + unit / 30;
  const names = !numbered ? [] : shapes.objects.map((o, n) =>
    svg("text", { x: Math.min(o.box[0], width * 0.8), y: above(o.box[1]), "font-size": unit / 38 }, `${n + 1} ${o.label}${o.crowd ? " (crowd)" : ""}`));
  const edges = shapes.edges.map(b => svg("line", { x1: b.x1, y1: b.y1, x2: b.x2, y2: b.y2, style: { "--hue": hue(b.object) } }));
  const points = shapes.points.map(p =>
    svg("circle", { cx: p.x, cy: p.y, r: unit / 90, class: p.hidden ? "hidden" : "seen", style: { "--hue": hue(p.object) } }, svg("title", {}, p.name)));
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("defs", {}, stripes), svg("g", { class: "layer instance" }, ...outlines, ...names), svg("g", { class: "layer keypoints" }, ...edges, ...points));
}
