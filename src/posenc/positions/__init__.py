"""Positions: which number a token gets."""

from posenc.positions._resolve import Positions as Positions
from posenc.positions._resolve import resolve as resolve
from posenc.positions._resolve import resolve_coordinates as resolve_coordinates
from posenc.positions._resolve import sequence_lengths as sequence_lengths
