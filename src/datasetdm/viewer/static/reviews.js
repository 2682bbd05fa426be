// Reviews: each goes to the server at once, and can be undone.
import { post } from "./api.js";
import { toast } from "./dom.js";

const NOTHING = { verdict: "", reason: "", labels: {}, objects: {} };
const past = [];
let changed = () => {};

export const reviewOf = item => ({ ...NOTHING, ...item.review });
export const canUndo = () => past.length > 0;
export const onChange = f => { changed = f; };

async function send(item, review) {
  Object.assign(item, await post(`/api/review/${item.row}`, review));
  changed(item);
}

export async function judge(item, verdict, reason = "") {
  const previous = reviewOf(item);
  const same = previous.verdict === verdict && previous.reason === reason;
  const review = { ...previous, verdict: same ? "" : verdict, reason: same || verdict !== "reject" ? "" : reason };
  past.push([item, previous]);
  await send(item, review);
  toast(`${item.key} ${same ? "is open again" : { accept: "accepted", reject: "rejected" }[verdict]} · u undoes`);
}

export async function fix(item, part, name, label) {
  const previous = reviewOf(item);
  const values = { ...previous[part] };
  label === null ? delete values[name] : values[name] = label;
  past.push([item, previous]);
  await send(item, { ...previous, [part]: values });
  toast(`${item.key}: label ${label === null ? "as it was" : "fixed"} · u undoes`);
}

export async function undo() {
  const step = past.pop();
  if (!step) return null;
  await send(...step);
  toast(`${step[0].key}: undone`);
  return step[0];
}
