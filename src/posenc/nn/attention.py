"""Multi-head attention that takes any encoding."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from posenc.dot_product_attention import attention, needs_an_order
from posenc.encoding import Encoding
from posenc.frequencies.arguments import check_flag, check_number
from posenc.nn._checks import check_fits, check_layout, check_sizes, checked_window, wrong_input
from posenc.nn.cache import Cache, SlidingCache, StaticCache
from posenc.nn.tokens import START, Tokens, after, count_up
from posenc.positions import Positions

QKNorm = Literal["rms", "layer"]
Sinks = Literal["learned"]


class Attention(nn.Module):
    r"""Multi-head self- or cross-attention with any encoding. It calls the hooks of the second and third place.

    .. math::  y = W_o\,\mathrm{attention}(R(i)\,W_q x_i,\; R(j)\,W_k x_j,\; W_v x_j), \qquad
        s_{ij} \leftarrow s_{ij} + b(i, j)

    The model calls the hook of the first place, ``x = encoding.on_embeddings(x, positions)``, once before the first
    block; :class:`posenc.nn.Transformer` does so. Parameters have Hugging Face's names (``q_proj``, ``k_proj``,
    ``v_proj``, ``o_proj``, ``q_norm``, ``k_norm``, ``sinks``), so ``load_state_dict`` takes the attention of a Llama,
    Qwen 3 or Mistral layer as it is; :meth:`from_multihead` takes a :class:`torch.nn.MultiheadAttention`.

    Args:
        dim: channels of x.
        num_heads: query heads.
        encoding: any encoding; one object may serve all layers. None for none.
        num_kv_heads: heads of keys and values, which must divide ``num_heads``; as many by default.
        head_dim: channels of each head; dim / num_heads by default.
        context_dim: channels of the context in cross-attention; ``dim`` by default.
        causal: whether a token sees only itself and earlier tokens. Not for cross-attention.
        window: a token sees only keys that are fewer than this many tokens away. Not for cross-attention.
        qk_norm: "rms" or "layer" normalises each head of q and k before place 2; None does not.
        sinks: "learned" gives each head one more score in the softmax, which has no value (gpt-oss).
        dropout: on the attention weights, in training.
        bias: whether q, k and v have a bias.
        out_bias: whether the output has one; as ``bias`` by default.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        x ``(batch, seq, dim)``, context ``(batch, context_seq, context_dim)`` -> ``(batch, seq, dim)``

    Precision: that of :func:`posenc.attention`; the projections are PyTorch's.

    Raises:
        ValueError: sizes that do not fit, also those of the encoding; an unknown option, input of another shape, a
            cache for a layer that is not causal.

    Example:
        >>> import posenc
        >>> layer = Attention(32, 4, posenc.RoPE(head_dim=8), num_kv_heads=2, causal=True).eval()
        >>> x, cache = torch.randn(2, 6, 32), layer.new_cache()
        >>> with torch.no_grad():
        ...     steps = [layer(x[:, t : t + 1], cache=cache) for t in range(6)]
        ...     torch.allclose(torch.cat(steps, dim=1), layer(x), atol=1e-6)
        True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        encoding: Encoding | None = None,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        context_dim: int | None = None,
        causal: bool = False,
        window: int | None = None,
        qk_norm: QKNorm | None = None,
        sinks: Sinks | None = None,
        dropout: float = 0.0,
        bias: bool = False,
        out_bias: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        context_dim = dim if context_dim is None else context_dim
        check_sizes(dim, num_heads, num_kv_heads, head_dim, context_dim)
        window = checked_window(window)
        check_layout(encoding)
        check_flag("Attention", "causal", causal)
        check_number("Attention", "dropout", dropout)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"Attention: got dropout {dropout}, expected at least 0 and less than 1.")
        for name, value, allowed in (("qk_norm", qk_norm, QKNorm), ("sinks", sinks, Sinks)):
            if value is not None and value not in get_args(allowed):
                raise ValueError(f"Attention: got {name} {value!r}, expected one of {get_args(allowed)} or None.")
        self.dim = dim
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = dim // num_heads if head_dim is None else head_dim
        check_fits(encoding, dim, num_heads, num_kv_heads, self.head_dim)
        self.context_dim = context_dim
        self.causal = bool(causal)
        self.window = window
        self.dropout = dropout
        width, kv_width = num_heads * self.head_dim, num_kv_heads * self.head_dim
        made: dict[str, torch.device | str | torch.dtype | None] = {"device": device, "dtype": dtype}
        self.q_proj = nn.Linear(dim, width, bias=bias, **made)
        self.k_proj = nn.Linear(context_dim, kv_width, bias=bias, **made)
        self.v_proj = nn.Linear(context_dim, kv_width, bias=bias, **made)
        self.o_proj = nn.Linear(width, dim, bias=bias if out_bias is None else out_bias, **made)
        self.q_norm, self.k_norm = (_norm(qk_norm, self.head_dim, **made) for _ in range(2))
        self.sinks = nn.Parameter(torch.zeros(num_heads, **made)) if sinks else None  # type: ignore[arg-type]
        self.encoding = encoding

    def new_cache(self, max_length: int | None = None) -> Cache:
        """An empty cache for this layer and one run of decoding.

        With ``max_length`` its memory is allocated once, for that many tokens. Otherwise a layer with a window keeps
        only the last keys, and any other layer all keys.
        """
        if max_length is not None:
            return StaticCache(max_length)
        return Cache() if self.window is None else SlidingCache(self.window)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        context: Float[Tensor, "batch context_seq context_dim"] | None = None,
        *,
        positions: Positions = None,
        context_positions: Positions = None,
        attention_mask: Bool[Tensor, "batch keys"] | Int[Tensor, "batch keys"] | None = None,
        documents: Int[Tensor, "*batch seq"] | None = None,
        mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Attention of x to itself, or to a context.

        Args:
            x: the tokens; with a cache, those that it does not hold yet.
            context: what x attends to instead of itself.
            positions: of x: an int offset, ``(seq,)``, ``(batch, seq)`` or ``(batch, seq, coordinates)``. By default
                tokens other than padding are counted, from 0 in each document, or from the end of the cache.
            context_positions: the same for the context.
            attention_mask: Hugging Face's, ``(batch, seq)`` over x, or over the context if there is one: 1 or True for
                a token, 0 or False for padding on the left or the right. A cache stores it; in a later call without
                one, no token is padding.
            documents: for packed sequences, the number of the document of each token of x, which sees its own document
                only.
            mask: a further mask, broadcast to ``(batch, heads, seq, keys)``: True where a query may see a key, or
                numbers that are added to the scores.
            cache: from :meth:`new_cache`. It holds the earlier tokens, and x is appended. In cross-attention it holds
                the keys and values of the context from the first call.

        Returns:
            ``(batch, seq, dim)``, in the dtype of x. Outputs at padding have no meaning.
        """
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(wrong_input("x", x, self.dim, self.num_heads, self.head_dim))
        q = self._heads(self.q_proj(x), self.q_norm)
        if context is None:
            y = self._attend_to_itself(x, q, positions, context_positions, attention_mask, documents, mask, cache)
        else:
            y = self._attend_to(context, q, positions, context_positions, attention_mask, documents, mask, cache)
        output: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return output

    def _attend_to_itself(
        self,
        x: Tensor,
        q: Tensor,
        positions: Positions,
        context_positions: Positions,
        attention_mask: Tensor | None,
        documents: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        if context_positions is not None:
            raise ValueError("Attention: got context_positions without a context; pass both, or neither.")
        if self.context_dim != self.dim:
            raise ValueError(
                f"Attention: got no context, expected one of {self.context_dim} channels: this layer was built with "
                "context_dim for cross-attention."
            )
        is_open = not self.causal and mask is None and x.shape[1] > 1
        if is_open and self.encoding is not None and self.encoding.causal_only:
            raise needs_an_order("Attention", self.encoding)
        if cache is not None:
            self._check_cache(cache)
        before = START if cache is None else cache.tokens
        tokens = after(
            before, x, positions=positions, attention_mask=attention_mask, documents=documents, name="Attention"
        )
        k, v = self._heads(self.k_proj(x), self.k_norm), self._heads(self.v_proj(x), None)
        encoding, state = self.encoding, None
        cacheable = encoding is None or encoding.keys_cacheable
        if encoding is not None:
            if cacheable:
                q, k = encoding.on_queries_keys(q, k, tokens.q_positions)
            state = encoding.carry(x, None if cache is None else cache.state)
            if state is not None and cache is not None and attention_mask is not None:
                _check_padding(attention_mask, encoding)
        if cache is not None:
            k, v = cache.append(k, v, tokens, state)
        if encoding is not None and not cacheable:
            q, k = encoding.on_queries_keys(q, k, tokens.q_positions, k_positions=tokens.k_positions)
        return attention(
            q, k, v, encoding, q_positions=None if count_up(tokens) else tokens.q_positions,
            k_positions=tokens.k_positions, causal=self.causal, window=self.window, documents=tokens.documents,
            mask=_combined(mask, tokens), sinks=self.sinks, state=state,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip

    def _attend_to(
        self,
        context: Tensor,
        q: Tensor,
        positions: Positions,
        context_positions: Positions,
        attention_mask: Tensor | None,
        documents: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        self._check_context(context, q, documents)
        encoding = self.encoding
        start: Positions = 0 if positions is None else positions
        if cache is not None and positions is None:
            start = cache.queries or 0
        if cache is not None and cache.keys is not None and cache.values is not None:
            k, v, tokens = cache.keys, cache.values, cache.tokens
            self._check_same_context(context, k)
            if encoding is not None:
                no_keys = q[:, : self.num_kv_heads, :0]  # cached ones may be wider than what goes in
                q, _ = encoding.on_queries_keys(q, no_keys, start, k_positions=0)
        else:
            tokens = after(
                START, context, positions=context_positions, attention_mask=attention_mask, name="Attention, context"
            )
            k, v = self._heads(self.k_proj(context), self.k_norm), self._heads(self.v_proj(context), None)
            if encoding is not None:
                if encoding.carry(context) is not None:
                    raise ValueError(
                        f"Attention: got a context with {type(encoding).__name__}, whose state runs along one "
                        "sequence of tokens; give the cross-attention an encoding without a state, or None."
                    )
                q, k = encoding.on_queries_keys(q, k, start, k_positions=tokens.k_positions)
            if cache is not None:
                cache.append(k, v, tokens, None)
        if cache is not None:
            cache.queries = (cache.queries or 0) + q.shape[2]
        return attention(
            q, k, v, encoding, q_positions=start, k_positions=tokens.k_positions, mask=_combined(mask, tokens),
            sinks=self.sinks, dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip

    @classmethod
    def from_multihead(
        cls,
        other: nn.MultiheadAttention,
        encoding: Encoding | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
    ) -> "Attention":
        """A layer with copies of the weights of a PyTorch layer, and with an encoding.

        The new layer takes ``(batch, seq, dim)`` for any ``batch_first`` of the other.

        Raises:
            ValueError: keys and values of different widths, ``bias_k`` or ``add_zero_attn``, which this class does not
                have.
        """
        if other.bias_k is not None or other.add_zero_attn or other.kdim != other.vdim:
            raise ValueError(
                f"Attention: got a MultiheadAttention with bias_k={other.bias_k is not None}, "
                f"add_zero_attn={other.add_zero_attn}, kdim {other.kdim} and vdim {other.vdim}, expected "
                "bias_k=False, add_zero_attn=False, and kdim equal to vdim."
            )
        has_bias = other.in_proj_bias is not None
        weight = other.out_proj.weight
        layer = cls(
            other.embed_dim, other.num_heads, encoding, context_dim=other.kdim, causal=causal, window=window,
            dropout=other.dropout, bias=has_bias, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        if other.in_proj_weight is None:
            weights = (other.q_proj_weight, other.k_proj_weight, other.v_proj_weight)
        else:
            weights = other.in_proj_weight.chunk(3)
        state = {f"{name}_proj.weight": w for name, w in zip("qkv", weights, strict=True)}
        state["o_proj.weight"] = weight
        if has_bias:
            biases = other.in_proj_bias.chunk(3)
            state |= {f"{name}_proj.bias": b for name, b in zip("qkv", biases, strict=True)}
            state["o_proj.bias"] = other.out_proj.bias
        with torch.no_grad():
            for name, parameter in state.items():
                layer.get_parameter(name).copy_(parameter)
        return layer.train(other.training)

    def extra_repr(self) -> str:
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}, "
            f"causal={self.causal}, window={self.window}, dropout={self.dropout}"
        )

    def _heads(self, flat: Tensor, norm: nn.Module | None) -> Tensor:
        """``(batch, seq, heads * head_dim)`` -> ``(batch, heads, seq, head_dim)``, each head normalised."""
        heads = flat.view(*flat.shape[:2], flat.shape[2] // self.head_dim, self.head_dim)
        if norm is not None:
            heads = norm(heads)
        by_head: Tensor = heads.transpose(1, 2)
        return by_head

    def _check_cache(self, cache: Cache) -> None:
        if not self.causal:
            raise ValueError(
                "Attention: got a cache for a layer that is not causal, in which earlier tokens attend to later ones, "
                "so that cached results would be wrong; build the layer with causal=True, or pass no cache."
            )
        if isinstance(cache, SlidingCache) and (self.window is None or self.window > cache.window):
            raise ValueError(
                f"Attention: got a cache of the last {cache.window} tokens for a layer with window {self.window}, "
                f"expected a cache of at least {self.window} tokens; use the layer's new_cache()."
            )

    def _check_same_context(self, context: Tensor, k: Tensor) -> None:
        if (k.shape[0], k.shape[2]) != tuple(context.shape[:2]):
            raise ValueError(
                f"Attention: got a context of (batch, tokens) {tuple(context.shape[:2])} and a cache made from "
                f"{(k.shape[0], k.shape[2])}, expected the same context at each call; start another cache."
            )

    def _check_context(self, context: Tensor, q: Tensor, documents: Tensor | None) -> None:
        if context.ndim != 3 or context.shape[-1] != self.context_dim or context.shape[0] != q.shape[0]:
            raise ValueError(
                f"Attention: got a context of shape {tuple(context.shape)}, expected ({q.shape[0]}, context tokens, "
                f"{self.context_dim})."
            )
        if self.causal or self.window is not None or documents is not None:
            raise ValueError(
                f"Attention: got a context with causal={self.causal}, window={self.window} and documents "
                f"{'given' if documents is not None else 'None'}, expected causal=False, window=None and "
                "documents=None, because these three refer to one sequence of tokens; build the cross-attention "
                "without them, and pass mask= to hide keys."
            )


def _norm(kind: QKNorm | None, size: int, **made: object) -> nn.Module | None:
    if kind is None:
        return None
    cls = nn.RMSNorm if kind == "rms" else nn.LayerNorm
    return cls(size, eps=1e-6, **made)  # type: ignore[arg-type]


def _combined(mask: Tensor | None, tokens: Tokens) -> Tensor | None:
    """The user's mask, and padding hidden."""
    if tokens.attention_mask is None:
        return mask
    real = tokens.attention_mask.bool()[:, None, None, :]
    if mask is None:
        return real
    return mask & real if mask.dtype == torch.bool else mask.masked_fill(~real, -torch.inf)


def _check_padding(attention_mask: Tensor, encoding: Encoding) -> None:
    """A state that runs along the text would take padding between two real tokens for text."""
    if getattr(encoding.at("scores"), "reads_positions", True):  # its state is one of each token alone
        return
    real = attention_mask.bool()
    if bool((real[..., :-1] & ~real[..., 1:]).any()):
        raise ValueError(
            f"Attention: got padding after a token with a cache and {type(encoding).__name__}, whose state runs along "
            "all tokens, expected padding on the left only; move the padding to the left."
        )
