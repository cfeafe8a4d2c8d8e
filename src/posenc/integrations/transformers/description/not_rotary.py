"""Models that are not rotary: ALiBi, T5, learned tables, sinusoids."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from posenc import ALiBi, Learned, Sinusoidal, T5Bias
from posenc.encoding import Encoding
from posenc.frequencies import Frequencies, Geometric, Tensor2Tensor
from posenc.integrations.transformers.description.config import first, need, size
from posenc.integrations.transformers.description.model_types import names

#: (kind, layers, encoding, length, notes)
Found: TypeAlias = tuple[str, tuple[int, ...], Encoding, int | None, tuple[str, ...]]
Reader: TypeAlias = Callable[[Mapping[str, Any]], list[Found] | None]

#: Tables with a row for each position, and how many rows come before that of position 0.
LEARNED: dict[str, int | None] = {
    **dict.fromkeys(
        names("""
            albert align_text_model bert blenderbot blenderbot-small chinese_clip_text_model clip_text_model convbert
            decision_transformer electra ernie git gpt-sw3 gpt2 gpt_bigcode gpt_neo groupvit_text_model imagegpt
            layoutlm megatron-bert mobilebert nystromformer openai-gpt owlv2_text_model owlvit_text_model rembert
            roc_bert siglip_text_model siglip2_text_model splinter squeezebert visual_bert x_clip_text_model
            xclip_text_model
        """),
        0,
    ),
    **dict.fromkeys(names("bart biogpt mbart mvp opt plbart"), 2),
    # Counted from the row after that of padding.
    **dict.fromkeys(names("camembert data2vec-text esm ibert longformer mpnet roberta xlm-roberta xmod"), None),
}

#: Sinusoids: their rates, and how many rows come before that of position 0 (None: padding_idx + 1).
SINUSOIDAL: dict[str, tuple[type[Frequencies], str, int | None]] = {
    **dict.fromkeys(
        names("autoformer ctrl informer marian pegasus time_series_transformer"), (Geometric, "concatenated", 0)
    ),
    **dict.fromkeys(names("fsmt m2m_100 nllb-moe speech_to_text xglm"), (Tensor2Tensor, "concatenated", None)),
}


def _learned(config: Mapping[str, Any]) -> list[Found]:
    model_type = str(config["model_type"])
    length = int(need(config, "max_positions"))
    dim = need(config, "hidden_size")
    if model_type != "mobilebert":
        dim = first(config, "word_embed_proj_dim", "embedding_size", "input_embedding_size") or dim
    offset = LEARNED[model_type]
    notes: tuple[str, ...] = ()
    if offset is None:
        offset = int(config.get("pad_token_id") or 0) + 1
        length -= offset  # whose table counts its first rows
    if offset:
        notes = (f"position p is row p + {offset} of the checkpoint's table",)
    with torch.device("meta"):  # a config has no weights
        table = Learned(int(dim), length=length)
    return [("", _layers(config), table, length, notes)]


def _sinusoidal(config: Mapping[str, Any]) -> list[Found]:
    rule, order, offset = SINUSOIDAL[str(config["model_type"])]
    if offset is None:
        offset = int(config.get("pad_token_id") or 0) + 1
    notes = (f"a token's position counts from {offset}",) if offset else ()
    encoding = Sinusoidal(int(need(config, "hidden_size")), frequencies=rule(), order=order)  # type: ignore[arg-type]
    return [("", _layers(config), encoding, size(config, "max_positions"), notes)]


def _sinusoidal_if_asked(key: str) -> Reader:
    def read(config: Mapping[str, Any]) -> list[Found]:
        dim, length = int(need(config, "hidden_size")), int(need(config, "max_positions"))
        if config.get(key):
            return [("", _layers(config), Sinusoidal(dim), length, ())]
        with torch.device("meta"):
            return [("", _layers(config), Learned(dim, length=length), length, ())]

    return read


def _whisper(config: Mapping[str, Any]) -> list[Found]:
    dim = int(config["d_model"])
    encoder = Sinusoidal(dim, frequencies=Tensor2Tensor(), order="concatenated")
    with torch.device("meta"):
        decoder = Learned(dim, length=int(config["max_target_positions"]))
    layers = tuple(range(config["encoder_layers"])), tuple(range(config["decoder_layers"]))
    return [
        ("encoder", layers[0], encoder, int(config["max_source_positions"]), ()),
        ("decoder", layers[1], decoder, decoder.length, ()),
    ]


def _alibi(config: Mapping[str, Any]) -> list[Found]:
    return [("", _layers(config), ALiBi(int(need(config, "num_heads"))), size(config, "max_positions"), ())]


def _mpt(config: Mapping[str, Any]) -> list[Found]:
    attention = config.get("attn_config") or {}
    if not attention.get("alibi", True):
        with torch.device("meta"):
            table = Learned(int(config["d_model"]), length=int(config["max_seq_len"]))
        return [("", _layers(config), table, table.length, ())]
    heads = int(need(config, "num_heads"))
    if attention.get("alibi_bias_max", 8) != 8:
        raise ValueError(f"describe: alibi_bias_max is {attention['alibi_bias_max']}, expected 8, the paper's.")
    return [("", _layers(config), ALiBi(heads, rule="mpt"), size(config, "max_positions"), ())]


def _t5(config: Mapping[str, Any]) -> list[Found]:
    heads, encoder = int(need(config, "num_heads")), int(config["num_layers"])
    decoder = int(config.get("num_decoder_layers") or encoder)
    buckets, longest = config["relative_attention_num_buckets"], config["relative_attention_max_distance"]
    note = ("dot products are not divided by sqrt(head_dim): the bias carries scale='none'",)
    found: list[Found] = []
    for kind, layers, direction in (("encoder", encoder, "both"), ("decoder", decoder, "causal")):
        with torch.device("meta"):  # a config has no weights
            bias = T5Bias(heads, num_buckets=buckets, max_distance=longest, direction=direction, scale="none")  # type: ignore[arg-type]
        found.append((kind, tuple(range(layers)), bias, None, note))
    return found


def _falcon(config: Mapping[str, Any]) -> list[Found] | None:
    return _alibi(config) if config.get("alibi") else None


def _esm(config: Mapping[str, Any]) -> list[Found] | None:
    return None if config.get("position_embedding_type") == "rotary" else _learned(config)


def _layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(range(int(size(config, "num_layers") or 0)))


READERS: dict[str, Reader] = {
    **dict.fromkeys(LEARNED, _learned),
    **dict.fromkeys(SINUSOIDAL, _sinusoidal),
    "distilbert": _sinusoidal_if_asked("sinusoidal_pos_embds"),
    "xlm": _sinusoidal_if_asked("sinusoidal_embeddings"),
    "flaubert": _sinusoidal_if_asked("sinusoidal_embeddings"),
    "whisper": _whisper,
    "bloom": _alibi,
    "falcon": _falcon,
    "mpt": _mpt,
    **dict.fromkeys(names("mt5 pop2piano switch_transformers t5 umt5"), _t5),
    "esm": _esm,
}
