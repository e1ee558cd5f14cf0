"""What a fit trains, by ``requires_grad``."""

from torch import nn

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.record import find_strategy
from lightning_leep.forecast import load_history
from tests.callbacks.support import Classifier, fit, make_source


class Network(nn.Module):
    """A body of three layers below a head, and perhaps a source beside it."""

    def __init__(self, body: nn.Module, source: nn.Module | None = None, hidden: bool = False) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(4, 2)
        self.source = [source] if hidden else source


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def test_strategy_by_what_is_trainable():
    source = layers()
    assert find_strategy(Network(layers()[:3]), source) == "all"
    assert find_strategy(Network(frozen(layers()[:3])), source) == "head"
    # Part of the body is trained as well.
    network = Network(layers()[:3])
    frozen(network.body[0])
    assert find_strategy(network, source) == "head"


def test_strategy_beside_a_frozen_source():
    source = frozen(layers())
    assert find_strategy(Network(layers()[:3], source), source) == "all"
    assert find_strategy(Network(frozen(layers()[:3]), source), source) == "head"


def test_strategy_on_the_sources_own_layers():
    source = layers()
    assert find_strategy(Network(source[:3]), source) == "all"
    assert find_strategy(Network(frozen(source[:3])), source) == "head"
    frozen(source[:3])
    source[2].requires_grad_(True)
    assert find_strategy(Network(source[:3]), source) == "head"
    source = frozen(layers())
    assert find_strategy(Network(nn.Identity(), source), source) == "head"  # a head on its outputs


def test_strategy_with_a_function_as_source():
    assert find_strategy(Network(layers()), lambda inputs: inputs) == "all"
    assert find_strategy(Network(frozen(layers())), lambda inputs: inputs) == "head"


class Unfreezes(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.body.requires_grad_(True)


def test_a_network_that_is_unfrozen_on_the_way_was_trained_as_a_whole(tmp_path):
    fit(Unfreezes(), LEEPCallback(make_source(), history=tmp_path, strict=True))
    assert load_history(tmp_path)[0].strategy == "all"
