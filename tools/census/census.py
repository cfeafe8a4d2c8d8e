"""Does posenc read every model type of the installed transformers as that model computes itself?"""

import copy
import dataclasses
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from posenc import ALiBi, AxialRoPE, Compose, Learned, MRoPE, NoPE, RoPE, Sinusoidal, SSMax, T5Bias, Temperature
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.encoding import Encoding
from posenc.integrations.transformers import LayerGroup, describe
from posenc.scores import DecomposedBias, InklingBias, LeViTBias, SwinBias, SwinV2Bias
from tools.census import comparisons
from tools.census.comparisons import Rotation, rotation_of
from tools.census.configs import DIFFERENCES, REPAIRS, VARIANTS

Status = Literal["agreed", "differs", "not covered", "not rotated", "not rotary", "parts only", "not built"]

#: Angles are allowed this much of themselves: what float32 costs the model's own arithmetic.
TOLERANCE = 2e-6
_WITHIN = (0, 1, 2, 3, 5, 17, 64, 255, 1000, 2047, 4095, 4096)


@dataclass(frozen=True)
class Row:
    """One kind of layer of one model type."""

    model_type: str
    label: str
    status: Status
    encoding: str
    module: str
    error: float | None = None
    positions: int | None = None
    note: str = ""


def census(only: str | None = None) -> Iterator[Row]:
    """A row for every kind of layer of every model type of the installed transformers, at its default config.

    Args:
        only: a regular expression that model types must match as a whole.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    for model_type in sorted(transformers.CONFIG_MAPPING.keys()):
        if only is None or re.fullmatch(only, model_type):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from rows_of(model_type)


def rows_of(model_type: str) -> list[Row]:
    """The rows of one model type: of its default config, or a repaired one, and of its variants."""
    import transformers

    cls = transformers.CONFIG_MAPPING[model_type]
    repair, reason = REPAIRS.get(model_type, ({}, ""))
    rows: list[Row] = []
    for name, options in (("", repair), *VARIANTS.get(model_type, ())):
        try:
            config = cls(**copy.deepcopy(options))
        except Exception as error:  # whatever stands in the way of a config
            rows.append(Row(model_type, name, "not built", "", "", note=_first_line(error)))
            continue
        for row in rows_of_config(model_type, config):
            label = ", ".join(part for part in (name, row.label) if part)
            note = "; ".join(part for part in ("" if name else reason, row.note) if part)
            if row.status == "differs":
                note = "; ".join((DIFFERENCES.get((model_type, name), "unknown"), row.note))
            rows.append(dataclasses.replace(row, label=label, note=note))
    return rows


def rows_of_config(model_type: str, config: Any) -> list[Row]:
    """The rows of a config; those of its parts are rows of their own model types."""
    raw = config.to_dict() | {"model_type": model_type}
    nameless = _rows_of_nameless_parts(model_type, config)
    rows = _rows_of_its_own(model_type, config, raw)
    return nameless + [row for row in rows if not nameless or row.status != "parts only"]


def _rows_of_its_own(model_type: str, config: Any, raw: dict[str, Any]) -> list[Row]:
    has_parts = any(isinstance(value, dict) and "model_type" in value for value in raw.values())
    try:
        described = describe(raw)
    except ValueError as error:
        if "says nothing of a positional encoding" not in str(error):
            return [Row(model_type, "", "not covered", "", "", note=_first_line(error))]
        if has_parts:
            return [Row(model_type, "", "parts only", "", "")]
        if found := _classes_or_none(config):
            return [Row(model_type, "", "not covered", "", ", ".join(cls.__name__ for cls in found))]
        return [Row(model_type, "", "not rotary", "", "")]
    for text in described.unread:
        if text.startswith("the whole: "):
            return [Row(model_type, "", "not covered", "", "", note=_first_line(text))]
    own_groups = [group for group in described if not group.part]  # parts have rows of their own
    if not own_groups:
        return [Row(model_type, "", "parts only", "", "")]
    return [_compared(model_type, config, group) for group in own_groups]


def _rows_of_nameless_parts(model_type: str, config: Any) -> list[Row]:
    """Parts of some models have no model type, and so no rows of their own."""
    found: list[Row] = []
    for name, part in vars(config).items():
        if hasattr(part, "to_dict") and getattr(part, "model_type", None) == "":
            for row in rows_of_config(f"{model_type}.{name}", part):
                if row.status not in ("not rotary", "parts only"):
                    found.append(dataclasses.replace(row, model_type=model_type, label=row.label or name))
    return found


def _compared(model_type: str, config: Any, group: LayerGroup) -> Row:
    text = _in_short(group.encoding)
    note = "; ".join(group.notes)
    try:
        rotation = rotation_of(group.encoding)
        module, error, positions = _compare(model_type, config, group, rotation)
        if isinstance(group.encoding, Compose) and any(part.scales_scores for part in group.encoding.parts[1:]):
            temperature = next(
                p for p in group.encoding.parts if p.scales_scores and not isinstance(p, (RoPE, AxialRoPE, MRoPE))
            )
            found = comparisons.temperature_error(config, temperature)
            error = max(error, found or 0.0)
            note += f"temperature {temperature}" + (" not compared: learned, or inline" if found is None else "")
        scale = _score_factor_error(config, rotation)
        error = max(error, scale)
    except comparisons.NotComparableError as reason:
        return Row(model_type, group.label, "not covered", text, "", note=str(reason))
    except Exception as trouble:  # a census goes on
        note = f"{type(trouble).__name__}: {_first_line(trouble)}"
        return Row(model_type, group.label, "not covered", text, "", note=note)
    status: Status = "agreed" if error <= 1 else "differs"
    if isinstance(group.encoding, NoPE):  # read from the code: there is nothing to compare
        status, module = "not rotated", ""
    return Row(model_type, group.label, status, text, module, error, positions, note)


def _compare(
    model_type: str, config: Any, group: LayerGroup, rotation: Rotation | None
) -> tuple[str, float, int | None]:
    name = "esmfold2" if model_type.startswith("esmfold2") else model_type
    if name in comparisons.COMPARISONS and rotation is not None:
        return comparisons.COMPARISONS[name](config, group)
    if rotation is not None:
        return _compare_rotation(config, group, rotation)
    parts = group.encoding.parts
    if isinstance(parts[0], NoPE):
        return "none", 0.0, None
    found = [_compare_other(config, each) for each in parts if not isinstance(each, (SSMax, Temperature))]
    names, errors, lasts = zip(*found, strict=True)
    return " and ".join(names), max(errors), min(lasts)


def _score_factor_error(config: Any, rotation: Rotation | None) -> float:
    """DeepSeek's second correction: what the model's own function makes of a softmax scale of 1."""
    module = modeling(config)
    if rotation is None or not hasattr(module, "yarn_apply_mscale"):
        return 0.0
    parameters = config.rope_parameters
    theirs = module.yarn_apply_mscale(parameters, 1.0) if parameters.get("rope_type") != "default" else 1.0
    ours = float(torch.as_tensor(rotation.temperature(torch.arange(1))).max())
    return abs(float(theirs) - ours) / 1e-6


def _compare_rotation(config: Any, group: LayerGroup, rotation: Rotation) -> tuple[str, float, int]:
    """The largest error over its budget, where the model's module and its own apply function say what is right."""
    module = _rotary_module(config)
    apply = _apply_function(config)
    worst, last = 0.0, 0
    for positions in probes(group, rotation):
        theirs = _their_matrices(module, apply, config, group.label, rotation, positions)
        ours = rotation.matrix(positions)
        width = theirs.shape[-1]
        start = rotation.rotary_start if width < rotation.head_dim else 0
        ours = ours[:, start : start + width, start : start + width]
        angle, magnitude = rotation.phases(positions)
        budget = (
            TOLERANCE
            * (1 + _by_channel(rotation, angle).abs())[:, start : start + width]
            * float(torch.as_tensor(magnitude).max())
        )
        worst = max(worst, float(((theirs - ours).abs() / budget[:, :, None]).max()))
        last = max(last, int(positions.max()))
    return type(module).__name__, worst, last


