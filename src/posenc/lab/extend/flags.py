"""A rule in the words of other programs: the flags of vLLM and llama.cpp that give the same rates, or why none do."""

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
    "none: a GGUF file of this model has factors of its own, by which llama.cpp divides the rates besides; convert the "
    "saved folder with convert_hf_to_gguf.py."
)
"""Why no flags of llama.cpp do, of a model as Llama 3.1."""


def flags(
    rule: Setting,
    *,
    trained_length: int,
    length: int,
    rotary_dim: int | None,
    head_dim: int | None = None,
    factors: bool = False,
) -> dict[str, str]:
    """What to add to the command lines of other programs, or why nothing would do.

    They are for the model as it was. A folder that was saved has the rule in its config, which other programs read as
    well, but not all of it: of LongRoPE's attention factor vLLM takes no notice, and needs its flags even so. Read in
    the sources of vLLM (August 2026) and of the llama.cpp within llama-cpp-python 0.3.36. A test runs llama.cpp, and
    does what vLLM does to a config.

    Args:
        rule: the rule; None for the model as it is, "interpolate" for a learned table.
        trained_length: tokens, before any extension.
        length: tokens that are wanted.
        rotary_dim: rotated channels of a head; None without rotation.
        head_dim: all channels of a head, if they are more.
        factors: whether the model's own rule is stored as factors in a GGUF file (:func:`stored_as_factors`):
            llama.cpp divides the rates by them whatever the flags say.

    Returns:
        ``{"vLLM": ..., "llama.cpp": ...}``. What follows a ``#`` is for the reader, and a shell leaves it out.
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
    """Whether a GGUF file of a model with this rule has a factor for each of its rates."""
    return isinstance(rule, (Llama3, LongRoPE, Proportional))


def llama_cpp_options(rule: Frequencies, *, length: int) -> dict[str, Any]:
    """llama.cpp's options for a rule, by their long names.

    Its YaRN is that of the authors' code, with the ends of the ramp rounded outwards and bounded by the channels. It
    multiplies cos and sin by 1 + 0.1 ln(factor) of itself, and overwrites what ``--yarn-attn-factor`` says; only a
    value of the file, ``rope.scaling.attn_factor``, multiplies that.

    Raises:
        ValueError: llama.cpp has no such rule; the message says so, and what to do.
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
                "none: llama.cpp has YaRN with rounded ends and without mscale_all_dim, unless the file says otherwise."
            )
        case _:
            raise ValueError(
                f"none: llama.cpp takes the rates of {type(rule).__name__} only from a tensor of the file, "
                "rope_freqs.weight; convert_hf_to_gguf.py writes it for a saved folder with a Llama-3 style rule, and "
                "for other rates the package gguf can add it."
            )


def llama_cpp_attention(rule: Frequencies) -> float:
    """What ``rope.scaling.attn_factor`` of the file has to be for a rule: 1 unless YaRN's factor is not the usual."""
    usual = 0.1 * math.log(rule.factor) + 1 if isinstance(rule, YaRN) else 1.0
    return rule.attention_factor / usual


def fixed_at(rule: Frequencies, length: int, rotary_dim: int) -> Frequencies:
    """Rules that are a larger base, as that base: what a whole text of ``length`` tokens has."""
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
    # llama-server stops at the context length of the file, which YaRN alone moves.
    reach = rule.factor * rule.trained_length if isinstance(rule, YaRN) else 0
    return _line(line, *notes, _capped(length) if reach < length else "")


def _capped(length: int) -> str:
    return f"llama-server besides: --override-kv ARCH.context_length=int:{length}, ARCH as in the file"


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
