"""What needs a CUDA device; skipped elsewhere."""

import pytest
import torch

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import DATA, Classifier, fit, make_source, reference_scores, trained_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none"),
]

CUDA = {"accelerator": "cuda", "devices": 1, "deterministic": True}


def test_source_visits_the_device():
    source = make_source()
    callback = LEEPCallback(source, strict=True)
    fit(Classifier(), callback, **CUDA)
    assert {tensor.device.type for tensor in source.state_dict().values()} == {"cpu"}
    images, labels = DATA.tensors
    expected = reference_scores(source.eval()(images), labels)
    assert callback.report.leep == pytest.approx(expected["leep"], abs=1e-5)


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
