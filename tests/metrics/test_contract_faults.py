"""Bad batches, bad arguments and failing processes, for every metric of the library: one error, and nothing changes."""

import copy

import pytest
import torch

from tests._helpers.metric_cases import (
    CASES,
    FEATURES,
    OUTPUTS,
    TWO_PASS,
    WRONG_BATCHES,
    C,
    Z,
    batch,
    build,
    each_state,
    every,
    expected,
    filled,
    may_not_converge,
    values_of,
)
from tests._helpers.metric_state import assert_unchanged, snapshot

pytestmark = may_not_converge


@pytest.mark.slow
class TestBadInput:
    @each_state
    @pytest.mark.parametrize("method", ["update", "forward"])
    def test_bad_batch_is_one_error_and_nothing_changes(self, name, method):
        metric = filled(name, batch(name, 30))
        value = metric.compute()
        before = snapshot(metric)
        for change, error, message in WRONG_BATCHES:
            with pytest.raises(error, match=message):
                getattr(metric, method)(*change(*batch(name, 9, 1)))
            assert_unchanged(metric, before)
        assert metric.compute() is value

    @pytest.mark.parametrize("name", OUTPUTS)
    @pytest.mark.parametrize("row", [[-0.1, 1.1], [0.5, 0.6], [torch.nan, 1.0], [torch.inf, 0.0]])
    def test_what_is_no_probability(self, name, row):
        metric = build(name, from_logits=False)
        with pytest.raises(ValueError, match="`preds` must hold"):
            metric(torch.tensor([row + [0.0] * (Z - 2)]), torch.tensor([0]))
        assert not metric.update_called

    @every
    def test_bad_constructor_arguments(self, name):
        case = CASES[name]
        for arguments, message in [
            ({"num_target_classes": 0}, "`num_target_classes` must be an integer of at least 1, got 0"),
            ({"width": 2.0}, r"`num_(source_classes|features)` must be an integer of at least 1, got 2\.0"),
            ({"ignore_index": 0.5}, "`ignore_index` must be an integer or None, got 0.5"),
            ({"validate_args": None}, "`validate_args` must be True or False, got None"),
            *([({"from_logits": "yes"}, "`from_logits` must be True or False")] if name in OUTPUTS else []),
            *([({"keep_rows": 1}, "`keep_rows` must be True or False, got 1")] if name in TWO_PASS else []),
            *[
                ({key: 1}, f"`{key}` must be True or False")
                for key in ("leave_one_out", "shrinkage")
                if key in case.settings
            ],
            ({"unknown": 1}, "Unexpected keyword arguments: `unknown`"),
        ]:
            sizes = {"num_target_classes": C, "width": 2} | arguments
            width = {"num_source_classes" if name in OUTPUTS else "num_features": sizes.pop("width")}
            with pytest.raises(ValueError, match=message):
                case.metric(**(case.settings | sizes | width))

    @every
    def test_too_few_rows_are_nan_with_a_warning(self, name):
        metric = build(name)
        kind = CASES[name].metric.__name__
        with pytest.warns(UserWarning, match=rf"{kind} needs at least \d rows to say anything, got 0|before the ``upd"):
            values = values_of(metric.compute())
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))
        with pytest.warns(UserWarning, match=rf"{kind} needs at least \d rows to say anything, got [01]"):
            values = values_of(metric(*batch(name, 1)))
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))

    @pytest.mark.parametrize("name", FEATURES)
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e80])
    def test_unchecked_features_that_are_not_finite_have_no_score(self, name, value):
        """1e80 is finite, but its fourth power is not. Shapes are always checked."""
        rows, labels = (t.clone() for t in batch(name, 90))
        rows[50, 3] = value
        metric = filled(name, (rows[:40], labels[:40]), (rows[40:], labels[40:]), validate_args=False)
        with pytest.raises(ValueError, match="`features` must have 5 features"):
            metric.update(torch.ones(2, 2), torch.tensor([0, 1]))
        values = values_of(metric.compute())
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))

    @pytest.mark.parametrize("name", ["leep", "nce"])
    def test_checks_may_be_switched_off_for_good_batches(self, name):
        value = values_of(filled(name, batch(name, 30), validate_args=False).compute())
        assert value == expected(name, batch(name, 30))


@pytest.mark.parametrize("name", TWO_PASS)
def test_error_after_pooling_leaves_the_local_state(name, monkeypatch):
    for method in ("compute", "second_pass"):
        gather = {"dist_sync_fn": lambda value, group: [value, value], "distributed_available_fn": lambda: True}
        metric = filled(name, batch(name, 30), keep_rows=method == "compute", **gather)
        states = copy.deepcopy(metric.metric_state)

        def out_of_memory():
            raise MemoryError

        monkeypatch.setattr(metric, "row_scorer", out_of_memory)
        with pytest.raises(MemoryError):
            getattr(metric, method)()
        torch.testing.assert_close(metric.metric_state, states, rtol=0.0, atol=0.0)
