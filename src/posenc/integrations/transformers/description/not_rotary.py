"""Models that are not rotary: ALiBi, T5, Shaw, DeBERTa, learned tables, sinusoids."""

from collections.abc import Mapping
from typing import Any

import torch

from posenc import ALiBi, Compose, Learned, NoPE, RoPE, Sinusoidal, T5Bias
from posenc.encoding import Encoding
from posenc.frequencies import Frequencies, Geometric, Tensor2Tensor
from posenc.integrations.transformers.description.config import (
    first,
    head_dim,
    need,
    need_key,
    need_size,
    size,
)
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.in_words import BESIDE_TABLE
from posenc.integrations.transformers.description.inkling import inkling
from posenc.integrations.transformers.description.model_types import names
from posenc.scores import DeBERTa, Shaw

#: Tables with a row for each position, and how many rows come before that of position 0.
LEARNED: dict[str, int | None] = {
    **dict.fromkeys(
        names("""
            aimv2_text_model albert align_text_model bert bert-generation big_bird bigbird_pegasus blenderbot
            blenderbot-small blip_text_model bros canine chinese_clip_text_model clip_text_model clipseg_text_model
            clvp_decoder convbert decision_transformer dpr electra ernie flava_text_model fnet git gpt-sw3 gpt2
            gpt_bigcode gpt_neo groupvit_text_model imagegpt instructblip_qformer instructblipvideo_qformer layoutlm
            layoutlmv2 layoutxlm lxmert megatron-bert metaclip_2_text_model mobilebert nystromformer openai-gpt
            owlv2_text_model owlvit_text_model rembert roc_bert sam3_lite_text_text_model siglip_text_model
            siglip2_text_model splinter squeezebert tapas tvp visual_bert x_clip_text_model xclip_text_model
        """),
        0,
    ),
    **dict.fromkeys(names("bart biogpt florence2_language mbart mra mvp opt plbart pp_formulanet_text yoso"), 2),
    # Counted from the row after that of padding.
    **dict.fromkeys(
        names("""
            altclip_text_model bridgetower_text_model camembert clap_text_model data2vec-text esm ibert layoutlmv3 lilt
            longformer luke markuplm mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod
        """),
        None,
    ),
}

#: Sinusoids: their rates, and how many rows come before that of position 0 (None: padding_idx + 1).
SINUSOIDAL: dict[str, tuple[type[Frequencies], str, int | None]] = {
    **dict.fromkeys(
        names("autoformer ctrl informer marian pegasus time_series_transformer"), (Geometric, "concatenated", 0)
    ),
    **dict.fromkeys(names("fsmt m2m_100 nllb-moe speech_to_text xglm"), (Tensor2Tensor, "concatenated", None)),
    **dict.fromkeys(names("pegasus_x tipsv2_text_model"), (Tensor2Tensor, "concatenated", 0)),
    **dict.fromkeys(names("canary_decoder videoprism_text_model"), (Geometric, "concatenated", 0)),
}

#: Encoders of sounds with Whisper's sinusoids: written in the code, or a table that is not trained.
SOUNDS_BY_CODE = names("""
    qwen2_5_omni_audio_encoder qwen3_asr_audio_encoder qwen3_asr_encoder qwen3_omni_moe_audio_encoder
""")
SOUNDS_BY_TABLE = names("audioflamingo3_encoder moss_transcribe_diarize_audio qwen2_audio_encoder voxtral_encoder")


#: Tables of these are as wide as the hidden states, whatever the width of the words.
WIDE_TABLES = names("mobilebert opt")

#: A bias of T5's form besides the table: buckets and largest distance.
T5_BESIDES = {"mpnet": (32, 128)}


def learned_table(config: Mapping[str, Any]) -> Learned:
    """A row for each position, from the sizes that a config says."""
    return _table(int(need(config, "hidden_size")), int(need(config, "max_positions")))


