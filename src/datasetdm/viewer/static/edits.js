// What the open image was before an edit, and the command that edits one of its labels. Nothing is edited here.
import { get, imageAddress } from "./api.js";
import { $, copy, el } from "./dom.js";

let asked = 0;

export function setUp() {
  let timer;
  const soon = () => { clearTimeout(timer); timer = setTimeout(command, 200); };
  $("edit-new").addEventListener("input", soon);
  $("edit-old").addEventListener("change", soon);
  $("edit-copy").addEventListener("click", () => copy($("edit-command")));
}

export function describe(item, { before, shapes, regions }) {
  $("before-part").hidden = !before;
  if (before) $("before").src = imageAddress(item, "before");
  else $("before").removeAttribute("src");
  const names = [...new Set([...shapes.objects.map(o => o.stored), ...regions.map(r => r.label)])];
  $("edit-old").replaceChildren(...names.map(n => el("option", { value: n }, n)));
  $("edit-part").hidden = names.length === 0;
  command();
}

// An object of the image was chosen.
export function choose(label) {
  $("edit-old").value = label;
  command();
}

async function command() {
  const mine = ++asked;
  const word = $("edit-new").value.trim();
  const found = word && await get("/api/edit", { old: $("edit-old").value, new: word });
  if (mine !== asked) return;
  $("edit-command").textContent = found ? found.command : "";
  $("edit-command").hidden = $("edit-copy").hidden = !found;
}
