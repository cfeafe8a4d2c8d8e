"""What a constructor or ``from_dict`` refuses: foreign names, a class or a string for an object, what is no number."""

import difflib
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

_LENGTHS = (
    *("max_position_embeddings", "max_seq_len", "max_seq_length", "max_sequence_length", "max_len", "max_length"),
    *("max_positions", "n_positions", "num_embeddings", "num_positions", "seq_len", "block_size", "context_length"),
    *("context_size", "max_seq_len_cached", "cache_max_seq_len"),
)
_HEADS = ("n_heads", "heads", "n_head", "nhead", "num_attention_heads")

#: Names of other libraries -> ours, the likeliest first; the first that the class has is what is answered.
_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("theta", "rope_theta", "rotary_emb_base", "rotary_embedding_base"), ("base", "frequencies")),
    "base": ("frequencies",),
    **dict.fromkeys(
        ("original_max_position_embeddings", "original_max_positions", "original_context_length"), ("trained_length",)
    ),
    **dict.fromkeys(_LENGTHS, ("length", "trained_length")),
    **dict.fromkeys(("grid_size", "window_size", "num_patches"), ("grid", "window")),
    "window": ("grid",),
    "grid": ("window",),
    "axes": ("coordinates",),
    "sigma": ("bandwidth",),
    **dict.fromkeys(("max_wavelength", "max_period", "temperature"), ("base", "frequencies")),
    **dict.fromkeys(("scale", "scaling_factor", "scale_factor"), ("factor", "frequencies")),
    **dict.fromkeys(("mscale", "attn_factor", "attention_scaling"), ("attention_factor",)),
    **dict.fromkeys(("d_model", "hidden_size", "embed_dim", "embedding_dim", "n_embd"), ("dim", "head_dim")),
    **dict.fromkeys(("dim", "d_head", "dim_head", "head_size"), ("head_dim",)),
    "head_dim": ("dim",),
    **dict.fromkeys(_HEADS, ("num_heads",)),
    **dict.fromkeys(("n_kv_heads", "num_key_value_heads", "kv_heads"), ("num_kv_heads",)),
    **dict.fromkeys(("rotary_percent", "rotary_pct", "partial_rotary_factor", "rot_dim", "rope_dim"), ("rotary_dim",)),
    **dict.fromkeys(
        ("interleaved", "is_neox_style", "rope_interleave", "rotary_emb_interleaved", "traditional", "rotate_half"),
        ("pairing",),
    ),
    **dict.fromkeys(("seq_before_head_dim", "unsqueeze_dim", "tensor_format"), ("seq_dim",)),
    **dict.fromkeys(("freqs", "inv_freq", "scaling", "rope_scaling", "rope_parameters", "rule"), ("frequencies",)),
    **dict.fromkeys(
        (
            *(
                "learned_freq",
                "custom_freqs",
                "interpolate_factor",
                "interpolation_factor",
                "seq_len_interpolation_factor",
            ),
            *("theta_rescale_factor", "base_rescale_factor", "max_freq"),
        ),
        ("frequencies",),
    ),
    **dict.fromkeys(("bidirectional", "causal"), ("direction",)),
    **dict.fromkeys(("relative_attention_num_buckets", "num_relative_buckets"), ("num_buckets",)),
    **dict.fromkeys(("relative_attention_max_distance",), ("max_distance",)),
    "mrope_section": ("sections",),
    **dict.fromkeys(("slopes", "alibi_slopes"), ("rule",)),
    **dict.fromkeys(("alibi_bias_max", "max_alibi_bias"), ("max_bias",)),
}

#: What to write for one of these names, whatever it is called here.
_HOW_OF = {
    **dict.fromkeys(("rope_scaling", "rope_parameters"), "describe of posenc.integrations.transformers reads a config"),
    "learned_freq": 'pass frequencies=LearnedRates(parameter="rates") of posenc.frequencies',
    **dict.fromkeys(("custom_freqs", "freqs", "inv_freq"), "pass frequencies=Custom(rates) of posenc.frequencies"),
    **dict.fromkeys(
        ("interpolate_factor", "interpolation_factor", "seq_len_interpolation_factor"),
        "pass frequencies=Linear(factor) of posenc.frequencies",
    ),
    **dict.fromkeys(
        ("theta_rescale_factor", "base_rescale_factor"), "pass frequencies=NTK(factor) of posenc.frequencies"
    ),
    "max_freq": "pass frequencies=Linspaced(pi, max_freq * pi / 2) of posenc.frequencies",
}

#: What to write, where another value goes under the name too.
_HOW = {
    "frequencies": "pass a rule: frequencies=Geometric(base=...), or YaRN, Linear, ... of posenc.frequencies",
    "pairing": 'give pairing="interleaved" or pairing="half"',
    "seq_dim": "give seq_dim=-3 for (batch, seq, heads, head_dim), -2 for (batch, heads, seq, head_dim)",
    "rotary_dim": "give rotary_dim=..., the number of rotated channels",
    "direction": 'give direction="both" or direction="causal"',
    "rule": "give rule=(0.5, 0.25, ...), one slope for each head",
}


#: Names of other libraries, where the class has nothing of the kind -> why.
_LEAVE_OUT = {
    **dict.fromkeys(_LENGTHS, "no table of it ends at a length"),
    **dict.fromkeys((*_HEADS, "num_heads"), "all heads get the same encoding"),
    **dict.fromkeys(("device", "dtype"), ".to() moves its parameters, and all else follows the input"),
    "dropout": "add a torch.nn.Dropout after it",
    **dict.fromkeys(("use_xpos", "xpos_scale_base"), "posenc.XPos is the encoding that has this"),
}


