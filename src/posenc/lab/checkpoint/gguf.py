"""What a GGUF file says of its positional encoding."""

from pathlib import Path
from typing import Any

import numpy as np

from posenc import MRoPE, RoPE
from posenc.frequencies import Custom, Frequencies, Geometric, Linear, LongRoPE, YaRN
from posenc.integrations.transformers import Description, LayerGroup
from posenc.lab.checkpoint.gguf_header import read_gguf


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Architectures whose query and key weights are stored for pairs (2c, 2c + 1).
INTERLEAVED = _names("""
    arcee arctic baichuan bailingmoe chameleon chatglm cohere2 command-r deci deepseek deepseek2 ernie4_5 ernie4_5-moe
    glm4 granite granitehybrid granitemoe internlm2 llada llama llama4 minicpm mistral3 mistral4 neo-bert olmo plm
    smollm3 starcoder xverse
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
SECTIONS = {"qwen2vl": "chunked", "paddleocr": "chunked", "qwen3vl": "interleaved", "qwen3vlmoe": "interleaved"}


def describe_gguf(path: Path) -> Description:
    """The encoding of a GGUF file, from its metadata and its lists of factors. Needs the package ``gguf``.

    Raises:
        RunError: gguf is not installed; a damaged file.
        ValueError: no rotary architecture that is known here; missing keys, or values that no rule has.
    """
    header = read_gguf(path)
    arch = str(header.metadata.get("general.architecture"))
    if arch not in INTERLEAVED | HALF | SECTIONS.keys():
        raise ValueError(f"inspect: {path} has the architecture {arch!r}, which is no rotary one that is known here.")

    def value(key: str, default: Any = None) -> Any:
        return header.get(key, default)

    heads = _need(value("attention.head_count"), "attention.head_count", path)
    heads = max(heads, default=0) if isinstance(heads, list) else heads  # 0 in layers without attention
    if heads < 1:
        raise ValueError(f"inspect: {path}: attention.head_count is {heads}, expected at least 1; it was altered.")
    head_dim = int(value("attention.key_length") or _need(value("embedding_length"), "embedding_length", path) // heads)
    rotary_dim = int(value("rope.dimension_count", head_dim))
    layers = tuple(range(int(_need(value("block_count"), "block_count", path))))
    longest = value("context_length")
    tensors = {name: header.numbers(name) for name in header.tensors if "rope_f" in name}
    rule, trained, notes = _rule(value, tensors, rotary_dim, longest, path)
    if arch in SECTIONS:
        sections = [int(width) for width in _need(value("rope.dimension_sections"), "rope.dimension_sections", path)]
        encoding: RoPE | MRoPE = MRoPE(
            head_dim,
            sections=sections[:3],
            layout=SECTIONS[arch],  # type: ignore[arg-type]
            frequencies=rule,
            rotary_dim=rotary_dim,
        )
    else:
        start = head_dim - rotary_dim if arch == "deepseek2" else 0
        encoding = RoPE(
            head_dim,
            frequencies=rule,
            pairing="interleaved" if arch in INTERLEAVED else "half",
            rotary_dim=rotary_dim,
            rotary_start=start,
        )
    local = value("rope.freq_base_swa")
    if local is not None:
        notes += (f"layers with a sliding window have base {float(local):g}",)
    group = LayerGroup("", "", layers, encoding, trained, longest, notes)
    return Description(f"{arch} (GGUF)", (group,))


def _rule(
    value: Any, tensors: dict[str, Any], rotary_dim: int, longest: int | None, path: Path
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
            notes += (f"yarn_log_multiplier {float(weight):g}: a temperature of the model besides",)
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
