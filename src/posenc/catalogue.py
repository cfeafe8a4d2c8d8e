"""The catalogue: every encoding, its place in the model, and its source. It imports torch only to make one."""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from posenc.frequencies.arguments import check_names

if TYPE_CHECKING:
    from posenc.encoding import Encoding


@dataclass(frozen=True)
class Row:
    """One encoding: its name, its class as ``module:Class`` below posenc, its place, what it does, and its source."""

    name: str
    home: str
    place: Literal["none", "embeddings", "queries_keys", "scores"]
    summary: str
    paper: str
    where: str
    year: int

    def load(self) -> "type[Encoding]":
        """The class."""
        return _load(self.home)


_FLEETWOOD = "Fleetwood, You could have designed state of the art positional encoding"

# fmt: off
CATALOGUE: tuple[Row, ...] = (
    Row("none",       "none:NoPE",                        "none",         "no encoding; the causal mask shows the order", "arXiv:2203.16634", "section 3",     2022),
    Row("integer",    "embeddings.integer:Integer",       "embeddings",   "the position itself on every channel",         _FLEETWOOD,         "Integer",       2024),
    Row("normalized", "embeddings.normalized:Normalized", "embeddings",   "the position as a share of a length",          _FLEETWOOD,         "Integer",       2024),
    Row("binary",     "embeddings.binary:Binary",         "embeddings",   "the position in binary digits",                _FLEETWOOD,         "Binary",        2024),
    Row("sinusoidal", "embeddings.sinusoidal:Sinusoidal", "embeddings",   "sines and cosines of many wavelengths",        "arXiv:1706.03762", "section 3.5",   2017),
    Row("sinusoidal_grid", "embeddings.sinusoidal_grid:SinusoidalGrid", "embeddings", "sines and cosines of each coordinate of a grid", "arXiv:2111.06377", "appendix A.1", 2021),
    Row("fourier",    "embeddings.fourier:FourierFeatures", "embeddings", "cosines and sines along random directions",    "arXiv:2006.10739", "section 6",     2020),
    Row("timesteps",  "embeddings.timesteps:Timesteps",   "embeddings",   "the time of a diffusion as a sinusoidal code", "arXiv:2006.11239", "appendix B",    2020),
    Row("learned",    "embeddings.learned:Learned",       "embeddings",   "a table with a learned row for each position", "arXiv:1705.03122", "section 3.1",   2017),
    Row("learned_grid", "embeddings.learned_grid:LearnedGrid", "embeddings", "a table with a learned row for each patch",  "arXiv:2010.11929", "equation 1",    2020),
    Row("rope",       "queries_keys.rope:RoPE",           "queries_keys", "the position rotates pairs of channels",       "arXiv:2104.09864", "equation 34",   2021),
    Row("xpos",       "queries_keys.xpos:XPos",           "queries_keys", "a rotation; scores fall with the distance",    "arXiv:2212.10554", "section 3.2",   2022),
    Row("axial",      "queries_keys.axial:AxialRoPE",     "queries_keys", "each coordinate of a grid rotates its pairs",  "arXiv:2403.13298", "section 3.2",   2024),
    Row("mrope",      "queries_keys.mrope:MRoPE",         "queries_keys", "time, height and width share one RoPE",        "arXiv:2409.12191", "section 2.1",   2024),
    Row("mixed",      "queries_keys.mixed:MixedRoPE",     "queries_keys", "a rotation along learned image directions",    "arXiv:2403.13298", "section 3.3",   2024),
    Row("fope",       "queries_keys.fope:FoPE",           "queries_keys", "cos and sin are sums of many frequencies",     "arXiv:2412.17739", "section 4",     2024),
    Row("pope",       "queries_keys.pope:PoPE",           "queries_keys", "content sets magnitudes, position sets angles","arXiv:2509.10534", "section 3",     2025),
    Row("shaw",           "scores.shaw:Shaw",                   "scores",       "a learned vector for each near distance",        "arXiv:1803.02155", "equations 3, 4",  2018),
    Row("transformer_xl", "scores.transformer_xl:TransformerXL", "scores",      "a sinusoidal code of the distance as a second key", "arXiv:1901.02860", "section 3.3",  2019),
    Row("t5",             "scores.t5:T5Bias",                   "scores",       "a learned number for each bucket of distances",  "arXiv:1910.10683", "section 2.1",     2019),
    Row("deberta",        "scores.deberta:DeBERTa",             "scores",       "vectors of the distance times queries and keys", "arXiv:2006.03654", "equation 4",      2020),
    Row("tupe",           "scores.tupe:TUPE",                   "scores",       "the product of two projected position codes",     "arXiv:2006.15595", "equation 7",     2020),
    Row("swin",           "scores.swin:SwinBias",               "scores",       "a learned number for each offset in a window",   "arXiv:2103.14030", "equation 4",      2021),
    Row("swin_v2",        "scores.swin_v2:SwinV2Bias",          "scores",       "a network over log-spaced offsets in a window",  "arXiv:2111.09883", "equations 3, 4",  2021),
    Row("levit",          "scores.levit:LeViTBias",             "scores",       "a learned number for each |dy|, |dx| of a grid", "arXiv:2104.01136", "section 4.2",     2021),
    Row("decomposed",     "scores.decomposed:DecomposedBias",   "scores",       "queries times learned rows and columns of a grid", "arXiv:2112.01526", "section 4.1",    2021),
    Row("alibi",          "scores.alibi:ALiBi",                 "scores",       "a penalty that grows with the distance",         "arXiv:2108.12409", "section 3",       2022),
    Row("kerple",         "scores.kerple:KERPLE",               "scores",       "a learned kernel of the distance",               "arXiv:2205.09921", "equations 4, 5",  2022),
    Row("sandwich",       "scores.sandwich:Sandwich",           "scores",       "the product of two sinusoidal codes",            "arXiv:2212.10356", "section 5",       2022),
    Row("fire",           "scores.fire:FIRE",                   "scores",       "a network of the distance over the longest one", "arXiv:2310.04418", "equation 9",   2023),
    Row("cope",           "scores.cope:CoPE",                   "scores",       "queries count the tokens that matter to them",   "arXiv:2405.18719", "equations 3 to 6", 2024),
    Row("forgetting",     "scores.forgetting:Forgetting",       "scores",       "each token lowers the weight of earlier ones",   "arXiv:2503.02130", "section 3",       2025),
    Row("inkling",        "scores.inkling:InklingBias",         "scores",       "each query mixes learned profiles of distance",  "Inkling",          "model code",      2026),
    Row("temperature", "temperature:Temperature",         "none",         "a softmax that sharpens as the context grows", "Llama 4",          "model code",    2025),
    Row("ssmax",      "ssmax:SSMax",                      "none",         "a learned temperature for each head",          "arXiv:2501.19399", "section 3",     2025),
)
# fmt: on


