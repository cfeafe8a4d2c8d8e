"""What the positional encodings of a model of timm are."""

from pathlib import Path
from typing import Any

from torch import nn

from posenc import NoPE
from posenc.integrations.held import check_own
from posenc.integrations.timm.library import model_of
from posenc.integrations.timm.modules import reader_of
from posenc.integrations.transformers.description.description import Description, LayerGroup


def describe(source: Any) -> Description:
    """Read the encodings of a model of timm, as posenc objects.

    ``describe`` reads the modules of the model, not its name or arguments. ``Description.unread`` lists what posenc has
    no encoding for, with the reason.

    Args:
        source: a model; its name, such as "vit_base_patch16_224"; or its config, a dict, a ``config.json`` or the
            folder that holds one. A model by name or config is made without memory or weights.

    Returns:
        A :class:`posenc.integrations.transformers.Description`. Layers are numbered by the order of their attention;
        ``part`` is the module that has the encoding.

    Raises:
        TypeError: another source.
        ValueError: an unknown name; a config that timm refuses; a model without a positional encoding that posenc
            knows, or with one that :func:`posenc.integrations.timm.replace` put in.
        ImportError: a name, and timm cannot be imported.

    Example:
        >>> describe("vit_base_patch16_224").groups[0].encoding  # doctest: +SKIP
        LearnedGrid(dim=768, grid=(14, 14), prefix=1, std=0.02)
    """
    model = model_of(source, "describe")
    check_own(model, "describe", "model.posenc_encoding is what acts; undo() the patch to describe the model's own")
    attentions = _attentions(model)
    found: dict[tuple[str, str, str, tuple[str, ...]], tuple[str, LayerGroup]] = {}
    unread: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        reader = reader_of(module)
        for row in () if reader is None else reader(module, model):
            layers = _layers(path, attentions)
            if row.encoding is None:
                unread.setdefault("; ".join(row.notes), []).append(".".join(filter(None, (path, row.label))))
                continue
            key = (row.label, str(row.encoding.to_dict()), row.positions, row.notes)
            if key in found:
                path, group = found[key]
                layers = tuple(sorted({*group.layers, *layers}))
            part = path.removesuffix(row.label).rstrip(".")
            group = LayerGroup(part, row.label, layers, row.encoding, notes=row.notes, positions=row.positions)
            found[key] = path, group
    groups = [group for _, group in found.values()]
    if not groups and not unread:
        if not attentions:
            raise ValueError(
                f"describe: {type(model).__name__} has no positional encoding that posenc knows, and no attention; "
                "convolutions need no positional encoding."
            )
        note = "none of its modules adds positions; convolutions between them may tell neighbours apart"
        groups = [LayerGroup("", "", tuple(range(len(attentions))), NoPE(), notes=(note,))]
    name = source if isinstance(source, str) and not Path(source).exists() else _name(model)
    return Description(name, tuple(groups), tuple(_unread(why, where) for why, where in unread.items()), _version())


def _unread(why: str, where: list[str]) -> str:
    others = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f"{where[0]}{others}: {why}"


def _attentions(model: nn.Module) -> list[str]:
    """The paths of the attentions, innermost, in their order."""
    paths = [
        path
        for path, module in model.named_modules()
        if (
            isinstance(getattr(module, "num_heads", getattr(module, "heads", None)), int)
            or type(module).__name__.endswith("SelfAttention")  # one head, which needs no number
        )
        and not type(module).__name__.startswith(("Rotary", "AttentionPoolLatent"))  # its queries are no patches
    ]
    return [path for path in paths if path and not any(other.startswith(f"{path}.") for other in paths)]


def _layers(path: str, attentions: list[str]) -> tuple[int, ...]:
    """The attentions that a module serves: the one that it is or lies in, or all beside or below it."""
    around = [i for i, other in enumerate(attentions) if path == other or path.startswith(f"{other}.")]
    if around:
        return tuple(around)
    home = path.rpartition(".")[0]
    below = [i for i, other in enumerate(attentions) if other.startswith(f"{path}." if path else "")]
    return tuple(below or [i for i, other in enumerate(attentions) if other.startswith(f"{home}." if home else "")])


def _name(model: Any) -> str:
    settings = getattr(model, "pretrained_cfg", None) or {}
    return str(settings.get("architecture") or type(model).__name__)


def _version() -> str:
    import sys

    library = sys.modules.get("timm")
    return "its modules" if library is None else f"the modules of timm {library.__version__}"
