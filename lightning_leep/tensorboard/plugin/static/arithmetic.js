// What the page computes: pure functions of plain data.

/** A fraction as a percentage: 0.7125 is "71.3%"; a missing one is a dash. */
export function percent(value, digits = 1) {
  return value == null ? "–" : `${(100 * value).toFixed(digits)}%`;
}

/** A difference of two accuracies in points, with its sign: 0.021 is "+2.1 points". */
export function points(value, digits = 1) {
  if (value == null) return "–";
  const size = Math.abs(100 * value).toFixed(digits);
  return `${Number(size) === 0 ? "±" : value < 0 ? "−" : "+"}${size} points`;
}

/** A number with a real minus sign; a missing one is a dash. */
export function number(value, digits = 3) {
  return value == null ? "–" : value.toFixed(digits).replace("-", "−");
}

/** A number of epochs, shortest form. */
export function epochs(value) {
  return value == null ? "–" : `${Number(value < 100 ? value.toPrecision(3) : value.toFixed(0))} ${value === 1 ? "epoch" : "epochs"}`;
}

/** A time in UTC, to the minute. */
export function time(iso) {
  return `${iso.slice(0, 16).replace("T", " ")} UTC`;
}

/** What was trained, in words. */
export function trained(transfer) {
  return transfer.trained_from ? `${transfer.trainable} from ${transfer.trained_from}` : transfer.trainable;
}

/** Achieved minus predicted accuracy; null unless both are known. */
export function error(transfer) {
  return transfer.forecast && transfer.achieved != null ? transfer.achieved - transfer.forecast.value : null;
}

/** How a transfer came out: "inside", "above" or "below" its interval, or why that cannot be said. */
export function outcome(transfer) {
  if (transfer.last_written) return "not ended";
  if (transfer.achieved == null) return "no validation";
  if (!transfer.complete) return "ended early";
  if (!transfer.forecast) return "no forecast";
  // The data are rounded to five digits, an end of the interval may be the achieved accuracy itself.
  if (transfer.achieved > transfer.forecast.high + 1e-6) return "above";
  return transfer.achieved < transfer.forecast.low - 1e-6 ? "below" : "inside";
}

/** Whether a transfer has a forecast that can be checked. */
export function counts(transfer) {
  return ["inside", "above", "below"].includes(outcome(transfer));
}

/** How often the interval held, and how large the error was; null for what is unknown. */
export function summarize(transfers) {
  const checked = transfers.filter(counts);
  const errors = checked.map(error);
  const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
  const coverages = [...new Set(checked.map((transfer) => transfer.forecast.coverage))];
  return {
    transfers: transfers.length,
    checked: checked.length,
    inside: checked.filter((transfer) => outcome(transfer) === "inside").length,
    coverage: coverages.length === 1 ? coverages[0] : null,
    absolute: mean(errors.map(Math.abs)),
    bias: mean(errors),
    again: checked.filter((transfer) => transfer.forecast.made_again).length,
  };
}

/** The summary as sentences. */
export function summaryWords(transfers) {
  const { checked, inside, coverage, absolute, bias, again, transfers: all } = summarize(transfers);
  if (!all) return ["No transfer matches."];
  if (!checked) return [`None of ${all} can be compared with its forecast yet.`];
  const interval = coverage == null ? "their intervals" : `the ${Number((100 * coverage).toFixed(1))}% interval`;
  const side = bias > 0 ? "higher" : "lower";
  const words = [`${inside} of ${checked} inside ${interval}, mean error ${(100 * absolute).toFixed(1)} points.`];
  if (Math.abs(bias) >= 0.0005) words.push(`Achieved is ${Math.abs(100 * bias).toFixed(1)} points ${side} than predicted on average.`);
  if (checked < all) words.push(`${all - checked} more cannot be compared: not ended, ended early, or without forecast or validation.`);
  if (again) words.push(`${again} ${again === 1 ? "forecast was" : "forecasts were"} made afterwards, from the scores alone.`);
  return words;
}

