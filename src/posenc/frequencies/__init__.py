"""Frequencies: which wavelengths a position is written in. NumPy only."""

from posenc.frequencies.base import Frequencies as Frequencies
from posenc.frequencies.geometric import Geometric as Geometric
from posenc.frequencies.tensor2tensor import Tensor2Tensor as Tensor2Tensor

RULES = ("Geometric", "Tensor2Tensor")
