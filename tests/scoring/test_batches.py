import re
from types import SimpleNamespace

import pytest
import torch

from lightning_leep.scoring.batches import source_output, split_batch

INPUTS, LABELS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize("batch", [(INPUTS, LABELS), [INPUTS, LABELS]])
def test_pair(batch):
    inputs, target = split_batch(batch)
    assert inputs is INPUTS
    assert target is LABELS


def test_mapping_with_labels_gives_the_rest_as_inputs():
    batch = {"input_ids": INPUTS, "labels": LABELS, "attention_mask": INPUTS}
    inputs, target = split_batch(batch)
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert target is LABELS
    assert "labels" in batch  # the caller's batch is left as it was


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((INPUTS, INPUTS, LABELS), "a tuple of length 3"),
        ({"image": INPUTS, "label": LABELS}, "the keys ['image', 'label']"),
        (INPUTS, "a Tensor"),
    ],
)
def test_other_batches_ask_for_an_adapter(batch, said):
    with pytest.raises(TypeError, match=re.escape(said) + ".*Pass `adapter="):
        split_batch(batch)


def test_source_gets_a_mapping_as_keyword_arguments():
    seen = {}

    def source(a, b):
        seen.update(a=a, b=b)
        return a

    assert source_output(source, {"a": INPUTS, "b": LABELS}) is INPUTS
    assert seen == {"a": INPUTS, "b": LABELS}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: SimpleNamespace(logits=x), lambda x: {"logits": x, "loss": 0}])
def test_output_is_the_tensor_or_its_logits(wrap):
    assert source_output(lambda inputs: wrap(inputs), INPUTS) is INPUTS


@pytest.mark.parametrize("output", [(INPUTS, INPUTS), {"scores": INPUTS}, None])
def test_other_outputs_are_named(output):
    with pytest.raises(TypeError, match=f"`source` must return a tensor.*got {type(output).__name__}"):
        source_output(lambda inputs: output, INPUTS)