def _table(dim: int, length: int) -> Learned:
    if length < 1:
        raise ValueError(f"describe: a table of {length} positions, expected at least 1; correct the lengths.")
    if length * dim >= 1 << 60:
        raise ValueError(
            f"describe: a table of {length} positions by {dim} channels, which no model has; correct the sizes."
        )
    with torch.device("meta"):  # a config has no weights
        return Learned(dim, length=length)


def _learned(config: Mapping[str, Any]) -> list[Found] | None:
    model_type = str(config["model_type"])
    kind = config.get("position_embedding_type")
    if config.get("alibi_starting_size") is not None:
        kind = "alibi"
    if kind not in (None, "absolute"):
        reader = BY_POSITION_TYPE.get(str(kind))
        if reader is None:
            raise ValueError(
                f"describe: position_embedding_type is {kind!r}, expected absolute or one of "
                f"{sorted(BY_POSITION_TYPE)}, so posenc cannot tell which encoding the model has."
            )
        return reader(config)
    length = int(need(config, "max_positions"))
    dim = need(config, "hidden_size")
    if model_type not in WIDE_TABLES:
        key = next((key for key in ("embedding_size", "input_embedding_size") if config.get(key)), None)
        dim = need_size(config, key) if key else dim
    offset = LEARNED[model_type]
    notes: tuple[str, ...] = ()
    if offset is None:
        offset = int(config.get("pad_token_id") or 0) + 1
        length -= offset  # whose table counts its first rows
    if offset:
        notes = (f"position p is row p + {offset} of the checkpoint's table",)
    if model_type in BESIDE_TABLE:
        notes = (*notes, BESIDE_TABLE[model_type])
    encoding: Encoding = _table(int(dim), length)
    if model_type in T5_BESIDES:
        buckets, farthest = T5_BESIDES[model_type]
        buckets = int(config.get("relative_attention_num_buckets") or buckets)
        with torch.device("meta"):
            bias = T5Bias(int(need(config, "num_heads")), num_buckets=buckets, max_distance=farthest, direction="both")
        encoding = Compose(encoding, bias)
    return [("", _layers(config), encoding, length, notes)]


def _alibi_both_ways(config: Mapping[str, Any]) -> list[Found]:
    notes = ("both directions: the bias falls with |i - j|", "transformers' own class would add a table instead")
    return [("", _layers(config), ALiBi(int(need(config, "num_heads"))), size(config, "max_positions"), notes)]


def _rotary_bert(config: Mapping[str, Any]) -> list[Found]:
    base = float(first(config, "rotary_emb_base", "rope_theta") or 10_000)
    rope = RoPE(head_dim(config), frequencies=Geometric(base))
    return [("", _layers(config), rope, size(config, "max_positions"), ())]


def _relative_key(config: Mapping[str, Any]) -> list[Found]:
    length = int(need(config, "max_positions"))
    with torch.device("meta"):
        shaw = Shaw(int(need(config, "num_heads")), head_dim(config), reach=max(length - 1, 1), values="none")
    return [("", _layers(config), shaw, length, ("transformers 5 does not read position_embedding_type",))]


def _relative_key_query(config: Mapping[str, Any]) -> list[Found]:
    raise ValueError(
        "describe: position_embedding_type is 'relative_key_query', whose table is multiplied with queries and with "
        "keys, which is no encoding of posenc."
    )


def _no_table(config: Mapping[str, Any]) -> list[Found]:
    return [("", _layers(config), NoPE(), size(config, "max_positions"), ())]


#: ``position_embedding_type`` of BERT and its like, in the code that the checkpoints came with.
BY_POSITION_TYPE: dict[str, Reader] = {
    "alibi": _alibi_both_ways,
    "rotary": _rotary_bert,
    "rope": _rotary_bert,
    "relative_key": _relative_key,
    "relative_key_query": _relative_key_query,
    "none": _no_table,
}


