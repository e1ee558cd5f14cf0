"""What a fit trains, found from what was transferred and from ``requires_grad``."""

import copy

import pytest
import torch
from torch import nn

from lightning_leep.layers.trained_part import TrainedPart
from lightning_leep.layers.transferred import find_transferred
from lightning_leep.utils.checks import plain


class Network(nn.Module):
    """A body below a head, and perhaps other things beside it."""

    def __init__(self, body: nn.Module, head: nn.Module | None = None, **beside: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head or nn.Linear(4, 2)
        for name, module in beside.items():
            setattr(self, name, module)


class HeadFirst(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(4, 2), body


class LoRA(nn.Module):
    """A frozen layer with a trained update of low rank."""

    def __init__(self, layer: nn.Linear, first: bool) -> None:
        super().__init__()
        a, b = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(1, 4))
        if first:
            self.a, self.b, self.layer = a, b, frozen(layer)
        else:
            self.layer = frozen(layer)
            self.update = nn.ParameterList([a, b])


class Trainer:
    callbacks = optimizers = ()
    max_epochs = 2


def layers(count: int = 6) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(count)))


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def only(module: nn.Module, *trained: str) -> nn.Module:
    """The module with the parameters trained whose names end in one of these."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.endswith(trained))
    return module


def word(network, source):
    part = TrainedPart()
    part.look(Trainer, network, source)
    return part.word


@pytest.fixture
def source():
    return layers()


@pytest.fixture(params=["copy", "shared", "rounded"])
def body(request, source):
    """The source's first five layers: a copy, they themselves, or a copy in the Trainer's precision."""
    if request.param == "shared":
        return source[:5]
    return copy.deepcopy(source[:5]).to(torch.bfloat16 if request.param == "rounded" else torch.float32)


def test_all_and_head(body, source):
    assert word(Network(body), source) == "all"
    assert word(Network(frozen(body)), source) == "head"


def test_size_and_place_of_the_head_do_not_matter(body, source):
    frozen(body)
    assert word(Network(body, nn.Sequential(nn.Linear(4, 40), nn.Linear(40, 40), nn.Linear(40, 2))), source) == "head"
    assert word(Network(body[:1]), source) == "head"
    assert word(HeadFirst(body), source) == "head"


def test_part_of_the_body(body, source):
    assert word(Network(only(body, "4.weight", "4.bias")), source) == "part"
    assert word(Network(only(body, "bias")), source) == "part"  # BitFit
    body.requires_grad_(True)
    frozen(body[0])
    assert word(Network(body), source) == "part"  # a fifth is frozen


@pytest.mark.parametrize("first", [True, False])
def test_adapters_inside_the_body(body, source, first):
    adapted = nn.Sequential(*(LoRA(layer, first) for layer in body))
    assert word(Network(adapted), source) == "part"
    assert word(HeadFirst(adapted), source) == "part"


def test_fixed_positions_do_not_matter(source):
    positions = nn.ParameterList([nn.Parameter(torch.arange(8.0), requires_grad=False)])
    assert word(Network(copy.deepcopy(source[:5]), positions=positions), source) == "all"
    source.positions = positions[0]
    assert word(Network(copy.deepcopy(source[:5]), positions=positions), source) == "all"  # 8 of 108 numbers
    # Not even if they are the source's, as tables that are made by a formula are: here in a network of random weights.
    assert word(Network(nn.Sequential(*layers(50)), positions=positions), source) == "all"


def test_another_frozen_network_beside_does_not_matter(body, source):
    teacher = frozen(layers(20))
    assert word(Network(body, teacher=teacher), source) == "all"
    assert word(Network(frozen(body), teacher=teacher), source) == "head"


@pytest.mark.parametrize("whole", ["source", "copy"])
def test_the_source_kept_beside(source, whole):
    kept = frozen(source if whole == "source" else copy.deepcopy(source))
    copied = copy.deepcopy(source[:5]).requires_grad_(True)
    assert word(Network(copied, kept=kept), source) == "all"
    assert word(Network(only(copied, "bias"), kept=kept), source) == "part"
    assert word(Network(frozen(copied), kept=kept), source) == "head"
    assert word(HeadFirst(Network(frozen(copied), nn.Identity(), kept=kept)), source) == "head"


def test_between_two_transferred_parts(source):
    first, second = frozen(copy.deepcopy(source[:2])), frozen(copy.deepcopy(source[2:5]))
    assert word(Network(first, nn.Linear(4, 4), second=second), source) == "part"


def test_the_source_kept_beside_its_own_layers(source):
    assert word(Network(frozen(source)[:5], kept=source), source) == "head"
    source[:5].requires_grad_(True)
    assert word(Network(source[:5], kept=source), source) == "all"


def test_beside_random_weights_it_goes_by_size(source):
    assert word(Network(layers(5), kept=frozen(source)), source) == "all"
    assert word(Network(nn.Identity(), kept=frozen(source)), source) == "head"  # a head on its outputs
    only(source, "5.weight", "5.bias")
    assert word(Network(nn.Identity(), kept=source), source) == "part"  # of which the last layer is trained


def test_a_network_of_the_same_shape_as_the_source(source):
    network = nn.ModuleDict({"model": copy.deepcopy(source)})
    assert word(network, source) == "all"
    network["model"][:5].requires_grad_(False)
    assert word(network, source) == "part"  # its head comes from the source as well


@pytest.mark.parametrize("source", [lambda inputs: inputs, layers(), None])
def test_where_nothing_is_equal_it_goes_by_size(source):
    assert word(Network(layers()), source) == "all"
    assert word(Network(frozen(layers())), source) == "head"
    # By the numbers, not the tensors: four large ones here against twelve.
    head = nn.Sequential(nn.Linear(4, 40), nn.Linear(40, 2))
    assert word(Network(frozen(layers()), head), source) == "all"


def test_equal_constants_are_no_transfer():
    def normalised():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    source = normalised()
    assert find_transferred(Network(normalised()), source) == {}
    network = Network(copy.deepcopy(source))
    names = {name for copies in find_transferred(network, source) for name in copies}
    assert names == {"body.0.weight", "body.0.bias"}


def test_copies_are_found_by_value_and_by_identity(source):
    network = Network(copy.deepcopy(source[:2]), kept=source)
    assert tuple(find_transferred(network, source)) == tuple(
        (f"body.{i}.{kind}", f"kept.{i}.{kind}") for i in range(2) for kind in ("weight", "bias")
    )
    with torch.no_grad():
        network.body[1].weight[3, 3] += 1e-3  # beyond the values that are compared first
        network.body[1].bias += 1e-3
    assert {copies[0] for copies in find_transferred(network, source)} == {"body.0.weight", "body.0.bias"}


def test_a_large_tensor_is_compared_whole():
    source = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 3))
    network = Network(copy.deepcopy(source[:1]), nn.Linear(40, 2))
    with torch.no_grad():
        network.body[0].weight[7, 13] += 1e-3
        network.body[0].bias += 1
    assert find_transferred(network, source) == {}


def test_a_run_that_goes_on_sees_what_was_unfrozen_since(source):
    network, part = Network(frozen(copy.deepcopy(source[:5]))), TrainedPart()
    part.look(Trainer, network, source)
    part.see_gradients(network)
    part.look(Trainer, network, source)
    again = TrainedPart.from_dict(plain(part))
    again.look(Trainer, network, source)
    assert (part.word, again.word) == ("head", "head")
    network.requires_grad_(True)
    again.look(Trainer, network, source)  # a hook of the module may yet freeze it
    assert again.word == "head"
    for going_on in (part, again):
        going_on.see_gradients(network)
        going_on.look(Trainer, network, source)
        assert going_on.word == "gradual"
