"""Learned tables of positions in a live model, stretched."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posenc import Learned
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.description import named
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.live import rebuild

#: What configs call the rows of the table.
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"),
    *("max_source_positions", "max_target_positions", "max_speech_positions", "max_text_positions"),
    *("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
)


def interpolate(model: Any, length: int | None) -> Patch:
    """Stretch every learned table of positions of a model to ``length`` rows, and its config with it.

    Rows that stand for no position (two in OPT and BART, those up to that of padding in RoBERTa) are kept. Position p
    of the new table is read at p (old - 1) / (length - 1) of the old one, between two of its rows linearly.
    """
    part, old = learned_table(model, "extend", 'got "interpolate" for')
    if isinstance(length, bool) or not isinstance(length, int) or length <= old:
        raise ValueError(
            f'extend: got length {length!r} for "interpolate", expected more than {old}, the number of rows now.'
        )
    config = config_of(model.config, part)
    patch = Patch(model, f"extend {type(model).__name__} by its table stretched from {old} to {length} rows")
    try:
        _stretch_all(patch, model, config, old, length)
    except Exception:
        patch.roll_back()
        raise
    return patch.commit()


def learned_table(model: Any, function: str, got: str) -> tuple[str, int]:
    """(part, rows for positions) of the model's learned tables, which must be of one length.

    Raises:
        ValueError: there are none, or several.
    """
    described = describe(model.config)
    tables = {(group.part, group.encoding.length) for group in described if isinstance(group.encoding, Learned)}
    if len(tables) != 1:
        raise ValueError(
            f"{function}: {got} a model with {named(described)}, expected one learned table of "
            "positions; a model of images takes extend(model, size=(height, width))."
        )
    return tables.pop()


def config_of(config: Any, part: str) -> Any:
    """The config of a part of a model."""
    for name in part.split(".") if part else ():
        config = getattr(config, name)
    return config


def lengthened(config: Any, old: int, length: int) -> dict[str, int]:
    """The keys of a config that count the rows of the table, for another length."""
    found = {name: vars(config).get(name) for name in _LENGTHS}
    # RoBERTa's counts the rows before the first, too.
    return {name: n + length - old for name, n in found.items() if isinstance(n, int) and old <= n <= old + 8}


def position_tables(model: Any, part: str, old: int) -> list[nn.Embedding]:
    """The embeddings whose rows are counted by the config's length.

    Raises:
        ValueError: there are none.
    """
    longer = copy.deepcopy(model.config)
    for name, value in lengthened(config_of(longer, part), old, old + 1).items():
        setattr(config_of(longer, part), name, value)
    shapes = {name: tensor.shape for name, tensor in _tensors(rebuild.build(model)).items()}
    grown = [name for name, x in _tensors(rebuild.build(model, longer)).items() if x.shape != shapes.get(name)]
    owners = [_owner(model, name)[0] for name in grown if name.endswith("weight")]
    tables = [owner for owner in owners if isinstance(owner, nn.Embedding)]
    if not tables:
        raise ValueError(
            f"replace: no table of {type(model).__name__} has as many rows as its config says, {old}, under one of "
            f"{', '.join(_LENGTHS)}; nothing was changed."
        )
    return tables


def _stretch_all(patch: Patch, model: Any, config: Any, old: int, length: int) -> None:
    before = rebuild.build(model)
    for name, value in lengthened(config, old, length).items():
        patch.assign(config, name, value)
    after = rebuild.build(model)
    shapes = {name: tensor.shape for name, tensor in _tensors(before).items()}
    changed = {name: tensor.shape for name, tensor in _tensors(after).items() if tensor.shape != shapes.get(name)}
    if not any(isinstance(_owner(model, name)[0], nn.Embedding) for name in changed):
        raise ValueError(f"extend: the table of {type(model).__name__} does not change its length with the config.")
    for name, shape in changed.items():
        owner, key = _owner(model, name)
        if isinstance(owner, nn.Embedding) and key == "weight":
            grown = nn.Parameter(_stretched(owner.weight.detach(), old, length), owner.weight.requires_grad)
            swap(patch, owner._parameters, key, grown, shape)
        elif key in owner._buffers:
            swap(patch, owner._buffers, key, _regrown(name, owner._buffers[key], shape), shape)
        else:
            raise ValueError(
                f"extend: {name} changes its shape with the length, and is not a table of positions that posenc knows."
            )
    for (name, key), value in rebuild.differing_values(before, after).items():
        patch.assign(model.get_submodule(name), key, value)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, key = name.rpartition(".")
    return model.get_submodule(module), key


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _stretched(table: Tensor, old: int, length: int) -> Tensor:
    """The rows of positions stretched; those before them are kept."""
    kept, rows = table[:-old], table[-old:].to(torch.promote_types(table.dtype, torch.float32))
    at = torch.arange(length, dtype=torch.float64, device="cpu") * ((old - 1) / (length - 1))
    below = at.floor().long().clamp(max=max(old - 2, 0))
    weight = (at - below).to(rows)[:, None]
    below = below.to(rows.device)
    between = torch.lerp(rows[below], rows[(below + 1).clamp(max=old - 1)], weight)
    return torch.cat((kept, between.to(table.dtype)))


def _regrown(name: str, buffer: Any, shape: torch.Size) -> Tensor:
    """A buffer of the table's length, made for the new length: positions in order, zeros, or a causal mask."""
    forms: list[Callable[[torch.Size], Tensor]] = [lambda size: torch.arange(size[-1]).expand(size), torch.zeros]
    if buffer.ndim > 1:
        window = int(buffer.flatten(0, -2)[-1].sum())
        forms += [lambda size: torch.ones(size).tril(), lambda size: torch.ones(size).tril().triu(1 - window)]
    with torch.device("cpu"):  # whatever the default device
        for form in forms:
            if torch.equal(form(buffer.shape).to(buffer), buffer):
                return form(shape).to(buffer)
    raise ValueError(
        f"extend: {name} changes its shape with the length, and posenc does not know how to compute its new values."
    )


def swap(patch: Patch, tensors: dict[str, Any], key: str, new: Tensor, shape: torch.Size) -> None:
    """Put another tensor in a tensor's place."""
    if new.shape != shape:
        raise ValueError(f"extend: a table grew to {tuple(new.shape)}, and transformers expects {tuple(shape)}.")
    patch.swap(tensors, key, new)
