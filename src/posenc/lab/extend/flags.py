"""Writes a rule as flags of vLLM and llama.cpp that give the same rates, or the reason why there are none."""

import json
import math
from typing import Any

from posenc import RoPE
from posenc.frequencies import (
    NTK,
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    Proportional,
    YaRN,
)
from posenc.integrations.transformers import to_transformers
from posenc.lab.extend.candidates import Setting

STORED_FACTORS = (
    "none: a GGUF file of this model stores factors, by which llama.cpp divides the rates in addition; convert the "
    "saved folder with convert_hf_to_gguf.py."
)
"""The reason why there are no flags of llama.cpp for a model such as Llama 3.1."""


def flags(
    rule: Setting,
    *,
    trained_length: int,
    length: int,
    rotary_dim: int | None,
    head_dim: int | None = None,
    factors: bool = False,
) -> dict[str, str]:
    """Return the flags for other programs, or the reason why there are none.

    The flags are for the original model. A saved folder has the rule in its config, which other programs also read,
    but not completely: vLLM ignores LongRoPE's attention factor in the config, and needs its flags there too. Read in
    the sources of vLLM (August 2026) and of the llama.cpp in llama-cpp-python 0.3.36. A test runs llama.cpp, and
    applies the overrides to a config as vLLM does.

    Args:
        rule: the rule; None for the untouched model, "interpolate" for a learned table.
        trained_length: tokens, before any extension.
        length: the wanted length in tokens.
        rotary_dim: rotated channels of a head; None without rotation.
        head_dim: all channels of a head, if they are more.
        factors: whether the model's own rule is stored as factors in a GGUF file (:func:`stored_as_factors`):
            llama.cpp divides the rates by them, whatever the flags are.

    Returns:
        ``{"vLLM": ..., "llama.cpp": ...}``. Text after ``#`` is for the reader; a shell ignores it.
    """
    if rule == "interpolate":
        return {
            "vLLM": f"--max-model-len {length}  # with the saved folder: the longer table is among its weights",
            "llama.cpp": f"--ctx-size {length}  # with the saved folder, after convert_hf_to_gguf.py",
        }
    if rule is None or rotary_dim is None:
        return {"vLLM": _vllm(None, length), "llama.cpp": _line(f"--ctx-size {length}", _capped(length))}
    fixed = fixed_at(rule, length, rotary_dim)
    note = "" if not rule.depends_on_length or fixed is rule else f"its rates at {length} tokens, for shorter texts too"
    return {
        "vLLM": _vllm_rule(fixed, trained_length, length, rotary_dim, head_dim, note),
        "llama.cpp": STORED_FACTORS if factors else _llama_cpp(fixed, length, note),
    }


def stored_as_factors(rule: Frequencies | None) -> bool:
    """Whether a GGUF file of a model with this rule stores a factor for each rate."""
    return isinstance(rule, (Llama3, LongRoPE, Proportional))


def llama_cpp_options(rule: Frequencies, *, length: int) -> dict[str, Any]:
    """llama.cpp's options for a rule, by their long names.

    Its YaRN is that of the authors' code, with the ends of the ramp rounded outwards and bounded by the channels. It
    always multiplies cos and sin by 1 + 0.1 ln(factor), and overwrites ``--yarn-attn-factor``; only a
    value in the file, ``rope.scaling.attn_factor``, changes this factor.

    Raises:
        ValueError: llama.cpp has no such rule; the message says what to do.
    """
    match rule:
        case Geometric():
            return {"rope-scaling": "none", "rope-freq-base": rule.base, "ctx-size": length}
        case Linear():
            options = {"rope-scaling": "linear", "rope-scale": rule.factor, "rope-freq-base": rule.base}
            return {**options, "ctx-size": length}
        case YaRN(ramp="code", ends="rounded", clamp="channels", mscale_all_dim=0):
            return {
                "rope-scaling": "yarn",
                "rope-scale": rule.factor,
                "rope-freq-base": rule.base,
                "yarn-orig-ctx": rule.trained_length,
                "yarn-ext-factor": 1,
                "yarn-beta-fast": rule.beta_fast,
                "yarn-beta-slow": rule.beta_slow,
                "ctx-size": length,
            }
        case YaRN(ramp="code"):
            raise ValueError(
                "none: llama.cpp's flags give YaRN with rounded ends and without mscale_all_dim; only the model's "
                "file can change these two."
            )
        case _:
            raise ValueError(
                f"none: llama.cpp takes the rates of {type(rule).__name__} only from a tensor of the file, "
                "rope_freqs.weight; convert_hf_to_gguf.py writes it for a saved folder with a Llama-3 style rule, and "
                "for other rates the package gguf can add it."
            )


