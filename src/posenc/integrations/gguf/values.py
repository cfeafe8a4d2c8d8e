"""The metadata of a GGUF file by the types that they have to have."""

import math
from collections.abc import Callable
from typing import Any, Literal

from posenc.integrations.gguf.header import MOST_CHANNELS, MOST_LAYERS, Header
from posenc.integrations.transformers.description.config import bears_on_positions


def is_number(value: Any) -> bool:
    """Is this a finite number, and no truth value, which Python counts among them?"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


#: What a value has to be: in words, as a test of one value, and whether it may be a list of such values.
_Kind = tuple[str, Callable[[Any], bool], Literal["one", "either", "list"]]


def _count(most: int, form: Literal["one", "either", "list"] = "either") -> _Kind:
    words = "a list of whole numbers" if form == "list" else "a whole number"
    return f"{words} from 0 to {most}", lambda v: is_number(v) and v == int(v) and 0 <= v <= most, form


_LENGTH, _LAYERS, _CHANNELS = _count(2**32 - 1), _count(MOST_LAYERS), _count(MOST_CHANNELS)
_POSITIVE: _Kind = ("a number above 0", lambda v: is_number(v) and v > 0, "one")
_NOT_NEGATIVE: _Kind = ("a number of at least 0", lambda v: is_number(v) and v >= 0, "one")
_NUMBER: _Kind = ("a number", is_number, "one")
_FLAG: _Kind = ("true or false", lambda v: isinstance(v, bool), "one")
_FLAGS: _Kind = ("a list of true or false, or of 0 and 1", lambda v: v in (0, 1), "list")

#: The keys that are read here. llama.cpp refuses a value of another type, such as a word, a truth value or a negative
#: count. Of a base below 0 it computes NaN, and of a factor below 0 rates that turn backwards.
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(("block_count", "decoder_block_count", "nextn_predict_layers"), _LAYERS),
    **dict.fromkeys(("leading_dense_block_count", "full_attention_interval"), _LAYERS),
    **dict.fromkeys(
        (
            *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.key_length_swa"),
            *("attention.key_length_mla", "attention.key_length_mla_swa", "rope.dimension_count_swa"),
        ),
        _CHANNELS,
    ),
    **dict.fromkeys(
        (
            *("context_length", "attention.sliding_window", "rope.scaling.original_context_length"),
            *("attention.temperature_length", "attention.relative_buckets_count"),
            *("d_rel", "rel_extent", "rel_extent_swa", "log_scaling_n_floor"),
        ),
        _LENGTH,
    ),
    **dict.fromkeys(
        (
            *("rope.freq_base", "rope.freq_base_swa", "rope.global.freq_base", "rope.local.freq_base"),
            *("attention.compress_rope_freq_base", "rope.scaling.attn_factor"),
        ),
        _POSITIVE,
    ),
    **dict.fromkeys(
        (
            *("rope.scaling.factor", "rope.scale_linear", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
            *("rope.scaling.beta_fast", "rope.scaling.beta_slow", "rope.scaling.beta", "rope.scaling_beta"),
            *("attention.temperature_scale", "attention.max_alibi_bias", "log_scaling_alpha"),
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("rope.scaling.alpha", "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor"), _NUMBER
    ),
    "rope.scaling.finetuned": _FLAG,
    "rope.scaling.type": ("a text", lambda v: isinstance(v, str), "one"),
    "attention.recurrent_layers": _FLAGS,
    **dict.fromkeys(
        (
            *("rope.dimension_sections", "rope.mrope_section", "mrope_sections", "attention.compress_ratios"),
            "attention.cross_attention_layers",
        ),
        _count(MOST_CHANNELS, form="list"),
    ),
    # Which layers have a window, or one for all; or how many layers there are in a group.
    "attention.sliding_window_pattern": (
        f"true or false, a list of them, or a whole number from 0 to {MOST_LAYERS}",
        lambda v: isinstance(v, bool) or _LAYERS[1](v),
        "either",
    ),
}


class Values:
    """The metadata of an architecture, by the types that they have to have; what was not asked for is named."""

    def __init__(self, header: Header, arch: str) -> None:
        self.header, self.arch = header, arch
        self.asked: set[str] = set()
        for key, (expected, fits, form) in _KINDS.items():
            found = header.get(key)
            several = isinstance(found, list)
            allowed = found is None or (several and form != "one") or (not several and form != "list")
            if not allowed or not all(map(fits, found if several else [] if found is None else [found])):
                raise self._wrong(key, found, expected)

    def any(self, key: str, default: Any = None) -> Any:
        self.asked.add(f"{self.arch}.{key}")
        return self.header.get(key, default)

    def number(self, key: str, default: Any = None) -> Any:
        """A number; of a list with one for each layer, the largest."""
        found = self.any(key)
        if isinstance(found, list) and found and all(is_number(each) for each in found):
            found = max(found)
        if found is None:
            return default
        if not is_number(found):
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

    def by_layer(self, key: str, count: int) -> Any:
        """A list with one value for each layer at least; or what else is there, for all of them."""
        found = self.any(key)
        if isinstance(found, list) and len(found) < count:
            raise self._wrong(key, found, f"a list of {count} values, one for each layer")
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
        return ValueError(f"{self.header.path}: {key} is {shown}, expected {expected}; the file was altered.")
