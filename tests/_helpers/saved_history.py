"""Earlier transfers like those of the tests, as files in a folder."""

import numpy as np

from lightning_leep.records import AccuracyCurve, History, load_history, save_record
from tests._helpers.simulated_transfers import make_record, make_report
from tests._helpers.small_transfer import C


def save_earlier(folder, size: int = 12, trainable: str = "all", epochs: int = 4) -> History:
    """Save transfers to ``C`` classes whose trained accuracy stays below their probe's."""
    rng = np.random.default_rng(0)
    for _ in range(size):
        probe = rng.uniform(0.6, 0.95)
        scores = {"leep": -rng.uniform(0.3, 0.9), "leave_one_out_leep": -rng.uniform(0.5, 1)}
        report = make_report(C, 17, probe=probe, multi_layer_probe_accuracy=probe, **scores)
        times = tuple(range(1, epochs + 1))
        heights = tuple((probe - 0.1) * (1 - 0.5**t) for t in times)
        save_record(make_record(report=report, curve=AccuracyCurve(times, heights), trainable=trainable), folder)
    return load_history(folder)
