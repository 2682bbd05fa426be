// The server's answers.
import { toast } from "./dom.js";

async function answer(request) {
  let reply;
  try { reply = await request; } catch { return fail("The viewer's server has stopped. Run datasetdm view again."); }
  const value = await reply.json().catch(() => ({ error: reply.statusText }));
  return reply.ok ? value : fail(value.error, value.now);
}

function fail(text, now) {
  toast(text, true);
  throw Object.assign(new Error(text), { now });
}

const address = (path, values) => {
  const given = Object.entries(values).filter(([, v]) => v !== "" && v != null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
};

export const get = (path, values = {}) => answer(fetch(address(path, values)));

export const post = (path, value) =>
  answer(fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) }));

export const imageAddress = (item, layer, side) => address(`/image/${item.row}/${layer}`, { side, v: item.revision });
