"""Rows stay where they are: what they cost, what is kept of them, and what scores are made of them."""

import pytest
import torch

from lightning_leep import EEPAccuracy, LEEPMetric
from lightning_leep.functional import leep
from tests._helpers.distributed import run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.peak_memory import needs_peak_memory, peak_extra_bytes, return_freed_blocks
from tests._helpers.references import random_task

EXACT = {"rel": 1e-12, "abs": 1e-12}


def measure_memory(rank, world_size):
    """Peak extra bytes of everything that looks at 20,000 rows of 1000 source classes, 80 MB in float32."""
    return_freed_blocks()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(100, (20_000,), generator=generator)
    batches = [torch.rand(5000, 1000, generator=generator).softmax(dim=1) for _ in range(4)]
    metric, accuracy = LEEPMetric(100, 1000, from_logits=False), EEPAccuracy(100, 1000, from_logits=False)

    def update():
        for rows, target in zip(batches, labels.split(5000), strict=True):
            metric.update(rows, target)
            accuracy.update(rows, target)

    return {
        "a known 100 MB": peak_extra_bytes(lambda: torch.ones(100 * 2**18)),
        "update": peak_extra_bytes(update),
        "compute": peak_extra_bytes(metric.compute),
        "compute of the accuracy": peak_extra_bytes(accuracy.compute),
        "sync": peak_extra_bytes(metric.sync),
        "leep()": peak_extra_bytes(lambda: leep(batches[0], labels[:5000], 100, from_logits=False)),
    }


@needs_peak_memory
@pytest.mark.distributed
def test_mistake_temporaries_that_grow_with_the_number_of_rows():
    (peaks,) = run_processes(measure_memory, 1)
    assert 99 * 2**20 < peaks.pop("a known 100 MB") < 104 * 2**20  # what makes this test one
    assert {name: peak for name, peak in peaks.items() if peak >= 24 * 10**6} == {}


def test_rows_are_kept_by_reference():
    batches = [torch.rand(15, 10).softmax(dim=1) for _ in range(4)]
    metric = LEEPMetric(3, 10, from_logits=False)
    for rows in batches:
        metric.update(rows, torch.arange(15) % 3)
    assert [rows.data_ptr() for rows in metric.rows] == [rows.data_ptr() for rows in batches]


class TestWithoutRows:
    """``keep_rows=False``: the batches come by twice."""

    @pytest.mark.parametrize("leave_one_out", [False, True])
    @pytest.mark.parametrize("change", [None, "update", "merge_state"])
    def test_without_a_second_pass_of_all_rows_there_is_no_answer(self, change, leave_one_out):
        """Scores from before the sums changed are forgotten."""
        metric = LEEPMetric(3, 5, leave_one_out=leave_one_out, keep_rows=False)
        metric.update(*random_task(40, 5, 3))
        if change is not None:
            metric.second_pass()(*random_task(40, 5, 3))
            metric.compute()
            metric.update(*random_task(9, 5, 3)) if change == "update" else metric.merge_state(metric.clone())
        assert metric.rows == []
        with pytest.raises(RuntimeError, match=r"`second_pass\(\)`"):
            metric.compute()

    @pytest.mark.parametrize("keep_rows", [True, False])
    @pytest.mark.parametrize(
        ("labels", "arguments"),
        [([2, 0, 1], {"leave_one_out": True}), ([7, 7, 7], {"ignore_index": 7})],
        ids=["one row of each class", "every row ignored"],
    )
    def test_nothing_to_score_is_the_same_answer_as_with_kept_rows(self, labels, arguments, keep_rows):
        batch = torch.rand(3, 5), torch.tensor(labels)
        metric = LEEPMetric(3, 5, keep_rows=keep_rows, **arguments)
        metric.update(*batch)
        if not keep_rows:
            metric.second_pass()(*batch)
        with pytest.warns(UserWarning, match="LEEPMetric needs at least 2 rows to say anything, got 0; it returns NaN"):
            assert metric.compute().isnan()

    def test_second_pass_with_rows_where_the_first_had_none(self):
        metric = LEEPMetric(3, 5, keep_rows=False, ignore_index=7)
        metric.update(torch.rand(3, 5), torch.full((3,), 7))
        metric.second_pass()(torch.rand(4, 5), torch.tensor([0, 1, 2, 2]))
        with pytest.raises(ValueError, match="must have the rows of the first, got 4 rows more"):
            metric.compute()

    def test_bad_batch_of_the_second_pass_changes_nothing(self):
        metric = LEEPMetric(3, 5, keep_rows=False)
        metric.update(*random_task(40, 5, 3))
        score_batch = metric.second_pass()
        before = snapshot(metric)
        with pytest.raises(ValueError, match="dimension 1"):
            score_batch(*random_task(40, 4, 3))
        assert_unchanged(metric, before)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda preds, labels: (preds + 0.3 * torch.randn_like(preds), labels), "rows whose sums differ by 0.0"),
            (lambda preds, labels: (preds[torch.arange(400) // 2], labels), "rows whose sums differ"),
            (lambda preds, labels: (preds, labels.roll(1)), "rows whose sums differ"),
            (lambda preds, labels: (preds, labels.where(torch.arange(400) > 0, 2 - labels)), "other labels"),
            (lambda preds, labels: (preds[1:], labels[1:]), "1 rows fewer"),
            (lambda preds, labels: (torch.cat([preds, preds[:2]]), torch.cat([labels, labels[:2]])), "2 rows more"),
        ],
    )
    def test_other_rows_in_the_second_pass(self, change, message):
        preds, labels = random_task(400, 5, 3)
        labels[0] = 0
        metric = LEEPMetric(3, 5, keep_rows=False)
        metric.update(preds, labels)
        metric.second_pass()(*change(preds, labels))
        with pytest.raises(ValueError, match=f"The second pass must have the rows of the first, got {message}"):
            metric.compute()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_last_digit_of_the_outputs_may_depend_on_the_batch(self, dtype):
        preds, labels = random_task(400, 5, 3)
        preds = preds.to(dtype)
        metric = LEEPMetric(3, 5, keep_rows=False)
        metric.update(preds, labels)
        order = torch.randperm(400)
        last_digit = 1 + torch.finfo(dtype).eps * torch.randint(-1, 2, preds.shape).to(dtype)
        metric.second_pass()((preds * last_digit)[order], labels[order])
        assert metric.compute().item() == pytest.approx(leep(preds, labels, 3).item(), abs=1e-2)

    def test_second_pass_of_kept_rows_would_count_them_twice(self):
        with pytest.raises(RuntimeError, match="keep_rows=False"):
            LEEPMetric(3, 5).second_pass()
