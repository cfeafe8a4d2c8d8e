"""The keys of a rotary rule in a Hugging Face config, and the frequency rule that they mean."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from posenc.frequencies import (
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    NTKMixed,
    Proportional,
    YaRN,
)

#: Names of one rule that are in use besides the one that transformers has today.
RULE_ALIASES = {
    "su": "longrope",  # Phi-3 before transformers 4.41
    "mrope": "default",  # Qwen2-VL; the sections say the rest
    "xdrope": "dynamic",  # HunyuanVL
    "deepseek_yarn": "yarn",  # vLLM
    "axial": "default",  # two or three axes, which the model type says
    "ntk_alpha": "dynamic",
}
#: A note: the config itself turns the temperature of YaRN off.
NO_TEMPERATURE = "mscale equals mscale_all_dim: no temperature, as intended"
#: A note: the trained length is that of the whole.
LENGTH_TAKEN = (
    "original_max_position_embeddings is not given: max_position_embeddings is used instead, as in transformers"
)
#: The rules that need the trained length.
NEEDS_TRAINED_LENGTH = ("yarn", "longrope", "llama3")
_EVERY_RULE = {
    *("rope_type", "type", "rope_theta", "partial_rotary_factor"),
    *("mrope_section", "mrope_interleaved", "interleaved", "xdrope_section"),  # several axes
    "llama_4_scaling_beta",  # a temperature, whatever the rule
}
_LENGTHS = {"original_max_position_embeddings", "max_position_embeddings"}
_YARN = {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "finetuned"}
_KEYS: dict[str, set[str]] = {
    "default": _LENGTHS,
    "linear": {"factor", *_LENGTHS},
    "dynamic": {"factor", *_LENGTHS},
    "ntk": {"factor", "mixed_b", *_LENGTHS},  # vLLM's, which transformers does not have
    "ntkmixed": {"factor", "power", *_LENGTHS},  # BlueLM's
    "yarn": {*_YARN, *_LENGTHS},
    "longrope": {"short_factor", "long_factor", "factor", "attention_factor", "short_mscale", "long_mscale", *_LENGTHS},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", *_LENGTHS},
    "proportional": {"factor", *_LENGTHS},
}
_ALPHA = {"alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", *_LENGTHS}  # Hunyuan's "dynamic"
_NEEDED = {
    **dict.fromkeys(("linear", "dynamic", "ntk"), ("factor",)),
    "ntkmixed": ("factor", "power"),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_MEANT = {"attn_factor": "attention_factor", "theta": "rope_theta", "base": "rope_theta", "scale": "factor"}

_OF_FOPE = frozenset({"fope_init_factor", "fope_sep_head", "num_inv_freq", "use_fope"})


@dataclass(frozen=True)
class Rule:
    """A frequency rule as a config gives it.

    Attributes:
        name: transformers' name of the rule.
        frequencies: the rule.
        trained_length: tokens before any extension, if the config says.
        longest: tokens that it was made for, if the config says.
        notes: what a reader should know.
    """

    name: str
    frequencies: Frequencies
    trained_length: int | None
    longest: int | None
    notes: tuple[str, ...] = ()


def read_rule(
    parameters: Mapping[str, Any],
    *,
    where: str,
    base: float | None,
    max_positions: int | None,
    trained_length: int | None = None,
    share: float = 1.0,
    corrects_scores: bool = False,
) -> Rule:
    """The rule that ``rope_parameters`` (or v4's ``rope_scaling``) mean.

    Args:
        parameters: one flat dict of them.
        where: what an error calls them.
        base: the base from outside of them (``rope_theta`` of the config), if there is one.
        max_positions: ``max_position_embeddings``.
        trained_length: ``original_max_position_embeddings`` from outside of them (Phi-3).
        share: ``partial_rotary_factor``, which "proportional" alone reads as a share of the pairs.
        corrects_scores: True if the model multiplies its softmax scale by g(mscale_all_dim)^2, as DeepSeek-V3 does.

    Raises:
        ValueError: an unknown rule or key, one that contradicts another, or one that is missing.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    name, notes = check_keys(parameters, where=where)
    base = _base(given, base, where)
    original = _trained_length(given, trained_length, max_positions, where)
    if name in NEEDS_TRAINED_LENGTH:
        if original is None and max_positions is not None:
            original = max_positions
            notes.append(LENGTH_TAKEN)
        if original is None:
            raise ValueError(
                f"{where}: the rule {name!r} lacks original_max_position_embeddings, the length before the extension, "
                "and max_position_embeddings; add them."
            )
        if max_positions is not None and original > max_positions:
            if name == "yarn":
                raise ValueError(
                    f"{where}: original_max_position_embeddings is {original} and max_position_embeddings is "
                    f"{max_positions}, expected max_position_embeddings, the extended length, to be the longer one; "
                    "exchange the two values."
                )
            notes.append(
                f"max_position_embeddings, {max_positions}, is below original_max_position_embeddings, {original}: the "
                "rates are those of the rule all the same"
            )
    if name == "default":
        return Rule(name, Geometric(base), max_positions, max_positions, tuple(notes))
    if name == "linear":
        return _linear(given, base, max_positions, original, notes, where)
    if name in ("ntk", "ntkmixed"):
        return _ntk(name, given, base, max_positions, notes, where)
    if name == "proportional":
        rule = Proportional(share, base=base, factor=given.get("factor", 1.0))
        return Rule(name, rule, max_positions, max_positions, tuple(notes))
    if name == "dynamic":
        return _dynamic(given, base, max_positions, original, notes, where)
    if name == "llama3":
        rule3 = Llama3(
            _need(given, "factor", name, where),
            trained_length=original or 0,
            low_freq_factor=_need(given, "low_freq_factor", name, where),
            high_freq_factor=_need(given, "high_freq_factor", name, where),
            base=base,
        )
        return Rule(name, rule3, original, max_positions, tuple(notes))
    factor = given.get("factor")
    if factor is None:
        if not original or max_positions is None or original is None:
            raise ValueError(f"{where}: the rule {name!r} lacks factor; add it.")
        factor = max_positions / original
        notes.append(f"factor {factor:g} from max_position_embeddings / original_max_position_embeddings")
    # Many configs leave max_position_embeddings at the trained length; a larger one is what the model was made for.
    longest = max_positions if max_positions not in (None, original) else round(factor * (original or 0))
    if name == "longrope":
        return Rule(name, _longrope(given, factor, original or 0, base, where), original, longest, tuple(notes))
    return Rule(
        name, _yarn(given, factor, original or 0, base, corrects_scores, notes), original, longest, tuple(notes)
    )


def check_keys(parameters: Mapping[str, Any], *, where: str) -> tuple[str, list[str]]:
    """The name of the rule, and what is not read of its parameters.

    Raises:
        ValueError: an unknown rule; a key that is missing, or that looks like a mistake.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    if of_fope := sorted(_OF_FOPE & given.keys()):
        raise ValueError(
            f"{where}: got {', '.join(of_fope)}, which say that the model has FoPE, whose coefficients are in its "
            "weights and not in its config; build posenc.FoPE(head_dim, num_heads=..., num_kv_heads=..., "
            "trained_length=...) and load cos_coef and sin_coef of a layer into it."
        )
    name = _name(given, where)
    alpha = name == "dynamic" and "alpha" in given
    allowed = _EVERY_RULE | (_ALPHA if alpha else _KEYS[name])
    for key in () if alpha else _NEEDED.get(name, ()):
        computed = name == "yarn" and key in parameters  # null: max_position_embeddings / the trained length
        if given.get(key) is None and not computed:
            raise ValueError(f"{where}: the rule {name!r} lacks {key}; add it.")
    return name, [_unknown_key(key, name, allowed, where) for key in sorted(given.keys() - allowed)]


def _yarn(
    given: Mapping[str, Any], factor: float, original: int, base: float, corrects_scores: bool, notes: list[str]
) -> YaRN:
    options: dict[str, Any] = {key: given[key] for key in ("beta_fast", "beta_slow") if given.get(key)}
    mscale, all_dim = given.get("mscale"), given.get("mscale_all_dim")
    if mscale and all_dim:
        options["mscale"] = mscale
        if corrects_scores:
            options["mscale_all_dim"] = all_dim
        else:
            ratio = (0.1 * mscale * math.log(factor) + 1) / (0.1 * all_dim * math.log(factor) + 1)
            options |= {"mscale": 1.0, "attention_factor": ratio}
            # Equal weights are how a config says that there is to be no temperature.
            notes.append(
                NO_TEMPERATURE if ratio == 1 else "mscale_all_dim lowers cos and sin, and not the softmax scale"
            )
    elif all_dim and corrects_scores:
        # Without mscale, cos and sin carry the whole temperature, and the scores carry theirs besides.
        options |= {"mscale_all_dim": all_dim, "attention_factor": 0.1 * math.log(factor) + 1}
    elif mscale:
        notes.append(f"mscale {mscale} without mscale_all_dim is not read by transformers")
    if given.get("attention_factor") is not None:
        options["attention_factor"] = float(given["attention_factor"])
    return YaRN(
        factor,
        trained_length=original,
        base=base,
        ends="rounded" if given.get("truncate", True) else "exact",
        **options,
    )


def _longrope(given: Mapping[str, Any], factor: float, original: int, base: float, where: str) -> LongRoPE:
    options: dict[str, Any] = {"trained_length": original, "base": base, "factor": max(factor, 1.0)}
    if given.get("attention_factor") is not None:
        options["attention_factor"] = float(given["attention_factor"])
    if "short_mscale" in given or "long_mscale" in given:
        options["attention_factor"] = float(_need(given, "short_mscale", "longrope", where))
        options["long_attention_factor"] = float(_need(given, "long_mscale", "longrope", where))
    short, long = (_need(given, key, "longrope", where) for key in ("short_factor", "long_factor"))
    if list(short) == list(long) and "long_attention_factor" not in options:
        options["switch"] = "long"  # whatever the length: cached keys stay right
    return LongRoPE(short, long, **options)


def _linear(
    given: Mapping[str, Any],
    base: float,
    max_positions: int | None,
    original: int | None,
    notes: list[str],
    where: str,
) -> Rule:
    """``max_position_embeddings`` beside a linear factor means the length before or after it, by who wrote it."""
    factor = _need(given, "factor", "linear", where)
    rule = Linear(_at_least_one(factor, "linear", where), base=base)
    if original is not None and original != max_positions:
        return Rule("linear", rule, original, max_positions, tuple(notes))
    if max_positions is not None and factor != 1:
        notes.append(
            f"max_position_embeddings, {max_positions}, is taken as the length before the scaling, as vLLM does; where "
            f"the length after it is meant, the model was trained with {round(max_positions / factor)}"
        )
    longest = None if max_positions is None else round(max_positions * factor)
    return Rule("linear", rule, max_positions, longest, tuple(notes))


def _ntk(
    name: str, given: Mapping[str, Any], base: float, max_positions: int | None, notes: list[str], where: str
) -> Rule:
    """vLLM's and BlueLM's: ``max_position_embeddings`` is the length before it."""
    factor = _at_least_one(_need(given, "factor", name, where), name, where)
    notes.append(f"the rule {name!r} is {'vLLM' if name == 'ntk' else 'BlueLM'}'s; transformers does not have it")
    longest = None if max_positions is None else round(max_positions * factor)
    rule = NTKMixed(factor, given.get("mixed_b", 1.0) if name == "ntk" else given["power"], base=base)
    return Rule(name, rule, max_positions, longest, tuple(notes))


def _at_least_one(factor: float, name: str, where: str) -> float:
    if not factor >= 1:
        raise ValueError(
            f"{where}: the rule {name!r} has factor {factor}, expected 1 or more, because a factor below 1 makes the "
            "context shorter; if the number is llama.cpp's rope-freq-scale, give its reciprocal, "
            f"{1 / factor if factor > 0 else 1:g}."
        )
    return factor


def _dynamic(
    given: Mapping[str, Any],
    base: float,
    max_positions: int | None,
    original: int | None,
    notes: list[str],
    where: str,
) -> Rule:
    if given.get("alpha"):
        ignored = sorted(given.keys() & (_ALPHA - _LENGTHS - {"alpha"}))
        notes += [f"not used beside alpha: {', '.join(ignored)}"] if ignored else []
        return Rule("dynamic", NTKAlpha(given["alpha"], base=base), max_positions, max_positions, tuple(notes))
    factor = _need(given, "factor", "dynamic", where)
    if max_positions is None:
        raise ValueError(f"{where}: the rule 'dynamic' lacks max_position_embeddings, the trained length; add it.")
    if original not in (None, max_positions):
        raise ValueError(
            f"{where}: original_max_position_embeddings is {original} and max_position_embeddings is {max_positions}; "
            "the rule 'dynamic' starts at max_position_embeddings, so set it to the trained length and drop the other."
        )
    rule = DynamicNTK(_at_least_one(factor, "dynamic", where), trained_length=max_positions, base=base)
    return Rule("dynamic", rule, max_positions, None, tuple(notes))


def _name(given: Mapping[str, Any], where: str) -> str:
    names = {RULE_ALIASES.get(str(given[key]), str(given[key])) for key in ("rope_type", "type") if key in given}
    if len(names) > 1:
        raise ValueError(
            f"{where}: rope_type is {given['rope_type']!r} and type is {given['type']!r}, expected one rule; drop type."
        )
    name = names.pop() if names else "default"
    if not names and name == "default" and "factor" in given and "rope_type" not in given and "type" not in given:
        raise ValueError(f"{where}: got a factor and no rope_type, expected one of {sorted(_KEYS)}; add it.")
    if name not in _KEYS:
        near = difflib.get_close_matches(name, [*_KEYS, *RULE_ALIASES], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{where}: rope_type is {name!r}, expected one of {sorted({*_KEYS, *RULE_ALIASES})}{hint}")
    return name


def _unknown_key(key: str, name: str, allowed: set[str], where: str) -> str:
    """What to say of a key that the rule does not have; what looks like a mistake is refused."""
    elsewhere = [rule for rule, keys in _KEYS.items() if key in keys]
    if key in _MEANT:
        advice = f"transformers does not read it; write {_MEANT[key]}"
    elif elsewhere:
        advice = f"it belongs to {' and '.join(map(repr, elsewhere))}; remove it, or change rope_type"
    elif near := difflib.get_close_matches(key, allowed, n=1):
        advice = f"did you mean {near[0]!r}?"
    else:
        return f"not read: {key}, which the rule {name!r} does not have"
    raise ValueError(f"{where}: the rule {name!r} has no key {key!r}, expected one of {sorted(allowed)}; {advice}")


def _base(given: Mapping[str, Any], outside: float | None, where: str) -> float:
    inside = given.get("rope_theta")
    if inside is not None and outside is not None and inside != outside:
        raise ValueError(
            f"{where}: rope_theta is {inside} among the rotary parameters and {outside} beside them, expected one "
            "base; drop one of them."
        )
    if inside is None and outside is None:
        raise ValueError(
            f"{where}: got no rope_theta, expected the base of the wavelengths; add rope_theta. (transformers 5 keeps "
            "it among the rotary parameters: setting rope_scaling of a config object removes it.)"
        )
    base = inside if inside is not None else outside
    if isinstance(base, bool) or not isinstance(base, Real):  # a number of NumPy is one
        raise ValueError(f"{where}: rope_theta is {base!r}, expected one base for these layers; correct it.")
    return float(base)


def _trained_length(given: Mapping[str, Any], outside: int | None, max_positions: int | None, where: str) -> int | None:
    inside = given.get("original_max_position_embeddings")
    if inside is not None and outside is not None and inside != outside:
        taken = ", max_position_embeddings where none is written there," if inside == max_positions else ""
        raise ValueError(
            f"{where}: original_max_position_embeddings is {inside} in the rotary parameters{taken} and {outside} "
            "beside them; keep the correct one among the rotary parameters, and drop the other."
        )
    found = inside if inside is not None else outside
    return None if found is None else int(found)


def _need(given: Mapping[str, Any], key: str, name: str, where: str) -> Any:
    if given.get(key) is None:
        raise ValueError(f"{where}: the rule {name!r} lacks {key}; add it.")
    return given[key]
