"""What the history says of sources: partial pooling against a mixed model written out, and histories of records."""

import math

import numpy as np
import pytest

from lightning_leep.ranking.baselines import (
    SourceEffect,
    SourceHistory,
    history_shifts,
    source_effects,
    source_histories,
)
from lightning_leep.records import AccuracyCurve
from tests._helpers.simulated_transfers import make_record


def effects_of(table):
    """Effects of a table ``[sources, targets]``."""
    places = [(s, t) for s in range(table.shape[0]) for t in range(table.shape[1]) if not np.isnan(table[s, t])]
    return source_effects(
        [table[place] for place in places], [f"s{s}" for s, _ in places], [f"t{t}" for _, t in places]
    )


def test_a_whole_table_by_hand():
    """Row means about the grand mean, shrunk by one minus the ratio of the noise to their variance."""
    table = np.random.default_rng(0).normal(size=(5, 7)) + np.arange(5)[:, None]
    raw = table.mean(axis=1) - table.mean()
    residual = table - table.mean(axis=0) - raw[:, None]
    noise = (residual**2).sum() / (4 * 6)
    between = raw.var(ddof=1) - noise / 7
    shrunk = 7 * between / (7 * between + noise) * raw
    found = effects_of(table)
    assert [found[f"s{s}"].effect for s in range(5)] == pytest.approx(list(shrunk))
    assert found["s0"].standard_error == pytest.approx(math.sqrt(between * noise / (7 * between + noise)))
    assert found["s0"].num_records == 7


def test_fewer_records_are_shrunk_more():
    rng = np.random.default_rng(1)
    table = 0.3 * rng.normal(size=(6, 8)) + np.array([2.0, 2.0, 0.0, 0.0, -2.0, -2.0])[:, None]
    table[0, 2:] = np.nan  # two records
    found = effects_of(table)
    assert found["s0"].num_records == 2
    assert found["s0"].standard_error > found["s1"].standard_error


def test_small_tables():
    """A source that was only tried on an easy target is not better for that; noise alone gives no effect."""
    assert effects_of(np.array([[0.9, np.nan], [0.9, 0.5], [0.9, 0.5]]))["s0"].effect == pytest.approx(0.0)
    noise = effects_of(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert all(effect.effect == effect.standard_error == 0 for effect in noise.values())
    assert source_effects([0.9, 0.7], ["a", "b"], ["t", "t"])["a"].effect == pytest.approx(0.05)  # half of it
    found = source_effects([0.9, 0.8, 0.6], ["a", "b", "c"], ["x", "y", "y"])
    assert (found["a"].effect, found["a"].num_records) == (0.0, 0)  # the only source on its target
    assert source_effects([], [], []) == {}


def test_sources_without_a_common_target_are_not_compared():
    """Two pairs of sources, each on a target of its own: that one target is harder says nothing of its sources."""
    values, sources, targets = [0.9, 0.8, 0.3, 0.2], ["a", "b", "c", "d"], ["x", "x", "y", "y"]
    found = source_effects(values, sources, targets)
    assert found["a"].effect == pytest.approx(found["c"].effect)
    assert found["a"].effect == pytest.approx(0.025)  # half of what it is above the mean of its target
    assert found["a"].group == found["b"].group != found["c"].group == found["d"].group
    bridged = source_effects([*values, 0.5, 0.4], [*sources, "b", "c"], [*targets, "z", "z"])
    assert len({effect.group for effect in bridged.values()}) == 1


def record(source, target, achieved, trainable="head", **values):
    curve = AccuracyCurve() if achieved is None else AccuracyCurve((1,), (achieved,))
    return make_record(curve=curve, trainable=trainable, source_name=source, target_name=target, **values)


class TestHistories:
    def test_means_and_effects(self):
        history = [record("a", "x", 0.9), record("a", "y", 0.7), record("b", "x", 0.8), record("b", "y", 0.6)]
        found = source_histories(history, trainable="head")
        assert found["a"].mean_accuracy == pytest.approx(0.8)
        assert found["a"].num_records == 2
        assert found["a"].effect.effect == pytest.approx(0.05)
        assert found["b"].effect.effect == pytest.approx(-0.05)
        again = source_histories([record("a", "x", 0.1), *history], trainable="head")  # a run of the same transfer
        assert again["a"].num_records == 2

    def test_what_is_left_out(self):
        history = [
            record("a", "here", 0.9),
            record("a", "x", 0.9, trainable="all"),
            record("a", "x", None),
            record("a", "x", 0.9, complete=False),
            record("", "x", 0.9),
            record("a", "", 0.9),
        ]
        assert source_histories(history, trainable="head", target_name="here") == {}
        assert source_histories([], trainable="head") == {}


class TestShifts:
    @staticmethod
    def past(effect, num_records=4, error=0.01):
        return SourceHistory(0.5, num_records, SourceEffect(effect, error, num_records))

    def test_by_hand(self):
        """About their means the forecasts are 0.1 and -0.1, the effects 0.3 and -0.3; four targets weigh 4/9."""
        found = history_shifts({"a": 0.9, "b": 0.7}, {"a": self.past(0.3), "b": self.past(-0.3)})
        assert found["a"] == pytest.approx((4 / 9 * 0.2, 4 / 9 * 0.01))
        assert found["b"] == pytest.approx((-4 / 9 * 0.2, 4 / 9 * 0.01))
        past = {"a": self.past(0.3), "b": self.past(0.1), "c": self.past(0.0)}
        found = history_shifts({"a": 0.9, "b": 0.7, "c": 0.7}, past)
        assert sum(shift for shift, _ in found.values()) == pytest.approx(0.0)  # the level stays

    def test_without_a_history_nothing_moves(self):
        found = history_shifts({"a": 0.9, "b": 0.7, "c": 0.5}, {"a": self.past(0.3), "b": self.past(-0.3)})
        assert found["c"] == (0.0, 0.0)
        assert history_shifts({"a": 0.9, "b": 0.7}, {"a": self.past(0.3)}) == {"a": (0.0, 0.0), "b": (0.0, 0.0)}
        assert history_shifts({"a": 0.9, "b": 0.7}, {}) == {"a": (0.0, 0.0), "b": (0.0, 0.0)}
        none = {"a": self.past(0.3, 0), "b": self.past(-0.3, 0)}
        assert history_shifts({"a": 0.9, "b": 0.7}, none)["a"][0] == 0

    def test_a_source_that_shares_no_target_moves_nothing(self):
        """The third was alone on its target: its high forecast must not raise those of the others."""
        effects = source_effects([0.8, 0.7, 0.8, 0.7, 0.9], ["a", "b", "a", "b", "c"], ["x", "x", "y", "y", "z"])
        past = {name: SourceHistory(0.5, 1, effect) for name, effect in effects.items()}
        alone = history_shifts({"a": 0.7, "b": 0.7}, past)
        found = history_shifts({"a": 0.7, "b": 0.7, "c": 0.95}, past)
        assert found == {**alone, "c": (0.0, 0.0)}
        assert alone["a"][0] > 0 > alone["b"][0]
