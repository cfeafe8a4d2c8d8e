"""Checkpoints: the order of channels in which rotary weights are stored."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from posenc.kernels.rotate.eager import Pairing

Fused = Literal["stacked", "grouped"]
_Kind = Literal["separate", "gated", "norm", "shared_key", "stacked", "grouped"]

_log = logging.getLogger("posenc")

#: What the module that owns a tensor is called -> how heads lie in its rows.
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(("q_proj", "k_proj", "wq", "wk", "attn_q", "attn_k", "query", "key", "q_b_proj"), "separate"),
    **dict.fromkeys(("attn_q_b", "q_lin", "k_lin", "to_q", "to_k", "linear_q", "linear_k"), "separate"),
    **dict.fromkeys(("add_q_proj", "add_k_proj"), "separate"),  # of the text beside the image: diffusers
    **dict.fromkeys(("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm"), "norm"),
    **dict.fromkeys(("attn_q_norm", "attn_k_norm", "norm_q", "norm_k", "norm_added_q", "norm_added_k"), "norm"),
    # Multi-head latent attention: compressed keys and values, then one rotary key.
    **dict.fromkeys(("kv_a_proj_with_mqa", "attn_kv_a_mqa"), "shared_key"),
    # All queries, then all keys, then all values: Phi-3, ModernBERT, DBRX, Qwen, GGUF.
    **dict.fromkeys(("qkv_proj", "Wqkv", "attn_qkv", "c_attn"), "stacked"),
    # For each key head: its queries, the key, the value: InternLM2, Megatron.
    **dict.fromkeys(("wqkv", "linear_qkv"), "grouped"),
}
#: The name that families use in both ways.
_EITHER = "query_key_value"
#: Of queries and keys, and without rotated rows.
_UNROTATED = {
    *("q_a_proj", "q_a_layernorm", "kv_a_layernorm", "kv_b_proj", "attn_q_a", "attn_q_a_norm", "attn_kv_a_norm"),
    *("attn_kv_b", "attn_k_b"),
    *("in_proj_qkv", "in_proj_qkvz"),  # linear attention: Qwen3-Next, Qwen3.5
    *("layer_norm", "layer_norm_bias", "_extra_state"),  # within Megatron's linear_qkv
}
#: Words in the name of a module that makes queries or keys.
_SUSPECT = frozenset(["q", "k", "kv", "qk", "qkv", "wq", "wk", "wkv", "wqkv", "query", "key", "queries", "keys"])
#: In the name of a part that reads no text.
_TOWER = re.compile(r"(^|[._])(vision|visual|vit|image|audio|speech|siglip|clip)(_|\.|\d|$)")
#: The projection of what the heads read, whose columns are their channels, and those of values.
_OUTPUT = frozenset(["o_proj", "wo", "attn_output", "out_proj", "dense", "to_out"])
_VALUES = frozenset(
    ["v_proj", "wv", "attn_v", "value", "to_v", "v_lin", "linear_v", "kv_b_proj", "attn_kv_b", "attn_v_b"]
)

#: A tensor of a module: its name, and what of the module it is.
_TENSOR = re.compile(
    r"(?P<module>.+?)(?:\.base_layer)?\.(?P<what>weight|bias|lora_[ABab](?:\.[^.]+)?\.(?:weight|bias)|weight\.lora_[ab]|"
    r"lora_embedding_[AB](?:\.[^.]+)?|(?:lora_)?magnitude(?:_vector)?(?:\.[^.]+)*|[^.]*(?:scale|zero_point|SCB|amax)[^.]*|q(?:weight|zeros)|g_idx|scales)$"
)


@dataclass(frozen=True)
class _Part:
    """A tensor of a projection or norm of queries and keys."""

    name: str
    module: str
    what: str
    kind: _Kind


def convert_pairing(
    state_dict: Mapping[str, Tensor],
    *,
    to: Pairing,
    head_dim: int,
    rotary_dim: int | None = None,
    rotary_start: int = 0,
    num_heads: int | None = None,
    num_kv_heads: int | None = None,
    fused: Fused | None = None,
    only: str | None = None,
) -> dict[str, Tensor]:
    r"""The same model with its query and key channels in the order of the other pairing.

    .. math::  \text{to interleaved:}\quad W'_{2c} = W_c,\; W'_{2c+1} = W_{c + r/2}, \qquad c = 0, \dots, r/2 - 1

    Here :math:`W_c` is the row that makes rotated channel c of a head and :math:`r` is ``rotary_dim``; "half" is the
    inverse. Queries and keys get the same new order, so no score changes: a model that rotates pairs (c, c + r/2) and
    has W gives the same scores as a model that rotates pairs (2c, 2c + 1) and has W'. The new order applies to the
    weights, biases, LoRA ``B`` matrices and DoRA magnitudes of the query and key projections, to scales with one number
    for each of their rows (int8), and to the weights of norms on queries and keys. Everything else passes through as
    the same tensor: values, output projections, LoRA ``A``, scales of a whole tensor or of blocks of rows that the
    order stays within (fp8).

    Tensors are found by the names of the modules that own them: ``q_proj`` and ``k_proj``, ``wq`` and ``wk``,
    ``attn_q`` and ``attn_k``, ``query`` and ``key``, ``q_norm`` and ``k_norm`` and similar ones; ``qkv_proj``,
    ``Wqkv``, ``c_attn`` (queries, keys and values stacked); ``wqkv``, ``linear_qkv`` (grouped by key head);
    ``query_key_value``, which GPT-NeoX and Falcon group and GLM stacks; ``q_b_proj`` and ``kv_a_proj_with_mqa`` (latent
    attention). If ``q_proj`` has twice the rows that the output projection reads, the second half of each head's rows
    is a gate, which does not change (Qwen3-Next). A file with other modules that seem to make queries or keys is
    refused, because a partial conversion breaks the model. Also refused: a model with a part for images and one for
    text, and keys that are also the values (Gemma 4). The names of all tensors that were changed go to the logger
    "posenc", at level INFO.

    Args:
        state_dict: the weights; it is not modified.
        to: the pairing that the result is for, "half" (GPT-NeoX, Hugging Face) or "interleaved" (GPT-J, Meta, GGUF).
            The weights must have the other pairing: a checkpoint does not say which one it has.
        head_dim: channels of each query and key head. How many heads there are follows from the shapes.
        rotary_dim: channels of each head that are rotated; all by default.
        rotary_start: the first rotated channel of a head: 0, or head_dim - rotary_dim for a trailing slice.
        num_heads, num_kv_heads: query and key heads; needed for fused projections alone.
        fused: the order of queries, keys and values in one projection, if its name does not say: "stacked" (all
            queries, all keys, all values) or "grouped" (for each key head its queries, the key, the value).
        only: a regular expression; tensors with other names pass through. For a model that rotates only some of its
            attentions.

    Raises:
        ValueError: no tensor with such a name, or one that seems to make queries or keys and is not known; rows that
            heads of this size do not fill; a slice that leaves the head; a fused projection without numbers of heads,
            or of which it is not known whether it is stacked; packed integers; blocks of scales that the order would
            leave.

    Example:
        >>> weights = {"q_proj.weight": torch.arange(4.0)[:, None]}
        >>> convert_pairing(weights, to="interleaved", head_dim=4)["q_proj.weight"].flatten()
        tensor([0., 2., 1., 3.])

    References:
        transformers, models/llama/convert_llama_weights_to_hf.py, permute; llama.cpp, convert_hf_to_gguf.py, permute.
    """
    rotary_dim = head_dim if rotary_dim is None else rotary_dim
    _check(to, head_dim, rotary_dim, rotary_start)
    if fused is not None and fused not in get_args(Fused):
        raise ValueError(f"convert_pairing: got fused={fused!r}, expected one of {get_args(Fused)}.")
    whole = num_heads == num_kv_heads, rotary_dim == head_dim
    parts = {
        name: _part(name, fused, *whole) for name in state_dict if only is None or re.search(only, name) is not None
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    _check_known(state_dict, parts, min(head_dim, rotary_dim), only)
    if only is None:
        _check_alike(state_dict, parts)
    widths = _widths(state_dict, parts)

    def order_of(part: _Part, rows: int) -> Tensor:
        kind: _Kind = "gated" if _is_gated(part, rows, widths) else part.kind
        starts = _heads(kind, part.name, rows, head_dim, rotary_dim, rotary_start, num_heads, num_kv_heads)
        return _row_order(rows, starts, rotary_dim, to)

    converted: dict[str, Tensor] = dict(state_dict)
    touched: list[str] = []
    for name, part in parts.items():
        if part is None or re.search(r"lora_(embedding_)?[Aa]\b", part.what):
            continue  # its rows are the rank; the channels of the heads are the rows of B
        tensor = state_dict[name]
        if not re.fullmatch(r"weight|bias|lora_[Bb].*|weight\.lora_b|(lora_)?magnitude.*", part.what):
            order = _order_of_scales(part, tensor, state_dict, order_of)
        else:
            _check_numbers(name, tensor, part, state_dict)
            across = part.kind == "norm" and tensor.ndim == 2  # a row of channels for each head
            order = order_of(part, tensor.shape[-1] if across else len(tensor))
            if across:
                converted[name] = tensor[:, order.to(tensor.device)]
                touched.append(name)
                continue
        if order is not None:
            converted[name] = _rows(tensor, order)
            touched.append(name)
    _log.info("convert_pairing: put %d tensors in the order of %r: %s", len(touched), to, ", ".join(touched))
    return converted


def _check(to: str, head_dim: int, rotary_dim: int, rotary_start: int) -> None:
    if to not in get_args(Pairing):
        raise ValueError(f"convert_pairing: got to={to!r}, expected one of {get_args(Pairing)}.")
    if rotary_dim < 2 or rotary_dim % 2 or rotary_start < 0 or rotary_start + rotary_dim > head_dim:
        raise ValueError(
            f"convert_pairing: got rotary_dim {rotary_dim} from channel {rotary_start} for head_dim {head_dim}, "
            "expected an even number of channels inside the head; check the model's partial_rotary_factor."
        )


def _part(name: str, fused: Fused | None, as_many: bool, whole: bool) -> _Part | None:
    """What a tensor is of queries and keys, or None."""
    match = _TENSOR.fullmatch(name)
    module, what = (match["module"], match["what"]) if match is not None else (name, "weight")
    *path, last = module.split(".")
    kind = _KINDS.get(last)
    if last == "qkv_proj" and re.search(r"(^|\.)h\.\d+\.attn$", ".".join(path)):
        raise ValueError(
            f"convert_pairing: {name} is a fused projection as CodeGen has, with queries, values and keys in several "
            "blocks, which convert_pairing cannot convert; split it into q_proj, k_proj and v_proj."
        )
    if kind in ("stacked", "grouped") and fused is not None:
        kind = fused
    if last == _EITHER:
        kind = fused or _either(path[-1] if path else "", as_many, whole)
        if kind is None:
            raise ValueError(
                f"convert_pairing: {name}: its rows may be stacked (GLM) or grouped by key head (GPT-NeoX, Falcon), "
                'and the name of the tensor does not say which; give fused="stacked" or fused="grouped".'
            )
    return None if kind is None else _Part(name, module, what, kind)


def _either(parent: str, as_many: bool, whole: bool) -> Fused | None:
    """The layout of query_key_value by the module around it: "attention" in GPT-NeoX; Falcon rotates whole heads, and
    GLM, which has fewer key heads than query heads, rotates a part of each."""
    if parent in ("attention", "self_attn"):
        return "grouped"
    if parent == "self_attention" and whole:
        return "grouped"
    return "stacked" if parent == "self_attention" and not as_many else None


def _check_known(
    state_dict: Mapping[str, Tensor], parts: Mapping[str, _Part | None], fewest: int, only: str | None
) -> None:
    """Refuse a file that has no queries and keys, or some that are not known."""
    known = ", ".join((*_KINDS, _EITHER))
    if not parts:
        raise ValueError(
            f"convert_pairing: got {len(state_dict)} tensors and none that computes queries or keys"
            + ("" if only is None else f" and has {only!r} in its name")
            + f", expected modules named {known}; rename yours."
        )
    strange = []
    for name, tensor in state_dict.items():
        stem = name.removesuffix(".weight").removesuffix(".bias").removesuffix("_weight")
        *path, last = stem.split(".")
        inside = any(each in _KINDS or each == _EITHER for each in path)
        words = set(re.split(r"[_\d]+", last.lower())) & _SUSPECT
        chosen = only is None or re.search(only, name) is not None
        if not (words or inside) or not chosen or name in parts or last in _UNROTATED:
            continue
        if isinstance(tensor, Tensor) and tensor.ndim and len(tensor) >= fewest:
            if inside:
                raise ValueError(
                    f"convert_pairing: {name} belongs to a projection of queries or keys and is unknown here; is it "
                    "from an adapter or a quantization library? Merge or dequantize it first."
                )
            strange.append(name)
    blocks = {part.module.rpartition(".")[0] for part in parts.values() if part and part.kind != "norm"}
    norms = {part.module.rpartition(".")[0]: part.name for part in parts.values() if part and part.kind == "norm"}
    if strange:
        raise ValueError(
            f"convert_pairing: {', '.join(strange[:3])} seem{'s' if len(strange) == 1 else ''} to compute queries or "
            f"keys, expected modules named one of {known}; rename them, or choose tensors with only=..."
        )
    if blocks and (alone := sorted(norms.keys() - blocks)):
        raise ValueError(
            f"convert_pairing: {norms[alone[0]]} is a norm of queries or keys, expected a projection with a known "
            "name beside it; rename the projection, or choose tensors with only=..."
        )
    if not blocks and len(norms) < len({name.rpartition(".")[0] for name in state_dict}):
        raise ValueError(
            f"convert_pairing: {next(iter(norms.values()))} is a norm of queries or keys, and no projection beside it "
            f"has a known name; expected modules named one of {known}; rename yours."
        )


def _check_alike(state_dict: Mapping[str, Tensor], parts: Mapping[str, _Part | None]) -> None:
    """Refuse a file with attentions of several kinds, of which some may not rotate, or have heads of another size."""
    makers = [part for part in parts.values() if part is not None and part.kind in ("separate", "stacked", "grouped")]
    # A recurrence has a decay, or a convolution whose channels are those of the queries: linear attention.
    recurrent = {found[1] for name in state_dict if (found := re.match(r"(.+)\.(?:A_log$|dt_bias$|\w*conv)", name))}
    for kinds in (
        {bool(_TOWER.search(part.module)): part.name for part in makers},
        {part.kind == "separate": part.name for part in makers},
        {part.module.rpartition(".")[0] in recurrent: part.name for part in makers},
    ):
        if len(kinds) > 1:
            raise ValueError(
                f"convert_pairing: {kinds[True]} and {kinds[False]} belong to two kinds of attention, which may "
                "differ in pairing and head_dim; choose one kind with only=..., such as r'self_attn'."
            )


def _widths(state_dict: Mapping[str, Tensor], parts: Mapping[str, _Part | None]) -> dict[str, int]:
    """By block, how many channels the output projection reads. Refuse keys that make the values as well."""
    found: dict[str, int] = {}
    valued: set[str] = set()
    for name, tensor in state_dict.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            continue
        block, _, last = match["module"].removesuffix(".0").rpartition(".")
        if last in _OUTPUT and re.match(r"weight$|(weight\.)?lora_[Aa]\b", match["what"]) and tensor.ndim == 2:
            found[block] = tensor.shape[1]
        elif last in _VALUES:
            valued.add(block)
    for part in parts.values():
        if part is None or part.what != "weight":
            continue
        block, _, last = part.module.rpartition(".")
        if part.kind == "shared_key":
            found.pop(block, None)  # latent attention: queries are wider than values, and have no gate
        if last in ("k_proj", "wk", "attn_k", "key", "to_k") and block in found and block not in valued:
            raise ValueError(
                f"convert_pairing: {part.name} has no projection of values beside it, so its rows may also be the "
                "values (Gemma 4), which must keep their order; add a copy of it as v_proj and let the model use that."
            )
    return found


def _is_gated(part: _Part, rows: int, widths: Mapping[str, int]) -> bool:
    """Whether each head's queries are followed by its gate."""
    block, _, last = part.module.rpartition(".")
    return last in ("q_proj", "wq", "attn_q") and rows == 2 * widths.get(block, rows)


