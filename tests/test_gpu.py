"""What needs a CUDA device; skipped elsewhere."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import LEEPMetric, score
from lightning_leep.functional import leep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none"),
]

C, Z = 10, 50


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(2000, Z, generator=generator), torch.randint(C, (2000,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_metric_equals_the_cpu(rows, dtype):
    preds, target = rows[0].to(dtype), rows[1]
    metric = LEEPMetric(C, Z).to("cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        for batch, labels in zip(preds.cuda().split(300), target.cuda().split(300), strict=True):
            metric.update(batch, labels)
    assert metric.joint.dtype == torch.float64
    assert metric.compute().item() == pytest.approx(leep(preds, target, C).item(), abs=1e-6)


def test_rows_move_to_the_cpu_when_asked(rows):
    metric = LEEPMetric(C, Z, compute_on_cpu=True).to("cuda")
    metric.update(rows[0].cuda(), rows[1].cuda())
    assert metric.rows[0].device.type == "cpu"
    assert metric.compute().item() == pytest.approx(leep(*rows, C).item(), abs=1e-6)


def test_nccl_pools_the_sums(rows, tmp_path):
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        metric = LEEPMetric(C, Z).to("cuda")
        metric.update(rows[0].cuda(), rows[1].cuda())
        metric.sync()
        assert metric.rows == []
        metric.unsync()
        assert metric.compute().item() == pytest.approx(leep(*rows, C).item(), abs=1e-6)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_scoring_pass(precision):
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, Z)).cuda()
    data = TensorDataset(torch.randn(500, 8), torch.randint(C, (500,)))
    report = score(source, DataLoader(data, batch_size=64), C, precision=precision, progress=False)
    source.cpu()
    on_cpu = score(source, DataLoader(data, batch_size=64), C, progress=False)
    assert report.leep == pytest.approx(on_cpu.leep, abs=2e-3)
