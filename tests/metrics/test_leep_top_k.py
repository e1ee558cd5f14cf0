"""LEEPMetric(top_k=k): the interval always contains LEEP, what is kept is small."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from lightning_leep import EEPAccuracy, LEEPMetric
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.references import label_entropy, random_task, reference_leep, reference_nce, tasks


def metric_of(theta, labels, num_target_classes, top_k, **kwargs):
    metric = LEEPMetric(num_target_classes, theta.shape[1], from_logits=False, top_k=top_k, **kwargs)
    metric.update(theta, labels)
    return metric


def width(metric):
    low, high = metric.interval()
    return (high - low).item()


@settings(deadline=None, max_examples=300)
@given(task=tasks(), k=st.integers(1, 7), single=st.booleans())
def test_interval_contains_leep_and_the_estimate(task, k, single):
    theta, labels, c = task
    theta = theta.float() if single else theta
    metric = metric_of(theta, labels, c, k)
    low, high = metric.interval()
    # Rows of float32 sum to 1 within 1e-7: what the formula has above 0 then is rounding, and LEEP is at most 0.
    assert low <= min(reference_leep(theta, labels, c), 0.0) <= high <= 0
    assert low <= metric.compute() <= high


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 20), scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
def test_interval_contains_leep_of_larger_tasks(seed, k, scale):
    logits, labels = random_task(60, 20, 4, seed=seed, scale=scale)
    metric = LEEPMetric(4, 20, top_k=k)
    metric.update(logits, labels)
    low, high = metric.interval()
    assert low <= reference_leep(logits.softmax(dim=1), labels, 4) <= high
    assert low <= metric.compute() <= high


@settings(deadline=None)
@given(task=tasks(), more=st.integers(0, 3))
def test_with_all_probabilities_kept_it_is_exact(task, more):
    theta, labels, c = task
    metric = metric_of(theta, labels, c, theta.shape[1] + more)
    assert metric.compute().item() == pytest.approx(reference_leep(theta, labels, c), abs=1e-11)
    assert width(metric) < 1e-11


def test_with_all_but_one_kept_it_is_exact():
    """The residual mass of a row lies on one source class, which is known."""
    logits, labels = random_task(50, 6, 3)
    metric = LEEPMetric(3, 6, top_k=5)
    metric.update(logits, labels)
    assert metric.compute().item() == pytest.approx(reference_leep(logits.softmax(dim=1), labels, 3), abs=1e-10)
    assert width(metric) < 1e-10


def test_with_one_image_of_each_class_it_is_exact():
    """The truncated part of the only row of a class is the class's total."""
    theta = torch.randn(5, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=1)
    labels = torch.arange(5)
    metric = metric_of(theta, labels, 5, 1)
    assert metric.compute().item() == pytest.approx(reference_leep(theta, labels, 5), abs=1e-10)
    assert width(metric) < 1e-10


def test_one_target_class():
    logits, _ = random_task(20, 8, 2)
    metric = metric_of(logits.double().softmax(dim=1), torch.zeros(20, dtype=torch.long), 1, 1)
    low, high = metric.interval()
    assert -1e-10 < low <= metric.compute() <= high == 0


@pytest.mark.parametrize("k", [1, 3])
def test_constant_source_scores_minus_the_label_entropy(k):
    theta = torch.tensor([[0.4, 0.3, 0.2, 0.05, 0.05]], dtype=torch.float64).expand(9, 5)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 3, 3])  # class 2 is absent
    metric = metric_of(theta, labels, 5, k)
    assert metric.compute().item() == pytest.approx(-label_entropy(labels), abs=1e-11)
    assert width(metric) < 1e-11


def test_one_hot_source_is_nce_with_one_probability_kept():
    source_labels, labels = torch.tensor([0, 0, 2, 2, 2, 5, 1, 1]), torch.tensor([0, 1, 1, 1, 2, 0, 0, 0])
    metric = metric_of(torch.eye(6)[source_labels], labels, 4, 1)
    assert metric.compute().item() == pytest.approx(reference_nce(source_labels, labels), abs=1e-12)
    assert width(metric) < 1e-11


