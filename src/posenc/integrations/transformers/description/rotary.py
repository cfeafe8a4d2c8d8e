"""Rotary models whose configs have no rotary parameters, or mean them in a way of their own."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from posenc import AxialRoPE, MRoPE, NoPE, RoPE
from posenc.encoding import Encoding
from posenc.frequencies import Custom, Geometric
from posenc.integrations.transformers.description.config import need, size
from posenc.integrations.transformers.description.model_types import NO_ATTENTION

#: (kind, layers, encoding, trained length, notes)
Found: TypeAlias = tuple[str, tuple[int, ...], Encoding, int | None, tuple[str, ...]]
Reader: TypeAlias = Callable[[Mapping[str, Any]], list[Found] | None]


def _layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(range(int(need(config, "num_layers"))))


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(need(config, "hidden_size") // need(config, "num_heads"))


def _gptj(config: Mapping[str, Any]) -> list[Found]:
    head_dim = _head_dim(config)
    rope = RoPE(head_dim, pairing="interleaved", rotary_dim=config.get("rotary_dim") or head_dim)
    return [("", _layers(config), rope, size(config, "max_positions"), ("the base is fixed in the code",))]


def _roformer(config: Mapping[str, Any]) -> list[Found]:
    rope = RoPE(_head_dim(config), pairing="interleaved")
    notes = ("the base is fixed in the code", *(("values are rotated too",) if config.get("rotary_value") else ()))
    return [("", _layers(config), rope, size(config, "max_positions"), notes)]


def _clvp(config: Mapping[str, Any]) -> list[Found]:
    if not config.get("use_rotary_embedding"):
        return [("", _layers(config), NoPE(), None, ())]
    rotary_dim = max(config["projection_dim"] // (2 * config["num_attention_heads"]), 32)
    rope = RoPE(_head_dim(config), rotary_dim=rotary_dim)
    return [("", _layers(config), rope, None, ("values are rotated too", "the base is fixed in the code"))]


def _conformer(config: Mapping[str, Any]) -> list[Found] | None:
    if config.get("position_embeddings_type") != "rotary":
        return None  # Transformer-XL's or Shaw's relative positions, or none
    rope = RoPE(_head_dim(config), frequencies=Geometric(float(config["rotary_embedding_base"])))
    notes = ("it turns the hidden states before the projections, not queries and keys",)
    return [("", _layers(config), rope, config.get("max_source_positions"), notes)]


def _moonshine(config: Mapping[str, Any]) -> list[Found]:
    parameters = config["rope_parameters"]
    found: list[Found] = []
    for kind in ("encoder", "decoder"):
        head_dim = config["hidden_size"] // config[f"{kind}_num_attention_heads"]
        rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        rope = RoPE(
            head_dim,
            frequencies=Geometric(parameters["rope_theta"]),
            pairing="interleaved",
            rotary_dim=rotary_dim,
        )
        layers = tuple(range(config[f"{kind}_num_hidden_layers"]))
        found.append((kind, layers, rope, size(config, "max_positions"), ()))
    return found


def _efficientloftr(config: Mapping[str, Any]) -> list[Found]:
    parameters = config["rope_parameters"]
    dim = config["hidden_size"]
    rope = AxialRoPE(dim, frequencies=Geometric(parameters["rope_theta"]), layout="interleaved_alternating")
    notes = ("rows and columns count from 1", "it turns all channels together, before they are split into heads")
    return [("", tuple(range(config["num_attention_layers"])), rope, None, notes)]


def _esmfold2_atoms(config: Mapping[str, Any]) -> list[Found]:
    head_dim = _head_dim(config) if config.get("head_dim") is None else int(config["head_dim"])
    of_axis, of_uid = config["num_spatial_rope_pairs_per_axis"], config["num_uid_rope_pairs"]
    idle = head_dim // 2 - 3 * of_axis - of_uid
    spatial = [float(config["spatial_rope_base_frequency"]) ** (-i / of_axis) for i in range(of_axis)]
    identity = [float(config["uid_rope_base_frequency"]) ** (-i / of_uid) for i in range(of_uid)]
    sections = (of_axis, of_axis, of_axis, of_uid + idle)
    rope = MRoPE(
        head_dim,
        sections=sections,
        layout=[axis for axis, width in enumerate(sections) for _ in range(width)],
        frequencies=Custom([*spatial * 3, *identity, *[0.0] * idle]),
    )
    return [("", _layers(config), rope, None, ("coordinates are x, y, z in angstrom and the residue's number",))]


def _vjepa2(config: Mapping[str, Any]) -> list[Found]:
    head_dim = _head_dim(config)
    rope = AxialRoPE(head_dim, axes=3, layout="interleaved", rotary_dim=3 * 2 * (head_dim // 3 // 2))
    note = (
        "what was meant: the model's tables repeat by halves where its pairs are neighbours, so that the two channels "
        "of a pair turn by different angles, which is no rotation"
    )
    return [("", _layers(config), rope, None, (note,))]


def _musicflamingo(config: Mapping[str, Any]) -> list[Found]:
    raise ValueError(
        "describe: 'musicflamingo' turns channels by angles that are products of a token's time and its position, "
        "which is no encoding of posenc; the parts of the config have encodings of their own, so describe those."
    )


def _lightglue(config: Mapping[str, Any]) -> list[Found]:
    raise ValueError(
        "describe: 'lightglue' turns channels by a learned linear map of a keypoint's x and y, the same for all heads, "
        "which is no encoding of posenc; MixedRoPE has one for each head."
    )


def _seamless(config: Mapping[str, Any]) -> list[Found] | None:
    speech = {**config, "num_attention_heads": config["speech_encoder_attention_heads"]}
    found = _conformer({**speech, "num_hidden_layers": config["speech_encoder_layers"]})
    return found and [("speech_encoder", *found[0][1:])]


def reader_of(config: Mapping[str, Any]) -> Reader | None:
    """The reader for a config, by its model type, or by its keys where parts of models have none."""
    if "num_spatial_rope_pairs_per_axis" in config:
        return _esmfold2_atoms
    return READERS.get(str(config.get("model_type")))


def _without(config: Mapping[str, Any]) -> list[Found]:
    types = config.get("layer_types") or config.get("layers_block_type")
    chosen = [i for i, kind in enumerate(types) if kind not in NO_ATTENTION] if types else list(_layers(config))
    return [("", tuple(chosen), NoPE(), size(config, "max_positions"), ())]


def _granitemoehybrid(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("position_embedding_type") == "rope" else _without(config)


def _zamba2(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("use_mem_rope") else _without(config)


READERS: dict[str, Reader] = {
    **dict.fromkeys(("gptj", "codegen"), _gptj),
    "roformer": _roformer,
    "clvp_encoder": _clvp,
    **dict.fromkeys(("wav2vec2-conformer", "wav2vec2-bert"), _conformer),
    "moonshine": _moonshine,
    "efficientloftr": _efficientloftr,
    "lightglue": _lightglue,
    "seamless_m4t": _seamless,
    "musicflamingo": _musicflamingo,
    "vjepa2": _vjepa2,
    "granitemoehybrid": _granitemoehybrid,
    "zamba2": _zamba2,
    **dict.fromkeys(("glm5_next_text", "jamba", "kimi_linear", "nemotron_h", "zamba"), _without),
}
