"""Place 3: a bias is added to the attention scores."""

from posenc.kernels.biased_attention.content import Content, ScoreMod
from posenc.scores.alibi import ALiBi
from posenc.scores.cope import CoPE
from posenc.scores.deberta import DeBERTa
from posenc.scores.decomposed import DecomposedBias
from posenc.scores.fire import FIRE
from posenc.scores.forgetting import Forgetting
from posenc.scores.inkling import InklingBias
from posenc.scores.kerple import KERPLE
from posenc.scores.levit import LeViTBias
from posenc.scores.sandwich import Sandwich
from posenc.scores.shaw import Shaw
from posenc.scores.swin import SwinBias
from posenc.scores.swin_v2 import SwinV2Bias
from posenc.scores.t5 import T5Bias
from posenc.scores.transformer_xl import TransformerXL
from posenc.scores.tupe import TUPE

__all__ = [
    "FIRE",
    "KERPLE",
    "TUPE",
    "ALiBi",
    "CoPE",
    "Content",
    "DeBERTa",
    "DecomposedBias",
    "Forgetting",
    "InklingBias",
    "LeViTBias",
    "Sandwich",
    "ScoreMod",
    "Shaw",
    "SwinBias",
    "SwinV2Bias",
    "T5Bias",
    "TransformerXL",
]
