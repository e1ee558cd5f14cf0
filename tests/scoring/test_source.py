"""What a pass asks of a source beyond plain modules: its device, and modules whose mode is set in ways of their own."""

import copy

import pytest
import torch
from torch import nn

from lightning_leep.scoring.source import evaluation_mode, source_device

ON_META = nn.Linear(2, 2, device="meta")


@pytest.mark.parametrize(
    ("source", "device", "expected"),
    [
        (len, None, "cpu"),
        (nn.ReLU(), None, "cpu"),
        (ON_META, None, "meta"),
        (ON_META.forward, None, "meta"),
        (lambda inputs: ON_META(inputs), None, "meta"),
        (ON_META, torch.device("cpu"), "cpu"),
    ],
)
def test_device(source, device, expected):
    assert source_device(source, device) == torch.device(expected)


class TestEvaluationMode:
    @pytest.fixture
    def module(self):
        module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
        module[1][1].eval()
        return module

    def modes(self, module):
        return [submodule.training for submodule in module.modules()]

    def test_what_runs_beside_the_source_keeps_its_mode(self, module):
        transform = nn.Dropout()
        with evaluation_mode(lambda inputs: module(inputs)) as running:
            transform(torch.ones(3))
            with running():
                module(torch.ones(3, 2))
            assert not any(self.modes(module))
            assert transform.training

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
