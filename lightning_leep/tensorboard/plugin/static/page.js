// The page: what it shows of the data, and what the user has chosen.
import { counts, epochs, error, matches, moved, number, outcome, percent, sorted, summaryWords, trained } from "./arithmetic.js";
import { comparison, outcomeWords } from "./charts.js";
import { levelsPart, rankingPart, transferPart } from "./parts.js";
import { html, legend, responsive } from "./svg.js";

// Title, what to sort by, text of a cell, explanation; a minor column is left out in a narrow window.
const COLUMNS = [
  { title: "source", value: (t) => t.source, name: true, hint: "pre-trained model" },
  { title: "target", value: (t) => t.target, name: true, hint: "data set" },
  { title: "trained", value: trained, name: true, hint: "what was trained: head, all, part, gradual or scratch" },
  { title: "LEEP (nats)", value: (t) => t.leep, cell: (t) => number(t.leep, 2), hint: "0 is perfect", numeric: true, minor: true },
  { title: "predicted", value: (t) => t.forecast?.value, cell: predictedCell, hint: "accuracy that was forecast, with its interval", numeric: true },
  { title: "achieved", value: (t) => t.achieved, cell: (t) => percent(t.achieved), hint: "best accuracy of all validations", numeric: true },
  { title: "outcome", value: (t) => (counts(t) ? error(t) : null), cell: outcomeWords, hint: "achieved, seen from the interval, and achieved minus predicted" },
  { title: "to 90%", value: (t) => (t.last_written ? null : t.to90), cell: (t) => epochs(t.last_written ? null : t.to90), hint: "epochs until 90% of the best accuracy", numeric: true, minor: true },
  { title: "date", value: (t) => t.date, cell: (t) => t.date.slice(0, 10), hint: "UTC", minor: true },
];
const RUN = { title: "run", value: (t) => t.run, name: true, end: true, hint: "run of TensorBoard" };

function predictedCell({ forecast }) {
  return forecast ? `${percent(forecast.value)} (${(100 * forecast.low).toFixed(0)}–${(100 * forecast.high).toFixed(0)}%)` : "–";
}

