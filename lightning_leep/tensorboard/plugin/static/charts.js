// The charts: each takes data and a width and returns SVG.
import { cutPlace, epochs, error, extent, neighbour, number, outcome, percent, points, trained } from "./arithmetic.js";
import { axes, band, line, mark, svg } from "./svg.js";

const whole = (value) => percent(value, 0);
const fine = (range) => (value) => percent(value, range[1] - range[0] < 0.04 ? 1 : 0);
const SHAPES = { inside: "circle", above: "up", below: "down" };

/** Achieved against predicted accuracy, with the interval of each forecast; on the diagonal a forecast is exact. */
export function comparison(transfers, chosen, choose, width) {
  const shown = transfers.filter((transfer) => outcome(transfer) in SHAPES);
  const range = extent(shown.flatMap((t) => [t.achieved, t.forecast.low, t.forecast.high]), 0.1);
  const axis = { range, format: fine(range) };
  const height = Math.min(width, 420);
  const chart = axes(width, height, { ...axis, label: "predicted accuracy, with its interval" }, axis, "Achieved against predicted accuracy", "group");
  const box = svg("g", { role: "listbox", "aria-label": `${shown.length} transfers; arrows lead from point to point` });
  chart.node.append(svg("line", { class: "diagonal", x1: chart.x(range[0]), y1: chart.y(range[0]), x2: chart.x(range[1]), y2: chart.y(range[1]) }));
  if (!shown.length) chart.node.append(svg("text", { x: chart.left + 12, y: chart.top + 22 }, "No run can be compared yet."));
  const many = shown.length > 150;
  const stop = shown.includes(chosen) ? chosen : shown[0]; // one stop of the Tab key; arrows lead on
  const walk = (event, transfer) => {
    const next = ["Enter", " "].includes(event.key) ? transfer : neighbour(event.key, transfer, shown);
    if (!next) return;
    event.preventDefault();
    choose(next);
  };
  // The chosen one is drawn last, above the others.
  for (const transfer of [...shown].sort((a, b) => (a === chosen) - (b === chosen))) {
    const x = chart.x(transfer.forecast.value), y = chart.y(transfer.achieved), result = outcome(transfer);
    const kind = `${result}${transfer === chosen ? " chosen" : many ? " many" : ""}`;
    const title = `${transfer.source} → ${transfer.target}, ${trained(transfer)}: predicted ${percent(transfer.forecast.value)} (${percent(transfer.forecast.low)} to ${percent(transfer.forecast.high)}), achieved ${percent(transfer.achieved)}`;
    box.append(
      svg(
        "g",
        { class: "pick", role: "option", tabindex: transfer === stop ? 0 : -1, "aria-selected": `${transfer === chosen}`, "aria-label": title, onclick: () => choose(transfer), onkeydown: (event) => walk(event, transfer) },
        svg("line", { class: `interval ${kind}`, x1: chart.x(transfer.forecast.low), x2: chart.x(transfer.forecast.high), y1: y, y2: y }),
        mark(SHAPES[result], x, y, transfer === chosen ? 7 : many ? 3.5 : 5, { class: kind }, title),
      ),
    );
  }
  chart.node.append(box);
  return chart.node;
}

/** One run: achieved accuracy over the epochs, above its forecast, its reference and the forecasts during training. */
export function course(transfer, width) {
  const { forecast, reference, running } = transfer;
  const [moments, accuracy] = transfer.curve;
  const curve = Array.isArray(reference) ? reference : null;
  const end = Math.max(1, ...moments, ...(curve ? curve[0] : []));
  const levels = [...accuracy, ...running.map((point) => point[1]), ...(curve ? curve[1] : [reference]), ...(forecast ? [forecast.low, forecast.high] : [])];
  const range = extent(levels, 0.1);
  const chart = axes(width, 300, { range: [0, end], format: (value) => `${value}`, label: "epochs trained" }, { range, format: fine(range) }, "Accuracy over the epochs");
  const inside = (value) => Math.min(range[1], Math.max(range[0], value));
  if (forecast) {
    chart.node.append(
      band(chart, [0, end], [forecast.low, forecast.low], [forecast.high, forecast.high], { class: "band predicted" }),
      line(chart, [0, end], [forecast.value, forecast.value], { class: "line predicted" }),
    );
  }
  if (running.length) {
    const at = (place) => running.map((point) => inside(point[place]));
    const times = running.map(([epoch]) => epoch);
    chart.node.append(
      band(chart, times, at(2), at(3), { class: "band running" }),
      line(chart, times, at(1), { class: "line running" }),
    );
  }
  if (reference != null) {
    const [times, heights] = curve ?? [[0, end], [reference, reference]];
    chart.node.append(line(chart, times, heights, { class: "line reference" }));
  }
  chart.node.append(line(chart, moments, accuracy, { class: "line achieved" }));
  moments.forEach((epoch, i) =>
    chart.node.append(mark("circle", chart.x(epoch), chart.y(accuracy[i]), moments.length > 40 ? 2 : 3.5, { class: "dot achieved" }, `${percent(accuracy[i])} after ${epochs(epoch)}`)),
  );
  return chart.node;
}

