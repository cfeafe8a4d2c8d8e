"""Rotary models whose configs have no rotary parameters, or mean them in a way of their own, by model type."""

from collections.abc import Mapping
from typing import Any

from posenc import AxialRoPE, Compose, MRoPE, NoPE, RoPE, Temperature
from posenc.encoding import Encoding
from posenc.frequencies import Custom, DynamicNTK, Geometric
from posenc.integrations.transformers.description.config import head_dim as _head_dim
from posenc.integrations.transformers.description.config import need, need_key, need_number, need_size, size
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.layers import all_layers as _layers
from posenc.integrations.transformers.description.layers import with_attention
from posenc.integrations.transformers.rules.read import read_rule


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
    rotary_dim = max(need_size(config, "projection_dim") // (2 * int(need(config, "num_heads"))), 32)
    rope = RoPE(_head_dim(config), rotary_dim=rotary_dim)
    return [("", _layers(config), rope, None, ("values are rotated too", "the base is fixed in the code"))]


def _conformer(config: Mapping[str, Any]) -> list[Found] | None:
    if config.get("position_embeddings_type") != "rotary":
        return None  # Transformer-XL's or Shaw's relative positions, or none
    rope = RoPE(_head_dim(config), frequencies=Geometric(float(need_key(config, "rotary_embedding_base"))))
    notes = ("it rotates the hidden states before the projections, not queries and keys",)
    return [("", _layers(config), rope, config.get("max_source_positions"), notes)]


def _moonshine(config: Mapping[str, Any]) -> list[Found]:
    parameters = need_key(config, "rope_parameters")
    rule = read_rule(
        parameters,
        where="describe: moonshine",
        base=None,
        max_positions=size(config, "max_positions"),
        trained_length=config.get("original_max_position_embeddings"),
    )
    found: list[Found] = []
    for kind in ("encoder", "decoder"):
        head_dim = config.get("head_dim") or need_key(config, "hidden_size") // config[f"{kind}_num_attention_heads"]
        rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        rope = RoPE(head_dim, frequencies=rule.frequencies, pairing="interleaved", rotary_dim=rotary_dim)
        layers = tuple(range(config[f"{kind}_num_hidden_layers"]))
        found.append((kind, layers, rope, rule.trained_length, rule.notes))
    return found


def _efficientloftr(config: Mapping[str, Any]) -> list[Found]:
    parameters = need_key(config, "rope_parameters")
    dim = need_key(config, "hidden_size")
    rope = AxialRoPE(dim, frequencies=Geometric(parameters["rope_theta"]), layout="interleaved_alternating")
    notes = ("rows and columns count from 1", "it rotates all channels together, before they are split into heads")
    return [("", tuple(range(need_key(config, "num_attention_layers"))), rope, None, notes)]


def _esmfold2_atoms(config: Mapping[str, Any]) -> list[Found]:
    head_dim = _head_dim(config)
    of_axis, of_uid = (need_size(config, key) for key in ("num_spatial_rope_pairs_per_axis", "num_uid_rope_pairs"))
    idle = head_dim // 2 - 3 * of_axis - of_uid
    spatial, identity = (
        [need_number(config, key) ** (-i / count) for i in range(count)]
        for key, count in (("spatial_rope_base_frequency", of_axis), ("uid_rope_base_frequency", of_uid))
    )
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
        "this is the intended encoding: the model's tables repeat by halves where its pairs are neighbours, so that "
        "the two channels of a pair turn by different angles, which is no rotation"
    )
    return [("", _layers(config), rope, None, (note,))]


def _musicflamingo(config: Mapping[str, Any]) -> list[Found]:
    raise ValueError(
        "describe: 'musicflamingo' rotates channels by angles that are products of a token's time and its position, "
        "and posenc has no such encoding; the parts of the config have encodings of their own, so describe the parts."
    )


