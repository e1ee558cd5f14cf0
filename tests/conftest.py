"""Every test starts from the same random state, alone or among others.

Hypothesis draws the same examples at every run, so that a gate does not fail by chance;
``pytest --hypothesis-profile=explore`` looks for new ones.
"""

import gc

import pytest
import torch
from hypothesis import settings

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("tests")


def pytest_collection_finish(session):
    """What was imported is there to stay: `gc.collect()` need not look through it, a third of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time of a small fit: for tests of what else a run logs."""
    monkeypatch.setattr("lightning_leep.callbacks.fit.logs.takes_figures", lambda logger: False)


@pytest.fixture
def no_forks(monkeypatch):
    """A fork for the scored rows is a quarter of a small fit: for tests of what comes after the score."""
    monkeypatch.setattr("lightning_leep.callbacks.source.scorer.can_fork", lambda batches: False)