def test_more_kept_narrows_the_interval_and_the_error_on_typical_outputs():
    logits, labels = random_task(300, 50, 5, scale=2.0)
    exact = reference_leep(logits.softmax(dim=1), labels, 5)
    widths, errors = {}, {}
    for k in (1, 5, 25):
        metric = LEEPMetric(5, 50, top_k=k)
        metric.update(logits, labels)
        widths[k], errors[k] = width(metric), abs(metric.compute().item() - exact)
    assert widths[25] < 0.1 * widths[5] < 0.1 * widths[1]
    assert errors[25] < errors[5] < errors[1]
    assert errors[1] < 0.1 * widths[1]


def test_totals_of_the_classes_narrow_the_interval_of_small_likelihoods():
    """40 classes, so that likelihoods are near 1/40, against bounds on each row alone."""
    logits, labels = random_task(800, 30, 40)
    metric = LEEPMetric(40, 30, top_k=5)
    metric.update(logits, labels)
    parts, _ = metric._likelihood_parts()
    alone = (parts.kept + parts.high).log().mean() - (parts.kept + parts.low).log().mean()
    assert metric.compute() < -3
    assert width(metric) < 0.6 * alone


def test_batches_and_their_order_do_not_matter():
    logits, labels = random_task(100, 12, 4)
    whole = LEEPMetric(4, 12, top_k=3)
    whole.update(logits, labels)
    parts = LEEPMetric(4, 12, top_k=3)
    for start, end in ((60, 100), (60, 60), (0, 1), (1, 60)):
        parts.update(logits[start:end], labels[start:end])
    torch.testing.assert_close(parts.interval(), whole.interval(), rtol=0, atol=1e-11)
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=0, atol=1e-12)


