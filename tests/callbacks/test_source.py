"""What may be a source, and how it is called."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_leep import LEEPCallback
from tests.callbacks.support import DATA, Classifier, D, Z, fit, make_source, reference_scores, train_loader


def report_of(source, module=None, **kwargs):
    options = kwargs.pop("trainer_options", {})
    callback = LEEPCallback(source, strict=True, **kwargs)
    fit(module or Classifier(), callback, loader=train_loader(DATA), **options)
    return callback.report


def expected():
    return reference_scores(make_source().eval()(DATA.tensors[0]), DATA.tensors[1])["leep"]


@pytest.mark.parametrize("kind", ["module", "function", "bound method", "object with logits", "the module's own"])
def test_kinds_of_source(kind):
    source = make_source()
    module = Classifier(source)
    choices = {
        "module": source,
        "function": lambda inputs: source.eval()(inputs),
        "bound method": source.forward,
        "object with logits": lambda inputs: SimpleNamespace(logits=source.eval()(inputs)),
        "the module's own": None,
    }
    assert report_of(choices[kind], module).leep == pytest.approx(expected(), abs=1e-6)


def test_probabilities():
    def source(inputs):
        return make_source().eval()(inputs).softmax(1)

    assert report_of(source, from_logits=False).leep == pytest.approx(expected(), abs=1e-6)


@pytest.mark.parametrize("memory", ["cpu", "second_pass", 10])
def test_memory(memory):
    report = report_of(make_source(), memory=memory)
    assert report.leep == pytest.approx(expected(), abs=1e-6)
    assert report.memory != report_of(make_source()).memory


def test_named_head():
    assert report_of(make_source(), head="0").num_features == D
    assert report_of(make_source()).num_features == 8
    with pytest.raises(ValueError, match="`head` must name"):
        report_of(make_source(), head="nowhere")


def test_ignored_rows():
    images, labels = DATA.tensors
    keep = labels != 0
    reference = reference_scores(make_source().eval()(images[keep]), labels[keep])
    report = report_of(make_source(), ignore_index=0, num_target_classes=3)
    assert (report.leep, report.num_samples) == (pytest.approx(reference["leep"], abs=1e-6), int(keep.sum()))


def test_module_without_source_logits():
    class Plain(Classifier):
        source_logits = None

    with pytest.raises(ValueError, match=r"Plain has no method `source_logits\(inputs\)`.* or pass `source=`"):
        report_of(None, Plain())


class Rows(Dataset):
    """Dictionaries, as Hugging Face data sets give them."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index):
        return {"inputs": DATA[index][0], "labels": DATA[index][1], "weight": 1.0}


class Keyed(Classifier):
    def training_step(self, batch, batch_idx):
        return super().training_step((batch["inputs"], batch["labels"]), batch_idx)


def test_batches_of_dictionaries():
    def source(inputs, weight):
        return make_source().eval()(inputs)

    callback = LEEPCallback(source, strict=True)
    fit(Keyed(), callback, loader=DataLoader(Rows(), batch_size=10))
    assert callback.report.leep == pytest.approx(expected(), abs=1e-6)
    callback = LEEPCallback(make_source(), strict=True, adapter=lambda batch: (batch["inputs"], batch["labels"]))
    fit(Keyed(), callback, loader=DataLoader(Rows(), batch_size=10))
    assert callback.report.leep == pytest.approx(expected(), abs=1e-6)


class Dtypes(nn.Module):
    """Records the floating-point types that it computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_source()
        self.seen: set = set()

    def forward(self, inputs):
        logits = self.network(inputs)
        self.seen.add((inputs.dtype, self.network[0].weight.dtype, logits.dtype))
        return logits


@pytest.mark.parametrize(
    ("precision", "shared", "wanted"),
    [
        ("32-true", False, (torch.float32, torch.float32, torch.float32)),
        ("bf16-mixed", False, (torch.float32, torch.float32, torch.bfloat16)),
        ("bf16-mixed", True, (torch.float32, torch.float32, torch.bfloat16)),
        ("64-true", True, (torch.float64, torch.float64, torch.float64)),
        ("64-true", False, (torch.float32, torch.float32, torch.float32)),
    ],
)
def test_precision(precision, shared, wanted):
    source = Dtypes()
    module = Classifier(source.network) if shared else Classifier()
    report = report_of(source, module, trainer_options={"precision": precision})
    assert source.seen == {wanted}
    assert source.network[-1].weight.dtype == torch.float32  # the original head is given back as it was
    tolerance = 0.01 if precision == "bf16-mixed" else 1e-6
    assert report.leep == pytest.approx(expected(), abs=tolerance)
    if precision == "bf16-mixed":
        assert report.leep != pytest.approx(expected(), abs=1e-7)


def test_scored_once_before_the_first_step():
    calls = []
    module = Classifier()

    class Watched(nn.Module):
        def forward(self, inputs):
            calls.append((len(module.losses), len(inputs), torch.is_grad_enabled()))
            return inputs @ torch.ones(D, Z)

    report_of(Watched(), module)
    assert calls == [(0, 10, False)] * 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": 3}, TypeError, "`source` must be a module, a function or None, got int"),
        ({"adapter": None}, TypeError, "`adapter` must be a function, got NoneType"),
        ({"dataloader": 3}, TypeError, "`dataloader` must be iterable, got int"),
        ({"monitor": ""}, TypeError, "`monitor` must be a name or None, got ''"),
        ({"name": 3}, TypeError, "`name` must be a name or None, got 3"),
        ({"num_target_classes": 0}, ValueError, "`num_target_classes` must be an integer of at least 1, got 0"),
        ({"max_samples": 1}, ValueError, "`max_samples` must be an integer of at least 2, got 1"),
        ({"ignore_index": 1.5}, ValueError, "`ignore_index` must be an integer or None, got 1.5"),
        ({"seed": "a"}, TypeError, "`seed` must be an integer, got str"),
        ({"target_class_names": "cat"}, TypeError, "`target_class_names` must be a sequence of names, got str"),
        ({"reference": "a"}, TypeError, "`reference` must be an AccuracyCurve"),
        ({"reference": True}, TypeError, "`reference` must be an AccuracyCurve"),
        ({"reference": 71.0}, ValueError, r"`reference` must lie in 0..1, got 71.0"),
        ({"reference": []}, ValueError, "`reference` must hold at least one accuracy"),
        ({"reference": [0.5, 50]}, ValueError, "divide a percentage by 100"),
    ],
)
def test_impossible_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LEEPCallback(**arguments)