def probes(group: LayerGroup, rotation: Rotation) -> list[Tensor]:
    """Positions up to 4096; the same up to the trained length; and past it."""
    trained = group.trained_length or 4096
    longest = group.longest or trained
    within = [p for p in _WITHIN if p < max(trained, 17)]
    past = sorted({*_WITHIN, trained - 1, trained, trained + 1, longest - 1, longest, longest + 1, 2 * longest})
    runs = [torch.tensor(run) for run in (within, past)]
    if rotation.coordinates is None:
        return runs
    n = rotation.coordinates
    equal = [run[:, None].expand(-1, n).contiguous() for run in runs]
    apart = torch.tensor([[(7 * t + 3 * axis * (t + 1)) % 61 for axis in range(n)] for t in range(12)])
    apart[0] = 0
    return [*equal, apart]


def _by_channel(rotation: Rotation, angle: Tensor) -> Tensor:
    """The angle of the pair that each channel belongs to, 0 outside of the slice."""
    both = torch.cat((angle, angle), dim=-1) if rotation.pairing == "half" else angle.repeat_interleave(2, dim=-1)
    full = torch.zeros(*angle.shape[:-1], rotation.head_dim, dtype=torch.float64)
    full[..., rotation.rotary_start : rotation.rotary_start + both.shape[-1]] = both
    return full


