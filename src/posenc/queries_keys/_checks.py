"""What rotations refuse: shapes, dtypes and rules that do not go with them."""

from torch import Tensor

from posenc.frequencies import Frequencies, LearnedRates
from posenc.kernels.inputs import check_dense, check_tensors
from posenc.positions import Positions
from posenc.queries_keys._rows import TABLE_DTYPES, tokens_at

NO_KERNEL = "there is no kernel for this layout of tokens, blocks and heads"


def check_layout(cls: str, head_dim: int, rotary_dim: int, rotary_start: int, seq_dim: int) -> None:
    """Refuse a slice that does not fit into a head, and a dimension that cannot be that of the tokens."""
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        nearest = max(2, min(rotary_dim, head_dim) // 2 * 2)
        raise ValueError(
            f"{cls}: got rotary_dim {rotary_dim} for head_dim {head_dim}, expected an even number from 2 to "
            f"{head_dim}, because channels are rotated in pairs; "
            + (f"use rotary_dim={nearest}." if head_dim > 1 else "use a head_dim of at least 2.")
        )
    if not 0 <= rotary_start <= head_dim - rotary_dim:
        raise ValueError(
            f"{cls}: got rotary_start {rotary_start} for rotary_dim {rotary_dim} and head_dim {head_dim}, "
            f"expected 0 to {head_dim - rotary_dim}, so that the slice fits into the head; the last channels "
            f"are rotary_start={head_dim - rotary_dim}."
        )
    if seq_dim not in (-4, -3, -2, 0, 1, 2):
        raise ValueError(
            f"{cls}: got seq_dim {seq_dim}, expected -2 for (batch, heads, seq, head_dim), -3 for (batch, seq, "
            "heads, head_dim) or -4 for (seq, batch, heads, head_dim)."
        )


def check_tensor(cls: str, name: str, x: Tensor, head_dim: int, seq_dim: int, *, one_layout: bool = False) -> None:
    """Refuse queries or keys of another width, dtype or layout; an error calls them ``name``.

    With ``one_layout`` the class has no ``rotary_dim`` and no ``seq_dim`` that an error could name.
    """
    check_tensors(cls, **{name: x})
    check_dense(cls, **{name: x})
    if x.is_nested:
        raise TypeError(
            f"{cls}: got a nested tensor for {name}, expected a dense one, because each of its sequences has "
            "positions of its own; rotate its values() with seq_dim=0 and posenc.positions.from_lengths(...)."
        )
    if x.dtype not in TABLE_DTYPES:
        raise ValueError(
            f"{cls}: got {name} of {x.dtype}, expected float64, float32, float16 or bfloat16; cast it before the "
            "rotation and back after it."
        )
    if x.shape[-1] != head_dim:
        raise ValueError(
            f"{cls}: {name} has head_dim {x.shape[-1]} but this encoding was built for head_dim {head_dim}; "
            f"build it with head_dim={x.shape[-1]}"
            + (
                f", or rotary_dim={head_dim} to rotate part of each head."
                if x.shape[-1] > head_dim and not one_layout
                else "."
            )
        )
    if one_layout and x.ndim != 4:
        raise ValueError(
            f"{cls}: {name} has shape {tuple(x.shape)}, expected (batch, heads, seq, head_dim); unsqueeze what is "
            "missing."
        )
    if not 0 <= tokens_at(x, seq_dim) < x.ndim - 1:
        raise ValueError(
            f"{cls}: {name} has shape {tuple(x.shape)}, expected tokens along dimension {seq_dim} and "
            "channels along the last; build it with another seq_dim."
        )


def checked_kv_heads(cls: str, num_heads: int, num_kv_heads: int | None) -> int:
    """How many heads k has: as many as q by default."""
    found = num_heads if num_kv_heads is None else num_kv_heads
    if num_heads < 1 or found < 1 or num_heads % found:
        raise ValueError(
            f"{cls}: got num_heads {num_heads} and num_kv_heads {found}, expected num_heads to be a multiple of "
            "num_kv_heads."
        )
    return found


def checked_groups(cls: str, x: Tensor, seq_dim: int, kv_heads: int) -> int:
    """How many heads of x share the rates of one key head."""
    index = tokens_at(x, seq_dim)
    heads = 1 if x.ndim == 2 else x.shape[index - 1 if index == x.ndim - 2 else x.ndim - 2]
    if heads % kv_heads:
        raise ValueError(
            f"{cls}: got {heads} heads, expected a multiple of {kv_heads}, the number of key heads for which this "
            "encoding has parameters; build the encoding for the key heads of k."
        )
    return int(heads // kv_heads)


def check_plain(cls: str, implementation: str, x: Tensor, seq_dim: int) -> None:
    """Refuse a kernel that was asked for by name where only plain torch can rotate."""
    if implementation not in ("auto", "eager"):
        raise ValueError(
            f"{cls}: got implementation {implementation!r} and a tensor of {x.ndim} dimensions with seq_dim {seq_dim}, "
            f'expected "auto" or "eager", because {NO_KERNEL}.'
        )


def check_lengths(cls: str, q: Tensor, k: Tensor, seq_dim: int, *, one_layout: bool = False) -> None:
    """Refuse queries and keys of two lengths for which one offset was given."""
    q_tokens, k_tokens = q.shape[tokens_at(q, seq_dim)], k.shape[tokens_at(k, seq_dim)]
    if q_tokens != k_tokens:
        raise ValueError(
            f"{cls}: got q of {q_tokens} tokens and k of {k_tokens} without k_positions, expected the same number of "
            "tokens in both; give positions and k_positions (cross-attention), or, if the shapes are (batch, seq, "
            "heads, head_dim), " + ("transpose(1, 2) each." if one_layout else "build it with seq_dim=-3.")
        )


def check_axis(cls: str, positions: Positions, x: Tensor, seq_dim: int, *, several: bool) -> None:
    """Refuse positions that are as many as x has heads and not tokens, if the axes are those of another layout."""
    index = tokens_at(x, seq_dim)
    if not isinstance(positions, Tensor) or x.ndim != 4 or index not in (1, 2) or not 0 < positions.ndim < 4:
        return
    heads, tokens = x.shape[3 - index], x.shape[index]
    rows = positions.shape[:-2] if several and positions.ndim == 3 else positions.shape[:-1]
    given = positions.shape[len(rows)]
    if given == heads != tokens and tuple(rows) in ((), (1,), (x.shape[0],)):
        order, other = ("(batch, heads, seq, head_dim)", "(batch, seq, heads, head_dim)")[:: 1 if index == 2 else -1]
        meant = -3 if index == 2 else -2
        raise ValueError(
            f"{cls}: got {given} positions for x of shape {tuple(x.shape)}, expected {tokens}, because "
            f"seq_dim={seq_dim} is the layout {order}; if x is {other}, build it with seq_dim={meant}."
        )


def check_fixed(cls: str, frequencies: Frequencies) -> None:
    """Refuse rules that an encoding with fixed rates cannot follow."""
    if frequencies.depends_on_length or isinstance(frequencies, LearnedRates):
        raise ValueError(
            f"{cls}: got frequencies {frequencies}, expected a rule with fixed rates; only RoPE takes rates that are "
            "learned or depend on the length."
        )
