// What the page computes, against numbers worked out by hand. Run by test_arithmetic.py.
import assert from "node:assert/strict";
import { test } from "node:test";

const a = await import(process.env.ARITHMETIC);

const transfer = (achieved, low, value, high, more = {}) => ({
  source: "resnet", target: "pets", trainable: "head", trained_from: "", date: "2026-01-02T03:04:05", complete: true, achieved,
  forecast: value == null ? null : { low, value, high, coverage: 0.9, made_again: false }, ...more,
});

test("numbers explain themselves", () => {
  assert.equal(a.percent(0.7125), "71.3%");
  assert.equal(a.percent(null), "–");
  assert.equal(a.points(0.021), "+2.1 points");
  assert.equal(a.points(-0.021), "−2.1 points");
  assert.equal(a.points(-0.0001), "±0.0 points");
  assert.equal(a.number(-0.5, 2), "−0.50");
  assert.equal(a.epochs(1), "1 epoch");
  assert.equal(a.epochs(0.25), "0.25 epochs");
  assert.equal(a.epochs(1234), "1234 epochs");
  assert.equal(a.short(11_700_000), "11.7 M");
  assert.equal(a.short(999), "999");
  assert.equal(a.time("2026-01-02T03:04:05+00:00"), "2026-01-02 03:04 UTC");
});

test("the ends of an interval belong to it", () => {
  assert.equal(a.outcome(transfer(0.6, 0.6, 0.7, 0.8)), "inside");
  assert.equal(a.outcome(transfer(0.8, 0.6, 0.7, 0.8)), "inside");
  assert.equal(a.outcome(transfer(0.81, 0.6, 0.7, 0.8)), "above");
  assert.equal(a.outcome(transfer(0.59, 0.6, 0.7, 0.8)), "below");
});

test("what cannot be compared says why", () => {
  assert.equal(a.outcome(transfer(null, 0.6, 0.7, 0.8)), "no validation");
  assert.equal(a.outcome(transfer(0.7)), "no forecast");
  assert.equal(a.outcome(transfer(0.7, 0.6, 0.7, 0.8, { complete: false })), "ended early");
  assert.equal(a.outcome(transfer(0.7, 0.6, 0.7, 0.8, { last_written: "2026-01-02T03:04:05+00:00" })), "not ended");
  assert.equal(a.error(transfer(null, 0.6, 0.7, 0.8)), null);
});

test("the summary counts only what can be compared", () => {
  const all = [transfer(0.72, 0.6, 0.7, 0.8), transfer(0.85, 0.6, 0.7, 0.8), transfer(0.1, 0, 0.5, 1, { complete: false })];
  const summary = a.summarize(all);
  assert.deepEqual([summary.checked, summary.inside, summary.transfers], [2, 1, 3]);
  assert.ok(Math.abs(summary.absolute - 0.085) < 1e-12);
  assert.ok(Math.abs(summary.bias - 0.085) < 1e-12);
  assert.match(a.summaryWords(all).join(" "), /^1 of 2 inside the 90% interval, mean error 8\.5 points\. .*higher than predicted.* 1 more /);
  assert.match(a.summaryWords([]).join(), /No transfer matches/);
  assert.match(a.summaryWords([transfer(0.7)]).join(), /None of 1/);
});

test("a filter wants every word, in any name", () => {
  const pets = transfer(0.7, 0.6, 0.7, 0.8);
  assert.ok(a.matches(pets, { text: "PETS res" }));
  assert.ok(!a.matches(pets, { text: "pets vit" }));
  assert.ok(a.matches(pets, { trainable: "head", source: "resnet", result: "inside" }));
  assert.ok(!a.matches(pets, { result: "above" }));
});

test("sorting is stable and keeps what is missing at the end", () => {
  const items = [["b", 2], ["a", null], ["c", 2], ["d", 1]];
  const names = (descending) => a.sorted(items, (item) => item[1], descending).map(([name]) => name).join("");
  assert.equal(names(false), "dbca");
  assert.equal(names(true), "bcda");
  assert.deepEqual(a.sorted(["run10", "run9"], (text) => text), ["run9", "run10"]);
});

test("ticks are round and inside", () => {
  assert.deepEqual(a.ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(a.ticks(0.31, 0.69, 4), [0.4, 0.5, 0.6]);
  assert.deepEqual(a.ticks(-0.1, 0.1, 4), [-0.1, -0.05, 0, 0.05, 0.1]);
  assert.deepEqual(a.ticks(1, 1), [1]);
});

test("scales and extents", () => {
  assert.equal(a.scale(0, 10, 100, 200)(2.5), 125);
  assert.equal(a.scale(3, 3, 100, 200)(3), 100);
  assert.deepEqual(a.extent([], 0.1), [0, 1]);
  const [low, high] = a.extent([0.5, 0.5], 0.1);
  assert.ok(Math.abs(low - 0.45) < 1e-12 && Math.abs(high - 0.55) < 1e-12);
  assert.deepEqual(a.extent([0, 1]), [0, 1]);
});

test("keys move within the table", () => {
  assert.equal(a.moved("ArrowDown", 0, 3), 1);
  assert.equal(a.moved("ArrowUp", 0, 3), 0);
  assert.equal(a.moved("End", 0, 3), 2);
  assert.equal(a.moved("Home", 2, 3), 0);
  assert.equal(a.moved("x", 2, 3), null);
});

test("arrows lead from point to point", () => {
  const [low, high, top] = [transfer(0.6, 0.5, 0.5, 0.9), transfer(0.7, 0.5, 0.8, 0.9), transfer(0.9, 0.5, 0.6, 0.9)];
  const all = [low, high, top];
  assert.equal(a.neighbour("ArrowRight", low, all), top);
  assert.equal(a.neighbour("ArrowUp", low, all), high);
  assert.equal(a.neighbour("ArrowDown", low, all), low);
  assert.equal(a.neighbour("Home", high, all), low);
  assert.equal(a.neighbour("End", low, all), high);
  assert.equal(a.neighbour("x", low, all), null);
});

test("the advice is a place between two layers", () => {
  const names = ["stem", "layer1.0", "layer2.0", "layer2.1", "layer20.0"];
  const places = ["head", "all", "layer2", "layer2.1", "layer20", "layer3", ""].map((recommended) => a.cutPlace({ recommended }, names));
  assert.deepEqual(places, [5, 0, 2, 3, 4, null, null]);
});

test("a shared rank is marked", () => {
  const sources = [{ rank: 1 }, { rank: 1 }, { rank: 3 }, { rank: null }];
  assert.deepEqual(sources.map((source) => a.rankWords(source, sources)), ["1 =", "1 =", "3", "–"]);
});
