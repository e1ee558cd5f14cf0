"""Scores as pure functions of tensors, one score a file."""

from lightning_leep.functional.h_score import h_score
from lightning_leep.functional.leep import leep
from lightning_leep.functional.linear_probe import linear_probe
from lightning_leep.functional.log_me import log_me
from lightning_leep.functional.nce import nce
from lightning_leep.functional.nearest_neighbour import nearest_neighbour_accuracy
from lightning_leep.functional.nleep import nleep
from lightning_leep.functional.permutation import permutation_null

__all__ = [
    "h_score",
    "leep",
    "linear_probe",
    "log_me",
    "nce",
    "nearest_neighbour_accuracy",
    "nleep",
    "permutation_null",
]
