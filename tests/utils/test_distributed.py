"""A fault on one process ends all of them, each with an error of its own."""

import pytest
import torch

from lightning_leep.utils.distributed import gather_objects, on_every_process, this_process
from tests._helpers.distributed import run_processes

CPU = torch.device("cpu")


def fail(message):
    raise ValueError(message)


def test_one_process_and_interruptions_are_not_held_up():
    assert this_process() == (0, 1)
    assert on_every_process(lambda: 3, CPU) == 3
    assert gather_objects("any", CPU) == ["any"]
    error = ValueError("mine")

    def action():
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        on_every_process(action, CPU)
    assert caught.value is error

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_every_process(interrupt, CPU)


def caught(action):
    """Kind, text and cause of what an action raises."""
    try:
        on_every_process(action, CPU)
    except Exception as error:
        return type(error).__name__, str(error), str(error.__cause__)
    return None


def what_happens(rank, world_size):
    """What each process raises, by which processes fail."""
    found = {"this_process": this_process(), "gathered": gather_objects({"rank": rank}, CPU)}
    found["result"] = on_every_process(lambda: 10 * rank, CPU)
    for failing in [(0,), (2,), (1, 2), (0, 1, 2)]:
        found[failing] = caught((lambda: fail(f"fault of {rank}")) if rank in failing else int)
    # A fault within an action that is itself run on every process.
    found["nested"] = caught(lambda: on_every_process(lambda: fail("deep") if rank == 1 else rank, CPU))
    found["afterwards"] = on_every_process(lambda: rank, CPU)
    return found


@pytest.mark.distributed
def test_three_processes():
    results = run_processes(what_happens, 3)
    for rank, found in enumerate(results):
        assert found["this_process"] == (rank, 3)
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert found["result"] == 10 * rank
        for failing in [(0,), (2,), (1, 2), (0, 1, 2)]:
            first = failing[0]
            if rank == first:
                assert found[failing] == ("ValueError", f"fault of {rank}", "None")
            else:
                cause = f"fault of {rank}" if rank in failing else "None"
                said = f"Process {first} failed; see the error there."
                assert found[failing] == ("OtherProcessError", said, cause)
        kind = "ValueError" if rank == 1 else "OtherProcessError"
        assert found["nested"][0] == kind
        assert ("deep" if rank == 1 else "Process 1 failed") in found["nested"][1]
        assert found["afterwards"] == rank