def test_dense_prediction_and_ignored_labels():
    logits, labels = random_task(24, 7, 3)
    dense = logits.reshape(2, 3, 4, 7).movedim(-1, 1)  # [2, 7, 3, 4]
    target = labels.reshape(2, 3, 4).clone()
    target[0, 1, :2] = -100
    metric = LEEPMetric(3, 7, ignore_index=-100, top_k=2)
    metric.update(dense, target)
    keep = target.flatten() != -100
    expected = LEEPMetric(3, 7, top_k=2)
    expected.update(logits[keep], labels[keep])
    torch.testing.assert_close(metric.interval(), expected.interval(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("num_source", "index_bytes"), [(1000, 2), (40_000, 4)])
def test_bytes_kept_of_each_row(num_source, index_bytes):
    metric = LEEPMetric(2, num_source, top_k=8)
    metric.update(torch.randn(50, num_source), torch.arange(50) % 2)
    held = [t for name in ("rows", "columns", "residuals", "labels") for t in getattr(metric, name)]
    assert sum(t.untyped_storage().nbytes() for t in held) == 50 * (8 * (4 + index_bytes) + 16)


@pytest.mark.parametrize("top_k", [0, -1, 2.0, True, "3"])
def test_top_k_must_be_a_positive_integer(top_k):
    with pytest.raises(ValueError, match="`top_k` must be an integer of at least 1"):
        LEEPMetric(2, 3, top_k=top_k)


@pytest.mark.parametrize("other", [{"leave_one_out": True}, {"keep_rows": False}, {"row_dtype": torch.float16}])
def test_top_k_does_not_go_with_other_ways_to_keep_rows(other):
    with pytest.raises(ValueError, match=r"`top_k`.*" + next(iter(other))):
        LEEPMetric(2, 3, top_k=2, **other)


def test_interval_needs_top_k():
    with pytest.raises(RuntimeError, match="`interval` needs `top_k`"):
        LEEPMetric(2, 3).interval()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_fewer_than_two_rows_are_nan_with_a_warning():
    metric = LEEPMetric(2, 3, top_k=1)
    for _ in range(2):
        with pytest.warns(UserWarning, match="at least 2 rows"):
            assert all(math.isnan(end) for end in metric.interval())
        with pytest.warns(UserWarning, match="at least 2 rows"):
            assert math.isnan(metric.compute())
        metric.reset()
        metric.update(torch.randn(1, 3), torch.tensor([1]))


def test_bad_batch_leaves_everything_as_it_was():
    metric = metric_of(torch.full((2, 3), 1 / 3), torch.tensor([0, 1]), 2, 1)
    before = snapshot(metric)
    with pytest.raises(ValueError, match="`target` must hold labels"):
        metric.update(torch.full((2, 3), 1 / 3), torch.tensor([0, 2]))
    assert_unchanged(metric, before)


def test_interval_leaves_the_metric_as_it_was():
    logits, labels = random_task(20, 6, 3)
    metric = LEEPMetric(3, 6, top_k=2)
    metric.update(logits, labels)
    before = snapshot(metric)
    metric.interval()
    assert_unchanged(metric, before)


def test_forward_is_the_value_of_the_batch_and_adds_it():
    logits, labels = random_task(40, 6, 3)
    metric, whole = LEEPMetric(3, 6, top_k=2), LEEPMetric(3, 6, top_k=2)
    for start in (0, 20):
        batch = LEEPMetric(3, 6, top_k=2)
        batch.update(logits[start : start + 20], labels[start : start + 20])
        value = metric(logits[start : start + 20], labels[start : start + 20])
        torch.testing.assert_close(value, batch.compute(), rtol=0, atol=1e-13)
    whole.update(logits, labels)
    torch.testing.assert_close(metric.interval(), whole.interval(), rtol=0, atol=1e-11)


def test_merge_pickle_clone_reset_and_state_dict():
    logits, labels = random_task(40, 6, 3)
    whole = LEEPMetric(3, 6, top_k=2)
    whole.update(logits, labels)
    first, second = LEEPMetric(3, 6, top_k=2), LEEPMetric(3, 6, top_k=2)
    first.update(logits[:25], labels[:25])
    second.update(logits[25:], labels[25:])
    first.merge_state(second)
    loaded = LEEPMetric(3, 6, top_k=2)
    first.persistent(True)
    loaded.load_state_dict(first.state_dict())
    for other in (first, pickle.loads(pickle.dumps(first)), first.clone(), loaded):
        torch.testing.assert_close(other.interval(), whole.interval(), rtol=0, atol=1e-11)
    first.reset()
    first.update(logits[:25], labels[:25])
    fresh = LEEPMetric(3, 6, top_k=2)
    fresh.update(logits[:25], labels[:25])
    torch.testing.assert_close(first.interval(), fresh.interval(), rtol=0, atol=0)


def test_states_of_other_settings_or_in_pieces_are_refused():
    metric = metric_of(torch.full((3, 4), 0.25), torch.tensor([0, 1, 1]), 2, 2)
    with pytest.raises(ValueError, match="other settings"):
        metric.merge_state(metric_of(torch.full((3, 4), 0.25), torch.tensor([0, 1, 1]), 2, 3))
    states = metric.metric_state
    with pytest.raises(ValueError, match=r"1 `rows`, 0 `columns` and 1 `residuals`"):
        metric.merge_state(states | {"columns": []})


def test_compute_groups_keep_what_differs_apart():
    """On the first batch all of them keep the same; only what follows tells them apart."""
    collection = MetricCollection(
        {
            "four": LEEPMetric(3, 5, top_k=4),
            "also_four": LEEPMetric(3, 5, top_k=4),
            "five": LEEPMetric(3, 5, top_k=5),
            "six": LEEPMetric(3, 5, top_k=6),
            "all": LEEPMetric(3, 5),
            "accuracy": EEPAccuracy(3, 5),
        }
    )
    logits, labels = random_task(30, 5, 3)
    for start in (0, 10, 20):
        collection.update(logits[start : start + 10], labels[start : start + 10])
    groups = {frozenset(members) for members in collection.compute_groups.values()}
    assert groups == {frozenset(g) for g in (["four", "also_four"], ["five"], ["six"], ["all", "accuracy"])}
    values = collection.compute()
    for name in ("four", "also_four", "five", "six"):
        assert values[name].item() == pytest.approx(values["all"].item(), abs=1e-10)
        low, high = collection[name].interval()
        assert low <= values["all"] <= high
