"""A stack of blocks in which all three places of an encoding are called."""

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from posenc.encoding import Encoding
from posenc.nn.attention import QKNorm, Sinks
from posenc.nn.block import Activation, Block, BlockCache, Norm, make_norm
from posenc.nn.tokens import START, after
from posenc.per_layer import PerLayer
from posenc.positions import Positions


class Transformer(nn.Module):
    """Pre-norm blocks and a final norm. The input is embeddings, the output features.

    A decoder has ``causal=True``, an encoder does not, and the decoder of an encoder-decoder also has
    ``cross="attention"``. The caller adds the embedding of tokens or patches and the output head.

    ``dim`` and ``num_heads`` are those of :class:`posenc.nn.Attention`; all arguments that are not listed here are
    those of :class:`posenc.nn.Block`.

    Args:
        num_layers: blocks.
        encoding: one for all blocks, or a :class:`posenc.PerLayer`, or None. Its hook of the first place is called
            once, before the first block. ``model.encoding = other`` gives all blocks another one: a rule for longer
            texts, or a table for larger images (``model.encoding = model.encoding.resized(8, 8)``).

    Raises:
        ValueError: as :class:`posenc.nn.Block`; fewer than one layer; a :class:`posenc.PerLayer` for another number of
            layers.

    Example:
        >>> import torch, posenc
        >>> decoder = Transformer(32, 4, 2, posenc.make("alibi", dim=32, num_heads=4), causal=True)
        >>> cache, x = decoder.new_cache(), torch.randn(2, 5, 32)
        >>> mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])  # two tokens of padding on the left
        >>> decoder(x, attention_mask=mask, cache=cache).shape, decoder(x[:, -1:], cache=cache).shape
        (torch.Size([2, 5, 32]), torch.Size([2, 1, 32]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_layers: int,
        encoding: Encoding | PerLayer | None = None,
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
        self.dim = dim
        if num_layers < 1:
            raise ValueError(f"Transformer: got num_layers {num_layers}, expected at least 1.")
        each = _of_layers(encoding, num_layers)
        self.layers = nn.ModuleList(
            Block(
                dim, num_heads, one, num_kv_heads=num_kv_heads, head_dim=head_dim, causal=causal, window=window,
                qk_norm=qk_norm, sinks=sinks, bias=bias, mlp_dim=mlp_dim, activation=activation, norm=norm, eps=eps,
                cross=cross, cross_encoding=cross_encoding, context_dim=context_dim, dropout=dropout,
            )
            for one in each
        )  # fmt: skip
        self.norm = make_norm(norm, dim, eps)
        self.encoding = encoding

    def __setattr__(self, name: str, value: Any) -> None:
        # The layers hold the encoding too: without this, another one would act at the first place alone, in silence.
        if name == "encoding" and "layers" in self._modules:
            for layer, one in zip(self.layers, _of_layers(value, len(self.layers)), strict=True):
                layer.self_attn.encoding = one  # type: ignore[union-attr]
        super().__setattr__(name, value)

    def new_cache(self, max_length: int | None = None) -> list[BlockCache]:
        """Empty caches of all blocks, for one run of decoding; with ``max_length`` their memory is allocated once."""
        return [layer.new_cache(max_length) for layer in self.layers]  # type: ignore[operator]

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
        cache: Sequence[BlockCache] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Features of the tokens of x; the arguments are those of :meth:`posenc.nn.Block.forward`."""
        if cache is not None and len(cache) != len(self.layers):
            raise ValueError(
                f"Transformer: got {len(cache)} caches for {len(self.layers)} layers; make them with new_cache()."
            )
        if x.ndim != 3 or x.shape[-1] != self.dim or not x.is_floating_point():
            hint = "." if x.is_floating_point() else "; embed the tokens first."
            raise ValueError(
                f"Transformer: got x of {x.dtype} and shape {tuple(x.shape)}, expected floating point and (batch, seq, "
                f"{self.dim}){hint}"
            )
        before = START if cache is None else cache[0].own.tokens
        # Once for all layers: cos and sin are then made once too.
        positions = after(
            before, x, positions=positions, attention_mask=attention_mask, documents=documents, name="Transformer"
        ).q_positions
        for encoding in self._at_embeddings():
            x = encoding.on_embeddings(x, positions)
        caches = [None] * len(self.layers) if cache is None else cache
        for layer, own in zip(self.layers, caches, strict=True):
            x = layer(
                x, context, positions=positions, context_positions=context_positions, attention_mask=attention_mask,
                context_mask=context_mask, documents=documents, mask=mask, cache=own,
            )  # fmt: skip
        output: Tensor = self.norm(x)
        return output

    def _at_embeddings(self) -> list[Encoding]:
        """The encodings that act at the first place, each once."""
        if self.encoding is None:
            return []
        every = list(self.encoding) if isinstance(self.encoding, PerLayer) else [self.encoding]
        return [one for i, one in enumerate(every) if "embeddings" in one.places and every.index(one) == i]


def _of_layers(encoding: Encoding | PerLayer | None, num_layers: int) -> Sequence[Encoding | None]:
    """The encoding of each layer."""
    if not isinstance(encoding, PerLayer):
        return [encoding] * num_layers
    if len(encoding) != num_layers:
        raise ValueError(
            f"Transformer: got an encoding for {len(encoding)} layers, expected {num_layers}; build PerLayer with "
            f"num_layers={num_layers}."
        )
    return list(encoding)
