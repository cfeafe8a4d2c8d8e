"""Checkpoints: the order of channels in which rotary weights are stored."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from posenc.kernels.rotate.eager import Pairing

_PROJECTIONS = ("q_proj", "k_proj", "wq", "wk", "attn_q", "attn_k", "query", "key", "q_b_proj")
_NORMS = (
    *("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm"),
    *("attn_q_norm", "attn_k_norm"),
)
_SHARED_KEY = ("kv_a_proj_with_mqa",)  # multi-head latent attention: compressed keys and values, then one rotary key
_STACKED = ("qkv_proj", "Wqkv", "attn_qkv")  # all queries, then all keys, then all values
_GROUPED = ("query_key_value",)  # for each key head: its queries, the key, the value
_SEPARATE = _PROJECTIONS + _NORMS
_Kind = Literal["separate", "shared_key", "stacked", "grouped"]


def convert_pairing(
    state_dict: Mapping[str, Tensor],
    *,
    to: Pairing,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
    num_heads: int | None = None,
    num_kv_heads: int | None = None,
    only: str | None = None,
) -> dict[str, Tensor]:
    r"""The same model with its query and key channels in the order of the other pairing.

    .. math::  \text{to interleaved:}\quad W'_{2c} = W_c,\; W'_{2c+1} = W_{c + r/2}, \qquad c = 0, \dots, r/2 - 1

    Here :math:`W_c` is the row that makes rotated channel c of a head and :math:`r` is ``rotary_dim``; "half" is the
    way back. Queries and keys are put in a new order alike, so no score changes: what a model that rotates pairs
    (c, c + r/2) gives with W, one that rotates pairs (2c, 2c + 1) gives with W'. It applies to the weights, biases and
    LoRA ``B`` matrices of the query and key projections and to the weights of norms on queries and keys. Everything
    else, values and output projection among it, passes through as the same tensor.

    Tensors are found by the names in use: ``q_proj`` and ``k_proj``, ``wq`` and ``wk``, ``attn_q`` and ``attn_k``,
    ``query`` and ``key``, ``q_norm`` and ``k_norm`` and their kin; ``qkv_proj`` and ``Wqkv`` (queries, keys and values
    stacked); ``query_key_value`` (grouped by key head); ``q_b_proj`` and ``kv_a_proj_with_mqa`` (latent attention).

    Args:
        state_dict: the weights; it is not modified.
        to: the pairing that the result is for, "half" (GPT-NeoX, Hugging Face) or "interleaved" (GPT-J, Meta, GGUF).
            The weights given must be in the other: nothing in a checkpoint says which it is in.
        head_dim: channels of each query and key head. How many heads there are follows from the shapes.
        rotary_dim: channels of each head that are rotated; all by default.
        rotary_start: the first rotated channel of a head: 0, or head_dim - rotary_dim for a trailing slice.
        num_heads, num_kv_heads: query and key heads; needed for fused projections alone.
        only: a regular expression; names in which it is not found are passed through. For a model that rotates some
            of its attentions alone.

    Raises:
        ValueError: no tensor with such a name; rows that heads of this size do not fill; a slice that leaves the head;
            a fused projection without numbers of heads; packed integers.

    Example:
        >>> weights = {"q_proj.weight": torch.arange(4.0)[:, None]}
        >>> convert_pairing(weights, to="interleaved", head_dim=4)["q_proj.weight"].flatten()
        tensor([0., 2., 1., 3.])

    References:
        transformers, models/llama/convert_llama_weights_to_hf.py, permute; llama.cpp, convert_hf_to_gguf.py, permute.
    """
    rotary_dim = head_dim if rotary_dim is None else rotary_dim
    _check(to, head_dim, rotary_dim, rotary_start)
    converted: dict[str, Tensor] = {}
    found = False
    for name, tensor in state_dict.items():
        kind = _kind(name)
        if kind is None or (only is not None and re.search(only, name) is None):
            converted[name] = tensor
            continue
        if not tensor.is_floating_point():
            raise ValueError(
                f"convert_pairing: {name} has dtype {tensor.dtype}, expected a floating one; packed weights mix rows, "
                "so dequantize them first."
            )
        found = True
        starts = _heads(kind, name, tensor, head_dim, rotary_dim, rotary_start, num_heads, num_kv_heads)
        converted[name] = tensor[_row_order(len(tensor), starts, rotary_dim, to).to(tensor.device)]
    if not found:
        raise ValueError(
            f"convert_pairing: got {len(state_dict)} tensors and none that makes queries or keys"
            + ("" if only is None else f" and has {only!r} in its name")
            + f", expected names with one of {', '.join(_SEPARATE + _SHARED_KEY + _STACKED + _GROUPED)}; rename yours."
        )
    return converted


def _check(to: str, head_dim: int, rotary_dim: int, rotary_start: int) -> None:
    if to not in get_args(Pairing):
        raise ValueError(f"convert_pairing: got to={to!r}, expected one of {get_args(Pairing)}.")
    if rotary_dim < 2 or rotary_dim % 2 or rotary_start < 0 or rotary_start + rotary_dim > head_dim:
        raise ValueError(
            f"convert_pairing: got rotary_dim {rotary_dim} from channel {rotary_start} for head_dim {head_dim}, "
            "expected an even number of channels inside the head; check the model's partial_rotary_factor."
        )


def _kind(name: str) -> _Kind | None:
    parts = name.split(".")
    if "lora_A" in parts:  # its rows are the rank; the channels of the heads are the rows of B
        return None
    kinds: dict[_Kind, tuple[str, ...]] = {
        "separate": _SEPARATE,
        "shared_key": _SHARED_KEY,
        "stacked": _STACKED,
        "grouped": _GROUPED,
    }
    return next((kind for kind, known in kinds.items() if any(part in known for part in parts)), None)


def _heads(
    kind: _Kind,
    name: str,
    tensor: Tensor,
    head_dim: int,
    rotary_dim: int,
    rotary_start: int,
    num_heads: int | None,
    num_kv_heads: int | None,
) -> list[int]:
    """The row with which the rotated slice of each query and key head starts."""
    rows = len(tensor)
    if kind == "shared_key":
        return [rows - rotary_dim]
    if kind == "separate":
        if rows % head_dim:
            raise ValueError(
                f"convert_pairing: {name} has {rows} rows, expected a multiple of head_dim {head_dim}; give the "
                "head_dim of the queries and keys."
            )
        return list(range(rotary_start, rows, head_dim))
    if num_heads is None or num_kv_heads is None:
        raise ValueError(
            f"convert_pairing: {name} holds queries, keys and values together, expected to be told how many heads; "
            "give num_heads=... and num_kv_heads=..."
        )
    if num_heads % num_kv_heads or rows != (num_heads + 2 * num_kv_heads) * head_dim:
        raise ValueError(
            f"convert_pairing: {name} has {rows} rows, expected {(num_heads + 2 * num_kv_heads) * head_dim} for "
            f"{num_heads} query heads and {num_kv_heads} key heads of {head_dim} channels; check the three."
        )
    if kind == "stacked":
        heads = list(range(num_heads + num_kv_heads))
    else:
        group = num_heads // num_kv_heads + 2
        heads = [g * group + h for g in range(num_kv_heads) for h in range(group - 1)]
    return [head * head_dim + rotary_start for head in heads]


def _row_order(rows: int, starts: list[int], rotary_dim: int, to: Pairing) -> Tensor:
    """Which old row each new row is."""
    order = torch.arange(rows)
    pairs = torch.arange(rotary_dim).reshape((2, -1) if to == "interleaved" else (-1, 2)).T.flatten()
    for start in starts:
        order[start : start + rotary_dim] = start + pairs
    return order
