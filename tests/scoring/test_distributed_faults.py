"""What goes wrong, or differs, on one of several processes in a scoring pass: all of them say so, and none waits."""

import time
from contextlib import redirect_stderr
from io import StringIO

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score
from tests._helpers.distributed import run_processes
from tests._helpers.scoring_pass import BATCH, C, D, N, Source, Z, dataset
from tests.scoring.test_distributed import split

pytestmark = pytest.mark.distributed


class Broken(nn.Module):
    """A source that fails at a call, or returns another number of classes."""

    def __init__(self, fails_at=None, num_classes=Z) -> None:
        super().__init__()
        self.fc, self.fails_at, self.calls = nn.Linear(5, num_classes), fails_at, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ZeroDivisionError(f"call {self.calls}")
        return self.fc(x)


def attempt(source, loader, num_target_classes=C, **kwargs):
    """What a pass raises, and that it raises soon."""
    start = time.perf_counter()
    try:
        score(source, loader, num_target_classes, **{"progress": False, **kwargs})
    except Exception as error:
        return type(error).__name__, str(error), time.perf_counter() - start < 20
    return None


def faults(rank, world_size):
    data = TensorDataset(*split((50, 20, 40), rank))
    loader, found = DataLoader(data, batch_size=10), {}
    mine = rank == 1
    for call in (1, 2):  # at the first batch, which tells the sizes, and later
        found["call", call] = attempt(Broken(call if mine else None), loader)
    calls = len(loader) + 1  # the first batch of the second pass
    found["second pass"] = attempt(Broken(calls if mine else None), loader, memory="second_pass")
    found["classes"] = attempt(Broken(num_classes=Z + mine), loader)
    found["classes of a later batch"] = attempt(
        lambda x: torch.zeros(len(x), Z + (mine and len(x) < 8)), [data[:10], data[10:17]]
    )
    bad = TensorDataset(data.tensors[0], data.tensors[1] + (C if mine else 0))
    found["labels"] = attempt(Broken(), DataLoader(bad, batch_size=10))
    found["iterator"] = attempt(Broken(), iter(loader) if mine else loader, memory="second_pass")
    found["no rows"] = attempt(Broken(), [])
    found["one row"] = attempt(Broken(), DataLoader(data, batch_size=1, sampler=[0]) if mine else [])
    found["afterwards"] = attempt(Broken(), loader)
    return found


def different(what, first, second):
    return f"{what} must be the same on all processes, got {first!r} on process 0 and {second!r} on process 1."


#: Arguments, and the values of process 0 and of process 1.
DISAGREEMENTS = {
    "num_target_classes": (C, C + 1),
    "ignore_index": (None, -100),
    "head": (None, "fc"),
    "memory": ("device", "second_pass"),
    "nleep": (False, True),
}


def disagree(rank, world_size):
    loader = DataLoader(TensorDataset(*split((N - 30, 30), rank)), batch_size=10)
    found = {name: attempt(Broken(), loader, **{name: values[rank]}) for name, values in DISAGREEMENTS.items()}
    found["no data on one"] = attempt(Broken(), [] if rank else loader, num_target_classes=C + rank)
    # What only one process can see is wrong is raised there, and the other one does not wait.
    found["impossible"] = attempt(Broken(), loader, num_target_classes=C * rank)
    found["no such head"] = attempt(Broken(), loader, head="nowhere" if rank == 0 else None)
    found["own functions"] = attempt(Broken(), loader, split_batch=lambda batch: batch)
    return found


def test_processes_that_are_told_different_things(on_two):
    """The same error on all processes, at once."""
    for rank, found in enumerate(on_two(disagree)):
        assert found.pop("own functions") is None
        assert all(soon for _, _, soon in found.values())
        for name, (first, second) in DISAGREEMENTS.items():
            assert found[name][:2] == ("ValueError", different(f"`{name}`", first, second))
        assert found["no data on one"][:2] == ("ValueError", different("`num_target_classes`", C, C + 1))
        kinds = {found[name][0] for name in ("impossible", "no such head")}
        assert kinds == {"OtherProcessError" if rank else "ValueError"}


