"""Models whose code lies beside their weights and not in transformers: what that code does, by model type.

Read from the published modelling files, but for those in ``model_types.CODE_NOT_SEEN``, which say so. A model type that
does what Llama does and says its base is a row of ``model_types`` alone.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from posenc import AxialRoPE, NoPE, RoPE, XPos
from posenc.encoding import Encoding
from posenc.frequencies import DynamicNTK, Frequencies, Geometric, Linear, NTKAlpha
from posenc.integrations.transformers.description.config import (
    Keys,
    head_dim,
    need,
    need_key,
    need_number,
    need_size,
    size,
)
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.layers import all_layers, with_attention
from posenc.integrations.transformers.description.not_rotary import falcon_alibi
from posenc.integrations.transformers.description.own_words import KYUTAI
from posenc.integrations.transformers.description.recent_code import READERS as RECENT
from posenc.integrations.transformers.description.remote_alibi import READERS as ALIBI
from posenc.integrations.transformers.description.remote_alibi import alibi

_FIXED = ("the base is fixed in the code",)


def _plain(config: Mapping[str, Any], *notes: str) -> list[Found]:
    rope = RoPE(head_dim(config), frequencies=Geometric(float(config.get("rope_theta") or 10_000)))
    notes = notes if config.get("rope_theta") else (*notes, *_FIXED)
    return [("", all_layers(config), rope, size(config, "max_positions"), notes)]


def _baichuan(config: Mapping[str, Any]) -> list[Found]:
    """The 7B models rotate, and the 13B ones have ALiBi; only the former have max_position_embeddings."""
    return alibi(config) if size(config, "max_positions") is None else _plain(config)


def _chatglm(config: Mapping[str, Any]) -> list[Found]:
    """ChatGLM-6B turns halves of a head by two positions, its successors half of a head by one."""
    layers, width = all_layers(config), head_dim(config)
    if config.get("position_encoding_2d"):
        note = "coordinates are the place in the prompt, and the place in the answer, which is 0 for the prompt"
        two = AxialRoPE(width, layout="half_per_axis")
        return [("", layers, two, size(config, "max_positions"), (note,))]
    config.get("original_rope"), config.get("position_encoding_2d")
    ratio = float(config.get("rope_ratio") or 1)
    rope = RoPE(width, frequencies=Geometric(10_000.0 * ratio), pairing="interleaved", rotary_dim=width // 2)
    notes = ("base 10000 times rope_ratio",) if ratio != 1 else _FIXED
    return [("", layers, rope, size(config, "max_positions"), notes)]


def _internlm(config: Mapping[str, Any]) -> list[Found] | None:
    """InternLM 1, whose later files say the base and the rule in ``rotary``."""
    rotary = config.get("rotary")
    length = size(config, "max_positions")
    if not isinstance(rotary, Mapping):
        return None if config.get("rope_scaling") else _plain(config)
    base, factor = (
        default if rotary.get(key) is None else need_number(rotary, key)
        for key, default in (("base", 10_000.0), ("scaling_factor", 1.0))
    )
    rule: Frequencies = Geometric(base)
    if rotary.get("type") == "dynamic":
        rule = DynamicNTK(factor, trained_length=int(need(config, "max_positions")), base=base)
    elif rotary.get("type") != "origin":
        raise ValueError(f"describe: rotary.type is {rotary.get('type')!r}, expected origin or dynamic; correct it.")
    return [("", all_layers(config), RoPE(head_dim(config), frequencies=rule), length, ())]


def _refined_web(config: Mapping[str, Any]) -> list[Found]:
    """Falcon, before transformers had it."""
    return falcon_alibi(config, size(config, "max_positions")) if config.get("alibi") else _plain(config)


def _phi(config: Mapping[str, Any]) -> list[Found]:
    """Phi-1 to 2, before transformers had them."""
    rope = RoPE(head_dim(config), rotary_dim=need_size(config, "rotary_dim"))
    return [("", all_layers(config), rope, size(config, "max_positions"), _FIXED)]


def _phi3small(config: Mapping[str, Any]) -> None:
    """As Llama, with a base of another name, which is a million where it is left out."""
    scale = config.get("rope_position_scale", 1)
    if scale != 1:
        raise ValueError(f"describe: rope_position_scale is {scale}, expected 1, which all released models have.")
    if isinstance(config, Keys) and config.get("rope_embedding_base") is None:
        config["rope_embedding_base"] = 1e6


def _openelm(config: Mapping[str, Any]) -> list[Found]:
    layers = tuple(range(need_size(config, "num_transformer_layers")))
    rope = RoPE(head_dim(config), frequencies=Geometric(float(config.get("rope_freq_constant") or 10_000)))
    return [("", layers, rope, config.get("rope_max_length"), ("layers have different numbers of heads",))]


def _olmo(config: Mapping[str, Any]) -> list[Found] | None:
    """OLMo in the words of its own trainer, and LLaDA, whose code comes from there."""
    config.get("rope_full_precision")  # how exactly it computes
    if config.get("alibi"):
        return alibi(config)
    return _plain(config) if config.get("rope") else None


def _codeshell(config: Mapping[str, Any]) -> None:
    """As Llama, with a base that is fixed in the code."""
    kind = config.get("position_embedding_type")
    if kind != "rope":
        raise ValueError(
            f"describe: position_embedding_type of a 'codeshell' is {kind!r}, expected 'rope'; correct it."
        )


def _telechat(config: Mapping[str, Any]) -> list[Found]:
    """TeleChat 1 and 2: the base of a length is that of the trained one at least, which may be a stretched one."""
    trained, first_length = (int(config.get(key) or 8192) for key in ("training_seqlen", "base_seqlen"))
    alpha = max(2 ** (math.ceil(math.log2(trained / first_length)) + 1) - 1, 1)
    rule: Frequencies = NTKAlpha(float(alpha)) if alpha > 1 else Geometric()
    note = (
        f"up to {trained} tokens; past them the code stretches the base further and raises cos and sin, by the length"
    )
    return [("", all_layers(config), RoPE(head_dim(config), frequencies=rule), trained, (*_FIXED, note))]


def _moss(config: Mapping[str, Any]) -> list[Found]:
    """MOSS: as GPT-J, and the class rotates 64 channels where a config leaves them out."""
    rotary_dim = config.get("rotary_dim", 64)
    if not isinstance(rotary_dim, int) or rotary_dim < 2:
        raise ValueError(
            f"describe: rotary_dim of a 'moss' is {rotary_dim!r}, expected the number of rotated channels of a head: "
            "without it the model's own code computes angles for all channels of the model and fails."
        )
    rope = RoPE(head_dim(config), pairing="interleaved", rotary_dim=rotary_dim)
    return [("", all_layers(config), rope, size(config, "max_positions"), _FIXED)]


def _stablelm_alpha(config: Mapping[str, Any]) -> list[Found]:
    """StableLM-Alpha v2: as GPT-NeoX. Its Japanese sibling fades besides, as xPos."""
    if (factor := config.get("rotary_scaling_factor", 1)) not in (1, None):
        raise ValueError(
            f"describe: rotary_scaling_factor of a 'stablelm_alpha' is {factor}, expected 1, which all released "
            "models have; posenc does not know what its code does with another value."
        )
    rope = RoPE(head_dim(config), **_share_and_base(config))
    return [("", all_layers(config), rope, size(config, "max_positions"), ())]


def _japanese_stablelm_alpha(config: Mapping[str, Any]) -> list[Found]:
    length = size(config, "max_positions") or 2048
    scale = config.get("rotary_scale_base", 512)
    xpos = XPos(head_dim(config), scale_base=float(scale or 0), centre=length // 2, **_share_and_base(config))
    note = "the code does not run past max_position_embeddings, where its tables have another width"
    return [("", all_layers(config), xpos, length, (note,))]


def _share_and_base(config: Mapping[str, Any]) -> dict[str, Any]:
    share, base = config.get("rotary_pct"), config.get("rotary_emb_base")
    rotary_dim = int(head_dim(config) * (0.25 if share is None else float(share)))
    return {"rotary_dim": rotary_dim, "frequencies": Geometric(10_000.0 if base is None else float(base))}


def _xverse(config: Mapping[str, Any]) -> list[Found] | None:
    """As Llama, with a base that the first models have in their code, and XVERSE-13B-256K another, with its rule."""
    if config.get("rope_scaling") or config.get("rope_parameters"):
        return None
    if (base := config.get("rope_theta")) is not None:
        note = (
            "if this is XVERSE-13B-256K, its code has the rule 'dynamic' of factor 2 past max_position_embeddings "
            "besides, which no config says: write it into rope_scaling"
        )
        return _plain(config, note) if base != 10_000 else None
    length = size(config, "max_positions")
    if length is not None and length > 8192:
        raise ValueError(
            f"describe: the config of an 'xverse' of {length} positions has no rope_theta, and their codes differ: "
            "that of XVERSE-13B-256K has the base 500000, and past max_position_embeddings the rule 'dynamic' of "
            "factor 2; the others have 10000. Write rope_theta, and rope_scaling if it is that one."
        )
    if isinstance(config, Keys):
        config["rope_theta"] = 10_000.0
    return None


def _cogvlm(config: Mapping[str, Any]) -> list[Found]:
    """CogVLM and CogAgent, whose code has the base 10000, and CogVLM2 (grouped heads), whose code has 500000."""
    base = 10_000.0 if config.get("num_multi_query_heads") is None else 500_000.0
    words = config.get("vocab_size")
    if base == 10_000 and isinstance(words, (int, float)) and words > 100_000:
        raise ValueError(
            "describe: the config of a 'cogvlm' has the vocabulary of CogVLM2, whose code has the base 500000, and no "
            "num_multi_query_heads, which tells it from CogVLM, whose code has 10000; add it."
        )
    notes = ["all tokens of an image but its first and its last have one position"]
    if config.get("cross_image_size") is not None:
        notes.append(
            "not read: the second tower, for images of cross_image_size, of which the config says nothing else: its "
            "code rotates by rows and columns and also has learned tables"
        )
    rope = RoPE(head_dim(config), frequencies=Geometric(base))
    return [("", all_layers(config), rope, size(config, "max_positions"), (*_FIXED, *notes))]


def _granite_switch(config: Mapping[str, Any]) -> list[Found] | None:
    """Granite 4's dense code; some of the layers that a config counts are places in the cache for the switch."""
    if config.get("num_adapters") and isinstance(config, Keys):
        several = config.get("ms_code_m") is not None or config.get("switch_type") == "multi"
        config["num_hidden_layers"] = need_size(config, "num_hidden_layers") - (2 if several else 1)
    if config.get("position_embedding_type", "rope") != "rope":
        return [("", all_layers(config), NoPE(), size(config, "max_positions"), ())]
    return None