/** Accuracy of the linear probe over the depth of the source, and from where to train. */
export function depth(transfer, texts, width) {
  const layers = transfer.layers.map(([name, accuracy, deviation, feedsHead]) => ({ name: texts[name], accuracy, deviation: deviation ?? 0, feedsHead }));
  const range = extent([...layers.flatMap((l) => [l.accuracy - l.deviation, l.accuracy + l.deviation]), transfer.together], 0.1);
  const last = layers.length - 1, step = Math.max(1, Math.ceil(layers.length / Math.max(2, Math.floor(width / 34))));
  const places = layers.map((_, i) => i).filter((i) => i % step === 0);
  const x = { range: [-0.7, last + 0.7], places, format: (i) => `${i + 1}`, label: "layer, in the order in which they run" };
  const chart = axes(width, 300, x, { range, format: fine(range) }, "Accuracy of a linear probe on each layer");
  const all = layers.map((_, i) => i);
  const cut = cutPlace(transfer, layers.map((layer) => layer.name));
  if (cut != null) {
    const edge = chart.x(cut - 0.5);
    chart.node.append(
      svg("rect", { class: "cut", x: edge, y: chart.top, width: Math.max(2, chart.right - edge), height: chart.bottom - chart.top }),
      svg("line", { class: "cut-edge", x1: edge, x2: edge, y1: chart.top, y2: chart.bottom }),
    );
  }
  chart.node.append(
    band(chart, all, layers.map((l) => l.accuracy - l.deviation), layers.map((l) => l.accuracy + l.deviation), { class: "band achieved" }),
    line(chart, all, layers.map((l) => l.accuracy), { class: "line achieved" }),
  );
  if (transfer.together != null) chart.node.append(line(chart, x.range, [transfer.together, transfer.together], { class: "line predicted" }));
  layers.forEach((layer, i) => {
    const title = `${layer.name}: ${percent(layer.accuracy)} ± ${percent(layer.deviation)}`;
    chart.node.append(mark(layer.feedsHead ? "diamond" : "circle", chart.x(i), chart.y(layer.accuracy), layer.feedsHead ? 7 : 4, { class: layer.feedsHead ? "head" : "dot achieved" }, title));
  });
  return chart.node;
}

/** Mean accuracy minus that of the reference over the epochs, a line for each level of LEEP; or the accuracy itself. */
export function convergence(levels, width) {
  const known = levels.some((level) => level.difference) ? "difference" : "accuracy";
  const drawn = levels.map((level, i) => [level, i]).filter(([level]) => level[known]);
  const values = drawn.flatMap(([level]) => [...level[known][2], ...level[known][3]]);
  const range = known === "difference" ? extent([...values, 0], 0.1, [-1, 1]) : extent(values, 0.1);
  const end = Math.max(...drawn.map(([level]) => level[known][0].at(-1)));
  const format = known === "difference" ? (value) => points(value, 0).replace(" points", "") : whole;
  const chart = axes(width, 320, { range: [0, end], format: (value) => `${value}`, label: "epochs trained" }, { range, format }, "Convergence by level of LEEP");
  for (const [level, i] of drawn) {
    const [epochs, mean, low, high] = level[known];
    const kind = `level${Math.round((4 * i) / Math.max(1, levels.length - 1))}`;
    chart.node.append(
      band(chart, epochs, low, high, { class: `band ${kind}` }),
      line(chart, epochs, mean, { class: `line ${kind}` }),
      mark("circle", chart.x(epochs.at(-1)), chart.y(mean.at(-1)), 4, { class: `dot ${kind}` }, levelWords(level)),
    );
  }
  if (known === "difference") chart.node.append(line(chart, [0, end], [0, 0], { class: "line reference" }));
  return chart.node;
}

/** A level of LEEP in words. */
export function levelWords(level) {
  return `LEEP ${number(level.low, 2)} to ${number(level.high, 2)} nats, ${level.count} ${level.count === 1 ? "run" : "runs"}`;
}

/** Forecasts of a source as bars on one scale for all sources. */
export function forecastBar(forecast, range, best, width) {
  const place = (value) => 4 + ((value - range[0]) / (range[1] - range[0] || 1)) * (width - 8);
  const kind = best ? "inside" : "many inside";
  return svg(
    "svg",
    { width, height: 16, role: "img", "aria-label": `${percent(forecast.accuracy)}, ${percent(forecast.low)} to ${percent(forecast.high)}` },
    svg("line", { class: "grid", x1: 4, x2: width - 4, y1: 8, y2: 8 }),
    svg("line", { class: `interval ${kind} chosen`, x1: place(forecast.low), x2: place(forecast.high), y1: 8, y2: 8 }),
    mark("circle", place(forecast.accuracy), 8, 5, { class: kind }),
  );
}

/** The words that say how far a run was from its forecast. */
export function outcomeWords(transfer) {
  const result = outcome(transfer);
  return result in SHAPES ? `${result}, ${points(error(transfer))}` : result;
}
