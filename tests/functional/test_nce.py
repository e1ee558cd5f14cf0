"""NCE against the entropies of the empirical distribution, counted one image at a time."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.functional.nce import decision_counts, nce, nce_from_counts


def entropy(items) -> float:
    counts = Counter(items)
    n = sum(counts.values())
    return -math.fsum(c / n * math.log(c / n) for c in counts.values())


def reference(labels, decisions) -> float:
    """-H(Y|Z) = H(Z) - H(Y, Z)."""
    return entropy(decisions) - entropy(list(zip(labels, decisions, strict=True)))


def one_hot(decisions, Z) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(decisions), Z).double()


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=60)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_equals_the_difference_of_entropies_and_its_bounds(rows):
    labels, decisions = zip(*rows, strict=True)
    value = nce(one_hot(decisions, 5), torch.tensor(labels), num_target_classes=4, from_logits=False).item()
    assert value == pytest.approx(reference(labels, decisions), abs=1e-12)
    assert -entropy(labels) - 1e-12 <= value <= 0


def test_source_classes_that_are_switched_off():
    preds = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    assert nce(preds, torch.tensor([0, 1]), 2) == 0


def test_ties_go_to_the_first_source_class():
    assert decision_counts(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), torch.tensor([0, 1]), 2).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
    ]


def test_counts_of_many_images_are_exact():
    counts = torch.tensor([[3 * 10**15, 10**15], [10**15, 10**15]])
    expected = (4 * entropy([0, 0, 0, 1]) + 2 * entropy([0, 1])) / 6
    assert nce_from_counts(counts).item() == pytest.approx(-expected, abs=1e-14)
