"""From a model of diffusers, or its config, to its encodings."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posenc.integrations.diffusers.description.added import ADDED, Added
from posenc.integrations.diffusers.description.description import Description, Part
from posenc.integrations.diffusers.description.families import FAMILIES
from posenc.integrations.diffusers.description.tables import Row, Turning
from posenc.integrations.json_file import load_json

#: Classes whose names say that they bear on positions.
_POSITIONS = re.compile(r"rotary|rope|posembed|pos_embed|positional|positionembedding|embednd", re.IGNORECASE)
#: Numbers of layers, which say nothing of the encoding: one of each is built.
_LAYERS = re.compile(r"^(n|num)_.*(layers|blocks)$|^(num_layers|n_layers|depth|mmdit_layers|dit_depth)$")
_LARGEST = 2**20

#: Classes that turn channels in a way that is none of posenc's encodings: why.
NO_ROTATION = {
    "ErnieImageEmbedND3": "the two channels of a pair turn by different angles, which is no rotation",
}


def describe(model: Any) -> Description:
    """The positional encodings of a transformer of diffusers.

    Args:
        model: a live model; or its config: the folder that it was saved to, its ``config.json``, or the same as a
            mapping with ``_class_name``. Weights are not read: a config is built without them.

    Returns:
        A :class:`Description`. It says nothing of what a pipeline does before it calls the model.

    Raises:
        TypeError: something else.
        ValueError: a file that is no config, a class that diffusers does not have, sizes that no model has.

    Example:
        >>> found = describe({"_class_name": "FluxTransformer2DModel", "axes_dims_rope": [16, 56, 56]})
        >>> found.parts[0].encoding.widths, found.parts[0].encoding.layout, found.parts[0].encoding.rules[0]
        ((16, 56, 56), 'interleaved', Geometric(base=10000.0))
        >>> found.parts[0].axes, found.parts[0].ends
        (('time', 'height', 'width'), (None, None, None))
    """
    built = model if isinstance(model, nn.Module) else _built(_config(model))
    found, unread = [], []
    for name, module, row in modules(built):
        changed = replaced(module, row)
        try:
            encoding = row.encoding(module, built) if changed is None else changed
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"describe: the {type(module).__name__} of this {type(built).__name__} has sizes that make no rotation"
                f": {error}"
            ) from error
        axes = row.axes_of(encoding)
        ends = (None,) * len(axes) if row.ends is None or changed is not None else row.ends(module)
        found.append(Part(name, type(module).__name__, encoding, axes, row.positions, ends, row.notes))
    for name, module, added in tables_added(built):
        kind, ends = type(module).__name__, added.ends(module, built)
        found.append(Part(name, kind, added.encoding(module, built), added.axes, added.positions, ends))
    known = {part.module for part in found}
    for name, module in built.named_modules():
        kind = type(module).__name__
        if name and name not in known and _POSITIONS.search(kind) and not any(name.startswith(f"{k}.") for k in known):
            unread.append(f"{name}: {kind}" + (f" ({NO_ROTATION[kind]})" if kind in NO_ROTATION else ""))
    return Description(type(built).__name__, tuple(found), tuple(unread))


def modules(model: Any) -> Iterator[tuple[str, Any, Row]]:
    """What makes tables in a model, with its row: its modules, plain objects that it holds, or the model itself."""
    held = ((name, value) for name, value in vars(model).items() if not isinstance(value, nn.Module))
    for name, module in (*model.named_modules(), *held):
        row = FAMILIES.get(type(module).__name__)
        if row is not None and row.applies(model):
            yield name, module, row


def tables_added(model: Any) -> Iterator[tuple[str, Any, Added]]:
    """What adds a table to the patches of a model, with its row."""
    for name, module in model.named_modules():
        row = ADDED.get(type(module).__name__)
        if row is not None and row.applies(module, model):
            yield name, module, row


def replaced(module: Any, row: Row) -> Turning | None:
    """The encoding by which the module was made to turn by :func:`extend`, if it was."""
    method = vars(module).get(row.method) or vars(type(module)).get(row.method)
    encoding: Turning | None = getattr(method, "posenc_encoding", None)
    return encoding


def _config(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, (str, Path)):
        raise TypeError(
            f"describe: got a {type(given).__name__}, expected a model of diffusers (such as pipe.transformer), the "
            "folder of one, its config.json, or its config as a mapping."
        )
    path = Path(given)
    if (path / "model_index.json").is_file():
        raise ValueError(f"describe: {path} is the folder of a pipeline; give the folder of its transformer.")
    return load_json(path / "config.json" if path.is_dir() else path)


def _built(config: Mapping[str, Any]) -> Any:
    """The model with one layer of each kind and no weights."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("describe: diffusers is not installed; pip install diffusers.") from error

    name = config.get("_class_name")
    cls = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(cls, type) and issubclass(cls, diffusers.ModelMixin)):
        raise ValueError(
            f"describe: got a config with _class_name {name!r}, expected the name of a model of diffusers "
            f"{diffusers.__version__}, such as 'FluxTransformer2DModel'."
        )
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in options.items():
        _check_size(key, value)
        if _LAYERS.match(key) and isinstance(value, int) and not isinstance(value, bool):
            options[key] = min(value, 1)
    try:
        builder: Any = cls  # for type checkers that do not see diffusers
        with torch.device("meta"):
            return builder.from_config(options)
    except Exception as error:  # whatever the constructor of a model raises
        raise ValueError(
            f"describe: diffusers cannot build a {name} from this config ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def _check_size(key: str, value: Any) -> None:
    """Nothing is sized by a number that no model has."""
    if isinstance(value, (list, tuple)):
        if len(value) > 4096:
            raise ValueError(f"describe: got {key} of {len(value)} items, expected at most 4096.")
        for part in value:
            _check_size(key, part)
    elif isinstance(value, (int, float)) and abs(value) > _LARGEST and not key.endswith(("theta", "base", "_id")):
        raise ValueError(f"describe: got {key} {value}, expected at most {_LARGEST}.")
