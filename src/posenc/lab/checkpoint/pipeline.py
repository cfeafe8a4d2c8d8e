"""Describes the positional encodings in a diffusers folder: a pipeline, or one model of it."""

from pathlib import Path
from typing import Any

from posenc.integrations.json_file import load_json
from posenc.integrations.transformers import Description, LayerGroup, describe


def describe_diffusers(path: Path, *, pairing: Any = None) -> Description | None:
    """The encodings of every model of a pipeline, or of one model; None if the folder is not one of diffusers.

    Raises:
        ValueError: diffusers is not installed, or posenc knows no model in the folder.
    """
    index = path / "model_index.json" if path.is_dir() else path
    if index.name == "model_index.json" and index.is_file():
        return _pipeline(index, pairing)
    config = path / "config.json" if path.is_dir() else path
    if not config.is_file() or "_class_name" not in _keys(config):
        return None
    return _model(config, "")


def _keys(path: Path) -> dict[str, Any]:
    """The keys of a JSON file; none if the file is not JSON, which other code reports."""
    try:
        return load_json(path)
    except ValueError:
        return {}


def _pipeline(index: Path, pairing: Any) -> Description:
    keys = _keys(index)
    groups: list[LayerGroup] = []
    unread: list[str] = []
    for name, value in keys.items():
        library = value[0] if isinstance(value, list) and len(value) == 2 else None
        config = index.parent / name / "config.json"
        if library not in ("diffusers", "transformers") or Path(name).name != name or not config.is_file():
            continue
        try:
            found = _model(config, name) if library == "diffusers" else describe(config, pairing=pairing)
        except ValueError as error:
            unread.append(f"{name}: {error}")
            continue
        for group in found:
            part = name if library == "diffusers" else ".".join(word for word in (name, group.part) if word)
            groups.append(LayerGroup(**(vars(group) | {"part": part})))
        unread += [f"{name}: {text}" for text in found.unread]
    if not groups and not unread:
        raise ValueError(f"inspect: {index} names no model whose positional encoding posenc knows.")
    return Description(str(keys.get("_class_name", "")), tuple(groups), tuple(unread))


def _model(config: Path, name: str) -> Description:
    from posenc.integrations.diffusers import describe as describe_model

    try:
        found = describe_model(config)
    except ImportError as error:
        raise ValueError(
            f"inspect: {config} belongs to diffusers, which is not installed; pip install 'posenc[diffusers]'."
        ) from error
    groups = []
    for part in found:
        notes = [f"{', '.join(part.axes)}: {part.positions}", *part.notes]
        if any(part.ends):
            ends = ", ".join(f"{axis} {end}" for axis, end in zip(part.axes, part.ends, strict=True))
            notes.append(f"its table ends before {ends}")
        groups.append(LayerGroup(name, part.module, (), part.encoding, notes=tuple(notes)))
    return Description(found.cls, tuple(groups), found.unread)
