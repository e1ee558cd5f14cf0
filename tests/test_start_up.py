"""What an import loads, in processes of their own."""

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


def test_records_forecasts_and_the_page_load_no_torch(tmp_path):
    run(f"""
import lightning_leep, lightning_leep.cli, lightning_leep.forecast, lightning_leep.layers, lightning_leep.records
from tests._helpers.simulated_transfers import make_record
lightning_leep.records.save_record(make_record(), {str(tmp_path)!r})
assert lightning_leep.cli.main(["report", {str(tmp_path)!r}, "-o", {str(tmp_path / "page.html")!r}]) == 0
assert loaded("torch", "torchmetrics", "lightning", "pytorch_lightning", "tensorboard", "matplotlib") == []
""")


TRAINER = (
    "Trainer(callbacks=lightning_leep.LEEPCallback(), logger=False, accelerator='cpu', enable_checkpointing=False)"
)
#: What a user of torch and torchmetrics does next, each in a fork of a process that has loaded these two.
PROGRAMS = {
    "scores need no Lightning, and the callback says that it does": """
sys.modules.update(lightning=None, pytorch_lightning=None)
import lightning_leep
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
""",
    # The second package would take over the logger of Lightning's messages.
    "for a user of lightning the other package stays out": f"""
import lightning.pytorch
from lightning_utilities.core import rank_zero
before = rank_zero.log.name
import lightning_leep
lightning.pytorch.{TRAINER}
assert rank_zero.log.name == before
assert loaded("pytorch_lightning", "lightning_fabric") == []
""",
    "a user of lightning who imports it last": f"""
from lightning_leep import LEEPCallback
import lightning_leep, lightning.pytorch, pytorch_lightning
lightning.pytorch.{TRAINER}
pytorch_lightning.{TRAINER}
""",
    "with lightning alone installed": f"""
sys.modules["pytorch_lightning"] = None
from lightning_leep import LEEPCallback
import lightning_leep, lightning.pytorch
lightning.pytorch.{TRAINER}
""",
}
# What Lightning imports of torch takes longer than Lightning itself; the forks share it.
FORKS = f"""
import multiprocessing, torch, torch._dynamo, torch.distributed.fsdp, torchmetrics
assert loaded("lightning", "pytorch_lightning", "lightning_fabric", "lightning_leep") == []
programs, context = {PROGRAMS!r}, multiprocessing.get_context("fork")
for name, program in programs.items():
    process = context.Process(target=exec, args=(program, globals()))
    process.start()
    process.join()
    assert process.exitcode == 0, name
"""


@pytest.mark.slow
def test_what_users_of_lightning_and_others_load():
    run(FORKS)


def test_every_public_name_can_be_imported_and_is_listed():
    for name in lightning_leep.__all__:
        assert getattr(lightning_leep, name) is not None
    assert set(lightning_leep.__all__) <= set(dir(lightning_leep))
    with pytest.raises(AttributeError, match="has no attribute 'leep_score'"):
        lightning_leep.leep_score  # noqa: B018
