// The parts of the page below the table: one transfer, levels of LEEP, rankings, P(y|z).
import { cutPlace, epochs, error, extent, number, outcome, percent, points, rankWords, short, time, trained } from "./arithmetic.js";
import { convergence, course, depth, forecastBar, levelWords } from "./charts.js";
import { html, legend, responsive } from "./svg.js";

function figure(title, chart, entries, ...more) {
  return html("figure", {}, html("figcaption", {}, title), responsive(chart), legend(entries), ...more);
}

/** The numbers of a chart for those who cannot point at it. */
function asTable(heads, rows) {
  const line = (kind, cells) => html("tr", {}, ...cells.map((text) => html(kind, {}, text)));
  const table = html("table", {}, html("thead", {}, line("th", heads)), html("tbody", {}, ...rows.map((cells) => line("td", cells))));
  return html("details", {}, html("summary", {}, "As a table"), html("div", { class: "scroll rows", tabindex: 0, role: "region", "aria-label": "Numbers of the chart" }, table));
}

/** Everything that is known of one transfer. */
export function transferPart(transfer, texts) {
  const { forecast, reference, running, curve, layers, association } = transfer;
  const interval = forecast && `forecast ${percent(forecast.value)}, ${percent(forecast.coverage, 0)} interval ${percent(forecast.low)} to ${percent(forecast.high)}`;
  const entries = [
    curve[0].length && ["line achieved", "achieved"],
    forecast && ["line predicted", interval],
    running.length && ["line running", "best accuracy expected during training, with its interval"],
    reference != null && ["line reference", "reference"],
  ].filter(Boolean);
  const charts = html("div", { class: "charts" });
  if (curve[0].length || forecast) charts.append(figure("Accuracy over the epochs", (width) => course(transfer, width), entries, curve[0].length > 0 && asTable(["epochs trained", "accuracy"], curve[0].map((epoch, i) => [`${epoch}`, percent(curve[1][i])]))));
  if (layers.length > 1) charts.append(depthFigure(transfer, texts));
  if (association === "left out") charts.append(html("p", { class: "muted" }, "P(y|z) of this transfer is left out: a page of so many holds that of the newest. It is in the record."));
  else if (association) charts.append(associationFigure(association));
  return html(
    "section",
    { "aria-label": "One transfer", id: "transfer" },
    html("h2", {}, `${transfer.source || "unnamed source"} → ${transfer.target || "unnamed target"}`),
    html("p", {}, ...transferWords(transfer, texts).flatMap((sentence) => [sentence, " "])),
    charts,
    facts(transfer),
    transfer.notes.length > 0 && html("details", {}, html("summary", {}, `What limits the numbers (${transfer.notes.length})`), html("ul", {}, ...transfer.notes.map((place) => html("li", {}, texts[place])))),
  );
}

/** A transfer in sentences. */
export function transferWords(transfer, texts) {
  const { forecast, achieved, reference } = transfer;
  const words = [`Trained: ${trained(transfer)}.`];
  if (forecast) {
    const when = forecast.made_again ? "The scores alone foretell" : "Predicted";
    words.push(`${when} ${percent(forecast.value)} (${percent(forecast.coverage, 0)} interval ${percent(forecast.low)} to ${percent(forecast.high)}), from ${texts[forecast.basis]}.`);
  } else words.push("There is no forecast.");
  if (achieved == null) words.push("No validation yet.");
  else if (transfer.last_written) words.push(`Best accuracy so far ${percent(achieved)} in ${epochs(transfer.epochs)}.`);
  else {
    const result = outcome(transfer);
    words.push(`Best accuracy ${percent(achieved)} in ${epochs(transfer.epochs)}, 90% of it after ${epochs(transfer.to90)}.`);
    if (forecast && ["inside", "above", "below"].includes(result)) words.push(`That is ${result} the interval, ${points(error(transfer))} from the prediction.`);
    if (result === "ended early") words.push("The run ended early: it could have achieved more, and no forecast uses it.");
  }
  if (typeof reference === "number" && achieved != null) words.push(`Achieved minus reference: ${points(achieved - reference)}.`);
  if (transfer.last_written) words.push(`No end is written: the run is under way or was killed. It last wrote on ${time(transfer.last_written)}.`);
  return words;
}