def _falcon_perception(config: Mapping[str, Any]) -> None:
    raise ValueError(
        f"describe: {config.get('model_type')!r} rotates the first half of a head by the position in the text, in "
        f"neighbouring pairs with base {config.get('rope_theta') or 10_000:g}, and the second by row and column, with "
        "rates for each head that are stored in its weights (freqs_cis_golden) and not in its config; posenc's "
        "MixedRoPE has such rates, but no encoding of posenc has both halves in one head."
    )


def _hyena(config: Mapping[str, Any]) -> list[Found]:
    """StripedHyena 1 and 2 (Evo, Evo 2): attention in some layers, with flash-attention's rotation."""
    need_key(config, "attn_layer_idxs")
    base = float(config.get("rotary_emb_base") or 10_000)
    stretched, factor = config.get("use_interpolated_rotary_pos_emb"), config.get("rotary_emb_scaling_factor")
    rule: Frequencies = Linear(float(factor), base=base) if stretched and factor else Geometric(base)
    length = config.get("max_seqlen") or size(config, "max_positions")
    rope = RoPE(head_dim(config), frequencies=rule)
    return [("", with_attention(config), rope, length and int(length), ())]


def _neobert(config: Mapping[str, Any]) -> list[Found] | None:
    if config.get("rope") is False:
        return None
    rope = RoPE(head_dim(config), pairing="interleaved")
    return [("", all_layers(config), rope, config.get("max_length"), _FIXED)]