def _lightglue(config: Mapping[str, Any]) -> list[Found]:
    raise ValueError(
        "describe: 'lightglue' rotates channels by a learned linear map of a keypoint's x and y, the same for all "
        "heads, and posenc has no such encoding; MixedRoPE has one map for each head."
    )


def _seamless(config: Mapping[str, Any]) -> list[Found] | None:
    speech = {**config, "num_attention_heads": need_key(config, "speech_encoder_attention_heads")}
    found = _conformer({**speech, "num_hidden_layers": need_key(config, "speech_encoder_layers")})
    return found and [("speech_encoder", *found[0][1:])]


def reader_of(config: Mapping[str, Any]) -> Reader | None:
    """The reader for a config, by its model type, or by its keys where parts of models have none."""
    if "num_spatial_rope_pairs_per_axis" in config:
        return _esmfold2_atoms
    return READERS.get(str(config.get("model_type")))


def _without(config: Mapping[str, Any]) -> list[Found]:
    # Some configs have them, and no code reads them; the last says as much.
    config.get("rope_theta"), config.get("rope_parameters"), config.get("mla_use_nope")
    return [("", with_attention(config), NoPE(), size(config, "max_positions"), ())]


def _by_head(config: Mapping[str, Any]) -> list[Found]:
    config.get("rope_theta"), config.get("rope_parameters")
    note = "its code turns each head by the head's number, queries and keys alike, which changes no product of them"
    return [("", _layers(config), NoPE(), size(config, "max_positions"), (note,))]


def _granitemoehybrid(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("position_embedding_type") == "rope" else _without(config)


def _zamba2(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("use_mem_rope") else _without(config)


def _nomic_bert(config: Mapping[str, Any]) -> list[Found] | None:
    """The config of the model's own code; transformers' class keeps its keys and reads none of them."""
    if config.get("rotary_emb_fraction") is None and config.get("rotary_emb_base") is None:
        return None
    width = config.get("n_embd") or need(config, "hidden_size")
    head_dim = int(width) // int(config.get("n_head") or need(config, "num_heads"))
    base = float(config.get("rotary_emb_base") or 10_000)
    fraction = config.get("rotary_emb_fraction")
    rotary_dim = int(head_dim * (1.0 if fraction is None else fraction))
    length = config.get("max_trained_positions")
    factor = config.get("rotary_scaling_factor")
    layers = tuple(range(int(config.get("n_layer") or need(config, "num_layers"))))
    notes = () if not factor else ("dynamic NTK: past the trained length all rates change with the length",)
    if not rotary_dim:
        return [("", layers, NoPE(), length, notes)]
    if factor and not length:
        raise ValueError("describe: rotary_scaling_factor needs max_trained_positions, the trained length; add it.")
    rope = RoPE(
        head_dim,
        frequencies=DynamicNTK(factor, trained_length=int(length), base=base) if factor and length else Geometric(base),
        pairing="interleaved" if config.get("rotary_emb_interleaved") else "half",
        rotary_dim=rotary_dim,
    )
    return [("", layers, rope, length or config.get("n_positions"), notes)]


def _qwen(config: Mapping[str, Any]) -> list[Found]:
    """Qwen 1, whose code is not in transformers. Its own dynamic NTK (``use_dynamic_ntk``) has no rule here."""
    head_dim = _head_dim(config)
    share = config.get("rotary_pct")
    length = int(config.get("seq_length") or need(config, "max_positions"))
    rope: Encoding = RoPE(
        head_dim,
        frequencies=Geometric(float(config.get("rotary_emb_base") or 10_000)),
        rotary_dim=int(head_dim * (1.0 if share is None else share)),
    )
    if config.get("use_logn_attn"):
        rope = Compose(rope, Temperature("log", length=length))
    return [("", _layers(config), rope, length, ())]


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
    "nomic_bert": _nomic_bert,
    "qwen": _qwen,
    **dict.fromkeys(("neucodec", "xcodec2"), _by_head),
    **dict.fromkeys(("glm5_next_text", "jamba", "kimi_linear", "nemotron_h", "zamba"), _without),
}
