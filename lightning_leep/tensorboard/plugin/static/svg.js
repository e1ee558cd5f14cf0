// Elements, axes and lines. Texts become text nodes and attributes, never markup.
import { scale, ticks } from "./arithmetic.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/** An HTML element; an attribute that is a function listens to the event of its name, such as "onclick". */
export function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** A box that draws its chart for the width that it has, and again when that changes or `redraw` is called. */
export function responsive(draw) {
  const box = html("div", { class: "chart" });
  let width = 0;
  box.redraw = () => width > 0 && box.replaceChildren(draw(width));
  new ResizeObserver(() => {
    const now = Math.floor(box.clientWidth);
    if (now > 0 && now !== width) {
      width = now;
      box.redraw();
    }
  }).observe(box);
  return box;
}

/** Axes: the drawing and the maps from data to pixels. `x` and `y` are {range, format, label, places}; the heading of a chart says what y is. */
export function axes(width, height, x, y, label, role = "img") {
  const left = 52, right = width - 14, top = 10, bottom = height - 44;
  const mapX = scale(...x.range, left, right), mapY = scale(...y.range, bottom, top);
  const node = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  for (const place of y.places ?? ticks(...y.range, 5)) {
    node.append(
      svg("line", { class: "grid", x1: left, x2: right, y1: mapY(place), y2: mapY(place) }),
      svg("text", { x: left - 6, y: mapY(place) + 4, "text-anchor": "end" }, y.format(place)),
    );
  }
  for (const place of x.places ?? ticks(...x.range, Math.max(2, Math.floor(width / 90)))) {
    node.append(
      svg("line", { class: "grid", x1: mapX(place), x2: mapX(place), y1: top, y2: bottom }),
      svg("text", { x: mapX(place), y: bottom + 16, "text-anchor": "middle" }, x.format(place)),
    );
  }
  node.append(svg("text", { class: "axis", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  return { node, x: mapX, y: mapY, left, right, top, bottom };
}

/** A line through points of data, broken where a value is missing. */
export function line(chart, xs, ys, attributes) {
  let path = "", pen = "M";
  xs.forEach((x, i) => {
    if (ys[i] == null) pen = "M";
    else {
      path += `${pen}${chart.x(x).toFixed(1)} ${chart.y(ys[i]).toFixed(1)}`;
      pen = "L";
    }
  });
  return svg("path", { d: path, fill: "none", ...attributes });
}

/** A band between two lines. */
export function band(chart, xs, lows, highs, attributes) {
  const points = [...xs.map((x, i) => [x, highs[i]]), ...xs.map((x, i) => [x, lows[i]]).reverse()];
  const pixels = points.map(([x, y]) => `${chart.x(x).toFixed(1)},${chart.y(y).toFixed(1)}`);
  return svg("polygon", { points: pixels.join(" "), ...attributes });
}

/** A mark with a text that appears when the pointer rests on it. */
export function mark(shape, x, y, size, attributes, title) {
  const d = {
    circle: `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0`,
    diamond: `M${x} ${y - size}L${x + size} ${y}L${x} ${y + size}L${x - size} ${y}Z`,
    up: `M${x} ${y - size}L${x + size} ${y + size * 0.8}L${x - size} ${y + size * 0.8}Z`,
    down: `M${x} ${y + size}L${x + size} ${y - size * 0.8}L${x - size} ${y - size * 0.8}Z`,
  }[shape];
  return svg("path", { d, ...attributes }, title && svg("title", {}, title));
}

/** A legend: [class of the sample, text] each. */
export function legend(entries) {
  const sample = (kind) => svg("svg", { width: 26, height: 12, "aria-hidden": true }, ...samples(kind));
  return html("ul", { class: "legend" }, ...entries.map(([kind, text]) => html("li", {}, sample(kind), text)));
}

function samples(kind) {
  const shape = { inside: "circle", above: "up", below: "down", head: "diamond", best: "circle" }[kind.split(" ")[0]];
  if (shape) return [mark(shape, 13, 6, 4.5, { class: kind })];
  if (kind.startsWith("band")) return [svg("rect", { class: kind, width: 26, height: 12 })];
  return [svg("line", { class: kind, x1: 0, x2: 26, y1: 6, y2: 6 })];
}