def _kyutai(config: Mapping[str, Any]) -> list[Found]:
    """Moshi and its kin in the words of their own code, whose pairs are neighbours (not so transformers' weights)."""
    window, fused = config.get("context"), config.get("fuser")
    notes = () if window is None else (f"attention sees the last {window} steps (context), however long the text",)
    if isinstance(fused, Mapping) and fused.get("cross_attention_pos_emb"):
        notes = (*notes, "not read: fuser.cross_attention_pos_emb: sinusoids are added to what the text attends to")
    period, kind = config.get("max_period"), str(config.get("positional_embedding", "sin"))
    rotation = _kyutai_encoding("", kind, head_dim(config), period)
    found: list[Found] = [("", all_layers(config), rotation, None, notes)]
    if config.get("dep_q", 1) != 0:
        steps = {key.removeprefix("depformer_"): value for key, value in config.items() if key.startswith("depformer_")}
        for key in steps:
            config.get(f"depformer_{key}")
        inherited = {key: config.get(key) for key in ("num_heads", "num_layers", "max_period")}
        steps = {**inherited, **{key: value for key, value in steps.items() if value is not None}}
        encoding = _kyutai_encoding(
            "depformer_", str(steps.get("pos_emb", "sin")), head_dim(steps), steps.get("max_period")
        )
        note = "counts the codebooks of one step" if not isinstance(encoding, NoPE) else "each codebook has own weights"
        found.append(("depformer", all_layers(steps), encoding, None, (note,)))
    return found


