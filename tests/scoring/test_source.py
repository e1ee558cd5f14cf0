"""How a source runs: its batches and outputs, device, precision, modes, random states and progress bar."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn

from lightning_leep.scoring.source import (
    autocast,
    evaluation_mode,
    preserved_rng,
    progress_bar,
    source_device,
)

ON_META = nn.Linear(2, 2, device="meta")


@pytest.mark.parametrize(
    ("source", "device", "expected"),
    [
        (len, None, "cpu"),
        (nn.ReLU(), None, "cpu"),
        (ON_META, None, "meta"),
        (ON_META.forward, None, "meta"),
        (lambda inputs: ON_META(inputs), None, "meta"),
        (nn.Linear(2, 2), "meta", "meta"),
        (ON_META, torch.device("cpu"), "cpu"),
    ],
)
def test_device(source, device, expected):
    assert source_device(source, device) == torch.device(expected)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16)]
)
def test_precision(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert not torch.is_autocast_enabled("cpu")


def states():
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def draw():
    return torch.rand(1), np.random.rand(), random.random()


def test_random_states_are_restored_after_success_and_failure():
    before = states()
    with preserved_rng():
        draw()
        assert states()[0] != before[0]
    assert states() == before
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), preserved_rng():  # noqa: PT012
            draw()
            raise error
        assert states() == before


class TestEvaluationMode:
    @pytest.fixture
    def module(self):
        module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
        module[1][1].eval()
        return module

    def modes(self, module):
        return [submodule.training for submodule in module.modules()]

    def test_after_an_error(self, module):
        before = self.modes(module)
        with pytest.raises(RuntimeError), evaluation_mode(module):
            raise RuntimeError
        assert self.modes(module) == before

    @pytest.mark.parametrize(
        "hide",
        [
            lambda module: lambda inputs: module(inputs),
            lambda module: partial(lambda inputs, nets: nets[0](inputs), nets=[module]),
            lambda module: module.forward,
        ],
        ids=["function", "holder", "bound method"],
    )
    def test_modules_behind_an_object(self, module, hide):
        """Also where only the call shows them. What runs beside the source, a transform say, keeps its mode."""
        before, transform = self.modes(module), nn.Dropout()
        with evaluation_mode(hide(module)) as running:
            transform(torch.ones(3))
            with running():
                hide(module)(torch.ones(3, 2))
            assert not any(self.modes(module))
            assert transform.training
        assert self.modes(module) == before
        assert True in before

    def test_a_mode_that_forward_sets_is_left_alone(self, module):
        """As in Monte Carlo dropout."""

        def sampled(inputs):
            module.eval()[1][0].train()
            return module(inputs)

        with evaluation_mode(module) as running, running():
            sampled(torch.ones(3, 2))
            assert module[1][0].training

    def test_train_of_the_module_is_not_called(self, module):
        """It may merge weights in evaluation mode, and round them when it splits them again."""

        class Refuses(nn.Linear):
            def train(self, mode=True):
                raise RuntimeError("not now")

        module.append(Refuses(2, 2))
        before = self.modes(module)
        with evaluation_mode(module):
            assert not any(self.modes(module))
        assert self.modes(module) == before

    def test_exported_module(self, module):
        """``eval()`` of a module from ``torch.export`` raises."""
        inputs = torch.ones(3, 2)
        module.eval()
        exported = torch.export.export(module, (inputs,)).module()
        with evaluation_mode(exported):
            assert torch.equal(exported(inputs), module(inputs))
        assert exported.training

    @pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
    def test_script_modules(self, module):
        inputs = torch.ones(3, 2)
        expected = copy.deepcopy(module).eval()(inputs)
        scripted = torch.jit.script(module)
        before = self.modes(scripted)
        with evaluation_mode(scripted):
            assert torch.equal(scripted(inputs), expected)
        assert self.modes(scripted) == before
        frozen = torch.jit.freeze(scripted.eval())
        with evaluation_mode(frozen):  # which has no mode
            torch.testing.assert_close(frozen(inputs), expected)


def test_progress_bar(capsys, monkeypatch):
    assert list(progress_bar(iter([1, 2]), True)) == [1, 2]
    assert "Scoring the source model" in capsys.readouterr().err
    assert list(progress_bar([1, 2], False)) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)  # as on a process that Lightning started
    assert list(progress_bar([1, 2], True)) == [1, 2]
    assert capsys.readouterr().err == ""
