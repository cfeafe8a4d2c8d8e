"""What a GGUF file says of its positional encoding."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from posenc import ALiBi, Compose, Learned, MRoPE, NoPE, RoPE, Temperature
from posenc.encoding import Encoding
from posenc.frequencies import Custom, Frequencies, Geometric, Linear, LongRoPE, YaRN
from posenc.integrations.transformers import Description, LayerGroup
from posenc.lab.checkpoint.gguf_header import read_gguf

#: How it was read, in the words of a description.
READING = "the metadata of a GGUF file, and llama.cpp's code by architecture"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Architectures whose query and key weights are stored for pairs (2c, 2c + 1).
INTERLEAVED = _names("""
    arcee arctic baichuan bailingmoe chameleon chatglm cohere2 command-r deci deepseek deepseek2 ernie4_5 ernie4_5-moe
    glm4 granite granitehybrid granitemoe internlm2 llada llama llama4 minicpm mistral3 mistral4 neo-bert olmo plm
    smollm3 xverse
""")
#: And for pairs (c, c + rotated channels / 2).
HALF = _names("""
    afmoe apertus bailingmoe2 bitnet codeshell cogvlm dbrx dots1 dream eurobert exaone exaone-moe exaone4 falcon
    falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n glm4moe gpt-oss gptneox grok grovemoe hunyuan-dense
    hunyuan-moe jina-bert-v3 lfm2 lfm2moe llada-moe mimo2 minicpm3 minimax-m2 modern-bert nemotron nomic-bert
    nomic-bert-moe olmo2 olmoe openelm orion pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3 qwen qwen2 qwen2moe
    qwen3 qwen3moe qwen3next rnd1 seed_oss smallthinker stablelm starcoder2
