"""One small scored transfer, and TensorBoard's own reader."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep.records.report import TransferabilityReport


@pytest.fixture
def joint():
    """Three target and four source classes, the last of which no row gave any probability."""
    return torch.tensor([[8.0, 1.0, 1.0, 0.0], [2.0, 4.0, 4.0, 0.0], [0.0, 5.0, 15.0, 0.0]])


@pytest.fixture
def report(joint):
    return TransferabilityReport(
        num_samples=40,
        num_target_classes=3,
        num_source_classes=4,
        class_counts=(10, 10, 20),
        leep=-0.5,
        leep_standard_error=0.05,
        leave_one_out_leep=-0.6,
        leave_one_out_leep_standard_error=0.06,
        label_entropy=math.log(8) / 2,  # of 1/4, 1/4 and 1/2: 1.5 bits
        eep_accuracy=0.7,
        eep_accuracy_standard_error=0.02,
        seconds=2.0,
        samples_per_second=20.0,
        notes=("Half of the samples were scored.",),
        joint=joint,
    )


@pytest.fixture
def read_events():
    def read(logger):
        logger.save()
        return EventAccumulator(logger.log_dir, size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()

    return read
