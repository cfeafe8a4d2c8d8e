"""A function of a model that rotates, done by posenc's fused rotation as soon as both were seen to agree."""

import warnings
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from posenc.integrations.diffusers.live.reading import Given, Reading, readings, take
from posenc.kernels.kept import Slot
from posenc.kernels.precision import compute_dtype, may_keep

#: Tables that are kept in the form that the fused operation wants: those of images and texts, of two resolutions.
_KEPT = 4


class Rotation:
    """In the place of a model's own function.

    The first call of each kind is made both ways on random numbers of the same shape, with the tables of the call.
    From then on posenc rotates, or the model's own function if no way to read the tables agreed, which is said in a
    warning. A kind of call is what its arguments are: shapes up to sizes, dtypes, options. Under torch.compile the
    model's own function is traced.

    Attributes:
        theirs: the model's own function.
        name: what to call it in a sentence.
        settled: kind of call -> how the tables are read, or None where nothing agreed.
        exact: True as long as every kind of call gave the same bits.
        left: why calls are left to the model's own function.
    """

    def __init__(self, theirs: Callable[..., Any], name: str) -> None:
        self.theirs = theirs
        self.name = name
        self.settled: dict[Hashable, Reading | None] = {}
        self.exact = True
        self.left: list[str] = []
        self._kept: dict[Hashable, tuple[Any, Slot[tuple[Tensor, Tensor]]]] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling() or not may_keep():
            return self.theirs(*args, **options)
        given = take(args, options)
        if given is None:
            self._leave("other arguments than heads and tables")
        elif given.kind not in self.settled:
            self._settle(given, args, options)
        elif (reading := self.settled[given.kind]) is not None:
            if reading.fits(given):
                return reading.apply(given, self._tables(reading, given))
            self._leave(f"{given}, whose tables have no row for each token")
        return self.theirs(*args, **options)

    def __deepcopy__(self, memo: Any) -> "Rotation":
        return self  # what it found out holds for a copy of the model too

    def _settle(self, given: Given, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Find how the tables are read."""
        probe = given.with_random_heads()
        with torch.no_grad():
            found = readings(probe, self.theirs(*probe.arguments(args), **options))
        if len(found) == 1:
            self.settled[given.kind], is_exact = found[0]
            self.exact = self.exact and is_exact
        elif not found:
            self.settled[given.kind] = None
            self._leave(f"{given}, and posenc does not recognise how the function rotates these by its tables")
        # Several: the tables of this call, such as those of position 0 alone, do not tell; the next call may.

    def _leave(self, reason: str) -> None:
        """Say once what is left to the model's own function."""
        if reason not in self.left:
            self.left.append(reason)
            warnings.warn(
                f"accelerate: calls of {self.name} are computed by the model's own code: {reason}.", stacklevel=4
            )

    def _tables(self, reading: Reading, given: Given) -> tuple[Tensor, Tensor]:
        """cos and sin as the operation takes them; layers share them."""
        dtype, device = compute_dtype(given.heads[0].dtype), given.heads[0].device
        if any(table.requires_grad and torch.is_grad_enabled() for table in given.tables):
            return reading.tables(given, dtype, device)
        versions = tuple((id(t), None if t.is_inference() else t._version) for t in given.tables)
        key = (versions, dtype, device, reading, torch.is_inference_mode_enabled())
        if key in self._kept:
            of, slot = self._kept[key]
            made = slot.get()
            if made is not None and all(ref() is t for ref, t in zip(of, given.tables, strict=True)):
                return made
        made = reading.tables(given, dtype, device)
        self._kept = {key: kept for key, kept in self._kept.items() if all(ref() is not None for ref in kept[0])}
        while len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        slot = Slot()
        slot.put(made, *made)
        self._kept[key] = (tuple(weakref.ref(t) for t in given.tables), slot)
        return made
