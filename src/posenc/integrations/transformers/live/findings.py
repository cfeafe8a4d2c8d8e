"""What a check of a live model found."""

from dataclasses import dataclass
from typing import Literal

What = Literal["unset", "rates", "factor", "scale", "pairing", "layers", "length", "tables"]

#: Plain attributes of modules that bear on the softmax scale, and on which layers rotate which channels.
_SCALES = frozenset(["scaling", "softmax_scale", "scale", "attn_scale", "scale_attn", "norm_factor", "inv_norm_factor"])
_LAYERS = frozenset(
    ["use_rope", "rotary_dim", "rotary_ndims", "rotary_emb_dim", "layer_type", "attention_type", "sliding_window"]
)


@dataclass(frozen=True)
class Finding:
    """One difference between a live model and its config.

    Attributes:
        module: its name in the model.
        what: "unset", "rates", "factor" (of cos and sin), "scale" (of the softmax), "pairing", "layers", "length" (of
            a learned table) or "tables" (cos and sin).
        text: a sentence.
        layers: the layers that it concerns, if they are known.
        angle_error: the largest error of an angle at position ``length``, in radians, if it is one of angles.
        length: the last position of the longest context in the config, the trained or the extended one.
    """

    module: str
    what: What
    text: str
    layers: tuple[int, ...] = ()
    angle_error: float | None = None
    length: float | None = None

    def __str__(self) -> str:
        error = ""
        if self.angle_error is not None and self.length is not None:
            error = f"; the largest angle error at position {self.length:g} is {self.angle_error:.3g} rad"
        return f"{self.module}: {self.text}{error}"


@dataclass(frozen=True)
class Report:
    """The result of :func:`check`.

    Attributes:
        model_type: as in the config.
        findings: differences between the model and its config; empty for a correct model.
        checked: what was compared, one line for each module and kind of layer.
        unchecked: what could not be compared, and why.
    """

    model_type: str
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a model without findings, 1 otherwise."""
        return 1 if self.findings else 0

    def lines(self) -> list[str]:
        """The report as lines of text; the last line counts the findings."""
        count = len(self.findings)
        agree = "1 agrees" if len(self.checked) == 1 else f"{len(self.checked)} agree"
        sums = f"{count} difference{'' if count == 1 else 's'}, {agree}, {len(self.unchecked)} not checked"
        return [
            *(f"FOUND        {finding}" for finding in self.findings),
            *(f"agrees       {line}" for line in self.checked),
            *(f"not checked  {line}" for line in self.unchecked),
            f"{self.model_type}: {sums}",
        ]


def what_of(attribute: str) -> What | None:
    """Which kind of finding a plain attribute of a module gives; None if it does not bear on positions."""
    if attribute.endswith("attention_scaling"):
        return "factor"
    return "scale" if attribute in _SCALES else "layers" if attribute in _LAYERS else None
