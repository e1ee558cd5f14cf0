"""What the source classes stand for in the target data: P(y|z), as far as it is shown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_leep.utils.checks import check_keys, check_text

#: Most target classes (rows) and source classes (columns), and most characters of a name: a record stays small.
MAX_ROWS, MAX_COLUMNS, MAX_NAME = 40, 20, 40


@dataclass(frozen=True)
class Association:
    r"""P(y|z) of the largest target classes y and the source classes z that say most about them.

    Source: Nguyen et al., ICML 2020, the empirical conditional distribution of LEEP.

    Raises:
        TypeError: If a name is not a string.
        ValueError: If there are too many classes, a name is too long, or ``p`` is not a matrix of probabilities with a
            row for each target class and a column for each source class.
    """

    targets: tuple[str, ...]  #: Names of the target classes, at most 40
    sources: tuple[str, ...]  #: Names of the source classes, at most 20
    p: tuple[tuple[float, ...], ...]  #: A row for each target class: P(y|z) of each source class, in 0..1
    left_out: str  #: A sentence that says what is shown of how much

    def __post_init__(self) -> None:
        for name, most in (("targets", MAX_ROWS), ("sources", MAX_COLUMNS)):
            names = getattr(self, name)
            if not isinstance(names, tuple) or not 1 <= len(names) <= most:
                raise ValueError(f"`{name}` must be a tuple of 1 to {most} names, got {names!r:.100}.")
            for text in names:
                check_text(name, text)
            if (longest := max(map(len, names))) > MAX_NAME:
                raise ValueError(f"`{name}` must have at most {MAX_NAME} characters each, got {longest}.")
        check_text("left_out", self.left_out)
        if not isinstance(self.p, tuple) or {len(self.sources)} != {len(row) for row in self.p}:
            raise ValueError(f"`p` must have {len(self.sources)} probabilities in each row.")
        if len(self.p) != len(self.targets):
            raise ValueError(f"`p` must have {len(self.targets)} rows, got {len(self.p)}.")
        for row in self.p:
            for value in row:
                if type(value) not in (float, int) or not 0 <= value <= 1:
                    raise ValueError(f"`p` must hold probabilities, got {value!r:.100}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Association":
        """Inverse of :meth:`to_dict`; ``TypeError`` or ``ValueError`` if a value is missing, unknown or impossible."""
        check_keys("association", values, {"targets", "sources", "p", "left_out"})
        return cls(
            tuple(values["targets"]), tuple(values["sources"]), tuple(map(tuple, values["p"])), values["left_out"]
        )