def names() -> tuple[str, ...]:
    """The names that :func:`make` knows, from no encoding to relative ones."""
    return tuple(row.name for row in CATALOGUE)


#: What others call them, or a word of it.
OTHER_NAMES = {
    **dict.fromkeys(("absolute", "gpt2", "bert", "trainable"), "learned"),
    **dict.fromkeys(("rotary", "roformer", "su", "yarn", "ntk", "llama"), "rope"),
    **dict.fromkeys(("rope2d", "2d", "axialrope"), "axial"),
    **dict.fromkeys(("fourierrope", "fourierembedding"), "fope"),
    **dict.fromkeys(("polar", "polarrope"), "pope"),
    **dict.fromkeys(("sin", "cos", "sine", "cosine", "sincos", "sincos2d", "vaswani"), "sinusoidal"),
    **dict.fromkeys(("relative", "t5bias", "bucketed"), "t5"),
    **dict.fromkeys(("nope", "no"), "none"),
    **dict.fromkeys(("fox", "forget"), "forgetting"),
    **dict.fromkeys(("xl", "txl"), "transformer_xl"),
}


def row(name: str) -> Row:
    """The catalogue's row for a name; an error for an unknown name suggests the nearest known one."""
    if not isinstance(name, str):
        got = f"the class {name.__name__}" if isinstance(name, type) else f"a value of type {type(name).__name__}"
        raise TypeError(f'posenc: got {got} as the name of an encoding, expected a string, such as "rope".')
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    words = name.lower().replace("-", "_").split("_")
    alike = [OTHER_NAMES[word] for word in words if word in OTHER_NAMES] or [word for word in words if word in names()]
    near = alike[:1] or difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"posenc: no encoding is called {name!r}; {hint}expected one of {', '.join(names())}.")