function facts(transfer) {
  const known = [
    ["LEEP", transfer.leep, (value) => `${number(value)} nats (0 is perfect, ${number(transfer.floor)} says nothing)`],
    ["leave-one-out LEEP", transfer.leave_one_out_leep, (value) => `${number(value)} nats`],
    ["linear probe, last layer", transfer.probe, percent],
    ["linear probe, all layers", transfer.together, percent],
    ["scored rows", transfer.rows, (value) => value.toLocaleString("en")],
    ["target classes", transfer.classes, String],
    ["rows of a validation", transfer.test_size, (value) => value.toLocaleString("en")],
    ["optimizer", transfer.optimizer, String],
    ["learning rate", transfer.learning_rate, String],
    ["training time", transfer.seconds, (value) => `${short(value)} s`],
    ["date", transfer.date, time],
    ["run", transfer.run, String],
  ];
  const shown = known.filter(([, value]) => value != null && value !== "");
  return html("dl", {}, ...shown.map(([name, value, words]) => html("div", {}, html("dt", {}, name), html("dd", {}, words(value)))));
}

function depthFigure(transfer, texts) {
  const names = transfer.layers.map(([name]) => texts[name]);
  const cut = cutPlace(transfer, names);
  const entries = [["line achieved", "linear probe on each layer, ± standard error"], ["head", "input of the head"]];
  if (transfer.together != null) entries.push(["line predicted", `all layers together, ${percent(transfer.together)}`]);
  if (cut != null) entries.push(["band cut", cut >= names.length ? "advice: train the head alone" : cut === 0 ? "advice: train all layers" : `advice: train from ${transfer.recommended} on (layer ${cut + 1} of ${names.length})`]);
  return figure("Accuracy over the depth of the source", (width) => depth(transfer, texts, width), entries, asTable(["layer", "name", "accuracy of the probe"], transfer.layers.map(([name, accuracy, deviation], i) => [`${i + 1}`, texts[name], deviation == null ? percent(accuracy) : `${percent(accuracy)} ± ${(100 * deviation).toFixed(1)}`])));
}

function associationFigure({ targets, sources, p, left_out }) {
  const cell = (value, target, source) =>
    html("td", { class: `heat${Math.round(10 * value)}`, title: `P(${target} | ${source}) = ${value.toFixed(3)}` }, value >= 0.005 ? value.toFixed(2) : "");
  const head = html("tr", {}, html("td", {}), ...sources.map((name) => html("th", { scope: "col", title: name }, html("span", {}, name))));
  const rows = targets.map((name, y) => html("tr", {}, html("th", { scope: "row", title: name }, name), ...p[y].map((value, z) => cell(value, name, sources[z]))));
  return html(
    "figure",
    { class: `heat${sources.length > 8 ? " wide" : ""}${sources.some((name) => name.length > 4) ? " turned" : ""}` },
    html("figcaption", {}, "What the source classes stand for: P(target class | source class)"),
    html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "P(y|z)" }, html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows))),
    html("p", { class: "muted" }, left_out),
  );
}

/** How fast runs were, by level of LEEP. */
export function levelsPart(groups) {
  const figures = groups.map(({ trainable, levels }) => {
    const difference = levels.some((level) => level.difference);
    const entries = levels
      .map((level, i) => [`line level${Math.round((4 * i) / Math.max(1, levels.length - 1))}`, levelWords(level), level[difference ? "difference" : "accuracy"]])
      .filter(([, , curve]) => curve);
    const title = difference ? `Trained: ${trainable} (accuracy minus reference, in points)` : `Trained: ${trainable} (accuracy; no two runs have a reference)`;
    return figure(title, (width) => convergence(levels, width), entries.map(([kind, text]) => [kind, text]));
  });
  return html(
    "section",
    { "aria-label": "Convergence" },
    html("h2", {}, "How fast, by level of LEEP"),
    html("p", { class: "muted" }, figures.length ? "Mean of the runs in each level; the band is for 80% of single runs. A reference is the same network trained from scratch." : "Nothing yet. A level is the mean of at least two runs that trained the same part and ran to their end."),
    html("div", { class: "charts" }, ...figures),
  );
}

