"""How a module of diffusers makes its tables of cos and sin: the form of a row, and the parts that rows share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posenc import AxialRoPE, MixedRoPE, MRoPE, RoPE
from posenc.frequencies import Frequencies, Geometric
from posenc.kernels.precision import float64_device

Turning = AxialRoPE | MRoPE | RoPE | MixedRoPE
#: What the method is called with: name of an argument -> value.
Call = Mapping[str, Any]
#: cos and sin of one table, with one number for each pair, in float64.
Pair = tuple[Tensor, Tensor]

TIME_HEIGHT_WIDTH = ("time", "height", "width")


@dataclass(frozen=True)
class Row:
    """How the modules of one kind make their tables.

    Attributes:
        encoding: the encoding, from the module and its model.
        axes: names of its coordinates.
        positions: what a token's coordinates are, in words.
        coordinates: the same in numbers: ``(..., tokens, axes)`` for each table that a call makes.
        written: what the method gives, from the module and cos and sin of each table.
        probe: arguments of a small call.
        given: those of them that follow from the encoding.
        names: names of the coordinates that turn anything, where that depends on the encoding.
        ends: the first coordinate that a table has no row for, on each axis; None for no end.
        method: the method that makes the tables.
        as_angles: True for a module that gives angles, of which the attention takes cos and sin.
        argument: where a pipeline makes the tables and gives them to the model as an argument, its name.
        applies: False for a model that has the class and not the rotation.
        notes: what a reader should know besides.
    """

    encoding: Callable[[Any, Any], Turning]
    axes: tuple[str, ...]
    positions: str
    coordinates: Callable[[Any, Call], Sequence[Tensor]]
    written: Callable[[Any, list[Pair]], Any]
    probe: Callable[[Any], Call] = lambda module: {}
    given: Callable[[Turning], Call] = lambda encoding: {}
    names: Callable[[Turning], tuple[str, ...]] | None = None
    ends: Callable[[Any], tuple[int | None, ...]] | None = None
    method: str = "forward"
    as_angles: bool = False
    argument: str = ""
    applies: Callable[[Any], bool] = lambda model: True
    notes: tuple[str, ...] = ()

    def axes_of(self, encoding: Turning) -> tuple[str, ...]:
        """Names of the coordinates that turn anything."""
        return self.axes if self.names is None else self.names(encoding)

    def tables(self, encoding: Turning, module: Any, call: Call) -> Any:
        """What the method gives when it is called so, by that encoding, on the device that the call is for."""
        made = self.written(
            module, [_cos_sin(encoding, where, self.as_angles) for where in self.coordinates(module, call)]
        )
        device = _device_of(call)
        # A device without float64 gets tables that were made on the CPU; on others they are where they belong.
        return made if float64_device(device) == device else _moved(made, device)


def _device_of(call: Call) -> torch.device | None:
    """Where the method is asked for its tables; None for its own choice."""
    named = call.get("device")
    of_tensors = next((value.device for value in call.values() if isinstance(value, Tensor)), None)
    return of_tensors if named is None else torch.device(named)


def _moved(made: Any, device: Any) -> Any:
    """Tables in the widest dtype that a device without float64 has."""
    if isinstance(made, Tensor):
        narrow = {torch.float64: torch.float32, torch.complex128: torch.complex64}.get(made.dtype, made.dtype)
        return made.to(narrow).to(device)
    if isinstance(made, dict):
        return {key: _moved(part, device) for key, part in made.items()}
    return tuple(_moved(part, device) for part in made)


def _cos_sin(encoding: Turning, coordinates: Tensor, as_angles: bool) -> Pair:
    in_rows = coordinates.ndim == 2 and encoding.coordinates is not None  # without a batch
    angle, factor = encoding.phases(coordinates[None] if in_rows else coordinates)
    if in_rows:
        angle = angle[0]
    return (angle, angle) if as_angles else (angle.cos() * factor, angle.sin() * factor)


def axial(widths: Sequence[int], base: float | Sequence[Frequencies], *, layout: str = "interleaved") -> AxialRoPE:
    """An axis after another, each with its width; an axis of width 0 turns nothing."""
    if not isinstance(widths, (list, tuple)):
        raise TypeError(f"got widths {widths!r}, expected a list of numbers of channels, one for each coordinate.")
    if not isinstance(base, (int, float)) and (not isinstance(base, (list, tuple)) or len(base) != len(widths)):
        raise TypeError(f"got base {base!r}, expected one number.")
    used = [axis for axis, width in enumerate(widths) if width]
    rules = Geometric(float(base)) if isinstance(base, (int, float)) else tuple(base[axis] for axis in used)
    kept = tuple(int(widths[axis]) for axis in used)
    return AxialRoPE(sum(kept), axes=kept, frequencies=rules, layout=layout)  # type: ignore[arg-type]


def thirds(dim: int) -> tuple[int, int, int]:
    """Widths of time, height and width: two thirds in even shares, and the rest for the time."""
    side = 2 * (dim // 6)
    return dim - 2 * side, side, side


def product(*axes: Tensor) -> Tensor:
    """The coordinates of a grid, row by row: ``(tokens, axes)``."""
    return torch.stack([part.reshape(-1) for part in torch.meshgrid(*axes, indexing="ij")], dim=-1)


def steps(count: int, like: Any = None) -> Tensor:
    """0, 1, 2, ... in float64 on the device of a tensor, or on a device; on the CPU if that has no float64."""
    device = like.device if isinstance(like, Tensor) else like
    return torch.arange(count, dtype=torch.float64, device=float64_device(device))


def neighbours(table: Tensor) -> Tensor:
    """Each number twice, side by side, in float32."""
    return table.repeat_interleave(2, dim=-1).float()


def halves(table: Tensor) -> Tensor:
    """All numbers, and all of them again, in float32."""
    return torch.cat((table, table), dim=-1).float()


def complex_numbers(pair: Pair) -> Tensor:
    """One complex number for each pair."""
    return torch.complex(pair[0].float(), pair[1].float())


def matrices(pair: Pair) -> Tensor:
    """A matrix of two rows and columns for each pair."""
    cos, sin = pair
    made = torch.stack((cos, -sin, sin, cos), dim=-1).float()
    return made.reshape(*made.shape[:-1], 2, 2)


def cos_and_sin(form: Callable[[Tensor], Tensor]) -> Callable[[Any, list[Pair]], Any]:
    """cos and sin of the only table."""
    return lambda module, tables: (form(tables[0][0]), form(tables[0][1]))
