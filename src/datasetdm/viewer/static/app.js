// The page: which rows it shows, and what the keys do.
import { get } from "./api.js";
import { $, TYPING, counted, el, swatch, toast } from "./dom.js";
import * as filters from "./filters.js";
import * as layers from "./layers.js";
import * as reviews from "./reviews.js";
import * as detail from "./detail.js";
import * as threshold from "./threshold.js";

const CHIPS = 8;
const state = { query: {}, offset: 0, limit: 48, items: [], total: 0, count: 0 };
let asked = 0;

// ---------------------------------------------------------------------- rows
async function load({ focus = null } = {}) {
  const mine = ++asked;
  $("grid").setAttribute("aria-busy", "true");
  const page = await get("/api/samples", { ...state.query, offset: state.offset, limit: state.limit });
  if (mine !== asked) return false;
  Object.assign(state, { items: page.items, total: page.total });
  $("grid").replaceChildren(...state.items.map(card));
  $("grid").removeAttribute("aria-busy");
  if (!state.items.length) $("grid").append(el("li", { class: "nothing" }, "No image matches these filters."));
  const few = state.total !== state.count;
  $("count").textContent = few ? `${state.total.toLocaleString("en")} of ${counted(state.count, "image")}` : counted(state.count, "image");
  const pages = Math.max(1, Math.ceil(state.total / state.limit));
  $("page").value = Math.floor(state.offset / state.limit) + 1;
  $("page").max = pages;
  $("pages").textContent = `of ${pages.toLocaleString("en")}`;
  for (const b of document.querySelectorAll("[data-turn]")) b.disabled = !canTurn(Number(b.dataset.turn));
  rove(0);
  if (focus !== null) cards()[Math.min(focus, state.items.length - 1)]?.focus();
  const place = new URLSearchParams({ ...state.query, ...(state.offset && { offset: state.offset }), ...(state.limit !== 48 && { limit: state.limit }) });
  history.replaceState(null, "", place.size ? `?${place}` : "/");
  return true;
}

async function filter() {
  state.query = filters.read();
  state.offset = 0;
  filters.summarise();
  await load();
}

const canTurn = by => by < 0 ? state.offset > 0 : state.offset + state.limit < state.total;

async function turn(by, options) {
  if (!canTurn(by)) return false;
  state.offset = Math.max(0, state.offset + by * state.limit);
  scrollTo({ top: 0 });
  return load(options);
}

// ---------------------------------------------------------------------- cards
function card(item, i) {
  const open = el("button", { type: "button", class: "open", tabindex: i ? -1 : 0, onclick: () => show(i) });
  open.append(layers.stack(item, thumbnailSide()));
  const node = el("li", { class: "card" }, open, el("div", { class: "text" }));
  dress(node, item);
  return node;
}

// Pixels of a card's image on this screen: 256, or as many as it has on a dense one, in steps so that few addresses differ.
const thumbnailSide = () => Math.min(512, 128 * Math.ceil(2 * devicePixelRatio));

// What a card says; done again after a review.
function dress(node, item) {
  const { verdict, reason, labels, objects } = reviews.reviewOf(item);
  const fixed = Object.keys(labels).length + Object.keys(objects).length > 0;
  const name = item.prompt || item.key;
  const words = { accept: "accepted", reject: "rejected" }[verdict];
  Object.assign(node.dataset, { verdict: verdict || (item.reasons.length ? "filtered" : ""), key: item.key });
  node.querySelector(".open").setAttribute("aria-label", [name, words ?? (item.reasons.length > 0 && "rejected by a filter"), fixed && "labels fixed"].filter(Boolean).join(", "));
  const facts = [item.key, item.objects && counted(item.objects, "object"), item.confidence !== null && `confidence\u00a0${item.confidence.toFixed(2)}`];
  node.querySelector(".text").replaceChildren(
    el("p", { class: "prompt", title: name }, name),
    el("p", { class: "chips soft" }, ...item.labels.slice(0, CHIPS).map(n => el("span", {}, swatch(filters.colour(n)), n))),
    el("p", { class: "soft small" }, facts.filter(Boolean).join(" · ")));
  node.querySelector(".badge")?.remove();
  const filtered = item.reasons.length > 0 && `filtered: ${item.reasons.join(", ")}`;
  const badge = [words ? (reason ? `${words}: ${reason}` : words) : filtered, fixed && "labels fixed"].filter(Boolean).join(" · ");
  if (badge) node.append(el("span", { class: "badge", "aria-hidden": "true" }, badge));
}

const cards = () => [...$("grid").querySelectorAll(".open")];
const focused = () => cards().indexOf(document.activeElement);

