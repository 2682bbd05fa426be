// What somebody says of a picture; every word goes to the server at once, and can be taken back.
import { post } from "./api.js";
import { toast } from "./dom.js";

const NOTHING = { verdict: "", reason: "", labels: {}, objects: {} };
const past = [];
let changed = () => {};

export const said = item => ({ ...NOTHING, ...item.review });
export const canUndo = () => past.length > 0;
export const onChange = f => { changed = f; };

async function send(item, review) {
  Object.assign(item, await post(`/api/review/${item.row}`, review));
  changed(item);
}

export async function judge(item, verdict, reason = "") {
  const before = said(item);
  const same = before.verdict === verdict && before.reason === reason;
  const review = { ...before, verdict: same ? "" : verdict, reason: same || verdict !== "reject" ? "" : reason };
  past.push([item, before]);
  await send(item, review);
  toast(`${item.key} ${same ? "is open again" : { accept: "accepted", reject: "rejected" }[verdict]} · u undoes`);
}

export async function fix(item, part, name, label) {
  const before = said(item);
  const values = { ...before[part] };
  label === null ? delete values[name] : values[name] = label;
  past.push([item, before]);
  await send(item, { ...before, [part]: values });
  toast(`${item.key}: label ${label === null ? "as it was" : "fixed"} · u undoes`);
}

export async function undo() {
  const step = past.pop();
  if (!step) return null;
  await send(...step);
  toast(`${step[0].key}: undone`);
  return step[0];
}
