"""Number and names of the classes, found where Lightning users keep them."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COUNT_NAMES = ("num_target_classes", "num_classes", "n_classes", "num_labels")
CLASS_NAMES = ("classes", "class_names")
LABEL_COLUMNS = ("label", "labels")


def find_num_target_classes(datamodule: Any, module: Any, dataset: Any) -> int | None:
    """Return the number of target classes C that the datamodule, the module or the data set states.

    It may be an attribute or a hyper-parameter, the length of a list of names, or the class label in the ``features``
    of a Hugging Face data set. ``ValueError`` if places disagree.
    """
    found = list(dict.fromkeys(_statements(datamodule, module, dataset)))
    if len({count for _, count in found}) > 1:
        places = ", ".join(f"{place} = {count}" for place, count in found)
        raise ValueError(
            f"The number of target classes is not clear: {places}. Pass `num_target_classes=` to LEEPCallback."
        )
    return found[0][1] if found else None


def find_class_names(datamodule: Any, dataset: Any, num_target_classes: int) -> tuple[str, ...] | None:
    """Return the target classes' names from the datamodule or the data set; None unless every class has a name."""
    lists = [_names(holder) for holder in (datamodule, *_layers(dataset))]
    return next((names for names in lists if names is not None and len(names) == num_target_classes), None)


def find_source_class_names(source: Any, num_source_classes: int | None) -> tuple[str, ...] | None:
    """Return the source classes' names, its ``classes`` or its Hugging Face ``config.id2label``; None without any."""
    if num_source_classes is None:
        return None
    labels = attribute(attribute(source, "config"), "id2label")
    if isinstance(labels, Mapping) and sorted(labels) == list(range(num_source_classes)):
        return tuple(str(labels[z]) for z in range(num_source_classes))
    names = _names(source)
    return names if names is not None and len(names) == num_source_classes else None


def _statements(datamodule: Any, module: Any, dataset: Any) -> Iterator[tuple[str, int]]:
    data = ((type(layer).__name__, layer) for layer in _layers(dataset))
    for place, holder in (("datamodule", datamodule), ("module", module), *data):
        hparams = attribute(holder, "hparams")
        for name in COUNT_NAMES:
            if (count := _count(attribute(holder, name))) is not None:
                yield f"{place}.{name}", count
            if isinstance(hparams, Mapping) and (count := _count(hparams.get(name))) is not None:
                yield f"{place}.hparams.{name}", count
        if holder is not module and (names := _names(holder)) is not None:
            yield f"class names of {place}", len(names)


def _layers(dataset: Any) -> Iterator[Any]:
    """Yield the data set and those that it wraps (``Subset``, ``ConcatDataset`` and the like)."""
    seen: set[int] = set()
    queue = [dataset]
    while queue:
        layer = queue.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        queue.append(attribute(layer, "dataset"))
        parts = attribute(layer, "datasets")
        queue.extend(parts if isinstance(parts, list | tuple) else [])


def attribute(holder: Any, name: str) -> Any:
    """Return an attribute of a user's object; None if it is missing or raises."""
    try:
        return getattr(holder, name, None)
    except Exception:  # a property that is not ready yet, say
        return None


def _count(value: Any) -> int | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        count = operator.index(value)
    except TypeError:
        return None
    return count if count > 0 else None


def _names(holder: Any) -> tuple[str, ...] | None:
    for name in CLASS_NAMES:
        value = attribute(holder, name)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
            return tuple(map(str, value))
    features = attribute(holder, "features")
    if isinstance(features, Mapping):
        labels = [attribute(features.get(column), "names") for column in LABEL_COLUMNS]
        return next((tuple(map(str, names)) for names in labels if isinstance(names, list | tuple) and names), None)
    return None
