// Elements from text, never from markup: whatever a prompt or a label says is shown, not run.

export const $ = id => document.getElementById(id);

// Controls that want the letters for themselves.
export const TYPING = "input:not([type=range], [type=checkbox]), select";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
    else if (name.startsWith("aria-") && value != null) node.setAttribute(name, String(value));
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter(c => c != null && c !== false));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

export const swatch = colour => el("i", { class: "swatch", style: { background: colour }, "aria-hidden": "true" });

export const counted = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// The text of an element, to the clipboard; where the browser refuses that, selected.
export async function copy(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    toast("Copied");
  } catch {
    getSelection().selectAllChildren(node);
    toast("Selected: copy it with Ctrl C");
  }
}

let timer;
export function toast(text, bad = false) {
  const node = $("toast");
  (document.querySelector("dialog[open]") ?? document.body).append(node);  // a dialog hides what lies outside it
  node.textContent = text;
  node.className = bad ? "shown bad" : "shown";
  clearTimeout(timer);
  timer = setTimeout(() => { node.className = ""; }, bad ? 9000 : 3500);
}
