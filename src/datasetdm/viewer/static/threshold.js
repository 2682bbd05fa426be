// What a threshold would reject, before it is set. Nothing is changed here: a command to copy does that.
import { get, imageAddress } from "./api.js";
import { $, copy, counted, el } from "./dom.js";

const SIDE = 128;
let asked = 0;

export function setUp(score, drawLine) {
  let timer;
  const soon = () => { drawLine(); clearTimeout(timer); timer = setTimeout(() => preview(score()), 200); };
  $("below").addEventListener("input", e => { e.stopPropagation(); soon(); });  // it is no filter
  $("score").addEventListener("change", soon);
  $("preview-copy").addEventListener("click", () => copy($("preview-command")));
}

async function preview(score) {
  const mine = ++asked;
  const below = $("below").value;
  if (below === "") { $("preview").hidden = true; return; }
  const found = await get("/api/preview", { score, below });
  if (mine !== asked) return;
  const percent = found.accepted ? ` (${Math.round(100 * found.dropped / found.accepted)} %)` : "";
  $("preview-count").textContent = `${found.dropped.toLocaleString("en")} of ${counted(found.accepted, "accepted image")} would be rejected${percent}.`;
  for (const side of ["below", "above"]) $(`preview-${side}`).replaceChildren(...found[side].map(thumbnail));
  $("preview-command").textContent = found.command || "No single option of datasetdm filter sets this threshold.";
  $("preview-copy").hidden = !found.command;
  $("preview").hidden = false;
}

const thumbnail = item => el("li", {}, el("img", { src: imageAddress(item, "image", SIDE), alt: item.prompt || item.key, title: item.key }));
