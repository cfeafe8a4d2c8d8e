"""Models with ALiBi whose code lies beside their weights and not in transformers."""

from collections.abc import Mapping
from typing import Any

from posenc import ALiBi
from posenc.integrations.transformers.description.config import need, need_number, need_size, size
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.layers import all_layers
from posenc.integrations.transformers.description.not_rotary import learned_table, mpt


def alibi(config: Mapping[str, Any]) -> list[Found]:
    """ALiBi in all layers, with the authors' slopes."""
    given = config.get("model_max_length") is not None
    length = need_size(config, "model_max_length") if given else size(config, "max_positions")
    return [("", all_layers(config), ALiBi(int(need(config, "num_heads"))), length and int(length), ())]


def _jais(config: Mapping[str, Any]) -> list[Found] | None:
    """BTLM and Jais, whose slopes a number divides, or the length where it is above the trained one."""
    kind = config.get("position_embedding_type")
    if kind == "learned":
        table = learned_table(config)
        return [("", all_layers(config), table, table.length, ())]
    if kind != "alibi":
        return None
    scaling = config.get("alibi_scaling")
    if not scaling:
        return alibi(config)
    heads, layers = int(need(config, "num_heads")), all_layers(config)
    given = scaling if isinstance(scaling, Mapping) else {}
    named = [key for key in ("factor", "train_seq_len") if given.get(key) is not None]
    if len(named) != 1 or given.get("type") != "linear":
        raise ValueError(
            f"describe: alibi_scaling is {scaling!r}, expected the type 'linear' and either a factor or train_seq_len, "
            "as the code of BTLM and Jais takes it; correct it."
        )
    if named == ["factor"]:
        factor = need_number(given, "factor")
        note = f"slopes are divided by alibi_scaling's factor, {factor:g}"
        return [("", layers, ALiBi(heads, strength=1 / factor), size(config, "max_positions"), (note,))]
    trained = need_size(given, "train_seq_len")
    note = f"up to {trained} tokens; past them the code divides all slopes by the number of keys over {trained}"
    return [("", layers, ALiBi(heads), trained, (note,))]


def _replit(config: Mapping[str, Any]) -> list[Found] | None:
    """Replit's first models: MPT before ``attn_config``."""
    flat = {key: config[key] for key in ("alibi", "alibi_bias_max") if config.get(key) is not None}
    return mpt({**config, "attn_config": flat}) if flat.get("alibi") else None


READERS: dict[str, Reader] = {**dict.fromkeys(("btlm", "jais"), _jais), "replit_lm": _replit}
