"""What is known about transfers, as plain data in JSON: reports, curves, records, histories. No torch, no Lightning."""

from lightning_leep.records.curve import AccuracyCurve, convergence_scalars
from lightning_leep.records.history import History, load_history, save_record
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

__all__ = [
    "AccuracyCurve",
    "History",
    "TransferRecord",
    "TransferabilityReport",
    "convergence_scalars",
    "load_history",
    "save_record",
]
