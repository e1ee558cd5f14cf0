"""Batches as data sets and collate functions make them: split into inputs and labels, and given to the source."""

import re

import pytest
import torch
from torch import nn

from lightning_leep import score
from lightning_leep.scoring.batches import call_source, split_pair_or_mapping
from tests._helpers.references import random_task, reference_leep, reference_softmax

INPUTS, LABELS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize("batch", [(INPUTS, LABELS), [INPUTS, LABELS]])
def test_pair(batch):
    inputs, target = split_pair_or_mapping(batch)
    assert inputs is INPUTS
    assert target is LABELS


@pytest.mark.parametrize("key", ["labels", "label", "target", "targets"])
def test_mapping_gives_all_but_the_labels_as_inputs(key):
    batch = {"input_ids": INPUTS, key: LABELS, "attention_mask": INPUTS}
    inputs, target = split_pair_or_mapping(batch)
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert target is LABELS
    assert key in batch  # the user's batch does not change


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((INPUTS, INPUTS, LABELS), "a tuple of length 3"),
        ({"image": INPUTS, "y": LABELS}, "the keys ['image', 'y']"),
        ({"image": INPUTS, "label": LABELS, "labels": LABELS}, "the keys ['image', 'label', 'labels']"),
        (INPUTS, "a Tensor"),
    ],
)
def test_other_batches_ask_for_a_function(batch, said):
    with pytest.raises(TypeError, match=re.escape(said) + ".*Pass `split_batch="):
        split_pair_or_mapping(batch)


def test_source_gets_a_mapping_as_keyword_arguments():
    assert call_source(lambda a, b: (a, b), {"b": LABELS, "a": INPUTS}) == (INPUTS, LABELS)
    assert call_source(lambda **given: sorted(given), {"b": LABELS, "a": INPUTS}) == ["a", "b"]


def test_one_entry_beside_the_labels():
    """By name where the source has it, else alone; it may be what a processor returned."""
    logits, y = random_task(60, 5, 3)
    report = score(nn.Flatten(), [{"image": logits, "label": y}], 3, progress=False)
    assert report.leep == pytest.approx(reference_leep(reference_softmax(logits), y, 3), abs=1e-6)
    inputs = {"pixel_values": INPUTS}
    assert call_source(lambda pixel_values: pixel_values, {"inputs": inputs}) is INPUTS
    assert call_source(lambda inputs: inputs, {"inputs": inputs}) is inputs


def test_entries_that_the_source_does_not_take():
    with pytest.raises(TypeError, match=r"does not take the entries \['image', 'index'\] of a batch .*`split_batch="):
        call_source(nn.Identity(), {"image": INPUTS, "index": LABELS})


def test_error_of_the_source_itself_stays():
    def source(image):
        raise TypeError("of its own")

    with pytest.raises(TypeError, match="^of its own$"):
        call_source(source, {"image": INPUTS})