def _kyutai_encoding(prefix: str, kind: str, width: int, period: Any) -> Encoding:
    if kind == "none":
        return NoPE()
    if kind not in ("rope", "rope_concat"):
        key = f"{prefix}pos_emb" if prefix else "positional_embedding"
        raise ValueError(
            f"describe: {key} is {kind!r}, expected 'rope', 'rope_concat' or 'none', which all released models have; "
            "posenc has no sinusoids in the order of that code."
        )
    key = f"{prefix}max_period"
    base = 10_000.0 if period is None else need_number({"model_type": KYUTAI, key: period}, key)
    return RoPE(width, frequencies=Geometric(base), pairing="interleaved" if kind == "rope" else "half")


def _traditional(config: Mapping[str, Any]) -> list[Found]:
    """Lille-130M and AFM-7B as mlx-lm has them, whose pairs are neighbours."""
    lille = config.get("model_type") == "lille-130m"
    parameters = config.get("rope_parameters")
    inside = parameters.get("rope_theta") if isinstance(parameters, Mapping) else None
    base = inside if inside is not None else config.get("rope_theta")
    base = 50_000.0 if base is None and not lille else need_number({**config, "rope_theta": base}, "rope_theta")
    width = need_size(config, "n_embd" if lille else "hidden_dim") // int(need(config, "num_heads"))
    rope = RoPE(width, frequencies=Geometric(base), pairing="interleaved")
    notes = () if lille else ("queries and keys are normalised after the rotation, with a weight for each channel",)
    return [("", all_layers(config), rope, config.get("block_size") if lille else None, notes)]


def _moonvit(config: Mapping[str, Any]) -> list[Found]:
    """Kimi-VL's tower: pairs by column and row in turns, and a table besides."""
    note = "a learned table of init_pos_emb_height x init_pos_emb_width is interpolated to each image, and added"
    rope = AxialRoPE(head_dim(config), layout="interleaved_alternating", order=(1, 0))
    return [("", all_layers(config), rope, None, (note,))]


