// The filters' form and its histograms.
import { get } from "./api.js";
import { $, counted, el, swatch } from "./dom.js";

const FIELDS = ["prompt", "objects_min", "objects_max", "score", "score_min", "score_max", "reason", "order"];
const VERDICTS = { "": "all", open: "open", accept: "accepted", reject: "rejected", fixed: "fixed", filtered: "rejected by a filter" };
const DEFAULTS = { order: "row", score: "confidence" };
const FEW = 40;
const form = $("query");
let chosen = { class: "", verdict: "" };
let colours = {};
let last = null;
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
  $("labels").addEventListener("click", e => {
    const name = e.target.closest("button")?.label;
    if (name === undefined) return;
    chosen.class = chosen.class === name ? "" : name;
    onchange();
  });
  $("scores").addEventListener("click", e => {
    const bin = e.target.closest("button")?.bin;
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
    if (["reason", "score"].includes(name) && query[name]) field.replaceChildren(el("option", { value: query[name] }, query[name]));
    field.value = query[name] ?? DEFAULTS[name] ?? "";
  }
  chosen = { class: query.class ?? "", verdict: query.verdict ?? "" };
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
  drawScores(summary.score, summary.total);
  drawReasons(summary.reasons);
}

function drawLabels(counts) {
  const most = Math.max(1, ...counts.map(c => c.rows));
  const shown = everyLabel ? counts : counts.filter(({ name }, i) => i < FEW || name === chosen.class);
  const focused = document.activeElement?.label;
  $("labels").replaceChildren(...shown.map(({ name, rows }) => {
    const button = el("button", { type: "button", "aria-pressed": name === chosen.class, style: { "--fraction": rows / most } },
      swatch(colours[name]), el("span", { class: "name" }, name), el("span", { class: "soft" }, rows.toLocaleString("en")));
    button.label = name;
    if (name === focused) queueMicrotask(() => button.focus());
    return el("li", {}, button);
  }));
  $("labels-all").hidden = shown.length === counts.length;
}

function drawScores({ names, low, high, counts, missing }, total) {
  const field = form.elements.score;
  const score = field.value || names[0];
  field.replaceChildren(...[...new Set([...names, score])].map(n => el("option", { value: n }, n)));
  field.value = score;
  field.hidden = field.options.length === 1;
  const most = Math.max(1, ...counts);
  const edge = i => parseFloat((low + (high - low) * i / counts.length).toPrecision(4));
  $("scores").replaceChildren(...counts.map((n, i) => {
    const bin = [edge(i), edge(i + 1)];
    const button = el("button", { type: "button", tabindex: -1, title: `${bin[0]} to ${bin[1]}: ${counted(n, "image")}`,
      "aria-label": `${score} ${bin[0]} to ${bin[1]}: ${counted(n, "image")}`, style: { "--fraction": n / most } });
    button.bin = bin;
    return button;
  }));
  $("scores").hidden = missing === total;
}

function drawReasons(counts) {
  const rows = Object.fromEntries(counts.map(c => [c.name, c.rows]));
  const names = Object.keys(rows);
  const field = form.elements.reason;
  const value = field.value;
  if (value && !names.includes(value)) names.push(value);
  field.replaceChildren(el("option", { value: "" }, "any reason, or none"),
    ...names.map(n => el("option", { value: n }, `${n} (${(rows[n] ?? 0).toLocaleString("en")})`)));
  field.value = value;
  $("reason-field").hidden = names.length === 0;
  $("reasons").replaceChildren(...[...new Set([...names, "bad image", "wrong mask", "wrong label", "wrong depth", "wrong points"])]
    .filter(n => n !== "no reason given").map(n => el("option", { value: n })));
}

export const colour = name => colours[name];
export const labelNames = () => Object.keys(colours);
