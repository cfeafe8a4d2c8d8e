"""Which positions, padding and documents the queries and keys of one call have."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from posenc.kernels.precision import sent
from posenc.positions import Positions


class Tokens(NamedTuple):
    """What a call of attention knows about its tokens besides their content.

    Attributes:
        q_positions: of the new tokens: an int offset, or ``(batch, seq)``, ``(batch, seq, coordinates)``.
        k_positions: the same for all keys, the cached ones first.
        attention_mask: ``(batch, keys)``, False for padding; None if there is none.
        documents: ``(batch, keys)``, the number of each key's document; None if there is one document.
        next_position: that of the token after the last: an int, or ``(batch, 1)``.
    """

    q_positions: Positions
    k_positions: Positions
    attention_mask: Tensor | None
    documents: Tensor | None
    next_position: int | Tensor

    def last(self, count: int) -> "Tokens":
        """The same without the keys before the last ``count``."""
        if isinstance(self.k_positions, Tensor):
            rows = _rows(self.k_positions)
            start: Positions = rows[:, rows.shape[1] - count :]
        else:
            start = self.next_position - count
        mask, documents = (
            t if t is None else t[:, t.shape[1] - count :] for t in (self.attention_mask, self.documents)
        )
        return Tokens(self.q_positions, start, mask, documents, self.next_position)

    def first(self, count: int) -> "Tokens":
        """The same without the keys behind the first ``count``; the next position is that behind the last of these."""
        if not isinstance(self.k_positions, Tensor):
            return Tokens(self.q_positions, self.k_positions, None, None, (self.k_positions or 0) + count)
        rows = _rows(self.k_positions)[:, :count]
        mask, documents = (t if t is None else t[:, :count] for t in (self.attention_mask, self.documents))
        return Tokens(self.q_positions, rows, mask, documents, _behind(rows, mask, documents))

    def of_rows(self, rows: Tensor) -> "Tokens":
        """The same for other rows of the batch; what has one row is the same in all."""
        of_each = (self.k_positions if not isinstance(self.k_positions, Tensor) else _rows(self.k_positions), *self[2:])
        kept = (t if not isinstance(t, Tensor) or len(t) == 1 else t.index_select(0, rows) for t in of_each)
        positions, mask, documents, following = kept
        return Tokens(0, positions, mask, documents, following)  # type: ignore[arg-type]


START = Tokens(0, 0, None, None, 0)


def count_up(tokens: Tokens) -> bool:
    """Whether they simply count up: all rows the same, without padding and documents."""
    return type(tokens.k_positions) is int  # no property of the tuple: PyTorch 2.10 cannot compile one


def after(
    before: Tokens,
    x: Tensor,
    *,
    positions: Positions = None,
    attention_mask: Tensor | None = None,
    documents: Tensor | None = None,
    name: str,
) -> Tokens:
    """The tokens of ``x``, ``(batch, seq, dim)``, that follow those of a cache.

    Positions that are not given count real tokens: they go on where the row's last one ended, and start from 0 with
    each new document.
    """
    batch, seq = x.shape[:2]
    if isinstance(positions, np.integer):
        positions = int(positions)
    if positions is None and attention_mask is None and documents is None and count_up(before):
        now: int = before.next_position  # type: ignore[assignment]
        return Tokens(now, before.k_positions, None, None, now + seq)
    if type(positions) is int and positions == before.next_position and count_up(before) and attention_mask is None:
        return after(before, x, documents=documents, name=name)
    mask = None if attention_mask is None else _checked(attention_mask, "attention_mask", batch, seq, name)
    ids = None if documents is None else _checked(documents, "documents", batch, seq, name)
    kept = _kept(before, x.device)
    count = kept.k_positions.shape[1]
    if ids is None and kept.documents is not None:
        ids = kept.documents[:, -1:].expand(-1, seq)
    elif ids is not None and kept.documents is None and count:
        raise ValueError(
            f"{name}: got documents for tokens that follow cached tokens without documents, expected documents from "
            "the first call on; pass documents= in the earlier calls too."
        )
    new, following = _positions(kept, x, positions, mask, ids, name)
    if mask is not None or kept.attention_mask is not None:
        real = torch.ones(batch, max(count, seq), dtype=torch.bool, device=x.device)
        earlier = real[:, :count] if kept.attention_mask is None else kept.attention_mask
        mask = _joined(earlier, real[:, :seq] if mask is None else mask.bool())
    if ids is not None and kept.documents is not None:
        ids = _joined(kept.documents, ids)
    every = new if count == 0 else _joined(kept.k_positions, _rows(new))
    return Tokens(new, every, mask, ids, following)


class _Kept(NamedTuple):
    """What is known of the cached keys, as tensors with one row for all or one for each."""

    k_positions: Tensor
    attention_mask: Tensor | None
    documents: Tensor | None
    next_position: Tensor


def _kept(before: Tokens, device: torch.device) -> _Kept:
    following, positions = before.next_position, before.k_positions
    if not isinstance(positions, Tensor):
        stop: int = following  # type: ignore[assignment]
        positions = torch.arange(positions or 0, stop, device=device)
    if isinstance(following, int):
        following = torch.full((1, 1), following, device=device)
    return _Kept(_rows(positions), before.attention_mask, before.documents, following)


def _rows(positions: Tensor) -> Tensor:
    return positions[None] if positions.ndim == 1 else positions


def _joined(earlier: Tensor, new: Tensor) -> Tensor:
    """``(rows, tokens)`` of both, one after the other; what has one row is the same in all."""
    if earlier.ndim < new.ndim:  # a text before an image: all coordinates of a token are its position
        earlier = earlier[..., None].expand(*earlier.shape, new.shape[-1])
    elif new.ndim < earlier.ndim:
        new = new[..., None].expand(*new.shape, earlier.shape[-1])
    rows = max(earlier.shape[0], new.shape[0])
    earlier, new = (t.expand(rows, *t.shape[1:]) for t in (earlier, new))
    if earlier.dtype != new.dtype:
        dtype = torch.promote_types(earlier.dtype, new.dtype)
        earlier, new = earlier.to(dtype), new.to(dtype)
    return torch.cat((earlier, new), dim=1)


def _positions(
    kept: _Kept, x: Tensor, positions: Positions, mask: Tensor | None, documents: Tensor | None, name: str
) -> tuple[Tensor, Tensor]:
    """Those of the new tokens, and the one that follows in each row."""
    batch, seq = x.shape[:2]
    if isinstance(positions, Tensor):
        given = sent(positions, x.device)
        rows = _rows(given)
        if given.ndim not in (1, 2, 3) or rows.shape[1] != seq or rows.shape[0] not in (1, batch):
            raise ValueError(
                f"{name}: got positions of shape {tuple(positions.shape)} for {batch} rows of {seq} tokens, expected "
                f"({seq},), ({batch}, {seq}) or ({batch}, {seq}, coordinates); if x is (seq, batch, dim), transpose "
                "its first two dimensions."
            )
        return given, _after_given(kept, rows, mask)
    if positions is not None and type(positions) is not int:
        raise TypeError(f"{name}: got positions of type {type(positions).__name__}, expected None, an int or a tensor.")
    start = kept.next_position if positions is None else torch.full_like(kept.next_position, positions)
    if not seq or (mask is None and documents is None):
        new = start + torch.arange(seq, device=x.device)
        return new[0] if len(new) == 1 else new, start + seq
    real = torch.ones(1, seq, dtype=torch.int64, device=x.device) if mask is None else mask.long()
    count = start + real.cumsum(-1)
    if documents is None:
        return (count - 1).clamp(min=0), count[:, -1:]
    before = documents[:, :1] if kept.documents is None else kept.documents[:, -1:]
    begins = documents != torch.cat((before.expand(len(documents), 1), documents[:, :-1]), dim=1)
    earlier = torch.where(begins, count - real, 0).cummax(-1).values  # real tokens before the document
    return (count - 1 - earlier).clamp(min=0), (count - earlier)[:, -1:]


def _after_given(kept: _Kept, rows: Tensor, mask: Tensor | None) -> Tensor:
    """The position after positions that were given: after the last real token, the earlier one where all is padding."""
    seq = rows.shape[1]
    if seq == 0:
        return kept.next_position
    far = rows if rows.ndim == 2 else rows.amax(2).cummax(1).values
    if mask is None:
        return far[:, -1:] + 1
    real = mask.bool()
    last = torch.where(real, torch.arange(seq, device=real.device), 0).amax(1, keepdim=True)
    far = far.expand(max(len(far), len(real)), -1).gather(1, last.expand(max(len(far), len(real)), -1))
    return torch.where(real.any(1, keepdim=True), far + 1, kept.next_position)


def _behind(rows: Tensor, mask: Tensor | None, documents: Tensor | None) -> Tensor:
    """The position behind the last real token of each row, in its last document: what counting on would give."""
    if not rows.shape[1]:
        return torch.zeros(1, 1, dtype=rows.dtype, device=rows.device)
    far = rows if rows.ndim == 2 else rows.amax(2)
    batch = max(len(t) for t in (far, mask, documents) if t is not None)
    real = torch.ones(1, 1, dtype=torch.bool, device=far.device) if mask is None else mask.bool()
    if documents is not None:
        real = real & (documents == documents[:, -1:])
    real = real.expand(batch, far.shape[1])
    behind = torch.where(real, far + 1, 0)
    if rows.ndim == 3:  # the last patch of an image is not its farthest on all axes
        return behind.amax(1, keepdim=True)
    last = torch.where(real, torch.arange(far.shape[1], device=far.device), 0).amax(1, keepdim=True)
    return behind.gather(1, last)


def _checked(given: Tensor, argument: str, batch: int, seq: int, name: str) -> Tensor:
    meaning = {
        "attention_mask": "True or 1 for a token and False or 0 for padding",
        "documents": "the integer number of each token's document",
    }[argument]
    value: Any = given
    if isinstance(value, Tensor) and value.ndim == 1:
        value = value[None]
    if (
        not isinstance(value, Tensor)
        or value.is_floating_point()
        or value.ndim != 2
        or value.shape[0] not in (1, batch)
        or value.shape[1] != seq
    ):
        got = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else f"of type {type(given).__name__}"
        raise ValueError(
            f"{name}: got {argument} {got}, expected ({batch}, {seq}), {meaning}: one for each token of x, which is "
            "(batch, seq, dim); transpose the first two dimensions of x if it is (seq, batch, dim)."
        )
    checked: Tensor = value
    return checked