def _check_numbers(name: str, tensor: Tensor, part: _Part, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse rows that are no rows of channels."""
    scaled = any(other.startswith(f"{part.module}.") and ("scale" in other or "SCB" in other) for other in state_dict)
    if not tensor.ndim or not (tensor.is_floating_point() or (tensor.dtype is torch.int8 and scaled)):
        raise ValueError(
            f"convert_pairing: {name} has dtype {tensor.dtype} and {tensor.ndim} dimensions, expected floating point, "
            "or int8 with a scale for each row; packed weights hold several rows together, so dequantize them first."
        )


def _order_of_scales(part: _Part, scale: Tensor, state_dict: Mapping[str, Tensor], order_of: Any) -> Tensor | None:
    """The order of a tensor of scales: that of the rows of its weight, or None if it stays."""
    weight = state_dict.get(f"{part.module}.weight")
    if part.what in ("qweight", "qzeros", "g_idx"):
        raise ValueError(f"convert_pairing: {part.name} is packed (rows are stored together); dequantize it first.")
    if weight is None or scale.numel() == 1 or not scale.ndim or part.what.startswith("input"):
        return None
    rows = len(weight)
    order: Tensor = order_of(part, rows)
    if len(scale) == rows:
        return order
    size = -(-rows // len(scale))
    if torch.equal(order // size, torch.arange(rows) // size):
        return None
    raise ValueError(
        f"convert_pairing: {part.name} has a scale for each block of {size} rows, and the new order would move rows "
        "from one block to another; dequantize the weights first."
    )


def _rows(tensor: Tensor, order: Tensor) -> Tensor:
    """The rows of a tensor in another order."""
    order = order.to(tensor.device)
    if tensor.dtype.itemsize == 1 and tensor.dtype.is_floating_point:  # fp8 is not indexed everywhere
        return tensor.view(torch.uint8)[order].view(tensor.dtype)
    return tensor[order]


def _heads(
    kind: _Kind,
    name: str,
    rows: int,
    head_dim: int,
    rotary_dim: int,
    rotary_start: int,
    num_heads: int | None,
    num_kv_heads: int | None,
) -> list[int]:
    """The row with which the rotated slice of each query and key head starts."""
    if kind == "shared_key":
        return [rows - rotary_dim]
    if kind in ("separate", "norm"):
        if rows % head_dim:
            raise ValueError(
                f"convert_pairing: {name} has {rows} rows, expected a multiple of head_dim {head_dim}; give the "
                "head_dim of the queries and keys."
            )
        return list(range(rotary_start, rows, head_dim))
    if kind == "gated":
        if rows % (2 * head_dim):
            raise ValueError(
                f"convert_pairing: {name} has {rows} rows of queries and gates, expected a multiple of twice head_dim "
                f"{head_dim}; give the head_dim of the queries and keys."
            )
        return list(range(rotary_start, rows, 2 * head_dim))
    if num_heads is None or num_kv_heads is None:
        raise ValueError(
            f"convert_pairing: {name} holds queries, keys and values together, so the numbers of heads are needed; "
            "give num_heads=... and num_kv_heads=..."
        )
    if num_heads % num_kv_heads or rows != (num_heads + 2 * num_kv_heads) * head_dim:
        raise ValueError(
            f"convert_pairing: {name} has {rows} rows, expected {(num_heads + 2 * num_kv_heads) * head_dim} for "
            f"{num_heads} query heads and {num_kv_heads} key heads of {head_dim} channels; check these three."
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
