"""What :class:`posenc.nn.Attention` refuses: sizes, input of another shape, an encoding for another layout."""

from torch import Tensor

from posenc.encoding import Encoding
from posenc.frequencies.arguments import check_instance, check_number


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
