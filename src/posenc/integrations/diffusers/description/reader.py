"""From a model of diffusers, or its config, to its encodings."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
_MOST_LAYERS = 256
#: Names of parameters and buffers that say so, of no module that is known here.
_TABLES = re.compile(r"pos_?emb|positional|position_emb|pos_frequencies|freqs_cis|rotary", re.IGNORECASE)

#: Modules that turn channels in a way that is none of posenc's encodings, or not read: why.
WHY_NOT = {
    "AnyFlowCausalRotaryPosEmbed": "a chunk of compressed frames has coordinates between those of the others",
    "ErnieImageEmbedND3": "the two channels of a pair turn by different angles, which is no rotation",
}

#: Models that encode positions in a way that no row tells of, or not at all.
NOT_READ = {
    "AceStepTransformer1DModel": "a function makes the tables: RoPE in halves, over the places of a sequence",
    "DreamLiteTransformer2DModel": "no rotation",
    "JoyImageEditPlusTransformer3DModel": "a method makes the tables for each range of patches",
    "SanaTransformer2DModel": "no rotation: positions come from convolutions",
    "WanAnimate2Transformer3DModel": "the rotation is written out in the attention",
}


def describe(model: Any) -> Description:
    """The positional encodings of a transformer of diffusers.

    Args:
        model: a live model; or its config: the folder that it was saved to, its ``config.json``, or the same as a
            mapping with ``_class_name``. Weights are not read: a config is built without them.

    Returns:
        A :class:`Description`. It does not cover what a pipeline does before it calls the model.

    Raises:
        TypeError: something else.
        ValueError: a file that is not a config, a class that diffusers does not have, impossible sizes.

    Example:
        >>> found = describe({"_class_name": "FluxTransformer2DModel", "axes_dims_rope": [16, 56, 56]})
        >>> found.parts[0].encoding.widths, found.parts[0].encoding.layout, found.parts[0].encoding.rules[0]
        ((16, 56, 56), 'interleaved', Geometric(base=10000.0))
        >>> found.parts[0].axes, found.parts[0].ends
        (('time', 'height', 'width'), (None, None, None))
    """
    built = model if isinstance(model, nn.Module) else _built(_config(model))
    found: list[Part] = []
    unread: list[str] = []
    for name, module, row in modules(built):
        changed = replaced(module, row)
        try:
            encoding = row.encoding(module, built) if changed is None else changed
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"describe: the {type(module).__name__} of this {type(built).__name__} has sizes with which no "
                f"rotation can be built: {error}"
            ) from error
        axes = row.axes_of(encoding)
        ends = (None,) * len(axes) if row.ends is None or changed is not None else row.ends(module)
        found.append(Part(name, type(module).__name__, encoding, axes, row.positions, ends, row.notes))
    known = {part.module for part in found}
    alike: dict[Part, list[str]] = {}
    for name, module, added in tables_added(built):
        kind, ends, table = type(module).__name__, added.ends(module, built), added.encoding(module, built)
        known.add(name)
        part = Part("", kind, table, added.axes, added.positions, ends)
        first = next((each for each in alike if _alike(each, part)), part)
        alike.setdefault(first, []).append(name)
    for part, names in alike.items():
        more = (f"so do {len(names) - 1} more of its modules, such as {names[1]}",) if len(names) > 1 else ()
        found.append(replace(part, module=names[0], notes=more))
    unread += _modules_unread(built, known)
    if not found:
        unread += _instead(built, known_by_half=bool(unread))
    return Description(type(built).__name__, tuple(found), tuple(unread))


def _alike(a: Part, b: Part) -> bool:
    return (a.kind, a.encoding.to_dict(), a.ends) == (b.kind, b.encoding.to_dict(), b.ends)


def _modules_unread(built: Any, known: set[str]) -> Iterator[str]:
    """Modules that by their names bear on positions, and are not known here; tables of modules that do not."""
    for name, module in built.named_modules():
        kind = type(module).__name__
        if name and name not in known and _POSITIONS.search(kind) and not any(name.startswith(f"{k}.") for k in known):
            known.add(name)
            yield f"{name}: {kind}" + (f" ({WHY_NOT[kind]})" if kind in WHY_NOT else "")
    for name, tensor in (*built.named_parameters(), *built.named_buffers()):
        owner, _, last = name.rpartition(".")
        if owner and owner not in known and re.match("pos_?emb", last):
            yield f"{name}: {_table(tensor)}"


def _table(tensor: Any) -> str:
    return f"a table of {' x '.join(map(str, tensor.shape))}, which is not read"


def _instead(built: Any, *, known_by_half: bool) -> Iterator[str]:
    """What a model of which nothing was read has in the place of known modules, as far as it shows."""
    kind = type(built).__name__
    tables = [
        f"{name}: {_table(tensor)}"
        for name, tensor in (*built.named_parameters(), *built.named_buffers())
        if _TABLES.search(name.rpartition(".")[2])
    ]
    yield from tables
    row = FAMILIES.get(kind)  # a model of this config may do without
    arguments = [
        f"{name}: an argument of the model, in which the pipeline gives tables that are not read"
        for name in inspect.signature(type(built).forward).parameters
        if _POSITIONS.search(name) and (row is None or row.argument != name)
    ]
    yield from arguments
    if kind in NOT_READ:
        yield NOT_READ[kind]
    elif not (known_by_half or tables or arguments) and re.search("Transformer|DiT", kind):
        yield "none of its modules, tables and arguments encodes positions in a way that is known here"


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
            f"describe: got a value of type {type(given).__name__}, expected a model of diffusers (such as "
            "pipe.transformer), the folder of one, its config.json, or its config as a mapping."
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
        raise ImportError('describe: diffusers is not installed; pip install "posenc[diffusers]".') from error

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
    layers = {
        key: value
        for key, value in options.items()
        if _LAYERS.match(key) and isinstance(value, int) and not isinstance(value, bool)
    }
    builder: Any = cls  # for type checkers that do not see diffusers
    troubles: list[Exception] = []
    # One layer of each kind; all of them where others are counted by their numbers (Wan VACE).
    for most in (1, _MOST_LAYERS):
        try:
            with torch.device("meta"):
                return builder.from_config(options | {key: min(value, most) for key, value in layers.items()})
        except Exception as error:  # whatever the constructor of a model raises
            troubles.append(error)
    last = troubles[-1]
    raise ValueError(
        f"describe: diffusers cannot build a {name} from this config ({type(last).__name__}: {str(last)[:200]})."
    ) from last


def _check_size(key: str, value: Any) -> None:
    """Nothing is sized by a number that no model has."""
    if isinstance(value, (list, tuple)):
        if len(value) > 4096:
            raise ValueError(f"describe: got {key} of {len(value)} items, expected at most 4096.")
        for part in value:
            _check_size(key, part)
    elif isinstance(value, (int, float)) and abs(value) > _LARGEST and not key.endswith(("theta", "base", "_id")):
        raise ValueError(f"describe: got {key} {value}, expected at most {_LARGEST}.")
