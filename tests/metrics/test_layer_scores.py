"""Scores of layers that stand side by side, against the scores of each by itself."""

import pytest
import torch

from lightning_leep.functional import h_score, linear_probe, log_me
from lightning_leep.metrics.layer_scores import LayerScores
from tests._helpers.distributed import run_processes

C, WIDTHS = 4, (3, 8, 1, 5)
N, D = 60, sum(WIDTHS)
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.randint(C, (N,), generator=GENERATOR)
# Layers of different scale, correlated with each other, far from 0; the third says nothing.
X = (torch.randn(N, D, generator=GENERATOR, dtype=torch.double) + 2 * torch.nn.functional.one_hot(Y, D)).cumsum(1)
X[:, 11] = 100 + torch.randn(N, generator=GENERATOR, dtype=torch.double) * 0.01
X = 5 + X * torch.tensor([1.0, 30.0, 1.0, 0.1]).repeat_interleave(torch.tensor(WIDTHS))
NAMES = ("probe_accuracy", "probe_standard_error", "h_score", "log_me")


def expected(rows=X, target=Y, usable=range(4)):
    """The scores of each layer and of those that are usable together, from the functions for one matrix of features."""
    values = {name: torch.full((4,), torch.nan, dtype=torch.double) for name in NAMES}
    layers = rows.split(WIDTHS, dim=1)
    for i in usable:
        probe = linear_probe(layers[i], target, C)
        scores = (probe.accuracy, probe.standard_error, h_score(layers[i], target, C), log_me(layers[i], target, C))
        for name, score in zip(NAMES, scores, strict=True):
            values[name][i] = score
    together = linear_probe(torch.cat([layers[i] for i in usable], 1), target, C)
    values["multi_layer_probe_accuracy"] = together.accuracy
    values["multi_layer_probe_standard_error"] = together.standard_error
    return values


def fill(metric, rows=X, target=Y, size=17):
    for batch in zip(rows.split(size), target.split(size), strict=True):
        metric.update(*batch)
    if not metric.keep_rows:
        read = metric.second_pass()
        for batch in zip(rows.split(size), target.split(size), strict=True):
            read(*batch)
    return metric


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9, equal_nan=True, msg=name)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_scores_of_each_layer_and_of_all(keep_rows):
    assert_same(fill(LayerScores(C, WIDTHS, keep_rows=keep_rows)).compute(), expected())


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize("scored", [[], [2]])
def test_scores_of_some_layers_and_of_all_together(scored, keep_rows):
    wanted = expected()
    for name in NAMES:
        wanted[name][[layer for layer in range(4) if layer not in scored]] = torch.nan
    assert_same(fill(LayerScores(C, WIDTHS, scored=scored, keep_rows=keep_rows)).compute(), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("keep_rows", "value"), [(True, torch.nan), (False, torch.inf), (True, -1e200)])
def test_a_layer_that_is_not_finite_does_not_touch_the_others(keep_rows, value):
    for dtype in (torch.double, torch.float):
        rows = X.to(dtype)
        rows[40, 5] = torch.tensor(value, dtype=torch.double)  # infinite in float32
        got = fill(LayerScores(C, WIDTHS, keep_rows=keep_rows), rows).compute()
        assert_same(got, expected(X.to(dtype), usable=[0, 2, 3]))


def test_no_usable_layer_has_no_scores():
    got = fill(LayerScores(C, WIDTHS), torch.full_like(X, torch.nan)).compute()
    assert all(value.isnan().all() for value in got.values())


def test_ignored_rows_are_left_out():
    rows, target = X.clone(), Y.clone()
    target[::5] = -100
    rows[::5, 3] = torch.nan
    kept = target >= 0
    got = fill(LayerScores(C, WIDTHS, ignore_index=-100), rows, target).compute()
    assert_same(got, expected(X[kept], Y[kept]))


def test_a_second_pass_over_other_rows_is_an_error():
    metric = LayerScores(C, WIDTHS, keep_rows=False)
    metric.update(X, Y)
    metric.second_pass()(X + 1, Y)
    with pytest.raises(ValueError, match="second pass must have the rows of the first"):
        metric.compute()


def test_merged_metrics_know_of_each_others_layers():
    rows = X.clone()
    rows[40, 5] = torch.nan
    metric, other = LayerScores(C, WIDTHS), LayerScores(C, WIDTHS)
    fill(metric, X[:30], Y[:30])
    fill(other, rows[30:], Y[30:])
    metric.merge_state(other)
    assert_same(metric.compute(), expected(usable=[0, 2, 3]))


def _on_a_process(rank, world_size):
    rows = X.clone()
    rows[40, 5] = torch.nan  # seen by one process
    own = torch.arange(60).split([45, 0, 15])[rank]  # one has none
    return [fill(LayerScores(C, WIDTHS, keep_rows=keep), rows[own], Y[own]).compute() for keep in (True, False)]


@pytest.mark.distributed
def test_processes_find_the_same():
    wanted = expected(usable=[0, 2, 3])
    for found in run_processes(_on_a_process, 3):
        for got in found:
            assert_same(got, wanted)
