"""What may be a source, and how it is called."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_leep import LEEPCallback, ScoringOptions, score
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import (
    DATA,
    FEW_SCORES,
    Classifier,
    D,
    Z,
    fit,
    make_source,
    reference_scores,
    train_loader,
    trained_state,
)

pytestmark = pytest.mark.usefixtures("no_forks")


def report_of(source, module=None, num_target_classes=None, options=FEW_SCORES):
    callback = LEEPCallback(source, strict=True, num_target_classes=num_target_classes, scoring=options)
    fit(module or Classifier(), callback)
    return callback.report


def expected():
    return reference_scores(make_source().eval()(DATA.tensors[0]), DATA.tensors[1])["leep"]


class Caller:
    """A source that is neither a module nor a method of one."""

    __slots__ = ("networks",)

    def __init__(self, network) -> None:
        self.networks = {"source": [network]}

    def __call__(self, inputs):
        return self.networks["source"][0](inputs)


AT_HAND: dict[str, nn.Module] = {}


def calls_what_is_at_hand(inputs):
    return AT_HAND["network"](inputs)


def global_function(network):
    AT_HAND["network"] = network
    return calls_what_is_at_hand


#: Ways to give a network as a source, none of which evaluates it.
KINDS = {
    "module": lambda network: network,
    "bound method": lambda network: network.forward,
    "function": lambda network: lambda inputs: network(inputs),
    "object with logits": lambda network: lambda inputs: SimpleNamespace(logits=network(inputs)),
    "partial": partial,
    "partial of a function": lambda network: partial(lambda net, inputs: net(inputs), network),
    "object": Caller,
    "method of an object": lambda network: Caller(network).__call__,
    "global function": global_function,
    "the module's own": lambda network: None,
}


class CallsItself(Classifier):
    """``source_logits`` is an attribute, a function that hides the network."""

    def __init__(self, source) -> None:
        super().__init__(source)
        self.source_logits = lambda inputs: self.source[0](inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module_class", "shared", "kinds"),
    [(Classifier, True, KINDS), (Classifier, False, KINDS), (CallsItself, True, ["the module's own"])],
)
def test_kinds_of_source(module_class, shared, kinds):
    """The score is that of the network in evaluation mode, and neither it nor training is any different afterwards."""
    source = make_source()
    module = module_class(source if shared else make_source())
    if not shared:
        module.source = [source]
    before = {name: value.clone() for name, value in source.state_dict().items()}
    callbacks = {kind: LEEPCallback(KINDS[kind](source), strict=True, scoring=FEW_SCORES) for kind in kinds}
    fit(module, *callbacks.values())
    scores = {kind: callback.report.leep for kind, callback in callbacks.items()}
    assert scores == pytest.approx(dict.fromkeys(kinds, expected()), abs=1e-6)
    assert trained_state(module) == plain_state()
    assert all(layer.training for layer in source.modules())
    if not shared:
        assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())


@pytest.mark.slow
def test_exported_source():
    """``torch.export`` gives modules whose ``eval()`` raises."""
    inputs = (DATA.tensors[0][:10],)
    exported = torch.export.export(make_source().eval(), inputs).module()
    assert report_of(exported).leep == pytest.approx(expected(), abs=1e-6)


@pytest.mark.slow
def test_options_of_scoring():
    """The same as of a pass over the same rows without a Trainer."""
    network = make_source().eval()

    def probabilities(inputs):
        return network(inputs).softmax(1)

    options = ScoringOptions(from_logits=False, ignore_index=0, memory="cpu", num_permutations=30)
    found = report_of(probabilities, num_target_classes=3, options=options)
    expected = score(probabilities, train_loader(DATA, shuffle=False), 3, options, progress=False)
    times = {"seconds": 1.0, "samples_per_second": 1.0, "joint": None}
    assert dataclasses.replace(found, **times) == dataclasses.replace(expected, **times)


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
    network = make_source()
    options = dataclasses.replace(FEW_SCORES, split_batch=lambda batch: (batch["inputs"], batch["labels"]))
    callbacks = [
        LEEPCallback(lambda inputs, weight: network(inputs), strict=True, scoring=FEW_SCORES),
        LEEPCallback(make_source(), strict=True, scoring=options),
    ]
    fit(Keyed(), *callbacks, loader=DataLoader(Rows(), batch_size=10))
    assert [callback.report.leep for callback in callbacks] == pytest.approx([expected()] * 2, abs=1e-6)


class Dtypes(nn.Module):
    """Records the floating-point types that it computes with, where they are not restored after the pass."""

    def __init__(self, network) -> None:
        super().__init__()
        seen: set = set()
        self.network, self.seen = network, lambda: seen

    def forward(self, inputs):
        logits = self.network(inputs)
        self.seen().add((inputs.dtype, self.network[0].weight.dtype, logits.dtype))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "of_shared", "of_own"),
    [
        ("64-true", [torch.float64] * 3, [torch.float32] * 3),
        ("bf16-true", [torch.bfloat16] * 3, [torch.float32] * 3),
        ("bf16-mixed", *[[torch.float32, torch.float32, torch.bfloat16]] * 2),
    ],
)
def test_precision(precision, of_shared, of_own):
    """Shared weights are converted by the Trainer, the original head for the pass, other weights not at all."""
    shared, own = make_source(), make_source()
    for network, wanted in ((shared, of_shared), (own, of_own)):
        sources = Dtypes(network), Dtypes(network)
        given = sources[0], KINDS["function"](sources[1])
        callbacks = [LEEPCallback(source, strict=True, scoring=FEW_SCORES) for source in given]
        fit(Classifier(network if network is shared else None), *callbacks, precision=precision)
        assert [source.seen() for source in sources] == [{tuple(wanted)}] * 2
        assert network[-1].weight.dtype == torch.float32  # the original head is given back as it was
        rounded = torch.bfloat16 in wanted
        for callback in callbacks:
            assert callback.report.leep == pytest.approx(expected(), abs=0.01 if rounded else 1e-6)
            assert (callback.report.leep == pytest.approx(expected(), abs=1e-7)) != rounded


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
        ({"scoring": {"memory": "cpu"}}, TypeError, "`scoring` must be ScoringOptions or None, got dict"),
        ({"dataloader": 3}, TypeError, "`dataloader` must be iterable, got int"),
        ({"monitor": ""}, TypeError, "`monitor` must be a name or None, got ''"),
        ({"name": 3}, TypeError, "`name` must be a name or None, got 3"),
        ({"trainable": ""}, TypeError, "`trainable` must be a name or None"),
        ({"target_name": ""}, TypeError, "`target_name` must be a name or None"),
        ({"source_name": ""}, TypeError, "`source_name` must be a name or None"),
        ({"history": True}, TypeError, "`history` must be a folder, an fsspec URL, False or None"),
        ({"history": ""}, TypeError, "`history` must be a folder"),
        ({"ranking": ["a.json"]}, TypeError, "`ranking` must be a Ranking"),
        ({"num_target_classes": 0}, ValueError, "`num_target_classes` must be an integer of at least 1, got 0"),
        ({"max_samples": 1}, ValueError, "`max_samples` must be an integer of at least 2, got 1"),
        ({"target_class_names": "cat"}, TypeError, "`target_class_names` must be a sequence of names, got str"),
        ({"reference": "a"}, TypeError, "`reference` must be an AccuracyCurve"),
        ({"reference": True}, TypeError, "`reference` must be an AccuracyCurve"),
        ({"reference": 71.0}, ValueError, r"`reference` must lie in 0..1, got 71"),
        ({"reference": []}, ValueError, "`reference` must hold at least one accuracy"),
        ({"reference": [0.5, 50]}, ValueError, "divide a percentage by 100"),
    ],
)
def test_impossible_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LEEPCallback(**arguments)
