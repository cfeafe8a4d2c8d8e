"""One call of attention with everything resolved, and the arithmetic of any block of it written out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from posenc.kernels.biased_attention import toeplitz
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.precision import may_look

_UNREAD = torch.empty(0, dtype=torch.int64, device="cpu")

T = TypeVar("T")


class once(Generic[T]):
    """A property that is worked out when it is first read.

    functools.cached_property does the same, but before Python 3.12 it takes a lock, which a step of decoding notices.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __get__(self, owner: Any, _: type) -> T:
        value = vars(owner)[self._make.__name__] = self._make(owner)
        return value


@dataclass  # frozen, it would take 4 us longer to make, a tenth of a step of decoding
class Problem:
    """Queries, keys and values in the dtype of the arithmetic, the encoding, and what may see what.

    Indices are those of the sequence: query t stands at key index ``offset + t``. Positions are what the encoding
    reads, and any numbers.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    plain_dtype: torch.dtype | None = None  # that of q, k and v as they were given, if they are plain ones on the CPU
    encoding: Any = None  # an encoding that acts on the scores
    contextual: bool = False
    q_positions: Tensor | None = None
    k_positions: Tensor | None = None
    given_starts: tuple[int, int] | None = None  # of consecutive positions that need no tensors
    causal: bool = False
    window: int | None = None
    documents: Tensor | None = None
    mask: Tensor | None = None
    sinks: Tensor | None = None
    state: Tensor | None = None
    dropout_p: float = 0.0

    @once
    def q_len(self) -> int:
        return self.q.shape[-2]

    @once
    def k_len(self) -> int:
        return self.k.shape[-2]

    @property
    def name(self) -> str:
        """What an error calls the encoding."""
        return type(getattr(self.encoding, "part", self.encoding)).__name__

    @property
    def offset(self) -> int:
        return self.k_len - self.q_len

    @property
    def may_hide_all_keys(self) -> bool:
        """Whether some query may be left without any key."""
        return self.mask is not None or (self.window is not None and not self.causal) or self.documents is not None

    def keys_for(self, rows: slice) -> slice:
        """The keys that any of these queries may see: all others are skipped."""
        first, stop = 0, self.k_len
        if self.causal:
            stop = min(stop, rows.stop + self.offset)
        if self.window is not None:
            first = max(first, rows.start + self.offset - self.window + 1)
            stop = min(stop, rows.stop - 1 + self.offset + self.window)
        if self.documents is not None and may_look(self.documents):
            ids = self.documents[..., self.offset + rows.start : self.offset + rows.stop]
            same = (self.documents >= ids.amin(-1, keepdim=True)) & (self.documents <= ids.amax(-1, keepdim=True))
            present = same.reshape(-1, self.k_len).any(dim=0).nonzero()
            first, stop = max(first, int(present[0])), min(stop, int(present[-1]) + 1)
        return slice(first, max(first, stop))

    def hidden(self, rows: slice, keys: slice) -> Tensor | None:
        """True where a query of the block may not see a key, broadcast to its scores; None if it may see them all."""
        hidden: Tensor | None = None
        ahead = keys.stop - 1 - (rows.start + self.offset)  # of the first query, how many tokens the last key is
        behind = rows.stop - 1 + self.offset - keys.start
        ordered = self.causal and ahead > 0
        window = None if self.window is None or self.window > max(ahead, behind) else self.window
        if ordered or window is not None:
            t = torch.arange(rows.start, rows.stop, device=self.q.device)[:, None] + self.offset
            u = torch.arange(keys.start, keys.stop, device=self.q.device)[None, :]
            if ordered:
                hidden = u > t
            if window is not None:
                far = ((t - u) >= window) | ((u - t) >= window)
                hidden = far if hidden is None else hidden | far
        if self.documents is not None:
            documents = torch.atleast_2d(self.documents)[:, None]
            own = documents[..., self.offset + rows.start : self.offset + rows.stop]
            other = own[..., :, None] != documents[..., None, keys]
            hidden = other if hidden is None else hidden | other
        if self.mask is not None and self.mask.dtype == torch.bool:
            masked = ~cut(self.mask, rows, keys)
            hidden = masked if hidden is None else hidden | masked
        return hidden

    @property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Those of the queries and of the keys; there are some wherever there is an encoding."""
        if self.given_starts is not None:
            i, j = self.given_starts
            device = self.q.device
            return torch.arange(i, i + self.q_len, device=device), torch.arange(j, j + self.k_len, device=device)
        if self.q_positions is None or self.k_positions is None:
            raise ValueError("attention: an encoding on the scores needs the positions of queries and keys.")
        return self.q_positions, self.k_positions

    @once
    def starts(self) -> tuple[int, int] | None:
        """Position of the first query and of the first key, if both go up by one; else None. Values are looked at."""
        if self.given_starts is not None:
            return self.given_starts
        both = self.positions
        if self.q_len == 0 or self.k_len == 0 or any(x.is_floating_point() for x in both):
            return None
        if not all(toeplitz.consecutive(x) for x in both):
            return None
        return int(both[0][0]), int(both[1][0])

    @once
    def is_relative(self) -> bool:
        """Whether the bias of these queries is a function of the distance, over consecutive positions."""
        below: float = self.encoding.relative_below()
        return below > 0 and self.starts is not None and self.starts[0] + self.q_len <= below

    def bias(self, rows: slice, keys: slice) -> Tensor | None:
        """The bias of a block, ``(*batch, heads, rows, keys)``; None if there is none that positions alone decide."""
        if self.encoding is None or self.contextual:
            return None
        i, j = self.positions
        bias: Tensor = self.encoding.bias(i[..., rows], j[..., keys])
        return bias.to(self.q.dtype)

    def block(self, rows: slice, keys: slice) -> "Block":
        return Block.of(rows, keys, self.bias(rows, keys), self.hidden(rows, keys))


