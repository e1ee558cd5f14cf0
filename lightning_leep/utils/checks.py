"""Checks of single values from a user or a file: each error names the value, what it is and what it must be."""

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeAlias, get_args

#: Largest size. No data set has more rows, and the logit of an accuracy on so many is still exact.
MAX_SIZE = 10**12


def check_text(name: str, value: Any, *, empty: bool = True) -> None:
    """Raise ``TypeError`` unless a value is a string, ``ValueError`` if it is empty although ``empty`` is False."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string, got {value!r}.")
    if not value and not empty:
        raise ValueError(f"`{name}` must not be empty.")


def check_name(name: str, value: Any) -> None:
    """Raise ``TypeError`` unless a value is a string that is not empty, or None."""
    if value is not None and (not isinstance(value, str) or not value):
        raise TypeError(f"`{name}` must be a name or None, got {value!r}.")


def check_size(name: str, value: Any, low: int = 1) -> None:
    """Raise ``TypeError`` unless a value is an integer (True is not), ``ValueError`` unless ``low`` <= it <= 10^12."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer, got {value!r}.")
    if not low <= value <= MAX_SIZE:
        raise ValueError(f"`{name}` must be at {f'least {low}' if value < low else 'most 10^12'}, got {value}.")


def check_real(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, missing: bool = True) -> None:
    """Raise ``TypeError`` unless a value is a number (True is not), ``ValueError`` unless it is in the range.

    NaN passes if it may be ``missing``.
    """
    if type(value) is float and low <= value <= high:  # nearly always; some lists are long
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a number that fits a float, got {value!r}.") from None
    if not (low <= number <= high or (missing and math.isnan(number))):
        wanted = f"lie in {low:g}..{high:g}"
        if high >= sys.float_info.max:
            wanted = (
                f"be {'' if high == math.inf else 'finite and '}at least {low:g}" if low > -math.inf else "be a number"
            )
        raise ValueError(f"`{name}` must {wanted}, got {number:g}.")


#: From the name of a field to its smallest and its largest number.
Ranges: TypeAlias = Mapping[str, tuple[float, float]]


def check_fields(record: Any, ranges: Ranges, *, missing: bool, needed: Collection[str] = ()) -> None:
    """Check the fields of a dataclass that are annotated as an int, float, str or bool, or as one of these or None.

    Sizes are at least 1 unless ``ranges`` says otherwise. ``needed`` fields must not be None whatever their annotation.
    """
    for f in fields(record):
        value = getattr(record, f.name)
        kinds = set(get_args(f.type) if isinstance(f.type, UnionType) else [f.type])
        if value is None and NoneType in kinds and f.name not in needed:
            continue
        kinds.discard(NoneType)
        if kinds == {int}:
            check_size(f.name, value, int(ranges.get(f.name, (1,))[0]))
        elif kinds == {float}:
            check_real(f.name, value, *ranges.get(f.name, (-math.inf, math.inf)), missing=missing)
        elif kinds == {str}:
            check_text(f.name, value)
        elif kinds == {bool} and not isinstance(value, bool):
            raise TypeError(f"`{f.name}` must be True or False, got {value!r}.")


def real_numbers(name: str, values: Any) -> tuple[float, ...]:
    """Return the elements of any sequence, array or tensor of numbers as floats.

    ``TypeError`` if one is not a number ("0.5" and True are not), ``ValueError`` if one does not fit a float.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"`{name}` must be a sequence of numbers, got {values!r}.")
    numbers = []
    for value in values:
        if isinstance(value, str | bytes | bool):
            raise TypeError(f"`{name}` must hold numbers, got {value!r}.")
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            raise TypeError(f"`{name}` must hold numbers, got {value!r}.") from None
        except OverflowError:
            raise ValueError(f"`{name}` must hold numbers that fit a float, got {value}.") from None
    return tuple(numbers)


def check_keys(name: str, values: Any, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise ``TypeError`` unless a value is a mapping, ``ValueError`` for missing keys and for unknown ones."""
    if not isinstance(values, Mapping):
        raise TypeError(f"`{name}` must be a mapping, got {values!r:.200}.")
    if not set(required) <= set(values) <= {*required, *optional}:
        raise ValueError(f"`{name}` must have the keys {sorted(required)}, got {sorted(map(str, values))}.")


def texts(name: str, values: Any) -> tuple[str, ...]:
    """Return the strings of a list or tuple; ``TypeError`` for anything else."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"`{name}` must hold strings, got {values!r:.200}.")
    return tuple(values)


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and sequences as JSON has them, and None for a number that is not finite."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    r"""Escape what is not printable, so that a name can neither break a line nor command the terminal.

    Example:
        >>> printable("caf\u00e9\n\x1b[31m")
        'café\\n\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def error_text(error: Exception) -> str:
    """What an error says; empty if it cannot even be printed."""
    try:
        return str(error).strip()
    except Exception:
        return ""
