"""What a GGUF file says of its positional encoding."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posenc import ALiBi, Compose, Learned, MRoPE, NoPE, RoPE, T5Bias, Temperature
from posenc.encoding import Encoding
from posenc.frequencies import Custom, Frequencies, Geometric, Linear, LongRoPE, YaRN
from posenc.integrations.gguf import architectures as of
from posenc.integrations.gguf.header import Header, read_header
from posenc.integrations.transformers import Description, LayerGroup
from posenc.integrations.transformers.description.config import bears_on_positions

#: How it was read, in the words of a description.
READING = "the metadata of a GGUF file, and llama.cpp's code by architecture"


class _Values:
    """The metadata of an architecture, by the types that they have to have; what was not asked for is named."""

    def __init__(self, header: Header, arch: str) -> None:
        self.header, self.arch = header, arch
        self.asked: set[str] = set()

    def any(self, key: str, default: Any = None) -> Any:
        self.asked.add(f"{self.arch}.{key}")
        return self.header.get(key, default)

    def number(self, key: str, default: Any = None) -> Any:
        """A number; of a list with one for each layer, the largest."""
        found = self.any(key)
        if isinstance(found, list) and found and all(_is_number(each) for each in found):
            found = max(found)
        if found is None:
            return default
        if not _is_number(found):
            raise self._wrong(key, found, "a number")
        return found

    def whole(self, key: str, default: int | None = None) -> Any:
        """A whole number above 0, or the default where there is none."""
        found = self.number(key)
        if found is None:
            return default
        if found != int(found) or found < 1:
            raise self._wrong(key, found, "a whole number above 0")
        return int(found)

    def need(self, key: str) -> int:
        found: int | None = self.whole(key)
        if found is None:
            raise ValueError(f"{self.header.path} has no {key}, expected it in its metadata.")
        return found

    def not_read(self) -> tuple[str, ...]:
        """The keys that bear on positions and were not asked for."""
        return tuple(
            f"{key}: not used"
            for key, value in self.header.metadata.items()
            if key.startswith(f"{self.arch}.") and key not in self.asked and bears_on_positions(key) and value
        )

    def _wrong(self, key: str, found: Any, expected: str) -> ValueError:
        shown = repr(found)[:60]
        return ValueError(f"{self.header.path}: {key} is {shown}, expected {expected}; it was altered.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def describe(path: str | os.PathLike[str]) -> Description:
    """The encodings of a GGUF file, layer by layer, from its metadata, its lists of factors and its architecture.

    Raises:
        ImportError: gguf is not installed.
        ValueError: a damaged file; no architecture that is known here; missing keys, or values that no rule has.
    """
    header = read_header(path)
    arch = str(header.metadata.get("general.architecture"))
    if arch not in of.KNOWN:
        raise ValueError(f"{path} has the architecture {arch!r}, which is not known here.")
    values = _Values(header, arch)
    heads, count = values.need("attention.head_count"), values.need("block_count")
    longest = values.whole("context_length")
    layers = _with_attention(values, arch, count)
    plain = _without_rotation(values, arch, heads, count)
    if plain is not None:
        groups = [LayerGroup("", label, own, encoding, longest, longest) for label, own, encoding in plain(layers)]
    else:
        groups = _rotary(values, arch, heads, count, layers)
    unread = list(values.not_read())
    local = values.number("rope.freq_base_swa")
    if local is not None and _windowed(values, arch, layers, count) is None:
        unread.append(f"rope.freq_base_swa {local:g}: which layers have it is not known for {arch!r}")
    return Description(f"{arch} (GGUF)", tuple(groups), tuple(unread), READING)


def _rotary(values: _Values, arch: str, heads: int, count: int, layers: tuple[int, ...]) -> list[LayerGroup]:
    path, longest = values.header.path, values.whole("context_length")
    # Latent attention is stored as it is computed, with the length of a key as it is meant beside it.
    head_dim = values.whole("attention.key_length_mla") or values.whole("attention.key_length")
    head_dim = head_dim or max(values.need("embedding_length") // heads, 1)
    rotary_dim = values.whole("rope.dimension_count", head_dim)
    tensors = {name: values.header.numbers(name) for name in values.header.tensors if "rope_f" in name}
    rule, trained, notes = _rule(values, arch, tensors, rotary_dim, longest, path)
    sections = values.any("rope.dimension_sections")
    layout = of.SECTIONS.get(arch) or (of.SECTIONS_IF_GIVEN.get(arch) if sections and any(sections) else None)

    def rotation(frequencies: Frequencies, width: int, rotated: int) -> Encoding:
        pairing: Any = "interleaved" if arch in of.INTERLEAVED else "half"
        if layout is not None:
            if not isinstance(sections, list) or not all(_is_number(each) for each in sections):
                raise ValueError(f"{path} has rope.dimension_sections {sections!r}, expected a list of widths.")
            return MRoPE(
                width,
                sections=[int(each) for each in sections][:3],
                layout=layout,  # type: ignore[arg-type]
                frequencies=frequencies,
                pairing=pairing,
                rotary_dim=rotated,
            )
        start = width - rotated if arch in of.TRAILING else 0
        return RoPE(width, frequencies=frequencies, pairing=pairing, rotary_dim=rotated, rotary_start=start)

    windowed = _windowed(values, arch, layers, count)
    base = float(values.number("rope.freq_base", 10_000.0))
    local_base = values.number("rope.freq_base_swa", base if arch in of.UNSCALED_LOCALLY else of.LOCAL_BASE.get(arch))
    kinds: dict[str, list[int]] = {}
    for layer in layers:
        kinds.setdefault(_kind(values, arch, layer, windowed, local_base), []).append(layer)
    differ = len(kinds.keys() - {"unrotated"}) > 1
    groups = []
    for kind, chosen in kinds.items():
        if kind == "unrotated":
            encoding: Encoding = NoPE()
            if arch in of.TEMPERATURES:
                length, strength = of.TEMPERATURES[arch]
                encoding = Compose(encoding, Temperature("llama4", length=length, strength=strength))
            groups.append(LayerGroup("", "", tuple(chosen), encoding, longest, longest))
        elif kind == "sliding_attention":
            width = values.whole("attention.key_length_swa", head_dim)
            local = rotation(Geometric(float(local_base)), width, values.whole("rope.dimension_count_swa", width))
            groups.append(LayerGroup("", kind if differ else "", tuple(chosen), local, longest, longest))
        else:
            own = rotation(rule, head_dim, rotary_dim)
            groups.append(LayerGroup("", kind if differ else "", tuple(chosen), own, trained, longest, notes))
    return groups


def _with_attention(values: _Values, arch: str, count: int) -> tuple[int, ...]:
    """The layers that have attention: not those with no key heads, nor those between full attention."""
    key_heads = values.any("attention.head_count_kv")
    if isinstance(key_heads, list):
        return tuple(i for i, heads in enumerate(key_heads[:count]) if heads)
    if arch in of.INTERVALS:
        every = values.whole("full_attention_interval", of.INTERVALS[arch])
        return tuple(i for i in range(count) if (i + 1) % every == 0)
    return tuple(range(count))


def _windowed(values: _Values, arch: str, layers: tuple[int, ...], count: int) -> dict[int, bool] | None:
    """Which layers have a sliding window; None if none has, or it is not known."""
    stored = values.any("attention.sliding_window_pattern")
    window = values.number("attention.sliding_window")
    if isinstance(stored, list):
        return {i: bool(stored[i]) for i in layers if i < len(stored)}
    if arch not in of.WINDOWS or window == 0:
        return None
    if arch in ("exaone4", "olmo2", "laguna", "smallthinker") and window is None:
        return None  # only some of their files have windows
    every, full = of.WINDOWS[arch]
    every = int(stored) if isinstance(stored, int) and stored > 0 else every
    return {i: i % every != (0 if full == "first" else every - 1) for i in layers}


def _kind(values: _Values, arch: str, layer: int, windowed: dict[int, bool] | None, local_base: Any) -> str:
    if arch in of.FINETUNED_MEANS_ROTATED and values.any("rope.scaling.finetuned") is False:
        return "unrotated"
    rotated = values.any("attention.rope_pattern") if arch == "granite_swa" else None
    if isinstance(rotated, list) and layer < len(rotated) and not rotated[layer]:
        return "unrotated"
    if arch in of.NO_ROTATION_EVERY:
        every, which = of.NO_ROTATION_EVERY[arch]
        if layer % every == (0 if which == "first" else every - 1) and _skips(values, arch):
            return "unrotated"
    if windowed is None:
        return "full_attention"
    if arch in of.ROTATED_IF_WINDOWED and not windowed.get(layer, False):
        dense = values.whole("leading_dense_block_count", 0) if arch == "cohere2moe" else 0
        return "full_attention" if layer < dense else "unrotated"
    return "sliding_attention" if windowed.get(layer, False) and local_base is not None else "full_attention"


def _skips(values: _Values, arch: str) -> bool:
    if arch not in of.NO_ROTATION_IF_WINDOW:
        return True
    window = values.number("attention.sliding_window")
    return bool(window) or (window is None and arch == "llama4")


def _without_rotation(
    values: _Values, arch: str, heads: int, count: int
) -> Callable[[tuple[int, ...]], list[tuple[str, tuple[int, ...], Encoding]]] | None:
    """What makes (label, layers, encoding) of the layers, of an architecture that does not rotate."""
    if arch in of.T5:
        return lambda layers: _t5(values, arch, heads, layers)
    encoding: Encoding
    if arch in of.ALIBI or count == of.ALIBI_AT_LAYERS.get(arch):
        bias = values.number("attention.max_alibi_bias", 8.0)
        if bias == 0 and arch == "mpt":
            encoding = _table(values)
        elif bias != 8:
            raise ValueError(f"{values.header.path}: attention.max_alibi_bias is {bias:g}, expected 8.")
        else:
            encoding = ALiBi(heads)
    elif arch in of.TABLES:
        encoding = _table(values)
    elif arch in of.UNROTATED:
        encoding = NoPE()
    else:
        return None
    return lambda layers: [("", layers, encoding)]


def _t5(values: _Values, arch: str, heads: int, layers: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], Encoding]]:
    buckets = values.whole("attention.relative_buckets_count", 32)
    found: list[tuple[str, tuple[int, ...], Encoding]] = []
    decoders = tuple(range(values.whole("decoder_block_count", len(layers)))) if arch == "t5" else ()
    for label, own, direction in (("encoder", layers, "both"), ("decoder", decoders, "causal")):
        with torch.device("meta"):  # its rows are not read
            bias = T5Bias(heads, num_buckets=buckets, max_distance=128, direction=direction, scale="none")  # type: ignore[arg-type]
        found += [(label, own, bias)] if own else []
    return found


def _table(values: _Values) -> Encoding:
    length, dim = values.need("context_length"), values.need("embedding_length")
    with torch.device("meta"):  # its rows are not read
        return Learned(dim, length=length)


def _rule(
    values: _Values, arch: str, tensors: dict[str, Any], rotary_dim: int, longest: int | None, path: Path
) -> tuple[Frequencies, int | None, tuple[str, ...]]:
    stored = values.number("rope.freq_base")
    base = float(10_000.0 if stored is None else stored)
    factor = float(values.number("rope.scaling.factor", values.number("rope.scale_linear", 1.0)) or 1.0)
    kind = str(values.any("rope.scaling.type", "linear" if factor != 1 else "none"))
    trained = values.whole("rope.scaling.original_context_length", longest)
    notes: tuple[str, ...] = () if stored is not None else ("no base is stored: 10000 is understood",)
    if "rope_freqs.weight" in tensors:
        factors = tensors["rope_freqs.weight"][: rotary_dim // 2]
        if len(factors) < rotary_dim // 2 or not (np.isfinite(factors) & (factors > 0)).all():
            raise ValueError(
                f"{path}: rope_freqs.weight holds {len(factors)} from {factors.min(initial=np.inf):g}, "
                f"expected {rotary_dim // 2} numbers above 0; the file was altered."
            )
        rates = Geometric(base).inv_freq(rotary_dim) / factors
        rates = np.where(factors >= 1e29, 0.0, rates)  # how Gemma 4 says that a pair stands still
        return Custom(rates.tolist()), trained, (*notes, f"base {base:g}, each rate divided by a stored factor")
    if "rope_factors_long.weight" in tensors and "rope_factors_short.weight" in tensors:
        lists = [tensors[f"rope_factors_{name}.weight"].tolist() for name in ("short", "long")]
        attention = values.number("rope.scaling.attn_factor")
        if trained is None:
            raise ValueError(f"{path} has no rope.scaling.original_context_length, expected it.")
        rule = LongRoPE(
            *lists,
            trained_length=trained,
            factor=max(1.0, (longest or trained) / trained),
            base=base,
            attention_factor=None if attention is None else float(attention),  # type: ignore[arg-type]
        )
        return rule, trained, notes
    if kind == "yarn":
        options: dict[str, Any] = {
            name: float(found)
            for name, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow"))
            if (found := values.number(f"rope.scaling.{key}")) is not None
        }
        if (weight := values.number("rope.scaling.yarn_log_multiplier")) is not None:
            if arch in of.RAISES_SCORES:
                options |= {"mscale": 10 * float(weight), "mscale_all_dim": 10 * float(weight)}
            else:
                notes += (f"yarn_log_multiplier {float(weight):g}: not used",)
        if trained is None:
            raise ValueError(f"{path} has no rope.scaling.original_context_length, expected it.")
        return YaRN(factor, trained_length=trained, base=base, **options), trained, notes
    if kind == "linear" and factor != 1:
        return Linear(factor, base=base), trained, notes
    if kind not in ("none", "linear"):
        raise ValueError(f"{path} has rope.scaling.type {kind!r}, expected none, linear, yarn or longrope.")
    return Geometric(base), trained, notes
