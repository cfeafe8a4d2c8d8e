"""cos and sin of the positions 0, 1, 2, ..., made once, shared by equal encodings, grown by doubling."""

import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from posenc.kernels.kept import Slot
from posenc.kernels.precision import angles

#: A table grows no further than this: positions beyond are worked out for each forward. All that is kept has a bound
#: besides, ``kept.MAX_BYTES``.
MAX_BYTES = 32 << 20
_FIRST_ROWS = 2048


class Tables:
    """cos and sin of ``position x inv_freq``, times ``factor``: one table for each device and dtype.

    Angles are formed in float64 and rounded once. Use :meth:`shared` to get one: equal arguments give the same object,
    which lives as long as someone holds it.
    """

    def __init__(self, inv_freq: Sequence[float], factor: float) -> None:
        self._inv_freq = tuple(inv_freq)
        self._factor = factor
        self._made: dict[tuple[torch.device, torch.dtype], Slot[tuple[int, tuple[Tensor, Tensor]]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def shared(cls, inv_freq: Sequence[float], factor: float) -> "Tables":
        key = (tuple(inv_freq), factor)
        with _lock:
            tables = _shared.get(key)
            if tables is None:
                tables = _shared[key] = cls(*key)
            return tables

    def get(self, rows: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """cos and sin, ``(rows or more, pairs)``; None if that many rows would be too large a table."""
        slot = self._made.get((device, dtype))
        made = None if slot is None else slot.get()
        if made is not None and made[0] >= rows:
            return made[1]
        most = MAX_BYTES // (2 * len(self._inv_freq) * dtype.itemsize)
        if rows > most:
            return None
        with self._lock:
            return self._grow(rows, most, device, dtype)

    def _grow(self, rows: int, most: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        slot = self._made.setdefault((device, dtype), Slot())
        have, made = slot.get() or (0, None)
        if made is not None and have >= rows:
            return made
        rows = min(most, max(rows, 2 * have, _FIRST_ROWS))
        with torch.inference_mode(False), torch.no_grad():  # so that a later forward may train with it
            angle = angles(torch.arange(have, rows, device=device), self._inv_freq)
            cos, sin = ((f * self._factor).to(dtype).to(device) for f in (angle.cos(), angle.sin()))
            made = (cos, sin) if made is None else (torch.cat((made[0], cos)), torch.cat((made[1], sin)))
        slot.put((rows, made), *made)
        return made

    def __reduce__(self) -> tuple[object, ...]:  # a copy or a pickle carries the rule, not the rows
        return (Tables.shared, (self._inv_freq, self._factor))


_shared: "weakref.WeakValueDictionary[tuple[tuple[float, ...], float], Tables]" = weakref.WeakValueDictionary()
_lock = threading.Lock()
