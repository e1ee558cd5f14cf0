"""What surrounds a pass: device, precision, modes, random states, progress bar; and how all of it ends."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_leep.execution import autocast, evaluation_mode, preserved_rng, progress_bar, source_device


@pytest.mark.parametrize(
    ("module", "device", "expected"),
    [
        (None, None, "cpu"),
        (nn.ReLU(), None, "cpu"),
        (nn.Linear(2, 2, device="meta"), None, "meta"),
        (nn.Linear(2, 2), "meta", "meta"),
        (nn.Linear(2, 2, device="meta"), torch.device("cpu"), "cpu"),
    ],
)
def test_device(module, device, expected):
    assert source_device(module, device) == torch.device(expected)


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


def test_random_states_come_back_after_success_and_failure():
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

    def test_every_submodule_is_evaluated_and_gets_its_own_mode_back(self, module):
        before = self.modes(module)
        with evaluation_mode(module):
            assert not any(self.modes(module))
        assert self.modes(module) == before == [True, True, True, True, False]

    def test_after_an_error(self, module):
        before = self.modes(module)
        with pytest.raises(RuntimeError), evaluation_mode(module):
            raise RuntimeError
        assert self.modes(module) == before

    def test_eval_that_fails_half_way(self, module):
        """A module of the user's that refuses: what was switched before it is switched back."""

        class Refuses(nn.Linear):
            def train(self, mode=True):
                raise RuntimeError("not now")

        module.append(Refuses(2, 2))
        before = self.modes(module)
        with pytest.raises(RuntimeError, match="not now"), evaluation_mode(module):
            pass
        assert self.modes(module) == before

    def test_no_module(self):
        with evaluation_mode(None):
            pass


class TestProgressBar:
    def test_batches_pass_through(self, capsys):
        assert list(progress_bar(iter([1, 2]), True)) == [1, 2]
        assert "Scoring the source model" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("progress", "rank", "lightning_rank"), [(False, 0, 0), (True, 1, 0), (True, 0, 1), (True, 1, 1)]
    )
    def test_hidden(self, capsys, monkeypatch, progress, rank, lightning_rank):
        """On other processes, whether Lightning or torch.distributed alone started them."""
        monkeypatch.setattr("lightning_leep.execution.rank_zero_only.rank", lightning_rank)
        monkeypatch.setattr("lightning_leep.execution.this_process", lambda: (rank, 2))
        assert list(progress_bar([1, 2], progress)) == [1, 2]
        assert capsys.readouterr().err == ""
