"""The options of a scoring pass: defaults, checks, flat names."""

import dataclasses
import pickle
import typing

import numpy as np
import pytest
import torch

from lightning_leep import ScoringOptions
from lightning_leep.scoring.options import OptionNames, merged_options


def by_hand(batch):
    return batch["x"], batch["y"]


def test_flat_names_are_those_of_the_dataclass():
    assert typing.get_type_hints(OptionNames) == typing.get_type_hints(ScoringOptions)


def test_options_are_values():
    options = ScoringOptions(split_batch=by_hand, ignore_index=-100, memory="cpu")
    assert pickle.loads(pickle.dumps(options)) == options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.memory = "device"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *(("from_logits", value, ValueError) for value in (None, 1, "yes")),
        *(("nleep", value, ValueError) for value in (None, 0)),
        *(("feature_scores", value, ValueError) for value in (None, 1, "log_me")),
        *(("ignore_index", value, ValueError) for value in (1.0, True, "no")),
        *(("split_batch", value, TypeError) for value in ("package.function", 3)),
        *(("head", value, TypeError) for value in (3, True, torch.nn.Linear(2, 2))),
        *(("memory", value, ValueError) for value in ("gpu", "", 1000, None, ("cpu",))),
        *(("class_dim", value, ValueError) for value in (0, True, 1.0, "last")),
        *(("num_permutations", value, ValueError) for value in (-1, 18, 20.0, True)),
    ],
)
def test_impossible_values(name, value, error):
    with pytest.raises(error, match=f"`{name}`.* got "):
        ScoringOptions(**{name: value})


def test_integers_of_numpy():
    options = ScoringOptions(ignore_index=np.int64(-1), num_permutations=np.int32(19))
    assert (options.ignore_index, options.num_permutations) == (-1, 19)


def test_options_that_exclude_each_other():
    assert ScoringOptions(nleep=True, memory="cpu").nleep
    for options, said in (
        ({"nleep": True, "memory": "second_pass"}, "`nleep=True` needs the features of all rows"),
        ({"nleep": True, "feature_scores": False}, "`nleep=True` needs features"),
        ({"head": False, "feature_scores": False}, "`feature_scores` must be True"),
    ):
        with pytest.raises(ValueError, match=said):
            ScoringOptions(**options)


def test_flat_names_come_before_the_object():
    options = ScoringOptions(ignore_index=3, memory="second_pass")
    assert merged_options(options, {"ignore_index": 5}) == ScoringOptions(ignore_index=5, memory="second_pass")
    assert options.ignore_index == 3
    assert merged_options(None, {}) == ScoringOptions()
    with pytest.raises(ValueError, match="`nleep=True`"):  # the result is checked
        merged_options(options, {"nleep": True})
    with pytest.raises(TypeError, match="unexpected keyword argument 'adapter'"):
        merged_options(None, {"adapter": by_hand})
    for other in ({"memory": "cpu"}, "cpu", ScoringOptions):
        with pytest.raises(TypeError, match="`options` must be ScoringOptions or None, got"):
            merged_options(other, {})
