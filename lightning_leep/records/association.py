"""What the source classes stand for in the target data: P(y|z), as far as it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_leep.utils.checks import check_keys, check_real, check_text, texts

#: Most target classes (rows) and source classes (columns), and most characters of a name: a record stays small.
MAX_ROWS, MAX_COLUMNS, MAX_NAME = 40, 20, 40


@dataclass(frozen=True)
class Association:
    r"""P(y|z) of the largest target classes y and the source classes z that say most about them.

    Source: Nguyen et al., ICML 2020, the empirical conditional distribution of LEEP.

    Raises:
        TypeError: If a name is not a string, or a probability not a number.
        ValueError: If there are too many classes, a name is too long, or ``p`` is not a matrix of probabilities with a
            row for each target class and a column for each source class.
    """

    targets: tuple[str, ...]  #: Names of the target classes, at most 40
    sources: tuple[str, ...]  #: Names of the source classes, at most 20
    p: tuple[tuple[float, ...], ...]  #: A row for each target class: P(y|z) of each source class, in 0..1
    left_out: str  #: A sentence that says what is shown of how much

    def __post_init__(self) -> None:
        for name, most in (("targets", MAX_ROWS), ("sources", MAX_COLUMNS)):
            names = texts(name, getattr(self, name))
            if not 1 <= len(names) <= most or max(map(len, names)) > MAX_NAME:
                raise ValueError(f"`{name}` must be 1 to {most} names of up to {MAX_NAME} letters, got {names!r:.100}.")
        check_text("left_out", self.left_out)
        if [len(row) for row in self.p] != [len(self.sources)] * len(self.targets):
            raise ValueError(f"`p` must have {len(self.targets)} rows of {len(self.sources)} probabilities.")
        for row in self.p:
            for value in row:
                check_real("p", value, 0, 1, missing=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Association":
        """Make it from its fields; ``TypeError`` or ``ValueError`` if a value is missing, unknown or impossible."""
        check_keys("association", values, {"targets", "sources", "p", "left_out"})
        names = tuple(values["targets"]), tuple(values["sources"])
        return cls(*names, tuple(map(tuple, values["p"])), values["left_out"])