def _led(config: Mapping[str, Any]) -> list[Found]:
    dim = int(need(config, "hidden_size"))
    return [
        (
            kind,
            tuple(range(need_size(config, f"{kind}_layers"))),
            _table(dim, need_size(config, f"max_{kind}_position_embeddings")),
            need_size(config, f"max_{kind}_position_embeddings"),
            (),
        )
        for kind in ("encoder", "decoder")
    ]


def _deberta(config: Mapping[str, Any]) -> list[Found]:
    """Disentangled attention with both of its terms; other choices have no class here."""
    dim, heads = int(need(config, "hidden_size")), int(need(config, "num_heads"))
    length = size(config, "max_positions")
    if not config.get("relative_attention"):
        return [("", _layers(config), _table(dim, int(need(config, "max_positions"))), length, ())]
    terms = config.get("pos_att_type") or []
    terms = terms.split("|") if isinstance(terms, str) else terms
    if sorted(terms) != ["c2p", "p2c"]:
        raise ValueError(f"describe: pos_att_type is {terms}, expected c2p and p2c, the terms of posenc.DeBERTa.")
    reach = int(config.get("max_relative_positions") or -1)
    reach = reach if reach > 0 else int(need(config, "max_positions"))
    buckets = int(config.get("position_buckets") or -1)
    with torch.device("meta"):
        if buckets > 0:
            encoding = DeBERTa(dim, heads, span=buckets, max_distance=reach)
        else:
            encoding = DeBERTa(dim, heads, span=reach)
    notes = ("also a table of absolute positions",) if config.get("position_biased_input", True) else ()
    return [("", _layers(config), encoding, length, notes)]


def _sinusoidal(config: Mapping[str, Any]) -> list[Found]:
    rule, order, offset = SINUSOIDAL[str(config["model_type"])]
    if offset is None:
        offset = int(config.get("pad_token_id") or 0) + 1
    notes = (f"a token's position counts from {offset}",) if offset else ()
    if config["model_type"] == "canary_decoder":
        notes = ("its codes are divided by the root of the width",)
    encoding = Sinusoidal(int(need(config, "hidden_size")), frequencies=rule(), order=order)  # type: ignore[arg-type]
    return [("", _layers(config), encoding, size(config, "max_positions"), notes)]


def _musicgen(config: Mapping[str, Any]) -> list[Found]:
    encoding = Sinusoidal(int(need(config, "hidden_size")), frequencies=Tensor2Tensor(), order="concatenated")
    notes = ("its cosines come before its sines",)
    return [("", _layers(config), encoding, size(config, "max_positions"), notes)]


def _sinusoidal_if_asked(key: str) -> Reader:
    def read(config: Mapping[str, Any]) -> list[Found]:
        dim, length = int(need(config, "hidden_size")), int(need(config, "max_positions"))
        encoding = Sinusoidal(dim) if config.get(key) else _table(dim, length)
        return [("", _layers(config), encoding, length, ())]

    return read


def _whisper(config: Mapping[str, Any]) -> list[Found]:
    dim = int(need(config, "hidden_size"))
    encoder = Sinusoidal(dim, frequencies=Tensor2Tensor(), order="concatenated")
    decoder = _table(dim, need_size(config, "max_target_positions"))
    layers = tuple(tuple(range(need_size(config, f"{kind}_layers"))) for kind in ("encoder", "decoder"))
    return [
        ("encoder", layers[0], encoder, need_size(config, "max_source_positions"), ()),
        ("decoder", layers[1], decoder, decoder.length, ()),
    ]


def _sounds(config: Mapping[str, Any]) -> list[Found]:
    other = config.get("max_source_positions") is None and config.get("max_position_embeddings") is not None
    dim = int(need(config, "hidden_size"))
    length = need_size(config, "max_position_embeddings" if other else "max_source_positions")
    if config["model_type"] in SOUNDS_BY_CODE:
        sinusoids = Sinusoidal(dim, frequencies=Tensor2Tensor(), order="concatenated")
        return [("", _layers(config), sinusoids, length, ())]
    return [("", _layers(config), _table(dim, length), length, ("the table is not trained",))]


