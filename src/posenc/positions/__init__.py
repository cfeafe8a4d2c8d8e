"""Positions: which number a token gets."""

from posenc.positions._resolve import Positions as Positions
from posenc.positions._resolve import resolve as resolve
