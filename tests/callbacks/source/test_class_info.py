"""Where the number and the names of classes are found."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_leep import LEEPCallback, ScoringOptions
from lightning_leep.callbacks.source.class_info import (
    find_class_names,
    find_num_target_classes,
    find_source_class_names,
)
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import Classifier, fit, make_data, make_source, trained_state

pytestmark = pytest.mark.usefixtures("no_forks")

NAMES = ["cat", "dog", "eel"]


class Named(TensorDataset):
    """A data set with the attribute that torchvision's have."""

    classes = NAMES


class Features:
    """A data set with the attribute that Hugging Face's have."""

    def __init__(self) -> None:
        self.features = {"image": object(), "label": SimpleNamespace(num_classes=3, names=NAMES)}


class WithHparams(pl.LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.save_hyperparameters()


class NotReady(pl.LightningDataModule):
    @property
    def num_classes(self):
        raise RuntimeError("call setup first")


def module_with(**attributes) -> nn.Module:
    module = nn.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("datamodule", "module", "dataset"),
    [
        (module_with(num_classes=3), None, None),
        (module_with(classes=NAMES), None, None),
        (module_with(class_names=tuple(NAMES)), None, None),
        (None, module_with(num_target_classes=3, classes=NAMES * 2), None),  # the source model may have names
        (None, module_with(num_classes=torch.tensor(3)), None),
        (None, WithHparams(num_classes=3), None),
        (None, None, Named(*make_data().tensors)),
        (None, None, Subset(Subset(Named(*make_data().tensors), range(9)), range(4))),
        (None, None, ConcatDataset([Named(*make_data().tensors), make_data()])),
        (None, None, Features()),
        (NotReady(), module_with(num_labels=3, num_classes=None), SimpleNamespace(classes=torch.arange(7))),
        (module_with(num_classes=3), module_with(n_classes=3), Named(*make_data().tensors)),
        (module_with(num_classes=True), module_with(num_classes=3), SimpleNamespace(num_classes=lambda: 7)),
    ],
)
def test_number_of_classes(datamodule, module, dataset):
    assert find_num_target_classes(datamodule, module, dataset) == 3


def test_places_that_disagree():
    with pytest.raises(ValueError, match=r"not clear: datamodule.num_classes = 4, .*Named = 3\. Pass `num_target_cl"):
        find_num_target_classes(module_with(num_classes=4), None, Named(*make_data().tensors))


def silent_module() -> Classifier:
    """A module that does not say how many classes it learns."""
    module = Classifier()
    del module.num_classes
    return module


def report_of(num_target_classes=None, target_class_names=None, **options):
    scoring = ScoringOptions(layers=None, num_permutations=0, **options)
    names = {"num_target_classes": num_target_classes, "target_class_names": target_class_names}
    callback = LEEPCallback(make_source(), strict=True, scoring=scoring, **names)
    fit(module := silent_module(), callback)
    assert trained_state(module) == plain_state()
    return callback.report


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"memory": "second_pass"}])
def test_labels_tell_where_nothing_else_does(options):
    """A larger number would have changed no score."""
    assert find_num_target_classes(None, silent_module(), make_data()) is None
    found, stated = report_of(**options), report_of(num_target_classes=4, **options)
    assert (found.num_target_classes, stated.num_target_classes) == (3, 4)
    assert any("The number of target classes, 3, was found from the labels" in note for note in found.notes)
    assert not any("from the labels" in note for note in stated.notes)
    for name in ("leep", "leave_one_out_leep", "nce", "linear_probe_accuracy", "h_score", "log_me"):
        assert getattr(found, name) == pytest.approx(getattr(stated, name), abs=1e-9), name


def test_given_names_are_a_statement():
    """The last name is that of a class without a row."""
    report = report_of(target_class_names=["a", "b", "c", "d"])
    assert report.num_target_classes == 4
    assert not any("from the labels" in note for note in report.notes)


def test_names_of_target_classes():
    assert find_class_names(None, Subset(Named(*make_data().tensors), range(3)), 3) == ("cat", "dog", "eel")
    assert find_class_names(module_with(class_names=["a", "b", "c"]), Named(*make_data().tensors), 3) == ("a", "b", "c")
    assert find_class_names(None, Features(), 3) == ("cat", "dog", "eel")
    assert find_class_names(None, Named(*make_data().tensors), 4) is None
    assert find_class_names(None, make_data(), 3) is None


def test_names_of_source_classes():
    config = SimpleNamespace(id2label={1: "dog", 0: "cat"})
    assert find_source_class_names(SimpleNamespace(config=config), 2) == ("cat", "dog")
    assert find_source_class_names(SimpleNamespace(config=config), 3) is None
    assert find_source_class_names(SimpleNamespace(classes=NAMES), 3) == ("cat", "dog", "eel")
    assert find_source_class_names(nn.Linear(2, 3), 3) is None


def test_names_that_do_not_fit():
    with pytest.raises(ValueError, match="`target_class_names` must name the 3 target classes, got 2 names"):
        fit(Classifier(), LEEPCallback(make_source(), strict=True, target_class_names=["a", "b"]))