def _kosmos(config: Mapping[str, Any]) -> list[Found]:
    offset = int(config.get("pad_token_id") or 0) + 1
    sinusoids = Sinusoidal(int(need(config, "hidden_size")), frequencies=Tensor2Tensor(), order="concatenated")
    layers = tuple(range(need_size(config, "layers")))
    return [("", layers, sinusoids, size(config, "max_positions"), (f"a token's position counts from {offset}",))]


def _trocr(config: Mapping[str, Any]) -> list[Found]:
    dim, length = int(need(config, "hidden_size")), int(need(config, "max_positions"))
    layers = tuple(range(need_size(config, "decoder_layers")))
    if config.get("use_learned_position_embeddings", True):
        note = "position p is row p + 2 of the checkpoint's table"
        return [("", layers, _table(dim, length), length, (note,))]
    sinusoids = Sinusoidal(dim, frequencies=Tensor2Tensor(), order="concatenated")
    note = f"a token's position counts from {int(config.get('pad_token_id') or 0) + 1}"
    return [("", layers, sinusoids, length, (note,))]


def _bark(config: Mapping[str, Any]) -> list[Found]:
    table = _table(int(need(config, "hidden_size")), need_size(config, "block_size"))
    return [("", _layers(config), table, table.length, ())]


def _qformer(config: Mapping[str, Any]) -> list[Found] | None:
    """BLIP-2's, which has a table if it reads words too."""
    if not config.get("use_qformer_text_input"):
        return None
    table = _table(int(need(config, "hidden_size")), int(need(config, "max_positions")))
    return [("", _layers(config), table, table.length, ())]


def _glm_block(config: Mapping[str, Any]) -> list[Found]:
    """The first GLM (GLM-10B): a table for the place in the text, and one for the place in the span that is written."""
    if config.get("relative_encoding"):
        raise ValueError(
            "describe: relative_encoding of the first GLM is true, Transformer-XL's relative positions, which no "
            "released model has and which is not read."
        )
    dim, length = int(need(config, "hidden_size")), int(need(config, "max_positions"))
    if not config.get("block_position_encoding"):
        return [("", _layers(config), _table(dim, length), length, ())]
    notes = ("a token of a span that is written has the place of its mask", "counts within a span, and is 0 elsewhere")
    return [
        (label, _layers(config), _table(dim, length + 1), length + 1, (note,))
        for label, note in zip(("text", "span"), notes, strict=True)
    ]


def _alibi(config: Mapping[str, Any]) -> list[Found]:
    return [("", _layers(config), ALiBi(int(need(config, "num_heads"))), size(config, "max_positions"), ())]


def mpt(config: Mapping[str, Any]) -> list[Found] | None:
    """By ``attn_config``, as the code that MPT came with; transformers' own adds ALiBi whatever it says."""
    attention = config.get("attn_config") or {}
    length = size(config, "max_positions")
    own = ("transformers' own class adds ALiBi whatever attn_config says",)
    if attention.get("rope"):
        base, rule = float(attention.get("rope_theta") or 10_000), attention.get("rope_hf_config") or {}
        if rule.get("type", "no_scaling") != "no_scaling" or attention.get("rope_impl") not in (None, "hf", "dail"):
            raise ValueError(
                f"describe: rope_hf_config is {rule}, expected the type no_scaling; posenc does not read other types."
            )
        return [("", _layers(config), RoPE(head_dim(config), frequencies=Geometric(base)), length, own)]
    if not attention.get("alibi", True):
        if not config.get("learned_pos_emb", True):
            return [("", _layers(config), NoPE(), length, own)]
        table = learned_table(config)
        return [("", _layers(config), table, table.length, own)]
    heads = int(need(config, "num_heads"))
    steepest = attention.get("alibi_bias_max", 8)
    if not isinstance(steepest, (int, float)) or not 0 < steepest <= 1024:
        raise ValueError(f"describe: alibi_bias_max is {steepest!r}, expected a number above 0; most models have 8.")
    notes = ("transformers' own class takes 8 for alibi_bias_max, whatever attn_config says",) if steepest != 8 else ()
    return [("", _layers(config), ALiBi(heads, rule="mpt", max_bias=steepest), length, notes)]


