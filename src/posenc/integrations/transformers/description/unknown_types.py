"""What the config of an unknown model type says of its rotation in words that are not read: another rotation, refused.

The caller of such a config says the pairing, and the keys the rest. A key that is not read and by its name changes the
rates, the channels or the layers would make the answer wrong without an error.
"""

import re
from collections.abc import Mapping
from typing import Any

from posenc import NoPE
from posenc.encoding import Encoding
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config import SWITCH, Keys, bears_on_positions
from posenc.integrations.transformers.description.layers import types_of

#: A base, a share or a stretch of the rotation, or the layers without it.
_CHANGES = re.compile(
    r"theta|base|percent|pct|fraction|ratio|scale|factor|interpolat|alpha|(rope|rotary)_(head_)?dims?$|nope|no_rope",
    re.IGNORECASE,
)
#: Which encoding there is, as a word.
_KIND = re.compile(r"(pos|position|positional)_?(emb|embedding|embeddings|encoding|encodings)(_type)?", re.IGNORECASE)
_ROTARY = re.compile(r"rope|rotary|default", re.IGNORECASE)
#: Channels of a head, and of a head in some of the layers.
_HEAD_DIMS = models.names("""
    attention_head_size d_head dim_head head_size local_head_dim qk_head_dim size_per_head sliding_head_dim swa_head_dim
""")
#: The number of heads in some of the layers.
_HEADS = re.compile(r"((swa|sliding|local)\w*_)?num_((swa|sliding|local)\w*_)?(attention_|query_)?heads", re.IGNORECASE)

#: Which layers have attention, or another mixer in its place, under whatever name.
_WHICH_LAYERS = re.compile(
    r"(att(entio)?n|mamba|ssm|hybrid|recurrent|linear|conv|hyena|kda|delta|rwkv)\w*(layer|idx|ind(ex|ices)|_ids|pattern)"
    r"|(layer|block)\w*(att(entio)?n|mamba|ssm|hybrid|pattern|kinds?$|types?$)",
    re.IGNORECASE,
)
#: Kinds of layers that have attention.
_ATTENTION = models.names("""
    attention chunked_attention full full_attention global global_attention hybrid local local_attention sliding
    sliding_attention sparse_attention swa
""")

_ADVICE = (
    "use the keys of transformers instead (head_dim; layer_types; rope_parameters for each kind of layer; "
    "no_rope_layers), or remove this key"
)


def check_unknown(config: Keys, encodings: list[Encoding]) -> None:
    """Refuse a config of an unknown model type that says more of its rotation than was read.

    Raises:
        ValueError: with the key.
    """
    values = dict(config)  # a copy: to look is not to use
    for key, value in values.items():
        if why := _why_not(key, value, values, config.asked, encodings):
            raise ValueError(
                f"describe: {values.get('model_type')!r} is a model type that posenc does not know, and its config "
                f"says {key} = {value!r}, {why}; {_ADVICE}."
            )
    for kind in types_of(values) or ():
        if kind not in _ATTENTION | models.NO_ATTENTION:
            raise ValueError(
                f"describe: {values.get('model_type')!r} is a model type that posenc does not know, and its config "
                f"has layers of the kind {kind!r}, which may have attention or not; write full_attention, "
                "sliding_attention or linear_attention."
            )
    if values.get("qk_rope_head_dim") and values.get("qk_nope_head_dim") is None:
        raise ValueError(
            f"describe: qk_rope_head_dim is {values['qk_rope_head_dim']}, and the config of the unknown model type "
            f"{values.get('model_type')!r} does not say where these channels are in a head; add qk_nope_head_dim."
        )


def _why_not(key: str, value: Any, values: Mapping[str, Any], asked: set[str], encodings: list[Encoding]) -> str | None:
    rotated = not all(isinstance(each, NoPE) for each in encodings)
    if value is False and SWITCH.fullmatch(key) and rotated:
        return "which turns off the rotation that other keys describe"
    if isinstance(value, str) and _KIND.fullmatch(key) and not _ROTARY.search(value):
        return "which is no rotation, while other keys describe one"
    if value is True and key.lower() in ("alibi", "use_alibi"):
        return "which is no rotation, while other keys describe one"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and key in _HEAD_DIMS and value not in {getattr(each, "head_dim", value) for each in encodings}:
        return "and posenc computed another width for the heads"
    heads = values.get("num_attention_heads")
    if number and heads is not None and _HEADS.fullmatch(key) and not values.get("head_dim"):
        return None if value == heads else "so that some heads have another width"
    inside = value if isinstance(value, Mapping) else {key: value}
    for name, listed in inside.items():
        several = isinstance(listed, (list, tuple)) or (isinstance(listed, str) and str(name).endswith("pattern"))
        if several and listed and name not in asked and _WHICH_LAYERS.search(str(name)):
            return "which may say that some layers have no attention"
    says = (number and value not in (0, 1, -1)) or (isinstance(value, list) and value)
    if says and key not in asked and bears_on_positions(key) and _CHANGES.search(key):
        return "which is not read and may change the rotation"
    return None
