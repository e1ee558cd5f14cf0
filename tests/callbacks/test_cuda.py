"""What needs a CUDA device; skipped elsewhere."""

import pytest
import torch
from torch.utils.data import Dataset

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source.isolation import LentCopies
from tests._helpers.small_transfer import (
    DATA,
    Classifier,
    fit,
    make_source,
    reference_scores,
    train_loader,
    trained_state,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none"),
]

CUDA = {"accelerator": "cuda", "devices": 1, "deterministic": True}


@pytest.mark.parametrize("shared", [True, False], ids=["shared weights", "own weights"])
@pytest.mark.parametrize("hidden", [True, False], ids=["in the module", "in a function"])
def test_hidden_source_visits_the_device(hidden, shared):
    """The Trainer moves no more of it than the layers that it trains."""
    source = make_source()
    module, plain = Classifier(source if shared else make_source()), Classifier(make_source())
    module.source = [source]
    callback = LEEPCallback(None if hidden else lambda inputs: source(inputs), strict=True)
    fit(module, callback, **CUDA)
    fit(plain, **CUDA)
    assert trained_state(module) == trained_state(plain)
    assert source[-1].weight.device.type == "cpu"
    images, labels = DATA.tensors
    expected = reference_scores(make_source().eval()(images), labels)
    assert callback.report.leep == pytest.approx(expected["leep"], abs=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_training_is_the_same_with_and_without(precision):
    source = make_source()
    module = Classifier(source)
    callback = LEEPCallback(source, strict=True)  # the body is on the device, the original head is not
    fit(module, callback, precision=precision, **CUDA)
    plain = Classifier(make_source())
    fit(plain, precision=precision, **CUDA)
    assert callback.report is not None
    assert trained_state(module) == trained_state(plain)


class OnTheDevice(Dataset):
    """Rows that a fork cannot read."""

    def __init__(self) -> None:
        self.tensors = [tensor.cuda() for tensor in DATA.tensors]

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index):
        return tuple(tensor[index] for tensor in self.tensors)


def test_rows_on_the_device():
    callback = LEEPCallback(make_source(), strict=True)
    fit(Classifier(), callback, loader=train_loader(OnTheDevice()), **CUDA)
    assert callback.report.num_samples == 50
    assert sum("read in the process that trains" in note for note in callback.report.notes) == 1


def test_weights_that_do_not_fit_twice(monkeypatch):
    """They are scored as they are."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 100))
    module = make_source().cuda()
    weights, statistics = module[0].weight, module[1].running_mean
    copies = LentCopies(weights.device, module)
    copies.lend(module)
    assert module[0].weight is weights
    assert module[1].running_mean is not statistics
    copies.give_back()
    assert module[1].running_mean is statistics