def test_a_fault_on_one_process_is_raised_on_all():
    results = run_processes(faults, 3)
    for rank, found in enumerate(results):
        assert found.pop("afterwards") is None  # the group is in step again
        assert all(soon for _, _, soon in found.values())
        kinds = {name: kind for name, (kind, _, _) in found.items()}
        own = {
            ("call", 1): "ZeroDivisionError",
            ("call", 2): "ZeroDivisionError",
            "second pass": "ZeroDivisionError",
            "classes of a later batch": "ValueError",
            "labels": "ValueError",
            "iterator": "ValueError",
        }
        # What every process can see for itself is the same error on all of them.
        shared = dict.fromkeys(("classes", "no rows", "one row"), "ValueError")
        assert kinds == shared | (own if rank == 1 else dict.fromkeys(own, "OtherProcessError"))
        messages = {name: message for name, (_, message, _) in found.items()}
        assert messages["classes"] == different("The number of classes that `source` returns", Z, Z + 1)
        assert "at least one batch" in messages["no rows"]
        assert "at least 2 labelled rows, got 1" in messages["one row"]
        for name in own:
            assert rank == 1 or messages[name] == "Process 1 failed; see the error there."
    assert "call 2" in results[1]["call", 2][1]
    assert "an iterator" in results[1]["iterator"][1]


def overflow_on_one(rank, world_size):
    """A feature of process 0 is infinite, while the outputs are not."""
    shard = split((N - 30, 30), rank)
    images = shard[0].index_fill(0, torch.tensor([3]), torch.inf) if rank == 0 else shard[0]
    source = nn.Sequential(nn.Linear(5, D), nn.Hardtanh(), nn.Linear(D, Z))
    source[0].weight.data.abs_()  # so that an infinite row stays infinite and no NaN
    loader = DataLoader(TensorDataset(images, shard[1]), batch_size=BATCH)
    report = score(source, loader, C, progress=False, head="0", memory="second_pass")
    return report.linear_probe_accuracy, report.log_me, report.leep, report.notes


def test_feature_of_one_process_that_is_not_finite(on_two):
    for probe, log_me, leep, notes in on_two(overflow_on_one):
        assert (probe, log_me) == (None, None)
        assert leep < 0
        assert any("some features are NaN, infinite" in note for note in notes)


def changing(rank, world_size):
    """Another image on process 1 in the second reading."""

    class Changing(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.randn_like(image) * (rank == 1), label

    return attempt(Source(), DataLoader(Changing(*split((N - 30, 30), rank)), batch_size=BATCH), memory="second_pass")


def test_other_rows_of_one_process_in_the_second_pass(on_two):
    for kind, message, _ in on_two(changing):
        assert (kind, "rows whose sums differ" in message) == ("ValueError", True)


def missing_scikit_learn(rank, world_size):
    import sys

    if rank == 1:
        sys.modules["sklearn"] = sys.modules["sklearn.mixture"] = None
    return attempt(Source(), DataLoader(dataset(), batch_size=BATCH), nleep=True)


def test_scikit_learn_missing_on_one_process(on_two):
    results = on_two(missing_scikit_learn)
    assert [kind for kind, _, _ in results] == ["OtherProcessError", "ModuleNotFoundError"]


def features_differ(rank, world_size):
    """The head of one process gives features for each row, that of the other does not; or the heads' names differ."""

    class Doubled(Source):
        def forward(self, x):
            hidden = self.backbone(x.to(self.dtype)).tanh()
            return self.fc(hidden.repeat(2, 1))[: len(x)] if rank == 1 else self.fc(hidden)

    renamed = nn.Sequential()
    renamed.add_module("body", nn.Linear(5, D))
    renamed.add_module("fc" if rank else "head", nn.Linear(D, Z))
    batches = [tuple(tensor[rank::2] for tensor in dataset().tensors)]
    found = (score(source, batches, C, progress=False, num_permutations=0) for source in (Doubled(), renamed))
    return [(report.feature_layer, report.num_features) for report in found]


def test_processes_agree_on_the_features(on_two):
    """Those of different layers are not pooled, be they of the same size."""
    assert on_two(features_differ) == [[("(logits)", Z)] * 2] * 2
    assert D != Z


def shows_progress(rank, world_size):
    with redirect_stderr(StringIO()) as shown:
        assert attempt(Source(), DataLoader(dataset(), batch_size=BATCH), progress=True) is None
    return "Scoring the source model" in shown.getvalue()


def test_the_first_process_shows_the_progress(on_two):
    assert on_two(shows_progress) == [True, False]


def everything(rank, world_size):
    """All of it in one start of the processes; that without scikit-learn comes last."""
    looks = (disagree, overflow_on_one, changing, features_differ, shows_progress, missing_scikit_learn)
    return {look: look(rank, world_size) for look in looks}


@pytest.fixture(scope="module")
def on_two():
    """What a function above returned on each of two processes."""
    found = run_processes(everything, 2, timeout=150)
    return lambda function: [of_rank[function] for of_rank in found]