/** A ranking of sources, ties included. */
export function rankingPart(ranking) {
  const { sources, trainable } = ranking;
  const range = extent(sources.flatMap((s) => Object.values(s.forecasts).flatMap((f) => [f.low, f.high])), 0.1);
  const anything = (read) => sources.some((source) => read(source) != null);
  // The best source and those that cannot be told from it.
  const best = sources.filter((s, i) => s.rank != null && (s.tied_with_best || i === 0));
  const columns = [
    ["rank", (s) => rankWords(s, sources)],
    ["source", (s) => html("div", { class: "who" }, html("strong", {}, s.name), ...remarks(s).map((words) => html("small", { class: "muted" }, words)))],
    ...trainable.map((part) => [`forecast, train ${part}`, (s) => forecastCell(s.forecasts[part], range, best.includes(s))]),
    ["behind the best", (s) => (s.gap == null ? "–" : `${points(-s.gap)}${s.gap_standard_error == null ? "" : ` (± ${(100 * s.gap_standard_error).toFixed(1)})`}`), (s) => s.gap],
    ["leave-one-out LEEP (nats)", (s) => number(s.scores.leave_one_out_leep), (s) => s.scores.leave_one_out_leep],
    ["linear probe", (s) => percent(s.scores.linear_probe_accuracy), (s) => s.scores.linear_probe_accuracy],
    ["accuracy on other targets", (s) => (s.history_accuracy == null ? "–" : `${percent(s.history_accuracy)} (${s.history_records} runs)`), (s) => s.history_accuracy],
    ["parameters", (s) => short(s.num_parameters), (s) => s.num_parameters],
    ["rows per second", (s) => short(s.samples_per_second), (s) => s.samples_per_second],
  ].filter(([, , read]) => !read || anything(read));
  const head = html("tr", {}, ...columns.map(([title]) => html("th", { scope: "col" }, title)));
  const rows = sources.map((s) => html("tr", { class: s.error ? "failed" : "" }, ...columns.map(([, cell]) => html("td", {}, cell(s)))));
  const names = best.map((s) => s.name);
  const scored = sources.filter((s) => s.rank != null).length;
  const words = names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)} cannot be told apart on ${ranking.num_samples} rows.` : names.length ? `${names[0]} is the best of ${scored}, on ${ranking.num_samples} rows.` : "No source could be scored.";
  const order = trainable.includes(ranking.by) ? `the forecast for training ${ranking.by}` : ranking.by.replaceAll("_", " ");
  return html(
    "section",
    { "aria-label": "Ranking" },
    html("h2", {}, `Which source${ranking.target ? ` for ${ranking.target}` : ""}`),
    html("p", {}, html("strong", {}, words), ` Ordered by ${order}; "=" marks equal ranks.`),
    html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Ranking of sources" }, html("table", { class: "ranking" }, html("thead", {}, head), html("tbody", {}, ...rows))),
    ranking.notes.length > 0 && html("ul", { class: "muted" }, ...ranking.notes.map((note) => html("li", {}, note))),
  );
}

function forecastCell(forecast, range, best) {
  if (!forecast) return "–";
  return html("span", { class: "forecast" }, forecastBar(forecast, range, best, 120), ` ${percent(forecast.accuracy)} (${(100 * forecast.low).toFixed(0)}–${(100 * forecast.high).toFixed(0)}%)`);
}

function remarks(source) {
  const words = [source.error, ...source.notes].filter(Boolean);
  if (source.more_samples != null) words.push(`about ${source.more_samples.toLocaleString("en")} rows more would settle the tie`);
  return words;
}