def _their_matrices(
    module: nn.Module,
    apply: Callable[..., Any],
    config: Any,
    label: str,
    rotation: Rotation,
    positions: Tensor,
) -> Tensor:
    """R(p) of the model, (positions, head_dim, head_dim), with its order of output channels undone."""
    tables = comparisons.tables(module, positions, label, torch.zeros(1, 1))
    last_error: Exception | None = None
    for width in dict.fromkeys((rotation.head_dim, rotation.rotary_dim)):
        for heads_first in (True, False):
            try:
                images = _images(apply, tables, width, len(positions), heads_first=heads_first)
            except Exception as error:  # another layout, or another width
                last_error = error
                continue
            return _in_our_order(images)
    raise comparisons.NotComparableError(f"cannot call {apply.__name__}: {_first_line(last_error)}")


def _images(
    apply: Callable[..., Any], tables: tuple[Tensor, ...], width: int, length: int, *, heads_first: bool
) -> Tensor:
    basis = torch.eye(width)[:, None, None, :].expand(width, 2, length, width)
    given = basis if heads_first else basis.transpose(1, 2)
    given = given.contiguous()
    takes_key = len([p for p in inspect.signature(apply).parameters.values() if p.default is p.empty]) > 1 + len(tables)
    takes_key = takes_key or "k" in inspect.signature(apply).parameters
    result = apply(given, given.clone(), *tables) if takes_key else apply(given, *tables)
    q = result[0] if isinstance(result, (tuple, list)) else result
    q = q if heads_first else q.transpose(1, 2)
    if q.shape != basis.shape or not torch.equal(q[:, 0], q[:, 1]):
        raise ValueError("another layout")
    images: Tensor = q[:, 0].double().permute(1, 2, 0)  # (position, channel, basis vector)
    return images


def _in_our_order(images: Tensor) -> Tensor:
    """Undo what happens to channels at position 0, where nothing may be left but their order."""
    order = (images[0] / images[0].abs().max()).round()
    if not torch.equal(order @ order.T, torch.eye(len(order), dtype=order.dtype)):
        return images
    return order.T @ images


def _rotary_classes(config: Any) -> list[type[nn.Module]]:
    """The rotary classes that were written for this config, or else those of its module that may be."""
    module = modeling(config)
    found = [
        cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, nn.Module)
        and cls.__module__ == module.__name__
        and re.search(r"Ro(tary|PE|pe)\w*Embedding$", name)
    ]
    return [cls for cls in found if type(config).__name__ in str(inspect.signature(cls.__init__))]


def _classes_or_none(config: Any) -> list[type[nn.Module]]:
    try:
        return _rotary_classes(config)
    except comparisons.NotComparableError:
        return []


def _rotary_module(config: Any) -> nn.Module:
    mine = _rotary_classes(config)
    module = modeling(config)
    others: list[type[nn.Module]] = [
        cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, nn.Module)
        and cls.__module__ == module.__name__
        and name.endswith("RotaryEmbedding")
    ]
    if "vision" not in type(config).__name__.lower():
        others = [cls for cls in others if "Vision" not in cls.__name__ and "DiT" not in cls.__name__]
    for cls in mine or others:
        try:
            built: nn.Module = cls(config)
        except Exception:  # written for another config
            continue
        return built
    raise comparisons.NotComparableError("no rotary class of its module takes this config")


def _apply_function(config: Any) -> Callable[..., Any]:
    module = modeling(config)
    vision = "vision" in type(config).__name__.lower() or "MLCD" in type(config).__name__
    names = (
        ["apply_rotary_pos_emb_vision", "vision_apply_rotary_emb"] if vision else ["apply_rotary_pos_emb_interleave"]
    )
    if "Audio" in type(config).__name__ or getattr(config, "rope_interleave", None) is False:
        names = []
    names += [
        "apply_rotary_pos_emb",
        "apply_rotary_emb",
        "apply_rotary_pos_emb_2d",
        "apply_rotary_pos_emb_2d_self_attn",
    ]
    for name in names:
        if hasattr(module, name):
            function: Callable[..., Any] = getattr(module, name)
            return function
    raise comparisons.NotComparableError(f"{module.__name__} has no function that applies the rotation")


