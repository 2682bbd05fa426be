// Reviews: each goes to the server at once, and can be undone. None replaces one that another viewer wrote meanwhile.
import { post } from "./api.js";
import { toast } from "./dom.js";

const NOTHING = { verdict: "", reason: "", labels: {}, objects: {} };
const past = [];
let changed = () => {};

export const reviewOf = item => ({ ...NOTHING, ...item.review });
export const canUndo = () => past.length > 0;
export const onChange = f => { changed = f; };

// One after the other: each builds on what the one before has made.
let last = Promise.resolve();
const inTurn = work => (...given) => (last = last.catch(() => {}).then(() => work(...given)));

async function send(item, review, step) {
  try {
    Object.assign(item, await post(`/api/review/${item.row}`, { ...review, seen: reviewOf(item) }));
  } catch (error) {
    if (error.now) changed(Object.assign(item, error.now));
    throw error;
  }
  if (step) past.push(step);
  changed(item);
}

export const judge = inTurn(async (item, verdict, reason = "") => {
  const previous = reviewOf(item);
  const same = previous.verdict === verdict && previous.reason === reason;
  const review = { ...previous, verdict: same ? "" : verdict, reason: same || verdict !== "reject" ? "" : reason };
  await send(item, review, [item, previous]);
  toast(`${item.key} ${same ? "is open again" : { accept: "accepted", reject: "rejected" }[verdict]} · u undoes`);
});

export const fix = inTurn(async (item, part, name, label) => {
  const previous = reviewOf(item);
  const values = { ...previous[part] };
  label === null ? delete values[name] : values[name] = label;
  await send(item, { ...previous, [part]: values }, [item, previous]);
  toast(`${item.key}: label ${label === null ? "as it was" : "fixed"} · u undoes`);
});

export const undo = inTurn(async () => {
  const step = past.pop();
  if (!step) return null;
  await send(...step);
  toast(`${step[0].key}: undone`);
  return step[0];
});
