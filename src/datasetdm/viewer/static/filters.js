// The filters' form and its histograms.
import { get } from "./api.js";
import { $, el, swatch } from "./dom.js";
import { histogram } from "./histogram.js";

const FIELDS = ["prompt", "objects_min", "objects_max", "score", "score_min", "score_max", "order"];
const VERDICTS = { "": "all", open: "open", accept: "accepted", reject: "rejected", fixed: "fixed", filtered: "rejected by a filter" };
const DEFAULTS = { order: "row", score: "confidence" };
const FEW = 40;
const form = $("query");
let chosen = { class: "", verdict: "", reason: "" };
let colours = {};
let last = null;
let lastScore = "";
let everyLabel = false;
let asked = 0;

export function setUp(labels, onchange) {
  colours = Object.fromEntries(labels.map(l => [l.name, l.colour]));
  let timer;
  const soon = () => { clearTimeout(timer); timer = setTimeout(onchange, 200); };
  form.addEventListener("input", soon);
  form.addEventListener("submit", e => { e.preventDefault(); onchange(); });
  $("verdicts").append(...Object.entries(VERDICTS).map(([value, text]) =>
    el("button", { type: "button", "data-verdict": value, onclick: () => { chosen.verdict = value; onchange(); } },
      text, " ", el("span", { class: "soft" }))));
  for (const [list, what] of [["labels", "class"], ["reason-bars", "reason"]]) $(list).addEventListener("click", e => {
    const name = e.target.closest("button")?.name;
    if (name === undefined) return;
    chosen[what] = chosen[what] === name ? "" : name;
    onchange();
  });
  $("scores").addEventListener("click", e => {
    const bin = e.target.closest("g")?.bin;
    if (!bin) return;
    [form.elements.score_min.value, form.elements.score_max.value] = bin;
    onchange();
  });
  $("labels-all").addEventListener("click", () => { everyLabel = true; draw(last); });
  $("clear").addEventListener("click", () => { write({}); onchange(); form.elements.prompt.focus(); });
}

// The filter as the server's parameters, only what asks for something.
export function read() {
  const values = FIELDS.map(n => [n, form.elements[n].value.trim()]).filter(([n, v]) => v && v !== DEFAULTS[n]);
  return Object.fromEntries([...values, ...Object.entries(chosen).filter(([, v]) => v)]);
}

export function write(query) {
  for (const name of FIELDS) {
    const field = form.elements[name];
    if (name === "score" && query[name]) field.replaceChildren(el("option", { value: query[name] }, query[name]));
    field.value = query[name] ?? DEFAULTS[name] ?? "";
  }
  chosen = { class: query.class ?? "", verdict: query.verdict ?? "", reason: query.reason ?? "" };
}

export async function summarise() {
  const mine = ++asked;
  const summary = await get("/api/summary", read());
  if (mine === asked) draw(last = summary);
}

function draw(summary) {
  const query = read();
  $("clear").disabled = Object.keys(query).length === 0;
  $("objects-of").textContent = chosen.class ? `of ${chosen.class}` : "";
  for (const b of $("verdicts").children) {
    const value = b.dataset.verdict;
    b.setAttribute("aria-pressed", value === chosen.verdict);
    b.lastChild.textContent = value ? summary.verdicts[value].toLocaleString("en") : "";
  }
  drawLabels(summary.labels.filter(({ name, rows }) => rows || name === chosen.class));
  drawScores(summary.score);
  drawReasons(summary.reasons);
}

function drawLabels(counts) {
  const shown = everyLabel ? counts : counts.filter(({ name }, i) => i < FEW || name === chosen.class);
  drawBars($("labels"), shown, chosen.class, name => swatch(colours[name]));
  $("labels-all").hidden = shown.length === counts.length;
}

// A list of buttons, each with a bar of its number of rows.
function drawBars(list, counts, pressed, mark) {
  const most = Math.max(1, ...counts.map(c => c.rows));
  const focused = list.contains(document.activeElement) && document.activeElement.name;
  list.replaceChildren(...counts.map(({ name, rows }) => {
    const button = el("button", { type: "button", "aria-pressed": name === pressed, style: { "--fraction": rows / most } },
      mark?.(name), el("span", { class: "name", title: name }, name), el("span", { class: "soft" }, rows.toLocaleString("en")));
    button.name = name;
    if (name === focused) queueMicrotask(() => button.focus());
    return el("li", {}, button);
  }));
}

function drawScores({ names }) {
  const field = form.elements.score;
  const score = field.value || names[0];
  field.replaceChildren(...[...new Set([...names, score])].map(n => el("option", { value: n }, n)));
  field.value = lastScore = score;
  field.hidden = field.options.length === 1;
  drawHistogram();
}

// Also done when a threshold is tried, which is no filter.
export function drawHistogram() {
  if (!last) return;
  const below = $("below").value;
  $("scores").hidden = last.score.missing === last.total;
  $("scores").replaceChildren(histogram(lastScore, last.score, below === "" ? null : Number(below)));
}

function drawReasons(counts) {
  const names = counts.map(c => c.name);
  const lost = chosen.reason && !names.includes(chosen.reason) ? [{ name: chosen.reason, rows: 0 }] : [];
  drawBars($("reason-bars"), [...counts, ...lost].sort((a, b) => b.rows - a.rows), chosen.reason);
  $("reason-field").hidden = names.length + lost.length === 0;
  $("reasons").replaceChildren(...[...new Set([...names, "bad image", "wrong mask", "wrong label", "wrong depth", "wrong points"])]
    .filter(n => n !== "no reason given").map(n => el("option", { value: n })));
}

export const colour = name => colours[name];
export const labelNames = () => Object.keys(colours);
