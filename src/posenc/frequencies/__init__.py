"""Frequency rules: the rates at which pairs of channels turn. NumPy only."""

from posenc.frequencies.base import Frequencies as Frequencies
from posenc.frequencies.custom import Custom as Custom
from posenc.frequencies.dynamic import DynamicNTK as DynamicNTK
from posenc.frequencies.geometric import Geometric as Geometric
from posenc.frequencies.learned import LearnedRates as LearnedRates
from posenc.frequencies.linear import Linear as Linear
from posenc.frequencies.linspaced import Linspaced as Linspaced
from posenc.frequencies.linspaced import Logspaced as Logspaced
from posenc.frequencies.llama3 import Llama3 as Llama3
from posenc.frequencies.longrope import LongRoPE as LongRoPE
from posenc.frequencies.ntk import NTK as NTK
from posenc.frequencies.ntk import NTKAlpha as NTKAlpha
from posenc.frequencies.ntk import NTKMixed as NTKMixed
from posenc.frequencies.proportional import Proportional as Proportional
from posenc.frequencies.riflex import RIFLEx as RIFLEx
from posenc.frequencies.tensor2tensor import Tensor2Tensor as Tensor2Tensor
from posenc.frequencies.turns import Turns as Turns
from posenc.frequencies.yarn import YaRN as YaRN

RULES = (
    "Geometric",
    "Linear",
    "NTK",
    "NTKAlpha",
    "NTKMixed",
    "DynamicNTK",
    "YaRN",
    "Llama3",
    "LongRoPE",
    "Proportional",
    "RIFLEx",
    "Tensor2Tensor",
    "Linspaced",
    "Logspaced",
    "Turns",
    "LearnedRates",
    "Custom",
)