def llama_cpp_attention(rule: Frequencies) -> float:
    """The value of ``rope.scaling.attn_factor`` in the file for a rule: 1 unless YaRN has another attention factor."""
    usual = 0.1 * math.log(rule.factor) + 1 if isinstance(rule, YaRN) else 1.0
    return rule.attention_factor / usual


def fixed_at(rule: Frequencies, length: int, rotary_dim: int) -> Frequencies:
    """Replace a rule that only changes the base by that base, as for a whole text of ``length`` tokens."""
    if not isinstance(rule, (NTK, NTKAlpha, DynamicNTK)):
        return rule
    second = float(rule.inv_freq(rotary_dim, length=length)[1])
    return Geometric(second ** (-rotary_dim / 2))


def _llama_cpp(rule: Frequencies, length: int, note: str) -> str:
    try:
        options = llama_cpp_options(rule, length=length)
    except ValueError as error:
        return str(error)
    kind = options.pop("rope-scaling")
    line = " ".join([f"--rope-scaling {kind}", *(f"--{name} {value:.10g}" for name, value in options.items())])
    notes = [note]
    if not math.isclose(ratio := llama_cpp_attention(rule), 1, rel_tol=1e-6):
        line += f" --override-kv ARCH.rope.scaling.attn_factor=float:{ratio:.6g}"
        notes.append("ARCH is the file's general.architecture")
    # llama-server stops at the context length of the file, which only YaRN changes.
    reach = rule.factor * rule.trained_length if isinstance(rule, YaRN) else 0
    return _line(line, *notes, _capped(length) if reach < length else "")


def _capped(length: int) -> str:
    return f"also for llama-server: --override-kv ARCH.context_length=int:{length}, ARCH as in the file"


def _vllm_rule(
    rule: Frequencies, trained_length: int, length: int, rotary_dim: int, head_dim: int | None, note: str
) -> str:
    if isinstance(rule, YaRN) and length > (reach := math.ceil(rule.factor * rule.trained_length)):
        return f"none: vLLM's table for YaRN ends at factor x trained length, {reach} tokens; choose a larger factor."
    rope = RoPE(head_dim or rotary_dim, frequencies=rule, rotary_dim=rotary_dim)
    try:
        parameters = to_transformers(rope, {"max_position_embeddings": trained_length})["rope_parameters"]
    except ValueError as error:
        return f"none: {error}"
    notes = [note]
    if isinstance(rule, YaRN) and parameters["rope_type"] == "yarn" and rule.score_factor == 1:
        attention = 0.1 * math.log(rule.factor) + 1
        usual = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "attention_factor": attention}
        parameters = {key: value for key, value in parameters.items() if value != usual.get(key)}
        if "attention_factor" in parameters:
            notes.append("some versions of vLLM do not read attention_factor")
    if parameters["rope_type"] == "longrope" and "attention_factor" in parameters:
        parameters |= dict.fromkeys(("short_mscale", "long_mscale"), parameters.pop("attention_factor"))
    return _line(_vllm(parameters, length), *notes)


def _vllm(parameters: dict[str, Any] | None, length: int) -> str:
    overrides = ({} if parameters is None else {"rope_parameters": parameters}) | {"max_position_embeddings": length}
    return f"--hf-overrides '{json.dumps(overrides)}' --max-model-len {length}"


def _line(line: str, *notes: str) -> str:
    told = "; ".join(note for note in notes if note)
    return f"{line}  # {told}" if told else line
