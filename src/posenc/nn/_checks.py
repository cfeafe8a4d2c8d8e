"""What :class:`posenc.nn.Attention` refuses: sizes, input of another shape, an encoding for another layout."""

from torch import Tensor

from posenc.encoding import ContextualEncoding, Encoding
from posenc.frequencies.arguments import check_instance, check_number
from posenc.queries_keys._rotation import Rotation
from posenc.queries_keys.pope import PoPE


def checked_window(window: int | None) -> int | None:
    """The window as an int of Python, whatever whole number it was."""
    if window is None:
        return None
    check_number("Attention", "window", window, whole=True)
    if window < 1:
        raise ValueError(f"Attention: got window {window}, expected at least 1: a query sees its own key.")
    return int(window)


def check_layout(encoding: Encoding | None) -> None:
    """Refuse a rotation that would take the heads or the batch for tokens, which shapes do not show."""
    if encoding is None:
        return
    check_instance("Attention", "encoding", encoding, Encoding, "RoPE(head_dim=64)")
    rotation = encoding.at("queries_keys")
    seq_dim = getattr(rotation, "seq_dim", -2)
    if seq_dim not in (-2, 2):
        raise ValueError(
            f"Attention: got {type(rotation).__name__} with seq_dim={seq_dim}, expected seq_dim=-2: q and k of this "
            "layer are (batch, heads, seq, head_dim); build the encoding with seq_dim=-2."
        )


def check_fits(encoding: Encoding | None, dim: int, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    """Refuse an encoding that was built for other sizes than those of the layer.

    Of an encoding of the user's own only ``num_heads`` of place 3 is known to mean this; its hooks refuse the rest.
    """
    if encoding is None:
        return
    rotation, part = encoding.at("queries_keys"), encoding.at("scores")
    if isinstance(rotation, (Rotation, PoPE)):
        name, built_for = type(rotation).__name__, rotation.head_dim
        if built_for != head_dim:
            raise ValueError(
                f"Attention: got {name} of head_dim {built_for} for heads of {head_dim} channels; build it with "
                f"head_dim={head_dim}"
                + (
                    f", or with head_dim={head_dim}, rotary_dim={built_for} to rotate part of each head."
                    if isinstance(rotation, Rotation) and built_for < head_dim
                    else "."
                )
            )
        kv_heads = getattr(rotation, "num_kv_heads", None)
        differ = isinstance(rotation, PoPE) or rotation.heads_differ
        if differ and kv_heads and (num_heads % kv_heads or num_kv_heads % kv_heads):
            raise ValueError(
                f"Attention: got {name} for {kv_heads} key heads, and this layer has {num_kv_heads} of {num_heads} "
                f"query heads; build it with num_heads={num_heads}, num_kv_heads={num_kv_heads}."
            )
    if part is None:
        return
    name, heads = type(part).__name__, getattr(part, "num_heads", num_heads)
    if heads != num_heads:
        raise ValueError(
            f"Attention: got {name} of {heads} heads for a layer of {num_heads} query heads; build it with "
            f"num_heads={num_heads}."
        )
    if not isinstance(part, ContextualEncoding) or not type(part).__module__.startswith("posenc.scores."):
        return
    reads = head_dim * encoding.widening
    if getattr(part, "head_dim", reads) != reads:
        raise ValueError(
            f"Attention: got {name} of head_dim {part.head_dim} for heads of {reads} channels; build it with "
            f"head_dim={reads}."
        )
    of_x = type(part).carry is not Encoding.carry  # it reads x; others have the width of all heads
    width = dim if of_x else num_heads * reads
    if getattr(part, "dim", width) != width:
        what = "x" if of_x else "all query heads"
        raise ValueError(
            f"Attention: got {name} of dim {part.dim} for {what} of {width} channels; build it with dim={width}."
        )


def wrong_input(name: str, x: Tensor, dim: int, num_heads: int, head_dim: int) -> str:
    hint = "."
    if x.ndim == 4 and x.shape[-1] == head_dim and num_heads in x.shape[1:3]:
        hint = "; this layer projects its own heads: flatten them into the last dimension."
    elif x.ndim == 3 and x.shape[1] == dim:
        hint = "; transpose the last two dimensions."
    elif x.ndim == 2:
        hint = "; unsqueeze the batch."
    return f"Attention: got {name} of shape {tuple(x.shape)}, expected (batch, seq, {dim}){hint}"


def check_sizes(dim: int, num_heads: int, num_kv_heads: int, head_dim: int | None, context_dim: int) -> None:
    sizes = {"dim": dim, "num_heads": num_heads, "num_kv_heads": num_kv_heads, "context_dim": context_dim}
    if head_dim is not None:
        sizes["head_dim"] = head_dim
    for name, size in sizes.items():
        check_number("Attention", name, size, whole=True)
        if size < 1:
            raise ValueError(f"Attention: got {name} {size}, expected at least 1.")
    if head_dim is None and dim % num_heads:
        raise ValueError(
            f"Attention: got dim {dim} for {num_heads} heads, expected a multiple of {num_heads}; or give head_dim."
        )
    if num_heads % num_kv_heads:
        raise ValueError(
            f"Attention: got {num_heads} query heads for {num_kv_heads} key heads, expected a multiple of "
            f"{num_kv_heads}."
        )