def _by_window(
    config: Mapping[str, Any], windowed: Callable[[int], bool], full: RoPE, sliding: RoPE, notes: tuple[str, ...] = ()
) -> list[Found]:
    layers = all_layers(config)
    kinds = {"full_attention": (False, full), "sliding_attention": (True, sliding)}
    found = [(kind, tuple(i for i in layers if windowed(i) == window), rope) for kind, (window, rope) in kinds.items()]
    return [(kind, own, rope, size(config, "max_positions"), notes) for kind, own, rope in found if own]


def _baichuan_m1(config: Mapping[str, Any]) -> list[Found]:
    """Layers with a window have heads of their own number, and so of their own width."""
    width, heads, base = need(config, "hidden_size"), need(config, "num_heads"), float(need_key(config, "rope_theta"))
    windowed = config.get("num_swa_attention_heads") or heads
    full, sliding = (RoPE(int(width // each), frequencies=Geometric(base)) for each in (heads, windowed))
    listed = config.get("sliding_window_layers") or ()
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"describe: sliding_window_layers is {listed!r}, expected a list of layers; correct it.")
    return _by_window(config, lambda layer: layer in listed, full, sliding)


def _mimo_v2(config: Mapping[str, Any]) -> list[Found]:
    """MiMo-V2: layers with a window, marked 1 in ``hybrid_layer_pattern``, have a base of their own."""
    config.get("rope_parameters")  # they repeat the base of the layers without a window
    pattern, layers = need_key(config, "hybrid_layer_pattern"), all_layers(config)
    if len(pattern) < len(layers):
        raise ValueError(
            f"describe: hybrid_layer_pattern has {len(pattern)} entries for {len(layers)} layers; give one for each."
        )
    if config.get("rope_scaling"):
        raise ValueError("describe: rope_scaling of a 'mimo_v2' is not read, because no released model has one.")
    share = float(config.get("partial_rotary_factor") or 1)

    def rope(head: int, base: float) -> RoPE:
        return RoPE(head, frequencies=Geometric(base), rotary_dim=int(head * share))

    base, own = float(need_key(config, "rope_theta")), config.get("swa_rope_theta")
    full = rope(head_dim(config), base)
    sliding = rope(int(config.get("swa_head_dim") or head_dim(config)), float(base if own is None else own))
    return _by_window(config, lambda layer: bool(pattern[layer]), full, sliding)


READERS: dict[str, Reader] = {
    **RECENT,
    **ALIBI,
    "baichuan": _baichuan,
    "baichuan_m1": _baichuan_m1,
    "mimo_v2": _mimo_v2,
    "chatglm": _chatglm,
    "internlm": _internlm,
    **dict.fromkeys(("RefinedWeb", "RefinedWebModel"), _refined_web),
    **dict.fromkeys(("mixformer-sequential", "phi-msft"), _phi),
    "phi3small": _phi3small,
    "openelm": _openelm,
    **dict.fromkeys(("hf_olmo", "llada"), _olmo),
    "codeshell": _codeshell,
    **dict.fromkeys(("cogagent", "cogvlm", "cogvlm2"), _cogvlm),
    **dict.fromkeys(("falcon_ocr", "falcon_perception"), _falcon_perception),
    "granite_switch": _granite_switch,
    "japanese_stablelm_alpha": _japanese_stablelm_alpha,
    "moss": _moss,
    "stablelm_alpha": _stablelm_alpha,
    "xverse": _xverse,
    "neobert": _neobert,
    KYUTAI: _kyutai,
    **dict.fromkeys(("afm7", "lille-130m"), _traditional),
    **dict.fromkeys(("evo2", "stripedhyena", "stripedhyena2"), _hyena),
    "telechat": _telechat,
    "moonvit": _moonvit,
    **dict.fromkeys(("plamo", "yuan"), _plain),
}