def modeling(config: Any) -> Any:
    """The module with the code of a config's model; another model type's, if it has none of its own."""
    try:
        return importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    except ModuleNotFoundError:
        from transformers import MODEL_MAPPING

        if type(config) not in MODEL_MAPPING:
            raise comparisons.NotComparableError("transformers has a config and no model") from None
        return importlib.import_module(MODEL_MAPPING[type(config)].__module__)


def _compare_other(config: Any, encoding: Encoding) -> tuple[str, float, int]:
    if isinstance(encoding, ALiBi):
        return comparisons.compare_alibi(config, encoding)
    if isinstance(encoding, T5Bias):
        return comparisons.compare_t5(config, encoding)
    if isinstance(encoding, Sinusoidal):
        return comparisons.compare_sinusoidal(config, encoding)
    if isinstance(encoding, (SwinBias, SwinV2Bias)):
        return comparisons.compare_window(config, encoding)
    if isinstance(encoding, (Learned, LearnedGrid)):
        return comparisons.compare_learned(config, encoding)
    if isinstance(encoding, DecomposedBias):
        return comparisons.compare_decomposed(config, encoding)
    if isinstance(encoding, LeViTBias):
        return comparisons.compare_levit(config, encoding)
    if isinstance(encoding, InklingBias):
        return comparisons.compare_inkling(config, encoding)
    if isinstance(encoding, SinusoidalGrid):
        return comparisons.compare_sinusoidal_grid(config, encoding)
    raise comparisons.NotComparableError(f"no comparison for {type(encoding).__name__}")


def _in_short(encoding: Encoding) -> str:
    rotation = rotation_of(encoding)
    if rotation is None:
        return " and ".join(type(part).__name__ for part in encoding.parts)
    frequencies = getattr(rotation, "frequencies", None)
    rule = type(frequencies).__name__ if frequencies is not None else ""
    slice_ = f"{rotation.rotary_dim} of {rotation.head_dim}" if rotation.rotary_dim != rotation.head_dim else "all"
    return f"{type(rotation).__name__} {rule}, {rotation.pairing}, {slice_}"


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0][:160]


def as_markdown(rows: list[Row]) -> str:
    """The census as a document."""
    import transformers

    counts = {status: sum(row.status == status for row in rows) for status in Status.__args__}  # type: ignore[attr-defined]
    types = len({row.model_type for row in rows})
    lines = [
        "# Census of model types",
        "",
        "This table compares the encoding that `describe` reads from a config with the model's own module,",
        "for every model type of the installed transformers, at its default config and some variants. Made by",
        "`python -m tools.census`.",
        "",
        f"transformers {transformers.__version__}, {types} model types, {len(rows)} rows: "
        + ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        + ".",
        "",
        "The error is the largest difference between the rotation matrices (or codes, or biases), divided by the",
        f"rounding error of float32, {TOLERANCE:g} x (1 + angle). An error of at most 1 is agreement. Positions run to",
        "4096 and past the trained length, to twice the longest context that the rule was made for.",
    ]
    titles = {
        "differs": "Differs",
        "not covered": "Not covered",
        "agreed": "Agreed",
        "not rotated": "Layers that their code does not rotate",
        "not built": "Not built: transformers refuses its own default config",
    }
    for status, title in titles.items():
        chosen = [row for row in rows if row.status == status]
        if not chosen:
            continue
        lines += [
            "",
            f"## {title} ({len(chosen)})",
            "",
            "| model type | layers | encoding | their module | error | up to | note |",
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for row in chosen:
            error = "" if row.error is None else f"{row.error:.2g}"
            cells = (row.model_type, row.label, row.encoding, row.module, error, str(row.positions or ""), row.note)
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    for status, title in {
        "parts only": "Made of parts that stand above",
        "not rotary": "No encoding of posenc: no positions at all, or what `describe` says in words",
    }.items():
        names = [row.model_type for row in rows if row.status == status]
        lines += ["", f"## {title} ({len(names)})", "", ", ".join(names) + "."]
    return "\n".join(lines) + "\n"
