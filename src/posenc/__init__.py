"""Positional encodings for transformers: exact, fast, measured.

A position is written in frequencies and enters a transformer at one of three places: the embeddings, the
queries and keys, or the scores. Nothing is imported until a name is used, so ``import posenc`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posenc import testing  # noqa: F401
    from posenc.catalogue import from_dict as from_dict
    from posenc.catalogue import make as make
    from posenc.catalogue import names as names
    from posenc.compose import Compose as Compose
    from posenc.dot_product_attention import attention as attention
    from posenc.dot_product_attention import explain as explain
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
    from posenc.frequencies.geometric import Geometric as Geometric
    from posenc.frequencies.tensor2tensor import Tensor2Tensor as Tensor2Tensor
    from posenc.none import NoPE as NoPE
    from posenc.queries_keys.rope import RoPE as RoPE
    from posenc.scores.alibi import ALiBi as ALiBi
    from posenc.scores.cope import CoPE as CoPE
    from posenc.scores.deberta import DeBERTa as DeBERTa
    from posenc.scores.fire import FIRE as FIRE
    from posenc.scores.forgetting import Forgetting as Forgetting
    from posenc.scores.kerple import KERPLE as KERPLE
    from posenc.scores.sandwich import Sandwich as Sandwich
    from posenc.scores.shaw import Shaw as Shaw
    from posenc.scores.swin import SwinBias as SwinBias
    from posenc.scores.swin_v2 import SwinV2Bias as SwinV2Bias
    from posenc.scores.t5 import T5Bias as T5Bias
    from posenc.scores.transformer_xl import TransformerXL as TransformerXL
    from posenc.scores.tupe import TUPE as TUPE

__version__ = "0.1.0"

_HOMES = {
    "ALiBi": "scores.alibi",
    "Binary": "embeddings.binary",
    "CoPE": "scores.cope",
    "Compose": "compose",
    "ContextualEncoding": "encoding",
    "DeBERTa": "scores.deberta",
    "EmbeddingEncoding": "encoding",
    "Encoding": "encoding",
    "FIRE": "scores.fire",
    "Forgetting": "scores.forgetting",
    "Geometric": "frequencies.geometric",
    "Integer": "embeddings.integer",
    "KERPLE": "scores.kerple",
    "Learned": "embeddings.learned",
    "NoPE": "none",
    "Normalized": "embeddings.normalized",
    "QueryKeyEncoding": "encoding",
    "RoPE": "queries_keys.rope",
    "Sandwich": "scores.sandwich",
    "ScoreEncoding": "encoding",
    "Shaw": "scores.shaw",
    "Sinusoidal": "embeddings.sinusoidal",
    "SwinBias": "scores.swin",
    "SwinV2Bias": "scores.swin_v2",
    "T5Bias": "scores.t5",
    "TUPE": "scores.tupe",
    "Tensor2Tensor": "frequencies.tensor2tensor",
    "TransformerXL": "scores.transformer_xl",
    "attention": "dot_product_attention",
    "explain": "dot_product_attention",
    "from_dict": "catalogue",
    "make": "catalogue",
    "names": "catalogue",
    "testing": "",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'posenc' has no attribute {name!r}")
    if not _HOMES[name]:
        return importlib.import_module(f"posenc.{name}")
    value = getattr(importlib.import_module(f"posenc.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
