"""NCE as a metric: what its counts are shared with. The rest is in test_contract.py."""

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep import NegativeConditionalEntropy
from lightning_leep.functional.nce import nce
from tests._helpers.references import random_task

C, Z = 4, 6


def test_probabilities_are_checked_to_be_some_and_score_as_their_logits():
    preds, target = random_task(50, Z, C)
    metric = NegativeConditionalEntropy(C, Z, from_logits=False)
    with pytest.raises(ValueError, match="`from_logits=True`"):
        metric.update(preds, target)
    metric.update(preds.softmax(dim=1), target)
    assert metric.compute() == nce(preds, target, C)


def test_compute_groups_follow_what_is_counted():
    """Another ignored label does not count the same, even if the first batch has none; nor are values checked alike."""
    settings = {"a": {}, "b": {}, "c": {"ignore_index": 3}, "d": {"validate_args": False}}
    collection = MetricCollection({name: NegativeConditionalEntropy(C, Z, **s) for name, s in settings.items()})
    preds, target = random_task(100, Z, C)
    collection.update(preds[target < 3], target[target < 3])
    collection.update(preds, target)
    assert sorted(sorted(group) for group in collection.compute_groups.values()) == [["a", "b"], ["c"], ["d"]]
    preds, target = torch.cat([preds[target < 3], preds]), torch.cat([target[target < 3], target])
    values = collection.compute()
    assert values["a"].item() == values["b"].item() == pytest.approx(nce(preds, target, C).item(), rel=1e-12)
    assert values["c"].item() == pytest.approx(nce(preds, target, C, ignore_index=3).item(), rel=1e-12)
