"""Positional encodings for transformers: exact, fast, measured.

A position is written in frequencies and enters a transformer at one of three places: the embeddings, the
queries and keys, or the scores. Nothing is imported until a name is used, so ``import posenc`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posenc import embeddings, frequencies, nn, positions, scores, testing  # noqa: F401
    from posenc.cached_keys import rerotate as rerotate
    from posenc.catalogue import make as make
    from posenc.catalogue import names as names
    from posenc.checkpoints import convert_pairing as convert_pairing
    from posenc.compose import Compose as Compose
    from posenc.compose import from_dict as from_dict
    from posenc.dot_product_attention import attention as attention
    from posenc.embeddings.binary import Binary as Binary
    from posenc.embeddings.integer import Integer as Integer
    from posenc.embeddings.learned import Learned as Learned
    from posenc.embeddings.normalized import Normalized as Normalized
    from posenc.embeddings.sinusoidal import Sinusoidal as Sinusoidal
    from posenc.encoding import ContextualEncoding as ContextualEncoding
    from posenc.encoding import EmbeddingEncoding as EmbeddingEncoding
    from posenc.encoding import Encoding as Encoding
    from posenc.encoding import QueryKeyEncoding as QueryKeyEncoding
    from posenc.encoding import ScoreEncoding as ScoreEncoding
    from posenc.explanation import explain as explain
    from posenc.frequencies.geometric import Geometric as Geometric
    from posenc.frequencies.tensor2tensor import Tensor2Tensor as Tensor2Tensor
    from posenc.frequencies.yarn import YaRN as YaRN
    from posenc.none import NoPE as NoPE
    from posenc.per_layer import PerLayer as PerLayer
    from posenc.queries_keys.axial import AxialRoPE as AxialRoPE
    from posenc.queries_keys.fope import FoPE as FoPE
    from posenc.queries_keys.mixed import MixedRoPE as MixedRoPE
    from posenc.queries_keys.mrope import MRoPE as MRoPE
    from posenc.queries_keys.pope import PoPE as PoPE
    from posenc.queries_keys.rope import RoPE as RoPE
    from posenc.queries_keys.xpos import XPos as XPos
    from posenc.scores.alibi import ALiBi as ALiBi
    from posenc.scores.cope import CoPE as CoPE
    from posenc.scores.fire import FIRE as FIRE
    from posenc.scores.forgetting import Forgetting as Forgetting
    from posenc.scores.kerple import KERPLE as KERPLE
    from posenc.scores.t5 import T5Bias as T5Bias
    from posenc.ssmax import SSMax as SSMax
    from posenc.temperature import Temperature as Temperature

__version__ = "0.1.0"

_HOMES = {
    "ALiBi": "scores.alibi",
    "AxialRoPE": "queries_keys.axial",
    "Binary": "embeddings.binary",
    "CoPE": "scores.cope",
    "Compose": "compose",
    "ContextualEncoding": "encoding",
    "EmbeddingEncoding": "encoding",
    "Encoding": "encoding",
    "FIRE": "scores.fire",
    "FoPE": "queries_keys.fope",
    "Forgetting": "scores.forgetting",
    "Geometric": "frequencies.geometric",
    "Integer": "embeddings.integer",
    "KERPLE": "scores.kerple",
    "Learned": "embeddings.learned",
    "MRoPE": "queries_keys.mrope",
    "MixedRoPE": "queries_keys.mixed",
    "NoPE": "none",
    "Normalized": "embeddings.normalized",
    "PerLayer": "per_layer",
    "PoPE": "queries_keys.pope",
    "QueryKeyEncoding": "encoding",
    "RoPE": "queries_keys.rope",
    "SSMax": "ssmax",
    "ScoreEncoding": "encoding",
    "Sinusoidal": "embeddings.sinusoidal",
    "Temperature": "temperature",
    "Tensor2Tensor": "frequencies.tensor2tensor",
    "XPos": "queries_keys.xpos",
    "YaRN": "frequencies.yarn",
    "attention": "dot_product_attention",
    "convert_pairing": "checkpoints",
    "embeddings": "",
    "explain": "explanation",
    "frequencies": "",
    "T5Bias": "scores.t5",
    "from_dict": "compose",
    "make": "catalogue",
    "names": "catalogue",
    "nn": "",
    "positions": "",
    "rerotate": "cached_keys",
    "scores": "",
    "testing": "",
}

_HOMES_HERE = dict.fromkeys(_HOMES, "posenc")

#: Public names that people look for here, by the module that has them.
_ELSEWHERE = {
    "posenc.frequencies": "Custom DynamicNTK Frequencies LearnedRates Linear Linspaced Llama3 Logspaced LongRoPE NTK "
    "NTKAlpha NTKMixed Proportional RIFLEx Turns",
    "posenc.embeddings": "FourierFeatures LearnedGrid SinusoidalGrid Timesteps",
    "posenc.scores": "DeBERTa DecomposedBias LeViTBias Sandwich Shaw SwinBias SwinV2Bias TransformerXL TUPE",
    "posenc.positions": "digits dual_chunk from_documents from_lengths from_mask grid grouped multimodal randomized "
    "sequential shard shifted skipwise unshard",
    "posenc.testing": "assert_matches_oracle check_encoding checks",
    "posenc.integrations.transformers": "Description LayerGroup Patch accelerate check describe extend replace "
    "to_transformers",
    "posenc.lab.diagnose": "diagnose",
}

#: What other libraries have -> what it is here.
_OF_OTHERS = {
    **dict.fromkeys(
        ("RotaryEmbedding", "RotaryPositionalEmbedding", "RotaryPositionalEmbeddings", "LlamaRotaryEmbedding",
         "apply_rotary_emb", "apply_rotary_pos_emb", "apply_rope", "rotate_half"),
        "RoPE",
    ),
    **dict.fromkeys(("RotaryEmbeddingCat", "get_axial_freqs", "FluxPosEmbed", "RotaryPosEmbed"), "AxialRoPE"),
    **dict.fromkeys(("PositionalEncoding", "SinusoidalPositionalEmbedding", "SinusoidalEmbedding"), "Sinusoidal"),
    **dict.fromkeys(("AbsolutePositionalEmbedding", "LearnedPositionalEmbedding"), "Learned"),
    **dict.fromkeys(("AlibiPositionalBias", "build_alibi_tensor"), "ALiBi"),
    "RelativePositionBias": "T5Bias",
    "FourierEmbedding": "FoPE",
    "FourierRotaryEmbedding": "FoPE",
    "PolarEmbedding": "PoPE",
    "scaled_dot_product_attention": "attention",
}  # fmt: skip

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'posenc' has no attribute {name!r}{_hint(name)}")
    if not _HOMES[name]:
        return importlib.import_module(f"posenc.{name}")
    value = getattr(importlib.import_module(f"posenc.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _hint(name: str) -> str:
    """Where a name is that is not here, or what was meant."""
    if name.startswith("__"):
        return ""
    from posenc.frequencies.arguments import nearest

    if name in _OF_OTHERS:
        return f"; it is posenc.{_OF_OTHERS[name]} here"
    homes = {each: home for home, names in _ELSEWHERE.items() for each in names.split()}
    if name in homes:
        return f"; it is {homes[name]}.{name}"
    near = nearest(name, homes | _HOMES_HERE)
    return "" if near is None else f"; did you mean {(homes | _HOMES_HERE)[near]}.{near}?"


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
