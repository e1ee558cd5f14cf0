"""What all scores have in common as functions: how they take their input, and what they refuse."""

from functools import partial

import pytest
import torch

from lightning_leep.functional import h_score, leep, linear_probe, log_me, nce, nleep
from tests._helpers.metric_cases import CASES, WRONG_BATCHES, C, batch, expected

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def probe(*args, **kwargs):
    return linear_probe(*args, **kwargs).accuracy


FUNCTIONS = {
    "leep": leep,
    "leave_one_out_leep": partial(leep, leave_one_out=True),
    "nce": nce,
    "h_score": h_score,
    "h_score_plain": partial(h_score, shrinkage=False),
    "log_me": log_me,
    "linear_probe": probe,
    "nleep": partial(nleep, num_components=3),
}
every = pytest.mark.parametrize("name", FUNCTIONS)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_is_that_of_the_input_alone(name, dtype):
    rows, labels = batch(name, 90)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = FUNCTIONS[name](rows.to(dtype), labels, C)
    assert (value.dtype, value.ndim) == (torch.float64, 0)
    softmax = "leep" in name and name != "nleep" and dtype != torch.float64  # which is taken in float32
    assert {"value": value.item()} == expected(name, (rows.to(dtype), labels), rel=1e-6 if softmax else 1e-9)


@every
@pytest.mark.parametrize(("ignore_index", "absent"), [(-100, 0), (255, 2), (1, 3)])
def test_dense_input_ignored_rows_whatever_they_hold_and_absent_classes(name, ignore_index, absent):
    """Empty classes change nothing, be they the first, in the middle or last, and however many there are."""
    rows, labels = (t.clone() for t in batch(name, 96))
    labels[labels == ignore_index] = 0
    kept = torch.arange(96) % 5 > 0
    wanted, present = expected(name, (rows[kept], labels[kept])), labels + (labels >= absent)
    rows[~kept], present[~kept] = torch.nan, ignore_index
    dense, target = rows.reshape(8, 3, 4, -1).permute(0, 3, 1, 2), present.reshape(8, 3, 4)  # [N, K, d1, d2]
    for num_target_classes in (C + 1, 50):
        value = FUNCTIONS[name](dense, target, num_target_classes, ignore_index=ignore_index)
        assert {"value": value.item()} == wanted


@every
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_are_an_error_and_no_perfect_score(name, n):
    rows, labels = (t.clone() for t in batch(name, 5))
    labels[n:] = -100
    with pytest.raises(ValueError, match=rf"at least 2.* rows.*got ({n}|none)|needs at least as many .* got {n}"):
        FUNCTIONS[name](rows, labels, C, ignore_index=-100)


@pytest.mark.parametrize("name", ["leave_one_out_leep", "linear_probe"])
def test_rows_that_are_all_the_only_one_of_their_class(name):
    rows, _ = batch(name, 3)
    with pytest.raises(ValueError, match="needs a class with at least 2 rows in `target`, got none"):
        FUNCTIONS[name](rows, torch.arange(3), C)


@every
def test_bad_input_is_named(name):
    for change, error, message in WRONG_BATCHES:
        if "dimension 1" not in message:  # whose size a function reads off its input
            with pytest.raises(error, match=message):
                FUNCTIONS[name](*change(*batch(name, 9)), C)
    width = "features" if CASES[name].of_features else "classes"
    for arguments, message in [
        *(
            ({"num_target_classes": value}, "`num_target_classes` must be an integer of at least 1, got")
            for value in (0, -1, 2.0, "3", True, torch.tensor(3))
        ),
        *(
            ({"ignore_index": value}, "`ignore_index` must be an integer or None, got")
            for value in (1.5, "void", True, [255])
        ),
        ({"preds": torch.rand(9, 0)}, f"at least 1 of the {width} in dimension 1"),
    ]:
        rows = arguments.pop("preds", batch(name, 9)[0])
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[name](rows, batch(name, 9)[1], **({"num_target_classes": C} | arguments))


def test_flags_are_bools():
    for function, flag in (
        (leep, "leave_one_out"),
        (leep, "from_logits"),
        (nce, "from_logits"),
        (h_score, "shrinkage"),
    ):
        with pytest.raises(ValueError, match=f"`{flag}` must be True or False, got 'no'"):
            function(*batch("leep", 9), C, **{flag: "no"})


@pytest.mark.parametrize("function", [leep, nce])
def test_what_the_outputs_are_is_said_and_checked(function):
    logits, labels = batch("leep", 9)
    theta = logits.softmax(dim=1)
    value = function(theta, labels, C, from_logits=False).item()
    assert value == pytest.approx(function(logits, labels, C).item(), rel=1e-12)
    with pytest.raises(ValueError, match="must hold .*probabilities"):
        function(logits, labels, C, from_logits=False)
    with pytest.raises(ValueError, match="row of -inf alone"):
        function(torch.full((2, 3), -torch.inf), torch.tensor([0, 1]), C)
