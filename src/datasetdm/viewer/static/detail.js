// One image, large, with everything that is known about it.
import { get, imageAddress } from "./api.js";
import { $, TYPING, counted, el, swatch } from "./dom.js";
import { colour, labelNames } from "./filters.js";
import { LAYER_SIDE, draw, stack } from "./layers.js";
import * as edits from "./edits.js";
import * as reviews from "./reviews.js";

const dialog = $("detail");
const ORIGINS = { user: "a user", grammar: "a grammar", "language-model": "a language model", caption: "the data's own caption", labels: "composed from the true labels", unknown: "" };
let item = null, shown = null;
let places = { step: () => {}, closed: () => {} };

export const current = () => (dialog.open ? item : null);

export function setUp(callbacks) {
  places = callbacks;
  $("previous").onclick = () => places.step(-1);
  $("next").onclick = () => places.step(1);
  $("close").onclick = () => dialog.close();
  $("accept").onclick = () => judge("accept");
  $("reject").onclick = () => judge("reject");
  $("undo").onclick = () => places.undo();
  edits.setUp();
  $("stage").onclick = e => {
    const chosen = shown?.shapes.objects[e.target.dataset.object];
    $(`fix-objects-${e.target.dataset.object}`)?.focus();
    if (chosen) edits.choose(chosen.stored);
  };
  $("reason").onkeydown = e => { if (e.key === "Enter") { e.preventDefault(); $("reject").focus(); judge("reject"); } };
  dialog.addEventListener("cancel", e => {  // the first Esc leaves a field, the next one the image
    if (!document.activeElement.matches(TYPING)) return;
    e.preventDefault();
    $("detail-title").focus();
  });
  dialog.addEventListener("close", () => { const was = item; item = null; places.closed(was); });
}

export async function judge(verdict) {
  const mine = item;
  const undone = reviews.reviewOf(mine).verdict === verdict;
  await reviews.judge(mine, verdict, verdict === "reject" ? $("reason").value.trim() : "");
  if (!undone && $("advance").checked && item === mine) places.step(1);
}

export async function open(wanted, position, neighbours) {
  item = wanted;
  if (!dialog.open) dialog.showModal();
  $("position").textContent = position;
  $("detail-title").textContent = item.prompt || item.key;
  $("stage").replaceChildren(stack(item));
  refresh();
  for (const near of neighbours) if (near) new Image().src = imageAddress(near, "image");
  const facts = await get(`/api/sample/${item.row}`, { side: LAYER_SIDE });
  if (item !== wanted) return;
  shown = facts;
  $("stage").firstChild.append(draw(facts.shapes, true));
  describe(facts);
}

// After a review of the open image.
export function refresh() {
  const { verdict } = reviews.reviewOf(item);
  $("accept").setAttribute("aria-pressed", verdict === "accept");
  $("reject").setAttribute("aria-pressed", verdict === "reject");
  $("undo").disabled = !reviews.canUndo();
  dialog.dataset.verdict = verdict;
}

function describe(facts) {
  const { prompt, shapes } = facts;
  const bits = [facts.key, `${shapes.width} × ${shapes.height}`];
  if (facts.split) bits.push(`split ${facts.split}`);
  if (item.confidence !== null) bits.push(`confidence ${item.confidence.toFixed(2)}`);
  if (shapes.objects.length) bits.push(counted(shapes.objects.length, "object"));
  $("detail-facts").textContent = bits.join(" · ");
  $("depth-part").hidden = !facts.depth;
  if (facts.depth) {
    $("depth-unit").textContent = facts.depth.unit === "metre" ? "metres, near to far" : "relative, near to far";
    $("ticks").replaceChildren(...facts.depth.ticks.map(t => el("li", {}, String(t))));
  }
  fixes(facts);
  quality(facts);
  edits.describe(item, facts);
  const rows = { split: facts.split, ...(prompt && { "prompt by": ORIGINS[prompt.origin], "prompt asks for": prompt.labels.join(", "), seed: prompt.seed }), ...facts.provenance };
  $("provenance").replaceChildren(...pairs(Object.entries(rows).filter(([, v]) => v)));
}

const pairs = rows => rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);

// The scores and reasons of filters.
function quality({ scores, reasons }) {
  const names = Object.keys(scores);
  $("quality-part").hidden = names.length + reasons.length === 0;
  $("quality-reasons").hidden = reasons.length === 0;
  $("quality-reasons").textContent = `Rejected by a filter: ${reasons.join(", ")}`;
  $("quality-scores").replaceChildren(...pairs(names.map(n => [n, scores[n].toPrecision(3)])));
}

function fixes(facts) {
  const review = reviews.reviewOf(item);
  const percent = r => r.fraction < 0.005 ? "<1 %" : `${Math.round(r.fraction * 100)} %`;
  const regions = facts.regions.map(r => row({
    part: "labels", name: r.label, now: review.labels[r.label] ?? r.label, unfixed: r.label, title: `region ${r.label}`, note: percent(r) }));
  const objects = facts.shapes.objects.map((o, n) => row({
    part: "objects", name: n, now: o.label, unfixed: review.labels[o.stored] ?? o.stored, title: `object ${n + 1}`, note: `#${n + 1}`, score: o.score, crowd: o.crowd }));
  const list = (name, rows) => rows.length ? [el("h4", {}, name), el("ul", { class: "fixes", "aria-label": name }, ...rows)] : [];
  const focused = document.activeElement?.id;
  $("fixes").replaceChildren(...list("Regions", regions), ...list("Objects", objects));
  if (focused?.startsWith("fix-")) $(focused)?.focus();
  $("fix-part").hidden = regions.length + objects.length === 0;
}

// One label that can be fixed; `unfixed` is the one that it has without a fix of its own.
function row({ part, name, now, unfixed, title, note, score, crowd }) {
  const choose = label => reviews.fix(item, part, name, label === unfixed ? null : label);
  const select = el("select", { id: `fix-${part}-${name}`, "aria-label": `Label of ${title}`, onchange: e => choose(e.target.value) },
    ...labelNames().map(n => el("option", { value: n }, n)));
  select.value = now;
  const back = now !== unfixed && el("button", { type: "button", "aria-label": `Take back: ${title} was ${unfixed}`,
    onclick: () => choose(unfixed) }, `was ${unfixed}`);
  const node = el("li", {}, swatch(colour(now)), el("span", { class: "note soft" }, note), select,
    crowd ? el("span", { class: "tag" }, "crowd") : score !== undefined && el("span", { class: "soft" }, score.toFixed(2)), back);
  const mark = on => part === "objects" && $("stage").querySelector(`[data-object="${name}"]`)?.classList.toggle("on", on);
  for (const event of ["mouseenter", "focusin"]) node.addEventListener(event, () => mark(true));
  for (const event of ["mouseleave", "focusout"]) node.addEventListener(event, () => mark(false));
  return node;
}