def cut(mask: Tensor, rows: slice, keys: slice) -> Tensor:
    """The block of a mask that may have one row, one column, or no such dimension at all."""
    if mask.ndim >= 1 and mask.shape[-1] != 1:
        mask = mask[..., keys]
    if mask.ndim >= 2 and mask.shape[-2] != 1:
        mask = mask[..., rows, :]
    return mask


@dataclass(frozen=True)
class Block:
    """Some queries, the keys that they may see, and what positions and masks say about each pair.

    The bounds are kept as numbers: torch.compile fixes those of a slice that an object holds, and then compiles once
    for each length.
    """

    row_bounds: tuple[int, int]
    key_bounds: tuple[int, int]
    bias: Tensor | None
    hidden: Tensor | None

    @classmethod
    def of(cls, rows: slice, keys: slice, bias: Tensor | None, hidden: Tensor | None) -> "Block":
        return cls((rows.start, rows.stop), (keys.start, keys.stop), bias, hidden)

    @property
    def rows(self) -> slice:
        return slice(*self.row_bounds)

    @property
    def keys(self) -> slice:
        return slice(*self.key_bounds)


def attend(
    problem: Problem,
    block: Block,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sinks: Tensor | None,
    state: Tensor | None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A block of attention as the formula has it: scores, place 3, mask, softmax, mean of the values.

    ``q, k, v`` are the block's own; ``state`` is that of all keys.
    """
    scores = _by_groups(q * problem.scale, k.transpose(-1, -2))
    if block.hidden is not None:
        scores = scores.masked_fill(block.hidden, float("-inf"))
    bias = block.bias
    if problem.contextual:
        content = _content(problem, block, q, k, scores, state)
        bias = problem.encoding.contextual_bias(content)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if problem.mask is not None and problem.mask.dtype != torch.bool:
        scores = scores + cut(problem.mask, block.rows, block.keys).to(scores.dtype)
    weights = _softmax(scores, sinks, may_be_empty=problem.may_hide_all_keys)
    if problem.dropout_p:
        kept = torch.rand(weights.shape, device=weights.device, generator=generator) >= problem.dropout_p
        weights = weights * kept / (1 - problem.dropout_p)
    y = _by_groups(weights, v)
    if problem.contextual:
        more = problem.encoding.on_values(weights, content.q_positions, content.k_positions)
        y = y if more is None else y + more
    return y


def _content(problem: Problem, block: Block, q: Tensor, k: Tensor, scores: Tensor, state: Tensor | None) -> Content:
    i = j = _UNREAD
    if getattr(problem.encoding, "reads_positions", True):
        i, j = problem.positions
        i, j = i[..., block.rows], j[..., block.keys]
    own = slice(problem.offset + block.rows.start, problem.offset + block.rows.stop)
    offset = own.start - block.keys.start
    q_state, k_state = (None, None) if state is None else (state[..., own], state[..., block.keys])
    return Content(q, k, scores, i, j, problem.scale, q_state, k_state, offset, problem.causal)


def _softmax(scores: Tensor, sinks: Tensor | None, *, may_be_empty: bool) -> Tensor:
    if sinks is not None:  # one more key, that gives nothing
        column = sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat((scores, column), dim=-1).softmax(dim=-1)[..., :-1]
    if not may_be_empty:
        return scores.softmax(dim=-1)
    empty = (scores == float("-inf")).all(dim=-1, keepdim=True)
    return scores.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)


def _by_groups(left: Tensor, right: Tensor) -> Tensor:
    """left @ right where right may have fewer heads, each shared by neighbouring heads of left."""
    batch, heads, rows, inner = left.shape
    shared: int = right.shape[1]
    if shared == heads:
        return left @ right
    grouped = left.reshape(batch, shared, heads // shared * rows, inner) @ right
    return grouped.view(batch, heads, rows, right.shape[-1])