/** Whether a transfer passes a filter: each word of `text` in a name, and equal choices ("" is any). */
export function matches(transfer, { text = "", trainable = "", source = "", result = "" }) {
  const names = [transfer.source, transfer.target, trained(transfer), transfer.run, transfer.date.slice(0, 10)].join(" ").toLowerCase();
  return (
    text.toLowerCase().split(/\s+/).every((word) => names.includes(word)) &&
    (!trainable || transfer.trainable === trainable) &&
    (!source || transfer.source === source) &&
    (!result || outcome(transfer) === result)
  );
}

/** A sorted copy. What is missing comes last in both directions; equal ones keep their order. */
export function sorted(items, value, descending = false) {
  const keyed = items.map((item) => [value(item), item]);
  const missing = (key) => key == null || key === "";
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  keyed.sort(([a], [b]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return descending ? compare(b, a) : compare(a, b);
  });
  return keyed.map(([, item]) => item);
}

/** Round numbers inside an interval: at most `count` + 1 of them, a step of 1, 2 or 5 times a power of ten apart. */
export function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * (1 - 1e-9));
  const first = Math.ceil(low / step - 1e-9);
  const places = [];
  for (let i = first; i * step <= high + step * 1e-9; i++) places.push(Number((i * step).toPrecision(12)));
  return places;
}

/** A linear map from one interval to another. */
export function scale(low, high, start, end) {
  const width = high - low || 1;
  return (value) => start + ((value - low) / width) * (end - start);
}

/** An interval around all known values, at least `least` wide, with a margin, inside `bounds`. */
export function extent(values, least = 0.1, bounds = [0, 1]) {
  const known = values.filter((value) => value != null);
  if (!known.length) return bounds;
  let low = known.reduce((a, b) => Math.min(a, b));
  let high = known.reduce((a, b) => Math.max(a, b));
  const margin = Math.max((high - low) * 0.05, (least - (high - low)) / 2);
  return [Math.max(bounds[0], low - margin), Math.min(bounds[1], high + margin)];
}

/** The place in the table that a key moves to: arrows, page keys, Home and End; null for any other key. */
export function moved(key, place, count, page = 10) {
  const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
  return key in steps && count ? Math.min(count - 1, Math.max(0, place + steps[key])) : null;
}

/** The transfer that a key moves to in the chart: an arrow to the next one in its direction, Home and End to the outer ones; null for any other key. */
export function neighbour(key, transfer, transfers) {
  const right = (t) => t.forecast.value, up = (t) => t.achieved;
  const moves = { ArrowLeft: [right, -1], ArrowRight: [right, 1], ArrowDown: [up, -1], ArrowUp: [up, 1], Home: [right, -Infinity], End: [right, Infinity] };
  if (!(key in moves)) return null;
  const [value, step] = moves[key];
  const order = sorted(transfers, value);
  return order[Math.min(order.length - 1, Math.max(0, order.indexOf(transfer) + step))];
}

/** The rank of a source with its ties: "1 =" is shared. */
export function rankWords(source, sources) {
  if (source.rank == null) return "–";
  return sources.filter((other) => other.rank === source.rank).length > 1 ? `${source.rank} =` : `${source.rank}`;
}

/** A large number in short: 11700000 is "11.7 M". */
export function short(value) {
  if (value == null) return "–";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return `${Number(value.toPrecision(3))}`;
}

/** Index of the first layer that the advice trains; the number of layers if it trains the head alone; null without. */
export function cutPlace({ recommended }, names) {
  if (recommended === "head") return names.length;
  if (recommended === "all") return 0;
  // Also the name of a module that holds several layers, such as "layer3" of "layer3.0".
  const place = names.findIndex((name) => name === recommended || name.startsWith(`${recommended}.`));
  return recommended && place >= 0 ? place : null;
}