function rove(i) {
  cards().forEach((b, k) => { b.tabIndex = k === i ? 0 : -1; });
}

// ---------------------------------------------------------------------- one image
function show(i) {
  const item = state.items[i];
  rove(i);
  detail.open(item, `${(state.offset + i + 1).toLocaleString("en")} of ${state.total.toLocaleString("en")}`, [state.items[i - 1], state.items[i + 1]]);
}

async function step(by) {
  const i = state.items.indexOf(detail.current()) + by;
  if (state.items[i]) return show(i);
  if (await turn(by)) return show(by > 0 ? 0 : state.items.length - 1);
  toast(by > 0 ? "That was the last image." : "This is the first image.");
}

async function undo() {
  const open = detail.current();
  const item = await reviews.undo();
  const i = state.items.indexOf(item);
  if (open && i >= 0 && item !== open) show(i);
}

let later;
reviews.onChange(item => {
  const i = state.items.indexOf(item);
  if (i >= 0) {
    const node = $("grid").children[i];
    const stack = node.querySelector(".stack");
    stack.replaceWith(layers.stack(item, thumbnailSide()));
    dress(node, item);
  }
  if (detail.current() === item) show(i);
  clearTimeout(later);
  later = setTimeout(filters.summarise, 300);
});

// ---------------------------------------------------------------------- keys
function move(key) {
  const all = cards();
  const here = focused();
  const across = all.filter(b => b.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length;
  const to = here + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  if (here < 0) all[0]?.focus();
  else if (all[to]) { rove(to); all[to].focus(); }
  else if (to < 0) turn(-1, { focus: state.limit - 1 });
  else if (key === "ArrowRight" || here + across >= all.length) turn(1, { focus: 0 });
}

function judge(verdict) {
  if (detail.current()) return detail.judge(verdict);
  const item = state.items[focused()];
  if (item) reviews.judge(item, verdict);
}

const KEYS = {
  a: () => judge("accept"),
  r: () => judge("reject"),
  R: () => { if (detail.current()) $("reason").focus(); },
  u: undo,
  l: () => $("fixes").querySelector("select")?.focus(),
  n: () => turn(1, { focus: 0 }),
  p: () => turn(-1, { focus: 0 }),
  "0": layers.allOff,
  "[": () => layers.stepOpacity(-0.1),
  "]": () => layers.stepOpacity(0.1),
  "/": () => { openFilters(true); $("query").elements.prompt.focus(); },
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
  const open = detail.current();
  if (e.target.matches(TYPING)) return;
  if (open && ["n", "p", "/"].includes(e.key)) return;
  if (e.key.startsWith("Arrow")) {
    if (e.target.matches("input")) return;
    if (open) {
      if (e.key === "ArrowLeft" || e.key === "ArrowRight") step(e.key === "ArrowLeft" ? -1 : 1);
      else return;
    } else if (focused() >= 0 || document.activeElement === document.body || document.activeElement === $("grid")) move(e.key);
    else return;
  } else if (/^[1-9]$/.test(e.key)) layers.flip(Number(e.key) - 1);
  else if (KEYS[e.key]) KEYS[e.key]();
  else return;
  e.preventDefault();
});

// ---------------------------------------------------------------------- start
function openFilters(open) {
  document.body.classList.toggle("filtering", open);
  $("filters-open").setAttribute("aria-expanded", open);
}

async function start() {
  const place = Object.fromEntries(new URLSearchParams(location.search));
  state.offset = Math.max(0, parseInt(place.offset) || 0);
  if ([...$("limit").options].some(o => o.value === place.limit)) $("limit").value = place.limit;
  state.limit = Number($("limit").value);
  const about = await get("/api/store");
  state.count = about.count;
  $("title").textContent = document.title = about.title;
  filters.setUp(about.labels, filter);
  filters.write(place);
  threshold.setUp(() => $("score").value, filters.drawHistogram);
  state.query = filters.read();
  layers.setUp(about.layers);
  detail.setUp({ step, undo, closed: item => { const i = state.items.indexOf(item); if (i >= 0) { rove(i); cards()[i].focus(); } } });
  for (const b of document.querySelectorAll("[data-turn]")) b.onclick = () => turn(Number(b.dataset.turn));
  $("page").onchange = e => { const p = parseInt(e.target.value) || 1; state.offset = (Math.min(Math.max(1, p), e.target.max) - 1) * state.limit; load(); };
  $("limit").onchange = e => { state.limit = Number(e.target.value); state.offset -= state.offset % state.limit; load(); };
  $("filters-open").onclick = () => openFilters(!document.body.classList.contains("filtering"));
  $("help-open").onclick = () => $("help").showModal();
  await load();
  filters.summarise();
}

start();
