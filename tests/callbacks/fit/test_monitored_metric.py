"""A monitored value that is not the share of rows that are right is said to be so."""

import warnings

import pytest
import torch
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import C, Classifier, D, fit, make_source, train_loader

GENERATOR = torch.Generator().manual_seed(3)
UNEQUAL = TensorDataset(torch.randn(60, D, generator=GENERATOR), torch.tensor([0] * 48 + [1] * 8 + [2] * 4))
EQUAL = TensorDataset(torch.randn(60, D, generator=GENERATOR), torch.arange(60) % C)


def said(metric, data):
    module, leep = Classifier(), LEEPCallback(make_source(), strict=True)
    module.accuracy = metric
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, leep, loader=train_loader(data))
    return [str(w.message) for w in caught if "`monitor=" in str(w.message)], leep


def test_a_macro_average_of_unequal_classes_is_told_once_with_the_probe_of_its_kind():
    messages, leep = said(MulticlassAccuracy(C, average="macro"), UNEQUAL)
    (message,) = messages
    assert "macro average" in message
    assert f"{leep.report.linear_probe_balanced_accuracy:.3f}" in message


def test_a_score_that_is_not_an_accuracy_is_told():
    (message,), _ = said(MulticlassF1Score(C), EQUAL)
    assert "MulticlassF1Score" in message


@pytest.mark.parametrize(("average", "data"), [("macro", EQUAL), ("weighted", UNEQUAL)])
def test_averages_that_are_the_share_of_rows_are_not_mentioned(average, data):
    assert said(MulticlassAccuracy(C, average=average), data)[0] == []
