"""Keys and values of the earlier tokens, with their positions, padding, documents and state."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posenc.kernels.precision import may_look
from posenc.nn.tokens import START, Tokens


class Cache:
    """Keys and values of one attention layer, appended call by call.

    It keeps the positions of the keys, which of them are padding, their documents, and the state of an encoding that
    has one, so that a step of decoding needs only the new token. Make one for each layer and each run with
    :meth:`posenc.nn.Attention.new_cache`.

    Attributes:
        keys, values: ``(batch, kv_heads, kept, head_dim)``, or None before the first call. Keys are kept after place 2,
            with ``widening`` times the channels, or before it if the encoding has ``keys_cacheable = False``.
        state: the result of ``encoding.carry`` for the tokens, or None.
        tokens: positions, padding and documents of the kept keys.
        queries: in cross-attention, the number of queries so far; None in self-attention.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.state: Tensor | None = None
        self.tokens: Tokens = START
        self.queries: int | None = None

    @property
    def length(self) -> int:
        """The number of kept keys."""
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, k: Tensor, v: Tensor, tokens: Tokens, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return all keys and values, the new ones last; ``tokens`` and ``state`` are those of all keys."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values, self.tokens, self.state = k, v, tokens, state
        return k, v

    def drop(self, count: int) -> None:
        """Remove the last ``count`` tokens, such as rejected tokens of a draft.

        Positions, padding, documents and the state continue from the last token that is kept. A cache of
        cross-attention keeps the keys of the context and removes ``count`` queries.

        Raises:
            ValueError: fewer than ``count`` tokens; a :class:`SlidingCache` that no longer holds the keys before its
                window.
        """
        length = self.length if self.queries is None else self.queries
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count <= length:
            raise ValueError(
                f"{type(self).__name__}: drop got count {count!r}, expected 0 to {length}, the "
                "number of tokens in the cache."
            )
        if self.queries is not None:
            self.queries -= int(count)
        elif count:
            self._keep(length - int(count))

    def _keep(self, length: int) -> None:
        """Forget all but the first ``length`` keys."""
        if length == 0 or self.keys is None or self.values is None:
            self.keys = self.values = self.state = None
            self.tokens = START
            return
        self.keys, self.values = self.keys[:, :, :length], self.values[:, :, :length]
        self.state = None if self.state is None else self.state[..., :length]
        self.tokens = self.tokens.first(length)

    def reorder(self, rows: Tensor | Sequence[int]) -> None:
        """Select rows of the batch, as in beam search: the new row i is the old row ``rows[i]``.

        Args:
            rows: the index of an old row for each new row.

        Raises:
            ValueError: ``rows`` is not a list of indices of old rows.
        """
        if self.keys is None or self.values is None:
            return
        batch = self.keys.shape[0]
        chosen = torch.as_tensor(rows, device=self.keys.device)
        if (
            chosen.ndim != 1
            or chosen.dtype == torch.bool
            or chosen.is_floating_point()
            or (may_look(chosen) and chosen.numel() and not (0 <= int(chosen.min()) <= int(chosen.max()) < batch))
        ):
            raise ValueError(
                f"{type(self).__name__}: reorder got rows {rows}, expected whole numbers from 0 to {batch - 1}, one "
                "number for each row of the new batch."
            )
        self._take(chosen.long())
        self.state = None if self.state is None else self.state.index_select(0, chosen.long().to(self.state.device))
        self.tokens = self.tokens.of_rows(chosen.long())

    def _take(self, rows: Tensor) -> None:
        """Keys and values of other rows."""
        self.keys, self.values = (t if t is None else t.index_select(0, rows) for t in (self.keys, self.values))


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
        self._let_go = False

    def append(self, k: Tensor, v: Tensor, tokens: Tokens, state: Tensor | None) -> tuple[Tensor, Tensor]:
        k, v = super().append(k, v, tokens, state)
        count = max(1, self.window - 1)  # one at least: positions, documents and states go on from the last
        if k.shape[2] > count:
            first = k.shape[2] - count
            self._let_go = True
            # Copies: a view would keep the whole text alive.
            self.keys, self.values = k[:, :, first:].clone(), v[:, :, first:].clone()
            self.tokens = tokens.last(count)
            self.state = None if state is None else state[..., -count:].clone()
        return k, v

    def _keep(self, length: int) -> None:
        if self._let_go:
            raise ValueError(
                f"SlidingCache: drop would remove more tokens than the last {self.window - 1} tokens, which are all "
                "that the cache keeps; make a copy.copy(cache) before you add tokens that you may drop, and continue "
                "from the copy."
            )
        super()._keep(length)


class StaticCache(Cache):
    """A cache whose memory is allocated once, for a known maximum length: a step copies no old keys.

    Args:
        max_length: the largest number of tokens.

    Raises:
        ValueError: a length below 1; more tokens than that; keys that require a gradient, because overwritten memory
            has none.
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
        if self._rooms is None or self._rooms[0].shape[0] != k.shape[0]:
            if before:
                raise ValueError(
                    f"StaticCache: got keys of {k.shape[0]} rows for a cache of {self._rooms[0].shape[0]} rows, "  # type: ignore[index]
                    "expected the same batch in each step; call reorder first, or start another cache."
                )
            self._rooms = self._room(k), self._room(v)
        keys, values = self._rooms
        keys[:, :, before:after], values[:, :, before:after] = k, v
        self.keys, self.values, self.tokens, self.state = keys[:, :, :after], values[:, :, :after], tokens, state
        return self.keys, self.values

    def __copy__(self) -> "StaticCache":
        """Another cache with memory of its own: each may be continued."""
        other = StaticCache(self.max_length)
        vars(other).update(vars(self))
        if self._rooms is not None:
            rooms = self._room(self._rooms[0]), self._room(self._rooms[1])
            for room, old in zip(rooms, self._rooms, strict=True):
                room[:, :, : self.length] = old[:, :, : self.length]
            other._rooms = rooms
            if self.keys is not None:
                other.keys, other.values = (room[:, :, : self.length] for room in rooms)
        return other

    def _room(self, like: Tensor) -> Tensor:
        """Memory for ``max_length`` tokens, which may be written to in and out of inference mode."""
        with torch.inference_mode(False):
            return like.new_empty(*like.shape[:2], self.max_length, like.shape[3])

    def _take(self, rows: Tensor) -> None:
        length = self.length
        if self._rooms is None or self.keys is None or len(rows) != len(self.keys):
            super()._take(rows)
            if self.keys is not None and self.values is not None:
                self._rooms = self._room(self.keys), self._room(self.values)
                for room, kept in zip(self._rooms, (self.keys, self.values), strict=True):
                    room[:, :, :length] = kept
        else:  # in the memory that it has
            for room in self._rooms:
                room[:, :, :length] = room[:, :, :length].index_select(0, rows)
        if self._rooms is not None:
            self.keys, self.values = (room[:, :, :length] for room in self._rooms)