""")
#: Several coordinates: the layout of :class:`posenc.MRoPE`.
SECTIONS = {
    **{"qwen2vl": "chunked", "paddleocr": "chunked"},
    **dict.fromkeys(("qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"), "interleaved"),
}
#: Tables with a row for each position, and biases by distance.
TABLES = _names("bert gpt2 starcoder")
ALIBI = _names("bloom jina-bert-v2 mpt")

#: llama.cpp's patterns of layers, which are in its code: of so many layers, the last (or the first) sees everything,
#: and the others have a sliding window.
WINDOWS: dict[str, tuple[int, Literal["first", "last"]]] = {
    **dict.fromkeys(("gemma3", "gemma-embedding"), (6, "last")),
    "gemma3n": (5, "last"),
    **dict.fromkeys(("afmoe", "cohere2", "exaone-moe", "exaone4"), (4, "last")),
    "modern-bert": (3, "first"),
}
#: Layers with a window have this base, and no scaling, where the file does not store one.
LOCAL_BASE = {"gemma3": 10_000.0, "gemma3n": 10_000.0, "gemma-embedding": 10_000.0, "modern-bert": 10_000.0}
#: Only layers with a window rotate.
ROTATED_IF_WINDOWED = _names("afmoe cohere2 exaone-moe exaone4")
#: The last of so many layers does not rotate.
UNROTATED = {"llama4": 4, "smollm3": 4}
#: Its layers without rotation have a temperature: length and strength.
TEMPERATURES = {"llama4": (8192, 0.1)}
#: The last of so many layers has attention, where the file does not say how many.
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
#: ``rope.scaling.yarn_log_multiplier`` is a tenth of DeepSeek's mscale_all_dim: it raises the softmax scale.
RAISES_SCORES = _names("deepseek2 mistral4")
#: ``rope.scaling.finetuned`` says whether there is any rotation.
FINETUNED_MEANS_ROTATED = _names("granite granitehybrid granitemoe")


def describe_gguf(path: Path) -> Description:
    """The encodings of a GGUF file, layer by layer, from its metadata, its lists of factors and its architecture.

    Raises:
        RunError: gguf is not installed; a damaged file.
        ValueError: no architecture that is known here; missing keys, or values that no rule has.
    """
    header = read_gguf(path)
    arch = str(header.metadata.get("general.architecture"))
    known = INTERLEAVED | HALF | SECTIONS.keys() | TABLES | ALIBI
    if arch not in known:
        raise ValueError(f"inspect: {path} has the architecture {arch!r}, which is not known here.")

    def value(key: str, default: Any = None) -> Any:
        return header.get(key, default)

    heads = _need(value("attention.head_count"), "attention.head_count", path)
    heads = max(heads, default=0) if isinstance(heads, list) else heads  # 0 in layers without attention
    if heads < 1:
        raise ValueError(f"inspect: {path}: attention.head_count is {heads}, expected at least 1; it was altered.")
    longest = value("context_length")
    layers = _with_attention(value, arch, int(_need(value("block_count"), "block_count", path)))
    if arch in TABLES | ALIBI:
        found = _not_rotary(value, arch, int(heads), path)
        return Description(f"{arch} (GGUF)", (LayerGroup("", "", layers, found, longest, longest),), (), READING)
    head_dim = int(value("attention.key_length") or _need(value("embedding_length"), "embedding_length", path) // heads)
    rotary_dim = int(value("rope.dimension_count", head_dim))
    tensors = {name: header.numbers(name) for name in header.tensors if "rope_f" in name}
    rule, trained, notes = _rule(value, arch, tensors, rotary_dim, longest, path)

    def rotation(frequencies: Frequencies) -> Encoding:
        if arch in SECTIONS:
            sections = _need(value("rope.dimension_sections"), "rope.dimension_sections", path)
            return MRoPE(
                head_dim,
                sections=[int(width) for width in sections][:3],
                layout=SECTIONS[arch],  # type: ignore[arg-type]
                frequencies=frequencies,
                rotary_dim=rotary_dim,
            )
        return RoPE(
            head_dim,
            frequencies=frequencies,
            pairing="interleaved" if arch in INTERLEAVED else "half",
            rotary_dim=rotary_dim,
            rotary_start=head_dim - rotary_dim if arch == "deepseek2" else 0,
        )

    local_base = value("rope.freq_base_swa", LOCAL_BASE.get(arch))
    windowed = _windowed(value, arch, layers)
    kinds: dict[str, list[int]] = {}
    for layer in layers:
        kinds.setdefault(_kind(value, arch, layer, windowed, local_base), []).append(layer)
    groups = []
    for kind, chosen in kinds.items():
        label = kind if len(kinds) > 1 and kind != "unrotated" and local_base is not None else ""
        if kind == "unrotated":
            encoding: Encoding = NoPE()
            if arch in TEMPERATURES:
                length, strength = TEMPERATURES[arch]
                encoding = Compose(encoding, Temperature("llama4", length=length, strength=strength))
            groups.append(LayerGroup("", "", tuple(chosen), encoding, longest, longest))
        elif kind == "sliding_attention" and local_base is not None:
            local = rotation(Geometric(float(local_base)))
            groups.append(LayerGroup("", label, tuple(chosen), local, longest, longest))
        else:
            groups.append(LayerGroup("", label, tuple(chosen), rotation(rule), trained, longest, notes))
    unread: tuple[str, ...] = ()
    if local_base is not None and windowed is None:
        unread = (f"rope.freq_base_swa {float(local_base):g}: which layers have it is not known for {arch!r}",)
    return Description(f"{arch} (GGUF)", tuple(groups), unread, READING)


def _with_attention(value: Any, arch: str, count: int) -> tuple[int, ...]:
    """The layers that have attention: not those with no key heads, nor those between full attention."""
    key_heads = value("attention.head_count_kv")
    if isinstance(key_heads, list):
        return tuple(i for i, heads in enumerate(key_heads[:count]) if heads)
    if arch in INTERVALS:
        every = int(value("full_attention_interval", INTERVALS[arch]))
        return tuple(i for i in range(count) if (i + 1) % max(every, 1) == 0)
    return tuple(range(count))


def _windowed(value: Any, arch: str, layers: tuple[int, ...]) -> dict[int, bool] | None:
    """Which layers have a sliding window; None if it is not known."""
    stored = value("attention.sliding_window_pattern")
    if isinstance(stored, list):
        return {i: bool(stored[i]) for i in layers if i < len(stored)}
    if arch not in WINDOWS or not value("attention.sliding_window", 1):
        return None
    if arch == "exaone4" and value("attention.sliding_window") is None:
        return None  # the small one has no windows, and rotates everywhere
    every, full = WINDOWS[arch]
    every = int(stored) if isinstance(stored, int) and stored > 0 else every
    return {i: i % every != (0 if full == "first" else every - 1) for i in layers}


def _kind(value: Any, arch: str, layer: int, windowed: dict[int, bool] | None, local_base: Any) -> str:
    if arch in FINETUNED_MEANS_ROTATED and value("rope.scaling.finetuned") is False:
        return "unrotated"
    if arch in UNROTATED and (layer + 1) % UNROTATED[arch] == 0:
        return "unrotated"
    if windowed is None:
        return "full_attention"
    if arch in ROTATED_IF_WINDOWED and not windowed.get(layer, False):
        return "unrotated"
    return "sliding_attention" if windowed.get(layer, False) and local_base is not None else "full_attention"


def _not_rotary(value: Any, arch: str, heads: int, path: Path) -> Encoding:
    if arch in ALIBI and (arch != "mpt" or value("attention.max_alibi_bias", 8.0)):
        return ALiBi(heads)
    length = int(_need(value("context_length"), "context_length", path))
    dim = int(_need(value("embedding_length"), "embedding_length", path))
    if length < 1 or dim < 1:
        raise ValueError(f"inspect: {path} has a table of {length} x {dim}, expected at least 1 each; it was altered.")
    with torch.device("meta"):  # its rows are not read
        return Learned(dim, length=length)


def _rule(
    value: Any, arch: str, tensors: dict[str, Any], rotary_dim: int, longest: int | None, path: Path
) -> tuple[Frequencies, int | None, tuple[str, ...]]:
    base = float(value("rope.freq_base", 10_000.0))
    factor = float(value("rope.scaling.factor", value("rope.scale_linear", 1.0)) or 1.0)
    kind = str(value("rope.scaling.type", "linear" if factor != 1 else "none"))
    trained = value("rope.scaling.original_context_length", longest)
    notes: tuple[str, ...] = () if value("rope.freq_base") is not None else ("no base is stored: 10000 is understood",)
    if "rope_freqs.weight" in tensors:
        factors = tensors["rope_freqs.weight"][: rotary_dim // 2]
        if len(factors) < rotary_dim // 2 or not (np.isfinite(factors) & (factors > 0)).all():
            raise ValueError(
                f"inspect: {path}: rope_freqs.weight holds {len(factors)} from {factors.min(initial=np.inf):g}, "
                f"expected {rotary_dim // 2} numbers above 0; the file was altered."
            )
        rates = Geometric(base).inv_freq(rotary_dim) / factors
        return Custom(rates.tolist()), trained, (*notes, f"base {base:g}, each rate divided by a stored factor")
    if "rope_factors_long.weight" in tensors:
        lists = [tensors[f"rope_factors_{name}.weight"].tolist() for name in ("short", "long")]
        attention = value("rope.scaling.attn_factor")
        rule = LongRoPE(
            *lists,
            trained_length=_need(trained, "rope.scaling.original_context_length", path),
            factor=max(1.0, (longest or trained) / trained),
            base=base,
            attention_factor=None if attention is None else float(attention),  # type: ignore[arg-type]
        )
        return rule, trained, notes
    if kind == "yarn":
        options: dict[str, Any] = {
            name: float(found)
            for name, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow"))
            if (found := value(f"rope.scaling.{key}")) is not None
        }
        if (weight := value("rope.scaling.yarn_log_multiplier")) is not None:
            if arch in RAISES_SCORES:
                options |= {"mscale": 10 * float(weight), "mscale_all_dim": 10 * float(weight)}
            else:
                notes += (f"yarn_log_multiplier {float(weight):g}: not used",)
        return YaRN(factor, trained_length=int(trained), base=base, **options), trained, notes
    if kind == "linear" and factor != 1:
        return Linear(factor, base=base), trained, notes
    if kind not in ("none", "linear"):
        raise ValueError(f"inspect: {path} has rope.scaling.type {kind!r}, expected none, linear, yarn or longrope.")
    return Geometric(base), trained, notes


def _need(found: Any, key: str, path: Path) -> Any:
    if found is None:
        raise ValueError(f"inspect: {path} has no {key}, expected it in its metadata.")
    return found