def make(name: str, *, dim: int, num_heads: int, **options: Any) -> "Encoding":
    """The encoding of that name for a model of width ``dim`` with ``num_heads`` heads.

    Args:
        name: one of :func:`names`.
        dim: channels of the model; each head has dim / num_heads.
        num_heads: query heads.
        options: what else the class takes, such as ``length`` for "learned" or ``pairing`` for "rope".

    Raises:
        ValueError: an unknown name, with the nearest match; a dim that the heads do not divide.
        TypeError: an option that the class does not have, or lacks.

    Example:
        >>> make("rope", dim=512, num_heads=8).head_dim
        64
    """
    return build(row(name).load(), dim=dim, num_heads=num_heads, **options)


def build(cls: "type[Encoding]", *, dim: int, num_heads: int, **options: Any) -> "Encoding":
    """Make an encoding of any class, also a user's own, with those of dim, num_heads and head_dim that it has."""
    for size, value in (("dim", dim), ("num_heads", num_heads)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{cls.__name__}: got {size} {value!r}, expected a whole number.")
    if num_heads < 1 or dim < 1 or dim % num_heads:
        raise ValueError(
            f"{cls.__name__}: got dim {dim} for {num_heads} heads, expected 1 head or more and a dim that is a "
            "multiple of the number of heads."
        )
    known = {"dim": dim, "num_heads": num_heads, "head_dim": dim // num_heads}
    parameters = inspect.signature(cls).parameters
    if unknown := sorted(set(options) - set(parameters)):
        named = {key for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        takes = sorted(named - set(known))
        expected = f"one of {takes}" if takes else "none: it has no options"
        check_names(cls, options)  # a name of another library is answered with ours
        raise TypeError(f"{cls.__name__}: got the option {unknown[0]!r}, expected {expected}.")
    arguments = {key: value for key, value in known.items() if key in parameters} | options
    for key, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and key not in arguments and not variadic:
            raise TypeError(f"{cls.__name__}: the option {key!r} is missing; give {key}=...")
    return cls(**arguments)


def from_dict(data: Mapping[str, Any]) -> "Encoding":
    """The encoding that ``to_dict`` described, of any class of the catalogue."""
    if not isinstance(data, Mapping):
        raise TypeError(
            f"posenc: from_dict got a value of type {type(data).__name__}, expected a mapping with a name, as to_dict "
            "makes it."
        )
    homes = {entry.home.split(":")[1]: entry.home for entry in CATALOGUE}
    name = data.get("name")
    if not isinstance(name, str) or name not in homes:
        raise ValueError(
            f"posenc: from_dict got name {name!r}, expected one of {', '.join(homes)} or Compose; your own class has "
            "its own from_dict."
        )
    return _load(homes[name]).from_dict(data)


def _load(home: str) -> "type[Encoding]":
    module, cls = home.split(":")
    loaded: type[Encoding] = getattr(importlib.import_module(f"posenc.{module}"), cls)
    return loaded