def check_names(cls: type, given: Mapping[str, object]) -> None:
    """Answer an argument that ``cls`` does not have with the name that it has for it, or with why it needs none.

    Raises:
        TypeError: as said; an unknown name that nothing is known of is left to Python.
    """
    strange = [name for name in given if name in _NAMES or name in _LEAVE_OUT]
    if not strange:
        return
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in strange:
        if name in parameters:
            continue
        right = next((ours for ours in _NAMES.get(name, ()) if ours in parameters), None)
        if right is not None:
            how = _HOW_OF.get(name) or _HOW.get(right, f"call it {right}")
            raise TypeError(f"{cls.__name__}: got {name}={_short(given[name])}, expected {right}; {how}.")
        if name in _LEAVE_OUT:
            raise TypeError(
                f"{cls.__name__}: got {name}={_short(given[name])}, expected no such argument; leave it out: "
                f"{_LEAVE_OUT[name]}."
            )


def check_numbers(cls: type, args: tuple[object, ...], options: Mapping[str, object], *, whole: bool = True) -> None:
    """Refuse what is no number, NaN and infinity wherever the constructor of ``cls`` takes an int or a float.

    The annotation says which: ``int`` takes whole numbers, ``float`` finite ones; None where it is the default or the
    annotation has it. Without ``whole`` an ``int`` may be any finite number, such as the 8192.0 that some configs have.

    Raises:
        ValueError: something else.
    """
    wanted = _numbers(cls)
    for name, value in (*zip(wanted, args, strict=False), *options.items()):
        kind, may_be_none = wanted.get(name, (None, True))
        if kind is not None and not (value is None and may_be_none):
            check_number(cls.__name__, name, value, whole=whole and kind is int)


def check_number(who: str, name: str, value: object, *, whole: bool = False) -> None:
    """Refuse what is no number, NaN and infinity, and a fraction where a whole number is expected.

    Raises:
        ValueError: as said.
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        expected = EXPECTED.get(name, "a whole number" if whole else "a finite number")
        raise ValueError(f"{who}: got {name} {_short(value)}, expected {expected}.")


def check_flag(who: str, name: str, value: object) -> None:
    """Refuse what is neither True nor False: any text, "no" as well, would count as True.

    Raises:
        TypeError: as said.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: got {name} {_short(value)}, expected True or False.")


#: What a number is, where its name says too little.
EXPECTED = {
    **dict.fromkeys(("factor", "alpha"), "1 or more: the new context length divided by the trained length"),
    "share": "0 to 1: the share of the pairs that is rotated",
    "trained_length": "the number of tokens that the model was trained with before its context was extended "
    "(original_max_position_embeddings in Hugging Face configs)",
}


@functools.cache
def _numbers(cls: type) -> dict[str, tuple[type | None, bool]]:
    """The parameters of a constructor in order: ``int`` or ``float`` if annotated so, and whether None may stand."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]  # of the class itself
    except NameError:  # names that a user's module imports for type checkers alone
        hints = {}
    kinds: dict[str, tuple[type | None, bool]] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        hint = hints.get(name)
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kind = next((kind for kind in (float, int) if kind in options and {*options} <= _NUMBERS), None)
        kinds[name] = kind, types.NoneType in options or parameter.default is None
    return kinds


_NUMBERS = {int, float, types.NoneType}


def check_instance(who: str, name: str, value: object, kind: type, example: str) -> None:
    """Refuse a class, a string or anything else in the place of an object.

    Raises:
        TypeError: as said, with what to write.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        got, do = f"the class {value.__name__}", f"make one: {value.__name__}(...)"
    elif isinstance(value, str):
        got, do = f"{value!r}", f"give an object, such as {example}"
    else:
        got, do = f"a value of type {type(value).__name__}", f"give an object, such as {example}"
    raise TypeError(f"{who}: got {got} as {name}, expected an instance of {kind.__name__}; {do}.")


def refuse_change(built: object, name: str) -> NoReturn:
    """Say that a setting cannot be assigned any more.

    Raises:
        AttributeError: always.
    """
    cls = type(built).__name__
    raise AttributeError(
        f"{cls}: got another {name} for an encoding that is built, expected no change, because its tables are "
        f"computed; build another {cls} with {name}=..., and give that to the model."
    )


def nearest(name: str, known: Mapping[str, str]) -> str | None:
    """The known name that is written almost like this one."""
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.75)
    return lower[near[0]] if near else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_keys(who: str, data: object, known: set[str], *, required: set[str]) -> dict[str, Any]:
    """What ``from_dict`` was given, without the name of the class: a mapping of known keys, none missing.

    Raises:
        TypeError: no mapping.
        ValueError: unknown keys, or missing ones.
    """
    if not isinstance(data, Mapping):
        raise TypeError(
            f"{who}: from_dict got a value of type {type(data).__name__}, expected a mapping, as to_dict makes it."
        )
    given = {key: value for key, value in data.items() if key != "name"}
    if unknown := sorted(map(str, given.keys() - known)):
        raise ValueError(
            f"{who}: from_dict got unknown keys {unknown}, expected {sorted(known)}; was this written by another "
            "version?"
        )
    if missing := sorted(required - given.keys()):
        raise ValueError(f"{who}: from_dict got no {missing[0]!r}, expected {sorted(required)} at least.")
    return given
