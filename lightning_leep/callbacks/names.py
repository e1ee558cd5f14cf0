"""Names that tell several callbacks in one Trainer apart."""

from collections.abc import Sequence


def automatic_names(given: Sequence[str | None]) -> list[str]:
    """A name for each: ``leep``, ``leep_2``, ... for those without one, but for names that others were given.

    Example:
        >>> automatic_names([None, "leep_2", None])
        ['leep', 'leep_2', 'leep_3']
    """
    candidates = ["leep", *(f"leep_{number}" for number in range(2, 2 + len(given)))]
    free = iter(name for name in candidates if name not in given)
    return [next(free) if name is None else name for name in given]