def _t5(config: Mapping[str, Any]) -> list[Found]:
    heads, encoder = int(need(config, "num_heads")), int(need(config, "num_layers"))
    decoder = int(config.get("num_decoder_layers") or encoder)
    # The values of T5's class, where no class fills them in: the key for the distance is newer than the model.
    buckets = int(config.get("relative_attention_num_buckets") or 32)
    longest = int(config.get("relative_attention_max_distance") or 128)
    note = ("dot products are not divided by sqrt(head_dim): the bias carries scale='none'",)
    found: list[Found] = []
    for kind, layers, direction in (("encoder", encoder, "both"), ("decoder", decoder, "causal")):
        with torch.device("meta"):  # a config has no weights
            bias = T5Bias(heads, num_buckets=buckets, max_distance=longest, direction=direction, scale="none")  # type: ignore[arg-type]
        found.append((kind, tuple(range(layers)), bias, None, note))
    return found


def _pix2struct(config: Mapping[str, Any]) -> list[Found]:
    (_, (_, layers, bias, length, notes)) = _t5({**config, "num_decoder_layers": need_key(config, "num_layers")})
    return [("", layers, bias, length, notes)]


def _falcon(config: Mapping[str, Any]) -> list[Found] | None:
    return falcon_alibi(config, size(config, "max_positions")) if config.get("alibi") else None


def falcon_alibi(config: Mapping[str, Any], length: int | None) -> list[Found]:
    """ALiBi as Falcon has it, now and before transformers had it."""
    heads, width = int(need(config, "num_heads")), head_dim(config)
    notes = (
        "dot products and biases are divided by sqrt(head_dim) together, so the slopes are: strength is "
        "1 / sqrt(head_dim)",
        "its code rounds the biases to bfloat16",
    )
    return [("", _layers(config), ALiBi(heads, strength=width**-0.5), length, notes)]


def _esm(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("position_embedding_type") == "rotary" else _learned(config)


def _layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(range(int(need(config, "num_layers"))))


READERS: dict[str, Reader] = {
    **dict.fromkeys(LEARNED, _learned),
    **dict.fromkeys(SINUSOIDAL, _sinusoidal),
    "distilbert": _sinusoidal_if_asked("sinusoidal_pos_embds"),
    "xlm": _sinusoidal_if_asked("sinusoidal_embeddings"),
    "flaubert": _sinusoidal_if_asked("sinusoidal_embeddings"),
    "glm-block": _glm_block,
    "whisper": _whisper,
    **dict.fromkeys(SOUNDS_BY_CODE | SOUNDS_BY_TABLE, _sounds),
    **dict.fromkeys(names("kosmos_2_text_model kosmos_2_5_text_model"), _kosmos),
    "trocr": _trocr,
    **dict.fromkeys(names("semantic coarse_acoustics fine_acoustics"), _bark),
    "blip_2_qformer": _qformer,
    **dict.fromkeys(names("musicgen_decoder musicgen_melody_decoder"), _musicgen),
    "bloom": _alibi,
    "falcon": _falcon,
    "mpt": mpt,
    **dict.fromkeys(names("longt5 mt5 pop2piano switch_transformers t5 umt5"), _t5),
    "pix2struct_text_model": _pix2struct,
    "esm": _esm,
    **dict.fromkeys(names("inkling_text inkling2_text inkling2_loop_text"), inkling),
    "led": _led,
    **dict.fromkeys(names("deberta deberta-v2"), _deberta),
}
