// A score's histogram: accepted images dark, rejected ones pale, and a line at the threshold that is tried.
import { counted, svg } from "./dom.js";

const WIDTH = 240, BARS = 60, TOP = 15, BOTTOM = 15;

export function histogram(name, { low, high, counts, accepted, missing }, below) {
  const most = Math.max(1, ...counts);
  const step = WIDTH / counts.length;
  const edge = i => parseFloat((low + (high - low) * i / counts.length).toPrecision(4));
  const bar = (n, i, look) => svg("rect", { class: look, x: i * step, width: step - 1, y: TOP + BARS - height(n), height: height(n) });
  const height = n => n && Math.max(2, BARS * n / most);  // a single image is seen, too
  const bins = counts.map((n, i) => {
    const bin = [edge(i), edge(i + 1)];
    const node = svg("g", { class: "bin" }, svg("title", {}, `${bin[0]} to ${bin[1]}: ${counted(n, "image")}, ${accepted[i].toLocaleString("en")} accepted`),
      svg("rect", { class: "reach", x: i * step, width: step, y: TOP, height: BARS }), bar(n, i, "every"), bar(accepted[i], i, "accepted"));
    node.bin = bin;
    return node;
  });
  const text = (x, y, words, anchor) => svg("text", { x, y, "text-anchor": anchor }, words);
  const ends = [text(0, TOP + BARS + 12, edge(0), "start"), text(WIDTH, TOP + BARS + 12, edge(counts.length), "end")];
  const sum = numbers => numbers.reduce((a, b) => a + b, 0);
  const total = sum(counts);
  if (sum(accepted) < total) ends.push(text(WIDTH / 2, TOP + BARS + 12, "pale: rejected", "middle"));
  const peak = counts.indexOf(most);
  const words = [`Histogram of ${name}: ${counted(total, "image")} from ${edge(0)} to ${edge(counts.length)}`,
    peak >= 0 && `most of them, ${most.toLocaleString("en")}, between ${edge(peak)} and ${edge(peak + 1)}`,
    `${sum(accepted).toLocaleString("en")} accepted`, missing && `${missing.toLocaleString("en")} without this score`];
  const line = [];
  if (below !== null && !Number.isNaN(below)) {
    const x = Math.min(1, Math.max(0, (below - low) / (high - low))) * WIDTH;
    words.push(`a line at the threshold ${below}`);
    line.push(svg("clipPath", { id: "dropped" }, svg("rect", { width: x, height: TOP + BARS })),
      svg("g", { "clip-path": "url(#dropped)", class: "dropped" }, ...accepted.map((n, i) => bar(n, i, ""))),
      svg("path", { class: "threshold", d: `M${x} 4V${TOP + BARS}` }),
      text(x + (x > WIDTH / 2 ? -4 : 4), 11, `reject below ${below}`, x > WIDTH / 2 ? "end" : "start"));
  }
  return svg("svg", { class: "histogram", viewBox: `0 0 ${WIDTH} ${TOP + BARS + BOTTOM}`, role: "img", "aria-label": words.filter(Boolean).join(", ") },
    ...bins, ...line, svg("path", { class: "axis", d: `M0 ${TOP + BARS}H${WIDTH}` }), ...ends);
}
