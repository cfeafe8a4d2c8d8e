"""One form for the ways in which positions may be given."""

from typing import NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from posenc.kernels.precision import check_positions, float64_device, may_look

Positions: TypeAlias = Tensor | int | None


def resolve(
    positions: Positions,
    length: int,
    *,
    device: torch.device,
    name: str = "positions",
    batch: int | None = None,
    signed: bool = False,
) -> Tensor:
    """Positions as a tensor ``(length,)`` or ``(batch, length)`` on ``device``, or on the CPU if that cannot hold them.

    Args:
        positions: None for 0, 1, 2, ...; an int to start from; or a tensor, int8 to int64, uint8, float32 or float64,
            from zero to 2**53.
        length: how many tokens there are.
        device: where the tokens are.
        name: what an error calls the argument.
        batch: the number of rows that ``(batch, seq)`` positions must match, if that is known.
        signed: whether a tensor may have negative values.

    Raises:
        TypeError: positions of another type: bfloat16 cannot represent 257, nor float16 2049.
        ValueError: another rank or length; negative, infinite or NaN values, or above 2**53. Values are checked only on
            the CPU: on another device the check would have to wait for the result.
    """
    if positions is None or (isinstance(positions, (int, np.integer, torch.SymInt)) and type(positions) is not bool):
        offset = 0 if positions is None else positions
        if offset < 0:
            raise ValueError(f"{name}: got offset {offset}, expected 0 or above; positions count from 0.")
        if offset > LAST_POSITION - length:
            raise ValueError(f"{name}: got offset {offset}, expected at most 2**53, up to which positions are exact.")
        return torch.arange(offset, offset + length, device=device)
    positions = check_positions(positions, name, other_forms="None, an int offset, or ")
    if positions.ndim not in (1, 2) or positions.shape[-1] != length:
        raise ValueError(
            f"{name}: got shape {tuple(positions.shape)}, expected ({length},) or (batch, {length}): one position for "
            f"each token{_advice(positions, length)}."
        )
    if batch is not None and positions.ndim == 2 and positions.shape[0] not in (1, batch):
        raise ValueError(f"{name}: got {positions.shape[0]} rows for a batch of {batch}; give one row for each.")
    if may_look(positions):
        _check_values(positions, name, signed=signed)
    return _placed(positions, device, name)


def resolve_coordinates(
    positions: Positions,
    length: int,
    coordinates: int,
    *,
    device: torch.device,
    batch: int,
    name: str = "positions",
    signed: bool = False,
) -> Tensor:
    """Positions of several coordinates as a tensor ``(length, coordinates)`` or ``(batch, length, coordinates)``.

    Args:
        positions: ``(batch, length, coordinates)``, or ``(1, length, coordinates)`` for the same in every row; values
            may be negative. Positions in the forms of :func:`resolve` are those of a text: all coordinates of a token
            equal its position. A tensor of two dimensions is always ``(batch, length)``: pass ``(length, coordinates)``
            as ``positions[None]``.
        length, coordinates, batch: the sizes that the shape must have.
        device: where the tokens are.
        name: what an error calls the argument.
        signed: whether one number for each token may be negative too, because it is not a position in a text.

    Raises:
        TypeError: positions of another type, as in :func:`resolve`.
        ValueError: another rank or length; infinite or NaN values, and negative ones in a text.
    """
    if not isinstance(positions, Tensor) or positions.ndim < 3:
        if (
            isinstance(positions, Tensor)
            and positions.ndim == 2
            and not _is_text(positions, length, coordinates, batch)
        ):
            _refuse_coordinates(positions, length, coordinates, batch, name)
        text = resolve(positions, length, device=device, name=name, batch=batch, signed=signed)
        return text[..., None].expand(*text.shape, coordinates)
    positions = check_positions(positions, name, other_forms="None, an int offset, or ")
    if positions.ndim != 3 or positions.shape[1:] != (length, coordinates) or positions.shape[0] not in (1, batch):
        _refuse_coordinates(positions, length, coordinates, batch, name)
    looks = may_look(positions)
    if looks and positions.is_floating_point() and not bool(torch.isfinite(positions).all()):
        raise ValueError(f"{name}: got NaN or infinite coordinates; every coordinate must be a finite number.")
    return _placed(positions, device, name)


def _advice(positions: Tensor, length: int) -> str:
    """What to do with positions of three dimensions where a token has one."""
    if positions.ndim != 3:
        return ""
    if positions.shape[-1] == length:
        return (
            ", the same in all heads; for positions of each head rotate one head at a time, and give posenc.attention "
            "a bias as a floating point mask of (batch, heads, queries, keys)"
        )
    return (
        "; rows and columns are for an encoding of several coordinates, such as AxialRoPE or SinusoidalGrid; with a "
        "learned grid or window (LearnedGrid, SwinBias, ...) leave positions out, and use .resized(height, width) for "
        "another size"
    )


def _is_text(positions: Tensor, length: int, coordinates: int, batch: int) -> bool:
    """Whether positions of two dimensions can be ``(batch, length)``, which they are taken for if they can be both."""
    rows, last = positions.shape
    return last == length and (length != coordinates or rows != length or rows == batch)


def _refuse_coordinates(positions: Tensor, length: int, coordinates: int, batch: int, name: str) -> NoReturn:
    shape = tuple(positions.shape)
    raise ValueError(
        f"{name}: got shape {shape}, expected ({batch}, {length}, {coordinates}): batch, tokens and coordinates of "
        "each; or one position for each token, which is then used for all of its coordinates"
        + (f". Use {name}[None] for the same in every row." if shape == (length, coordinates) else ".")
    )


def sequence_lengths(positions: Tensor) -> Tensor:
    """The length of the sequence of each token, ``(*rows, seq)``: the last position of the sequence plus 1.

    Where positions decrease, a new sequence starts, so each document of a pack has its own length.
    """
    falls = torch.diff(positions, prepend=positions[..., :1], dim=-1) < 0
    sequence = falls.to(torch.int64).cumsum(-1)
    last = torch.zeros_like(positions).scatter_reduce(-1, sequence, positions, "amax")
    return last.gather(-1, sequence).floor() + 1 if positions.is_floating_point() else last.gather(-1, sequence) + 1


def _placed(positions: Tensor, device: torch.device, name: str) -> Tensor:
    """There, or on the CPU if they are float64 and the device has none: no position is rounded."""
    if positions.is_meta and device.type != "meta":
        raise ValueError(
            f"{name}: got positions on the meta device, which have no values, for tokens on {device}; make them on "
            f'{device}, outside of torch.device("meta").'
        )
    return positions.to(float64_device(device) if positions.dtype == torch.float64 else device)


LAST_POSITION = 2**53  # float64, in which angles and distances are formed, is exact up to here


def _check_values(positions: Tensor, name: str, *, signed: bool) -> None:
    if positions.numel() == 0:
        return
    if positions.is_floating_point() and not bool(torch.isfinite(positions).all()):
        raise ValueError(f"{name}: got NaN or infinite positions; every position must be a finite number.")
    lowest, highest = (bound.item() for bound in torch.aminmax(positions))
    if highest > LAST_POSITION:
        raise ValueError(f"{name}: got {highest}, expected at most 2**53, up to which positions are exact.")
    if lowest < 0 and not signed:
        raise ValueError(
            f"{name}: got {lowest}, expected 0 or above; shift all positions by {-lowest} (to a relative encoding only "
            "differences matter), and give padding any position of 0 or above."
        )
