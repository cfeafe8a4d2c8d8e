"""Keys and values of the earlier tokens, with their positions, padding, documents and state."""

import torch
from torch import Tensor

from posenc.nn.tokens import START, Tokens


class Cache:
    """Keys and values of one attention layer, appended call by call.

    It keeps the positions of the keys, which of them are padding, their documents, and the state of an encoding that
    carries one, so that a step of decoding needs the new token alone. Make one for each layer and each run with
    :meth:`posenc.nn.Attention.new_cache`.

    Attributes:
        keys, values: ``(batch, kv_heads, kept, head_dim)``, or None before the first call. Keys are kept as place 2
            made them, or before it if the encoding has ``keys_cacheable = False``.
        state: what ``encoding.carry`` made of the tokens, or None.
        tokens: positions, padding and documents of the kept keys.
        queries: in cross-attention, the number of queries so far.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.state: Tensor | None = None
        self.tokens: Tokens = START
        self.queries = 0

    @property
    def length(self) -> int:
        """How many keys are kept."""
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, k: Tensor, v: Tensor, tokens: Tokens, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones last; ``tokens`` and ``state`` are those of all of them."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values, self.tokens, self.state = k, v, tokens, state
        return k, v


class SlidingCache(Cache):
    """A cache of the last keys and values only, for a layer with a window: memory does not grow with the text.

    Args:
        window: that of the layer, in tokens. A query sees its own key and the window - 1 before it, which are kept.

    Raises:
        ValueError: a window below 1.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"SlidingCache: got window {window}, expected at least 1: a query sees its own key.")
        self.window = window

    def append(self, k: Tensor, v: Tensor, tokens: Tokens, state: Tensor | None) -> tuple[Tensor, Tensor]:
        k, v = super().append(k, v, tokens, state)
        count = max(1, self.window - 1)  # one at least: positions, documents and states go on from the last
        if k.shape[2] > count:
            first = k.shape[2] - count
            # Copies: a view would keep the whole text alive.
            self.keys, self.values = k[:, :, first:].clone(), v[:, :, first:].clone()
            self.tokens = tokens.last(count)
            self.state = None if state is None else state[..., -count:].clone()
        return k, v


class StaticCache(Cache):
    """A cache whose memory is allocated once, for a known longest text: a step copies no old keys.

    Args:
        max_length: tokens that it has room for.

    Raises:
        ValueError: a length below 1; more tokens than there is room for; keys that require a gradient, because
            memory that is overwritten has none.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"StaticCache: got max_length {max_length}, expected at least 1 token.")
        self.max_length = max_length
        self._rooms: tuple[Tensor, Tensor] | None = None

    def append(self, k: Tensor, v: Tensor, tokens: Tokens, state: Tensor | None) -> tuple[Tensor, Tensor]:
        before = self.length
        after = before + k.shape[2]
        if after > self.max_length:
            raise ValueError(
                f"StaticCache: got {after} tokens, expected at most max_length {self.max_length}; build it with "
                f"max_length={after} or more."
            )
        if k.requires_grad or v.requires_grad:
            raise ValueError(
                "StaticCache: got keys or values that require a gradient, expected none; decode under torch.no_grad(), "
                "or use Cache."
            )
        if self._rooms is None:
            self._rooms = tuple(t.new_empty(*t.shape[:2], self.max_length, t.shape[3]) for t in (k, v))  # type: ignore[assignment]
        keys, values = self._rooms  # type: ignore[misc]
        keys[:, :, before:after], values[:, :, before:after] = k, v
        self.keys, self.values, self.tokens, self.state = keys[:, :, :after], values[:, :, :after], tokens, state
        return self.keys, self.values
