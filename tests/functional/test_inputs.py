"""Inputs come out as float rows and long labels, unguessed. Types and shapes that are refused: test_scores.py."""

import math

import pytest
import torch

from lightning_leep.functional.inputs import flatten_rows, probability_rows
from tests._helpers.references import reference_softmax

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_type_of_labels_becomes_long(dtype):
    _, labels = flatten_rows(torch.rand(3, 2), torch.tensor([2, 0, 1], dtype=dtype))
    assert labels.dtype == torch.long
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("dtype", "label", "ignore_index"), [(torch.uint8, 156, -100), (torch.int8, -1, 255), (torch.uint8, 255, -1)]
)
def test_narrow_labels_do_not_wrap_around_to_ignore_index(dtype, label, ignore_index):
    # torch compares uint8(156) with -100 modulo 256 and says that they are equal
    _, labels = flatten_rows(torch.rand(2, 2), torch.tensor([label, 1], dtype=dtype), ignore_index)
    assert labels.tolist() == [label, 1]


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (2, 3, 0)])
def test_empty_batches_have_no_rows(shape):
    rows, labels = flatten_rows(torch.rand(shape), torch.zeros(shape[0], *shape[2:]).long())
    assert rows.shape == (0, 3)
    assert labels.shape == (0,)
    for from_logits in (True, False):
        assert probability_rows(rows, from_logits).shape == (0, 3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_is_taken_in_float32_or_better(dtype):
    logits = torch.tensor([[20.0, 0.0, -3.0], [-4.0, 16.0, 1.0]], dtype=dtype)
    probs = probability_rows(logits, from_logits=True)
    assert probs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # relative, so that 2e-9, which float16 cannot hold, counts as much as 1
    torch.testing.assert_close(probs.double(), torch.from_numpy(reference_softmax(logits)), rtol=3e-7, atol=0.0)


def test_switched_off_source_class_is_allowed_but_not_a_row_of_them():
    assert probability_rows(torch.tensor([[0.0, -math.inf]]), from_logits=True).tolist() == [[1.0, 0.0]]
    with pytest.raises(ValueError, match="row of -inf alone"):
        probability_rows(torch.tensor([[0.0, 1.0], [-math.inf, -math.inf]]), from_logits=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_logits_that_are_no_numbers(dtype):
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="`preds` must hold finite logits"):
            probability_rows(torch.tensor([[0.0, 1.0], [bad, 1.0]], dtype=dtype), from_logits=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([math.nan, 1.0], "negative value or NaN"),
        ([-0.1, 1.1], "negative value or NaN"),
        ([math.inf, 0.0], "sum is inf away from 1"),
        ([0.5, 0.625], r"sum is 0\.125 away from 1"),
        ([0.0, 0.0], "sum is 1 away from 1"),
        ([3.0, 1.0], "sum is 3 away from 1"),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_are_no_probabilities(row, message, dtype):
    with pytest.raises(ValueError, match=message + r"[\s\S]*`from_logits=True`"):
        probability_rows(torch.tensor([[0.5, 0.5], row], dtype=dtype), from_logits=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_probabilities_are_rescaled_to_a_sum_of_one(dtype):
    probs = torch.rand(50, 1000).softmax(dim=1).to(dtype)
    assert (probs.float().sum(dim=1) - 1).abs().max() > 1e-5  # what makes this test one
    sums = probability_rows(probs, from_logits=False).double().sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(50).double(), atol=2.5e-6, rtol=0)


@pytest.mark.parametrize("validate_args", [True, False])
def test_a_row_does_not_depend_on_the_rows_beside_it(validate_args):
    exact, off = torch.tensor([[0.25, 0.75 + 1.2e-6]]), torch.tensor([[0.4, 0.6005]])
    together = probability_rows(torch.cat([exact, off]), from_logits=False, validate_args=validate_args)
    alone = [probability_rows(row, from_logits=False, validate_args=validate_args) for row in (exact, off)]
    assert torch.equal(together, torch.cat(alone))


def test_probabilities_within_rounding_are_used_as_they_are():
    probs = torch.rand(8, 10).softmax(dim=1)
    assert probability_rows(probs, from_logits=False).data_ptr() == probs.data_ptr()


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_probabilities_are_not_changed_in_place(dtype, validate_args):
    probs = (torch.rand(8, 10).softmax(dim=1) * 1.0005).to(dtype)
    before = probs.clone()
    rows = probability_rows(probs, from_logits=False, validate_args=validate_args)
    assert torch.equal(probs, before)
    unchecked = dtype in (torch.float32, torch.float64) and not validate_args  # used as they are
    assert ((rows.sum(dim=1) - 1).abs().max() > 1e-4) == unchecked


def test_sum_of_a_row_may_be_further_from_one_in_half_precision():
    row = torch.tensor([[0.5, 0.505859375]])  # both are exact in float16 and bfloat16
    assert probability_rows(row.half(), from_logits=False).sum().item() == pytest.approx(1, abs=1e-6)
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match=r"sum is 0\.00586 away from 1"):
            probability_rows(row.to(dtype), from_logits=False)
