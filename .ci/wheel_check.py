"""Run by `make wheel` with the wheel installed alone, outside the repository: the core needs no extra."""

import importlib.util
from importlib.metadata import entry_points, files
from pathlib import Path

import torch

import lightning_leep
from lightning_leep import LEEPCallback, LEEPMetric, score
from lightning_leep.records import AccuracyCurve, TransferRecord, save_record

assert "site-packages" in str(Path(lightning_leep.__file__)), lightning_leep.__file__
assert any(str(file) == "lightning_leep/py.typed" for file in files("lightning-leep") or []), "py.typed is not shipped"
for extra in ("matplotlib", "sklearn", "pandas", "rich"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is installed: this does not test the core alone"

images, labels = torch.randn(40, 3), torch.randint(2, (40,))
source = torch.nn.Linear(3, 5)
report = score(source, [(images, labels)], num_target_classes=2, progress=False)
metric = LEEPMetric(num_target_classes=2, num_source_classes=5)
metric.update(source(images), labels)
assert abs(metric.compute().item() - report.leep) < 1e-12
save_record(TransferRecord(report=report, curve=AccuracyCurve((1,), (0.5,)), trainable="head"), "history")
command = entry_points(group="console_scripts")["lightning-leep"].load()
assert command(["history", "history"]) == 0
assert entry_points(group="tensorboard_plugins")["lightning_leep"].load().plugin_name == "lightning_leep"
assert command(["report", "history"]) == 0, "the page is not shipped"
assert LEEPCallback(source=source).monitor == "val_acc"
print(f"lightning_leep {lightning_leep.__version__} from a wheel: LEEP {report.leep:.4f}")
