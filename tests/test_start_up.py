"""What an import loads, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_leep

LOADED = "def loaded(*names): return [name for name in names if sys.modules.get(name) is not None]\n"


def run(program: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"import sys\n{LOADED}{program}"], check=True, timeout=120, cwd=Path(__file__).parents[1]
    )


def test_records_and_forecasts_load_no_torch():
    run("""
import lightning_leep, lightning_leep.cli, lightning_leep.forecast, lightning_leep.layers, lightning_leep.records
assert loaded("torch", "torchmetrics", "lightning", "pytorch_lightning", "tensorboard") == []
""")


@pytest.mark.slow
def test_scores_need_no_lightning_and_the_callback_says_that_it_does():
    run("""
sys.modules.update(lightning=None, pytorch_lightning=None)
import torch, lightning_leep
rows = torch.randn(40, 4)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows, torch.arange(40) % 2), 8)
report = lightning_leep.score(torch.nn.Linear(4, 3), data, 2, progress=False)
metric = lightning_leep.LEEPMetric(2, 3)
assert loaded("tensorboard", "lightning_fabric") == []
try:
    lightning_leep.LEEPCallback
except ImportError as error:
    assert "pip install pytorch-lightning" in str(error)
else:
    raise AssertionError
""")


TRAINER = (
    "Trainer(callbacks=lightning_leep.LEEPCallback(), logger=False, accelerator='cpu', enable_checkpointing=False)"
)


@pytest.mark.slow
def test_for_a_user_of_lightning_the_other_package_stays_out():
    """The second package would take over the logger of Lightning's messages."""
    run(f"""
import lightning.pytorch
from lightning_utilities.core import rank_zero
before = rank_zero.log.name
import lightning_leep
lightning.pytorch.{TRAINER}
assert rank_zero.log.name == before
assert loaded("pytorch_lightning", "lightning_fabric") == []
""")


@pytest.mark.slow
def test_a_user_of_lightning_who_imports_it_last():
    run(f"""
from lightning_leep import LEEPCallback
import lightning_leep, lightning.pytorch, pytorch_lightning
lightning.pytorch.{TRAINER}
pytorch_lightning.{TRAINER}
""")


@pytest.mark.slow
def test_with_lightning_alone_installed():
    run(f"""
sys.modules["pytorch_lightning"] = None
from lightning_leep import LEEPCallback
import lightning_leep, lightning.pytorch
lightning.pytorch.{TRAINER}
""")


def test_every_public_name_can_be_imported_and_is_listed():
    for name in lightning_leep.__all__:
        assert getattr(lightning_leep, name) is not None
    assert set(lightning_leep.__all__) <= set(dir(lightning_leep))
    with pytest.raises(AttributeError, match="has no attribute 'leep_score'"):
        lightning_leep.leep_score  # noqa: B018
