"""Sources and data that are named in a file or on the command line."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from lightning_leep.ranking.hub import LaterTransform
from lightning_leep.ranking.images import ImageFolder
from lightning_leep.ranking.source import Source
from lightning_leep.scoring.options import ScoringOptions

KEYS = ("model", "transform", "split_batch", "options", "source_accuracy", "head")
HUBS = {"timm": Source.from_timm, "transformers": Source.from_transformers}


def read_zoo(path: str) -> tuple[dict[str, Source], Any]:
    """Read a YAML or JSON file of sources: by name, and the entry ``data``, None without one.

    ``sources`` maps names to sources, or lists short forms. A source is a short form (``timm:NAME``,
    ``transformers:NAME``, or the dotted path of a function or class), or a mapping of the arguments of :class:`Source`,
    in which ``model``, ``transform`` and ``split_batch`` are dotted paths or have ``class_path`` and ``init_args``.
    Models are made one at a time, when they are scored. ``ValueError`` names a source that is none of these.
    """
    values = _parsed(_text(path, "The zoo"), path)
    if not isinstance(values, Mapping) or not isinstance(values.get("sources"), Mapping | list):
        raise ValueError(f"{path} must hold `sources`: a mapping of names to sources, or a list of short forms.")
    if unknown := sorted(set(values) - {"sources", "data"}):
        raise ValueError(f"{path} must hold `sources` and `data` only, got {unknown} as well.")
    entries = values["sources"]
    if isinstance(entries, list):
        if not all(isinstance(entry, str) for entry in entries) or len(set(entries)) < len(entries):
            raise ValueError(f"A list of `sources` must hold short forms such as timm:NAME, each once, got {entries}.")
        entries = {entry: entry for entry in entries}
    return {str(name): as_source(str(name), entry) for name, entry in entries.items()}, values.get("data")


def _raise(error: Exception) -> NoReturn:
    raise error


def as_source(name: str, entry: Any) -> Source:
    """Return the source of an entry of a zoo; see :func:`read_zoo`."""
    values = {"model": entry} if isinstance(entry, str) else entry
    if not isinstance(values, Mapping) or "model" not in values or not set(values) <= set(KEYS):
        raise ValueError(
            f"The source {name!r} must be a short form, or have `model` and no other keys than {', '.join(KEYS[1:])}, "
            f"got {entry!r}."
        )
    try:
        model: Any = values["model"]
        rest: dict[str, Any] = {key: value for key, value in values.items() if key != "model"}
        hub, _, hub_name = model.partition(":") if isinstance(model, str) else ("", "", "")
        if hub in HUBS and hub_name:
            try:
                source = HUBS[hub](hub_name)
            except ModuleNotFoundError as error:  # said when it is scored, so that the others are ranked
                fails = partial(_raise, error)
                source = Source(fails, LaterTransform(fails))
            rest = {"transform": source.transform, **rest}
            model = source.model
        else:
            model = partial(_made, model)
        for key in ("transform", "split_batch"):
            if isinstance(rest.get(key), str | Mapping):
                rest[key] = _made(rest[key], call=isinstance(rest[key], Mapping))
        if isinstance(rest.get("options"), Mapping):
            rest["options"] = ScoringOptions(**rest["options"])
        return Source(model, **rest)
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"The source {name!r}: {error}") from error


def read_data(entry: Any) -> Any:
    """Return the data set or the loader that an argument or an entry of a zoo names; ``ValueError`` if it names none.

    It is ``imagefolder:PATH``; the path of a YAML or JSON file with ``class_path`` and ``init_args``, or these as a
    mapping or as JSON. The class is a data set, a loader, or a LightningDataModule, whose training data are taken.
    """
    if isinstance(entry, str) and entry.startswith("imagefolder:"):
        path = entry.removeprefix("imagefolder:")
        try:
            if not path:
                raise ValueError("`path` must not be empty.")
            return ImageFolder(path)
        except ValueError as error:  # in the words that were typed
            raise ValueError(str(error).replace("`path`", "PATH of imagefolder:PATH")) from error
    if isinstance(entry, str):
        is_json = entry.lstrip().startswith("{")
        if not is_json and Path(entry).is_dir():
            raise ValueError(
                f"Data must be imagefolder:PATH or a file; for a folder of images pass imagefolder:{entry}."
            )
        entry = _parsed(entry if is_json else _text(entry, "Data must be imagefolder:PATH or a file;"), entry)
    if not isinstance(entry, Mapping) or "class_path" not in entry:
        raise ValueError(f"Data must be imagefolder:PATH or have a `class_path`, got {entry!r}.")
    data = _made(entry)
    if hasattr(data, "train_dataloader"):
        data.prepare_data()
        data.setup("fit")
        return data.train_dataloader()
    return data


def _text(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ValueError(f"{what} {path!r} cannot be read: {reason}.") from error


def _parsed(text: str, what: str) -> Any:
    import yaml  # comes with Lightning

    class Loader(yaml.SafeLoader):
        """YAML, of which JSON is a part. A name is what was typed (`yes`, `18`), and twice the same is a fault."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} names {', '.join(twice)} twice in one place.")
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{what} is neither YAML nor JSON: {place}{error.problem}.") from error
    except yaml.YAMLError as error:  # such as control characters
        raise ValueError(f"{what} is neither YAML nor JSON: {' '.join(str(error).split())}") from error


def _made(spec: Any, call: bool = True) -> Any:
    """Make what a dotted path or ``class_path`` with ``init_args`` names, the arguments checked by their types."""
    spec = {"class_path": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, Mapping) or not set(spec) <= {"class_path", "init_args"}:
        raise ValueError(f"it must be a dotted path or a mapping of `class_path` and `init_args`, got {spec!r}.")
    module, _, name = str(spec.get("class_path", "")).rpartition(".")
    if not module:
        raise ValueError(f"`class_path` must be a dotted path such as torchvision.models.resnet18, got {spec!r}.")
    target = getattr(import_module(module), name, None)
    if target is None:
        raise ValueError(f"`class_path` names {module}.{name}, but {module} has no {name}.")
    if not call and not isinstance(target, type):
        return target
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ImportError as error:
        raise ModuleNotFoundError('`class_path` needs jsonargparse: `pip install "lightning-leep[cli]"`.') from error
    parser, arguments = ArgumentParser(exit_on_error=False), _with_objects(spec.get("init_args") or {})
    (parser.add_class_arguments if isinstance(target, type) else parser.add_function_arguments)(
        target, "init_args", fail_untyped=False
    )
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # before version 4.49
    try:
        made = instantiate(parser.parse_object({"init_args": arguments} if arguments else {}))
    except ArgumentError as error:
        raise ValueError(f"{spec['class_path']}: {error}") from error
    if isinstance(target, type):
        return made.init_args
    return target(**vars(made.init_args) if "init_args" in made else {})


def _with_objects(value: Any) -> Any:
    """The value with each ``class_path`` inside it in the place of what it makes."""
    if isinstance(value, Mapping):
        return _made(value) if "class_path" in value else {key: _with_objects(item) for key, item in value.items()}
    return [_with_objects(item) for item in value] if isinstance(value, list) else value
