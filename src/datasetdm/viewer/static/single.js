// One picture, large, with everything that is known about it.
import { get, picture } from "./api.js";
import { $, TYPING, counted, el, swatch } from "./dom.js";
import { colour, labelNames } from "./filters.js";
import { draw, stack } from "./layers.js";
import * as reviews from "./reviews.js";

const dialog = $("single");
let item = null;
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
  $("stage").onclick = e => $(`fix-objects-${e.target.dataset.object}`)?.focus();
  $("reason").onkeydown = e => { if (e.key === "Enter") { e.preventDefault(); $("reject").focus(); judge("reject"); } };
  dialog.addEventListener("cancel", e => {  // the first Esc leaves a field, the next one the picture
    if (!document.activeElement.matches(TYPING)) return;
    e.preventDefault();
    $("single-title").focus();
  });
  dialog.addEventListener("close", () => { const was = item; item = null; places.closed(was); });
}

export async function judge(verdict) {
  const mine = item;
  const undone = reviews.said(mine).verdict === verdict;
  await reviews.judge(mine, verdict, verdict === "reject" ? $("reason").value.trim() : "");
  if (!undone && $("advance").checked && item === mine) places.step(1);
}

export async function open(wanted, position, neighbours) {
  item = wanted;
  if (!dialog.open) dialog.showModal();
  $("position").textContent = position;
  $("single-title").textContent = item.prompt || item.key;
  $("stage").replaceChildren(stack(item));
  refresh();
  for (const near of neighbours) if (near) new Image().src = picture(near, "image");
  const facts = await get(`/api/sample/${item.row}`);
  if (item !== wanted) return;
  $("stage").firstChild.append(draw(facts, true));
  describe(facts);
}

// After a review of the open picture.
export function refresh() {
  const { verdict } = reviews.said(item);
  $("accept").setAttribute("aria-pressed", verdict === "accept");
  $("reject").setAttribute("aria-pressed", verdict === "reject");
  $("undo").disabled = !reviews.canUndo();
  dialog.dataset.verdict = verdict;
}

function describe(facts) {
  const bits = [facts.key, `${facts.width} × ${facts.height}`];
  if (item.score !== null) bits.push(`score ${item.score}`);
  if (facts.objects.length) bits.push(counted(facts.objects.length, "object"));
  if (facts.asked.length) bits.push(`asked for: ${facts.asked.join(", ")}`);
  $("single-facts").textContent = bits.join(" · ");
  $("depth-part").hidden = !facts.depth;
  if (facts.depth) {
    $("depth-unit").textContent = facts.depth.unit === "metre" ? "metres, near to far" : "relative, near to far";
    $("ticks").replaceChildren(...facts.depth.ticks.map(t => el("li", {}, String(t))));
  }
  fixes(facts);
  const origin = { ...facts.provenance, ...(facts.seed ? { seed: facts.seed } : {}) };
  $("provenance").replaceChildren(...Object.entries(origin).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
}

function fixes(facts) {
  const said = reviews.said(item);
  const share = r => r.share < 0.005 ? "<1 %" : `${Math.round(r.share * 100)} %`;
  const regions = facts.regions.map(r => row({
    part: "labels", name: r.label, now: said.labels[r.label] ?? r.label, natural: r.label, title: `region ${r.label}`, note: share(r) }));
  const objects = facts.objects.map((o, n) => row({
    part: "objects", name: n, now: o.label, natural: said.labels[o.was] ?? o.was, title: `object ${n + 1}`, note: `#${n + 1}`, score: o.score }));
  const list = (name, rows) => rows.length ? [el("h4", {}, name), el("ul", { class: "fixes", "aria-label": name }, ...rows)] : [];
  const focused = document.activeElement?.id;
  $("fixes").replaceChildren(...list("Regions", regions), ...list("Objects", objects));
  if (focused?.startsWith("fix-")) $(focused)?.focus();
  $("fix-part").hidden = regions.length + objects.length === 0;
}

// One label that can be fixed; `natural` is the one that it has without a fix of its own.
function row({ part, name, now, natural, title, note, score }) {
  const choose = label => reviews.fix(item, part, name, label === natural ? null : label);
  const select = el("select", { id: `fix-${part}-${name}`, "aria-label": `Label of ${title}`, onchange: e => choose(e.target.value) },
    ...labelNames().map(n => el("option", { value: n }, n)));
  select.value = now;
  const back = now !== natural && el("button", { type: "button", "aria-label": `Take back: ${title} was ${natural}`,
    onclick: () => choose(natural) }, `was ${natural}`);
  const node = el("li", {}, swatch(colour(now)), el("span", { class: "note soft" }, note), select,
    score === undefined ? null : el("span", { class: "soft" }, score.toFixed(2)), back);
  const mark = on => part === "objects" && $("stage").querySelector(`[data-object="${name}"]`)?.classList.toggle("on", on);
  for (const event of ["mouseenter", "focusin"]) node.addEventListener(event, () => mark(true));
  for (const event of ["mouseleave", "focusout"]) node.addEventListener(event, () => mark(false));
  return node;
}
