"""What needs a CUDA device; skipped elsewhere."""

import pytest
import torch

from lightning_leep import LEEPCallback
from tests.callbacks.support import DATA, Classifier, fit, make_source, reference_scores, trained_state

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
