"""What a GGUF file says of its positional encoding."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from posenc import ALiBi, Compose, Learned, MRoPE, NoPE, RoPE, T5Bias, Temperature
from posenc.encoding import Encoding
from posenc.frequencies import Frequencies, Geometric
from posenc.integrations.gguf import architectures as of
from posenc.integrations.gguf.header import read_header
from posenc.integrations.gguf.rules import rule_of, stored_base, stored_local_base
from posenc.integrations.gguf.values import Values
from posenc.integrations.transformers import Description, LayerGroup
from posenc.integrations.transformers.description.model_types import INDEXER_BY_HALVES_NOTE, VALUES_ROTATE_NOTE
from posenc.scores import InklingBias

#: How it was read, in the words of a description.
READING = "the metadata of a GGUF file, and llama.cpp's code by architecture"


def describe(path: str | os.PathLike[str]) -> Description:
    """The encodings of a GGUF file, layer by layer, from its metadata, its lists of factors and its architecture.

    Raises:
        ImportError: gguf is not installed.
        TypeError: no path.
        ValueError: no such file, or a damaged one; an unknown architecture; missing keys, or values that no rule
            allows.
    """
    header = read_header(path)
    arch = str(header.metadata.get("general.architecture"))
    if arch in of.NO_ATTENTION:
        raise ValueError(f"{path} has the architecture {arch!r}: {of.NO_ATTENTION[arch]}.")
    if arch not in of.KNOWN:
        raise ValueError(f"{path} has the architecture {arch!r}, which posenc does not know.")
    values = Values(header, arch)
    heads, further = values.need("attention.head_count"), _further(values)
    count = values.need("block_count") - further
    longest = values.whole("context_length")
    layers = _with_attention(values, arch, count)
    plain = _without_rotation(values, arch, heads, count)
    if plain is not None:
        groups = [LayerGroup("", label, own, encoding, longest, longest) for label, own, encoding in plain(layers)]
    else:
        groups = _rotary(values, arch, heads, count, layers)
    unread = values.not_read()
    if further > 0:
        unread += (f"{arch}.nextn_predict_layers {further}: the blocks that predict further tokens are left out",)
    return Description(f"{arch} (GGUF)", tuple(groups), unread, READING)


def _further(values: Values) -> int:
    """How many of the last blocks predict further tokens: no layers of the model itself."""
    arch, further = values.arch, int(values.number("nextn_predict_layers", 0))
    probe = of.FURTHER_IF_STORED.get(arch)
    first = values.need("block_count") - further
    stored = probe is None or f"blk.{first}.{probe}" in values.header.tensors
    return further if stored and arch not in of.ALL_FURTHER else 0


def _rotary(values: Values, arch: str, heads: int, count: int, layers: tuple[int, ...]) -> list[LayerGroup]:
    longest = values.whole("context_length")
    # Latent attention is stored as it is computed, with the length of a key as it is meant beside it.
    head_dim = values.whole("attention.key_length_mla") or values.whole("attention.key_length")
    head_dim = head_dim or max(values.need("embedding_length") // heads, 1)
    if arch in of.PLAIN:
        values.any("rope.dimension_count")
        group = LayerGroup("", "", layers, RoPE(head_dim), longest, longest)
        return [group]
    stored_dim = values.whole("rope.dimension_count", head_dim)
    rotary_dim = stored_dim // 2 if arch in of.HALF_OF_STORED else stored_dim
    rule, trained, notes = rule_of(values, rotary_dim)
    if values.header.get("rope.scaling_beta") is not None and not isinstance(rule, Geometric):
        notes = (
            *notes,
            "as llama.cpp reads it; rope.scaling_beta is Ollama's, whose code divides all positions by the factor",
        )
    if arch in of.INDEXER_BY_HALVES:
        notes = (*notes, INDEXER_BY_HALVES_NOTE)
    layout, sections = _sections(values)
    latent = bool(values.number(of.COMPRESSED_IF_STORED[arch], 0)) if arch in of.COMPRESSED_IF_STORED else False

    def rotation(frequencies: Frequencies, width: int, rotated: int) -> Encoding:
        pairing: Any = "interleaved" if latent or arch in of.INTERLEAVED else "half"
        start = width - rotated if latent or arch in of.TRAILING else 0
        options: dict[str, Any] = {"frequencies": frequencies, "pairing": pairing, "rotary_dim": rotated}
        if layout is None:
            return _tempered(values, RoPE(width, rotary_start=start, **options))
        return MRoPE(width, sections=sections, layout=layout, rotary_start=start, **options)

    if latent or arch in of.COMPRESSED:
        stored = stored_base(values)
        plain = rotation(Geometric(10_000.0 if stored is None else float(stored)), head_dim, rotary_dim)
        return _by_ratio(values, layers, plain, lambda rates: rotation(rates, head_dim, rotary_dim), rotary_dim)
    windowed = _windowed(values, arch, layers, count)
    local = None if windowed is None else _local(values, rule, head_dim, stored_dim)
    if local == (rule, head_dim, rotary_dim):
        local = None
    kinds: dict[str, list[int]] = {}
    for layer in layers:
        kinds.setdefault(_kind(values, arch, layer, windowed, local is not None), []).append(layer)
    differ = len(kinds.keys() - {"unrotated"}) > 1
    groups = []
    for kind, chosen in kinds.items():
        if kind == "unrotated":
            encoding: Encoding = NoPE()
            if arch in of.TEMPERATURES:
                length, strength = of.TEMPERATURES[arch]
                encoding = Compose(encoding, Temperature("llama4", length=length, strength=strength))
            groups.append(LayerGroup("", "", tuple(chosen), encoding, longest, longest))
        elif kind == "sliding_attention" and local is not None:
            label = kind if differ else ""
            groups.append(LayerGroup("", label, tuple(chosen), rotation(*local), longest, longest))
        else:
            own = rotation(rule, head_dim, rotary_dim)
            groups.append(LayerGroup("", kind if differ else "", tuple(chosen), own, trained, longest, notes))
    return groups


def _by_ratio(
    values: Values,
    layers: tuple[int, ...],
    plain: Encoding,
    rotation: Callable[[Frequencies], Encoding],
    rotary_dim: int,
) -> list[LayerGroup]:
    """DeepSeek V4: the layers that compress their keys have a base of their own, and they alone are scaled."""
    path, longest = values.header.path, values.whole("context_length")
    ratios = values.any("attention.compress_ratios", [0] * len(layers) if values.arch not in of.COMPRESSED else None)
    if not isinstance(ratios, list) or len(ratios) < len(layers):
        raise ValueError(f"{path} has attention.compress_ratios {ratios!r}, expected a number for each block.")
    base = values.number("attention.compress_rope_freq_base")
    compressed = tuple(i for i in layers if ratios[i])
    others = tuple(i for i in layers if not ratios[i])
    groups = [LayerGroup("", "main" if compressed else "", others, plain, longest, longest)] if others else []
    if compressed:
        if base is None:
            raise ValueError(
                f"{path} has no attention.compress_rope_freq_base, expected the base of the layers whose "
                "compress_ratios is not 0."
            )
        rule, trained, notes = rule_of(values, rotary_dim, base=float(base))
        groups.append(LayerGroup("", "compress" if others else "", compressed, rotation(rule), trained, longest, notes))
    if values.arch in of.COMPRESSED:  # of the draft, this was not compared
        groups = [replace(group, notes=(*group.notes, VALUES_ROTATE_NOTE)) for group in groups]
    return sorted(groups, key=lambda group: group.layers[0])


def _sections(values: Values) -> tuple[Any, list[int]]:
    """The layout of several coordinates and the pairs of each, or None where the architecture or the file has one."""
    arch, path = values.arch, values.header.path
    if arch not in of.SECTIONS.keys() | of.SECTIONS_IF_GIVEN.keys():
        return None, []
    # Ollama's converter has other names for the key.
    named = [values.any(key) for key in ("rope.dimension_sections", "rope.mrope_section", "mrope_sections")]
    found = next((each for each in named if each is not None), None)
    if found is None and arch not in of.SECTIONS:
        return None, []
    if found is None:
        raise ValueError(f"{path} has no rope.dimension_sections, expected a list of widths.")
    if any(found[3:]):
        raise ValueError(f"{path} has rope.dimension_sections {found}, expected three numbers, or a fourth that is 0.")
    if arch not in of.SECTIONS and not all(found[:2]):
        return None, []
    return of.SECTIONS.get(arch) or of.SECTIONS_IF_GIVEN[arch], [int(each) for each in found[:3]]


def _local(values: Values, rule: Frequencies, head_dim: int, stored_dim: int) -> tuple[Frequencies, int, int] | None:
    """The rule of the layers with a window, the width of their heads and how much of it they rotate."""
    arch = values.arch
    width = values.whole("attention.key_length_mla_swa", values.whole("attention.key_length_swa", head_dim))
    rotated = values.whole("rope.dimension_count_swa", min(stored_dim, width))
    stored, others = stored_base(values), 10_000.0
    others = others if stored is None else float(stored)
    if arch in of.UNSCALED_AS_OTHERS:
        if values.header.get("rope.freq_base_swa") == stored:  # another one is named as not used
            stored_local_base(values)
        return Geometric(others), width, rotated
    if arch in of.LOCAL_BASE | dict.fromkeys(of.UNSCALED_LOCALLY, others):
        base = stored_local_base(values)
        return Geometric(float(of.LOCAL_BASE.get(arch, others) if base is None else base)), width, rotated
    if arch in of.SCALED_LOCALLY:
        base = stored_local_base(values)
        return (rule if base is None else rule_of(values, rotated, base=float(base))[0]), width, rotated
    return None


def _tempered(values: Values, encoding: Encoding) -> Encoding:
    """With the temperature by position that the file gives."""
    key = of.STORED_TEMPERATURES.get(values.arch)
    if key is None:
        return encoding
    # The second is Ollama's name.
    strength = values.number("attention.temperature_scale", values.number("rope.scaling_beta"))
    if not strength:
        return encoding
    length = values.whole(key, values.whole("context_length") if key.startswith("rope") else None)
    if length is None:
        raise ValueError(f"{values.header.path} has attention.temperature_scale and no {key}, expected both.")
    # The strength is stored in float32.
    return Compose(encoding, Temperature("mistral", length=length, strength=round(float(strength), 7)))


def _with_attention(values: Values, arch: str, count: int) -> tuple[int, ...]:
    """The layers that have attention: not those with no key heads, nor those between full attention."""
    recurrent = values.by_layer("attention.recurrent_layers", count) if arch in of.INTERVALS else None
    if isinstance(recurrent, list):
        return tuple(i for i, other in enumerate(recurrent[:count]) if not other)
    key_heads = values.by_layer("attention.head_count_kv", count)
    if isinstance(key_heads, list):
        return tuple(i for i, heads in enumerate(key_heads[:count]) if heads)
    if arch in of.INTERVALS:
        every = values.whole("full_attention_interval", of.INTERVALS[arch])
        return tuple(i for i in range(count) if (i + 1) % every == 0)
    return tuple(range(count))


def _windowed(values: Values, arch: str, layers: tuple[int, ...], count: int) -> dict[int, bool] | None:
    """Which layers have a sliding window; None if none has, or it is not known."""
    stored = values.by_layer("attention.sliding_window_pattern", count)
    window = values.number("attention.sliding_window")
    if window == 0 or (arch in of.WINDOWS_IF_LENGTH and window is None):
        return None
    if count != of.WINDOWS_AT_LAYERS.get(arch, count):
        return None
    if isinstance(stored, bool) and arch in of.STORED_WINDOWS:
        return dict.fromkeys(layers, stored)
    if isinstance(stored, list) and arch in of.WINDOWS.keys() | of.STORED_WINDOWS:
        return {i: bool(stored[i]) for i in layers}
    if arch in of.STORED_WINDOWS:
        raise ValueError(
            f"{values.header.path} has attention.sliding_window_pattern {stored!r}, expected a list that says for "
            "each layer whether it has a sliding window."
        )
    if arch not in of.WINDOWS:
        return None
    every, full = of.WINDOWS[arch]
    if isinstance(stored, bool):
        raise ValueError(
            f"{values.header.path} has attention.sliding_window_pattern {stored!r}, expected the number of layers in a "
            "group, or a list that says for each layer whether it has a sliding window."
        )
    every = every if stored is None else int(stored)
    if every == 0:  # llama.cpp's set_swa_pattern
        return dict.fromkeys(layers, True)
    return {i: i % every != (0 if full == "first" else every - 1) for i in layers}


def _kind(values: Values, arch: str, layer: int, windowed: dict[int, bool] | None, differs: bool) -> str:
    if arch in of.FINETUNED_MEANS_ROTATED and values.any("rope.scaling.finetuned") is False:
        return "unrotated"
    to_image = values.any("attention.cross_attention_layers", []) if arch == "mllama" else []
    if layer in to_image:
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
        dense = int(values.number("leading_dense_block_count", 0)) if arch == "cohere2moe" else 0
        return "full_attention" if layer < dense else "unrotated"
    return "sliding_attention" if windowed.get(layer, False) and differs else "full_attention"


def _skips(values: Values, arch: str) -> bool:
    if arch not in of.NO_ROTATION_IF_WINDOW:
        return True
    window = values.number("attention.sliding_window")
    return bool(window) or (window is None and arch == "llama4")


def _without_rotation(
    values: Values, arch: str, heads: int, count: int
) -> Callable[[tuple[int, ...]], list[tuple[str, tuple[int, ...], Encoding]]] | None:
    """What makes (label, layers, encoding) of the layers, of an architecture that does not rotate."""
    if arch in of.T5:
        return lambda layers: _t5(values, arch, heads, layers)
    if arch in of.PROFILES:
        return lambda layers: _profiles(values, arch, heads, layers, count)
    encoding: Encoding
    if arch in of.ALIBI or count == of.ALIBI_AT_LAYERS.get(arch):
        bias = values.number("attention.max_alibi_bias", 0.0 if arch in of.ALIBI_IF_STORED else 8.0)
        if bias == 0 and arch in of.ALIBI_IF_STORED:
            encoding = _table(values) if "position_embd.weight" in values.header.tensors else NoPE()
        elif not 0 < bias <= 1024:
            raise ValueError(
                f"{values.header.path}: attention.max_alibi_bias is {bias:g}, expected a number above 0; most models "
                "have 8."
            )
        else:
            encoding = ALiBi(heads, max_bias=bias)
    elif arch in of.TABLES:
        encoding = _table(values)
    elif arch in of.UNROTATED:
        encoding = NoPE()
    else:
        return None
    return lambda layers: [("", layers, encoding)]


def _t5(values: Values, arch: str, heads: int, layers: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], Encoding]]:
    buckets = values.whole("attention.relative_buckets_count", 32)
    found: list[tuple[str, tuple[int, ...], Encoding]] = []
    decoders = tuple(range(values.whole("decoder_block_count", len(layers)))) if arch == "t5" else ()
    for label, own, direction in (("encoder", layers, "both"), ("decoder", decoders, "causal")):
        with torch.device("meta"):  # its rows are not read
            bias = T5Bias(heads, num_buckets=buckets, max_distance=128, direction=direction, scale="none")  # type: ignore[arg-type]
        found += [(label, own, bias)] if own else []
    return found


def _profiles(
    values: Values, arch: str, heads: int, layers: tuple[int, ...], count: int
) -> list[tuple[str, tuple[int, ...], Encoding]]:
    """Inkling: profiles of another reach where there is a window, and scores that grow where there is none."""
    dim, rank = values.need("embedding_length"), values.need("d_rel")
    windowed = _windowed(values, arch, layers, count) or {}
    start, strength = values.number("log_scaling_n_floor", 0), values.number("log_scaling_alpha")
    if start and strength is None:
        raise ValueError(f"{values.header.path} has log_scaling_n_floor and no log_scaling_alpha, expected both.")
    found: list[tuple[str, tuple[int, ...], Encoding]] = []
    for label, key in (("sliding_attention", "rel_extent_swa"), ("full_attention", "rel_extent")):
        own = tuple(i for i in layers if windowed.get(i, False) == (label == "sliding_attention"))
        if own:
            with torch.device("meta"):  # its weights are not read
                encoding: Encoding = InklingBias(dim, heads, rank=rank, extent=values.need(key))
            if label == "full_attention" and start and strength:
                # The strength is stored in float32.
                factor = Temperature("inkling", length=int(start), strength=round(float(strength), 7))
                encoding = Compose(encoding, factor)
            found.append((label, own, encoding))
    return found


def _table(values: Values) -> Encoding:
    length, dim = values.need("context_length"), values.need("embedding_length")
    with torch.device("meta"):  # its rows are not read
        return Learned(dim, length=length)
