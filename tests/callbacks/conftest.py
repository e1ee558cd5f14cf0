import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small networks gain nothing from threads, and lose much where several test processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """A Trainer that is given no folder writes into the current one."""
    monkeypatch.chdir(tmp_path)
