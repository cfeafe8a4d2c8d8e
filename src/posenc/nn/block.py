"""Attention and a feed-forward network, each added to what comes in."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.encoding import Encoding
from posenc.nn.attention import Attention, QKNorm, Sinks
from posenc.nn.cache import Cache
from posenc.positions import Positions

Norm = Literal["rms", "layer"]
Activation = Literal["swiglu", "gelu"]


class BlockCache(NamedTuple):
    """The caches of a block: of its self-attention, and of its cross-attention if it has one."""

    own: Cache
    cross: Cache | None

    def drop(self, count: int) -> None:
        """Forget the last ``count`` tokens, as :meth:`posenc.nn.Cache.drop` does."""
        for cache in self:
            if cache is not None and (cache is self.own or cache.queries):
                cache.drop(count)

    def reorder(self, rows: Tensor | Sequence[int]) -> None:
        """Take other rows of the batch, as :meth:`posenc.nn.Cache.reorder` does."""
        for cache in self:
            if cache is not None:
                cache.reorder(rows)


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, cross-attention if asked for, a feed-forward network.

    With the defaults it is Llama's, with Hugging Face's names, so that ``load_state_dict`` takes the weights of a
    ``LlamaDecoderLayer`` as they are.

    ``dim``, ``num_heads``, ``encoding``, ``num_kv_heads``, ``head_dim``, ``causal``, ``window``, ``qk_norm``, ``sinks``
    and ``bias`` are those of :class:`posenc.nn.Attention`.

    Args:
        mlp_dim: channels within the feed-forward network; by default 4 dim for "gelu", and for "swiglu" 8/3 dim rounded
            up to a multiple of 8, which gives as many weights.
        activation: "swiglu" or "gelu".
        norm: "rms" or "layer", before each part.
        eps: added to the variance in the norms.
        cross: "none", or "attention" for a cross-attention to a context after the self-attention.
        cross_encoding: the encoding of the cross-attention; none by default, as in the first Transformer and T5.
        context_dim: channels of the context; ``dim`` by default.
        dropout: on the attention weights and on the output of each part, in training.

    Raises:
        ValueError: sizes that do not fit, an unknown option; a context for a block without cross-attention, or none for
            a block with it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        encoding: Encoding | None = None,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = False,
        window: int | None = None,
        qk_norm: QKNorm | None = None,
        sinks: Sinks | None = None,
        bias: bool = False,
        mlp_dim: int | None = None,
        activation: Activation = "swiglu",
        norm: Norm = "rms",
        eps: float = 1e-6,
        cross: Literal["none", "attention"] = "none",
        cross_encoding: Encoding | None = None,
        context_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, allowed in (("activation", activation, Activation), ("norm", norm, Norm)):
            if value not in get_args(allowed):
                raise ValueError(f"Block: got {name} {value!r}, expected one of {get_args(allowed)}.")
        if cross not in ("none", "attention"):
            raise ValueError(f"Block: got cross {cross!r}, expected 'none' or 'attention'.")
        self.self_attn = Attention(
            dim, num_heads, encoding, num_kv_heads=num_kv_heads, head_dim=head_dim, causal=causal, window=window,
            qk_norm=qk_norm, sinks=sinks, dropout=dropout, bias=bias,
        )  # fmt: skip
        self.input_layernorm = make_norm(norm, dim, eps)
        self.cross_attn: Attention | None = None
        if cross == "attention":
            self.cross_attn = Attention(
                dim, num_heads, cross_encoding, num_kv_heads=num_kv_heads, head_dim=head_dim, context_dim=context_dim,
                qk_norm=qk_norm, dropout=dropout, bias=bias,
            )  # fmt: skip
            self.cross_attention_layernorm = make_norm(norm, dim, eps)
        self.post_attention_layernorm = make_norm(norm, dim, eps)
        if mlp_dim is None:
            mlp_dim = 4 * dim if activation == "gelu" else -(-8 * dim // 24) * 8
        self.mlp = _MLP(dim, mlp_dim, activation=activation, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def new_cache(self, max_length: int | None = None) -> BlockCache:
        """Empty caches for one run of decoding."""
        return BlockCache(
            self.self_attn.new_cache(max_length), None if self.cross_attn is None else self.cross_attn.new_cache()
        )

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        context: Float[Tensor, "batch context_seq context_dim"] | None = None,
        *,
        positions: Positions = None,
        context_positions: Positions = None,
        attention_mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"] | None = None,
        context_mask: Bool[Tensor, "batch context_seq"] | Int[Tensor, "batch context_seq"] | None = None,
        documents: Int[Tensor, "*batch seq"] | None = None,
        mask: Tensor | None = None,
        cache: BlockCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """x after the block. ``attention_mask`` is that of x and ``context_mask`` that of the context."""
        if (context is None) != (self.cross_attn is None):
            got, built = ("no", "with") if context is None else ("a", "without")
            raise ValueError(f"Block: got {got} context, but this block was built {built} cross-attention.")
        own, cross = (None, None) if cache is None else cache
        y = self.self_attn(
            self.input_layernorm(x), positions=positions, attention_mask=attention_mask, documents=documents,
            mask=mask, cache=own,
        )  # fmt: skip
        x = x + self.dropout(y)
        if self.cross_attn is not None:
            y = self.cross_attn(
                self.cross_attention_layernorm(x), context, positions=positions, context_positions=context_positions,
                attention_mask=context_mask, cache=cross,
            )  # fmt: skip
            x = x + self.dropout(y)
        output: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return output


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int, *, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=bias) if activation == "swiglu" else None
        self.up_proj = nn.Linear(dim, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        hidden = F.gelu(up) if self.gate_proj is None else F.silu(self.gate_proj(x)) * up
        output: Tensor = self.down_proj(hidden)
        return output


def make_norm(kind: Norm, dim: int, eps: float) -> nn.Module:
    """The norm of that name over the last dimension."""
    return nn.RMSNorm(dim, eps=eps) if kind == "rms" else nn.LayerNorm(dim, eps=eps)