/** Fills `root` with the page. `data` is what `page_data` makes; a second call keeps what the user has chosen. */
export function show(root, data, advice = "Train with LEEPCallback; each finished run adds a record to the history.") {
  const page = (root.page ??= { filter: {}, column: "date", descending: true, chosen: null });
  const { transfers, texts } = data;
  if (!root.closest(".leep")) root.classList.add("leep");
  if (!transfers.length && !data.rankings.length) {
    root.replaceChildren(html("h1", {}, "Transfers"), html("p", { class: "empty" }, `Nothing to show yet. ${advice}`));
    return;
  }
  // The date of a run changes when it ends.
  const key = (t) => t.run ?? [t.date, t.source, t.target, t.trainable].join("\n");
  const columns = transfers.some((t) => t.run) ? [RUN, ...COLUMNS] : COLUMNS;
  const summary = html("p", { class: "summary", role: "status" });
  const body = html("tbody", {});
  const detail = html("div", {});
  let shown = [], rows = [], chosen = null;
  const chart = responsive((width) => comparison(shown, chosen, pick, width));
  const pick = (transfer) => {
    choose(transfer);
    chart.querySelector("[tabindex='0']").focus({ preventScroll: true });
  };

  const choose = (transfer, focus = false) => {
    chosen = transfer;
    page.chosen = key(transfer);
    rows.forEach((row, i) => {
      const is = shown[i] === transfer;
      row.setAttribute("aria-selected", is);
      row.tabIndex = is ? 0 : -1;
      if (is && focus) row.focus({ preventScroll: true });
      if (is) reveal(row);
    });
    detail.replaceChildren(transferPart(transfer, texts));
    chart.redraw();
  };
  // Scrolls the table alone; the page stays where the reader is.
  const reveal = (row) => {
    const box = row.closest(".rows"), head = table.tHead.offsetHeight;
    if (!box) return;
    if (row.offsetTop - head < box.scrollTop) box.scrollTop = row.offsetTop - head;
    const below = row.offsetTop + row.offsetHeight - box.clientHeight;
    if (below > box.scrollTop) box.scrollTop = below;
  };
  const refresh = () => {
    const column = columns.find(({ title }) => title === page.column) ?? columns[0];
    shown = sorted(transfers.filter((t) => matches(t, page.filter)), column.value, page.descending);
    rows = shown.map((t) => row(t));
    body.replaceChildren(...rows);
    summary.replaceChildren(...summaryWords(shown).map((sentence, i) => html(i ? "span" : "strong", {}, `${sentence} `)));
    for (const cell of table.querySelectorAll("th")) {
      const is = cell.dataset.title === page.column;
      cell.setAttribute("aria-sort", is ? (page.descending ? "descending" : "ascending") : "none");
    }
    const next = shown.find((t) => key(t) === page.chosen) ?? shown[0];
    if (next) choose(next);
    else {
      detail.replaceChildren();
      chart.redraw();
    }
  };
  const row = (t) =>
    html(
      "tr",
      { tabindex: -1, onclick: () => choose(t, true) },
      ...columns.map(({ value, cell, numeric, minor, name, end, title }) => {
        const text = cell ? cell(t) : value(t) || "–";
        return html("td", { class: `${numeric ? "numeric" : ""}${minor ? " minor" : ""}${name ? " name" : ""}${end ? " end" : ""}${title === "outcome" ? ` ${outcome(t).replace(" ", "-")}` : ""}`, title: cell ? null : text }, end ? html("bdi", {}, text) : text);
      }),
    );
  const sort = (title) => {
    page.descending = page.column === title ? !page.descending : false;
    page.column = title;
    refresh();
  };
  const walk = (event) => {
    const place = rows.indexOf(event.target.closest("tr"));
    const next = place < 0 ? null : moved(event.key, place, rows.length);
    if (next == null) return;
    event.preventDefault();
    choose(shown[next], true);
  };
  const heads = columns.map(({ title, hint, numeric, minor }) =>
    html("th", { scope: "col", "data-title": title, class: `${numeric ? "numeric" : ""}${minor ? " minor" : ""}` }, html("button", { type: "button", title: hint, onclick: () => sort(title) }, title)),
  );
  const table = html("table", { class: "transfers", role: "grid", "aria-label": "Transfers" }, html("thead", {}, html("tr", {}, ...heads)), body);
  body.addEventListener("keydown", walk);

  const text = html("input", { type: "search", placeholder: "source, target, run …", "aria-label": "Filter by name", value: page.filter.text ?? "" });
  text.addEventListener("input", () => refreshWith("text", text.value));
  const refreshWith = (name, value) => {
    page.filter[name] = value;
    refresh();
  };
  const choice = (name, words, read) => {
    const known = [...new Set(transfers.map(read))].filter(Boolean).sort();
    const options = known.map((value) => html("option", { value, selected: page.filter[name] === value }, value));
    const select = html("select", { "aria-label": words, onchange: () => refreshWith(name, select.value) }, html("option", { value: "" }, words), ...options);
    return known.length > 1 && select;
  };
  const filters = html("div", { class: "filters" }, text, choice("source", "any source", (t) => t.source), choice("trainable", "anything trained", (t) => t.trainable), choice("result", "any outcome", outcome));
  const scatter = html("figure", {}, html("figcaption", {}, "Achieved against predicted accuracy"), chart, legend([["inside", "inside its interval"], ["above", "above"], ["below", "below"], ["diagonal", "exact"]]));
  const list = html("div", {}, filters, html("div", { class: "scroll rows" }, table));
  root.replaceChildren(
    html("h1", {}, transfers.length ? `${transfers.length.toLocaleString("en")} transfer${transfers.length > 1 ? "s" : ""}` : "Ranking"),
    ...data.rankings.map(rankingPart),
    ...(transfers.length ? [summary, html("section", { class: "overview", "aria-label": "Transfers" }, list, scatter), detail, levelsPart(data.levels)] : []),
  );
  if (transfers.length) refresh();
}
