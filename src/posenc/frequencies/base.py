"""The base class of frequency rules."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.arguments import EXPECTED, check_names, check_numbers

Length: TypeAlias = int | float | NDArray[Any] | None
"""How many tokens a sequence has, from its first position to its last: a number, an array of them, or None."""


class Frequencies(ABC):
    """A frequency rule, which gives the rate of each pair of channels: a frozen dataclass.

    ``inv_freq(rotary_dim)`` gives rotary_dim / 2 rates in radians per token, float64, the first pair first;
    ``attention_factor`` multiplies cos and sin, and ``score_factor`` multiplies the softmax scale. Both are 1 for
    most rules.

    Attributes:
        depends_on_length: True if the rates change with the length of the sequence. Keys that such a rule rotated
            become wrong as the sequence grows.
        needs_whole_head: True if the rule itself decides which channels stay unrotated, and so needs the head
            dimension.
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Check the names of the arguments, and that numbers are finite numbers, before the constructor runs."""
        check_names(cls, options)
        check_numbers(cls, args, options, whole=False)
        return super().__new__(cls)

    attention_factor: float = 1.0
    score_factor: float = 1.0
    depends_on_length: bool = False
    needs_whole_head: bool = False

    @abstractmethod
    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        """Radians per token, shape ``(rotary_dim / 2,)``. The wavelength in tokens is 2 pi / inv_freq.

        Args:
            rotary_dim: channels that are rotated, two for each rate.
            length: tokens of the sequence. Rules that do not depend on the length ignore it. For other rules, None
                means a length within the trained one, and an array gives rates of shape ``(*length.shape, rotary_dim /
                2)``.
        """

    def attention_factor_at(self, length: Length) -> NDArray[np.float64]:
        """``attention_factor`` for a length, or for each of an array of lengths."""
        return np.full(np.shape(0 if length is None else length), self.attention_factor)

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"rule": type(self).__name__, **{name: _plain(value) for name, value in values.items()}}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Frequencies":
        """The rule that :meth:`to_dict` described."""
        import posenc.frequencies as home

        if data.get("rule") not in home.RULES:
            raise ValueError(f"Frequencies: got rule {data.get('rule')!r}, expected one of {home.RULES}.")
        rule: type[Frequencies] = getattr(home, data["rule"])
        arguments = {key: value for key, value in data.items() if key != "rule"}
        known = [field.name for field in dataclasses.fields(rule)]  # type: ignore[arg-type]
        if unknown := sorted(arguments.keys() - set(known)):
            raise ValueError(f"Frequencies: {rule.__name__} got unknown keys {unknown}, expected {known}.")
        nested = {key: Frequencies.from_dict(value) for key, value in arguments.items() if isinstance(value, Mapping)}
        return rule(**arguments | nested)


def _plain(value: Any) -> Any:
    if isinstance(value, Frequencies):
        return value.to_dict()
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def check_rotary_dim(rotary_dim: int) -> None:
    """Refuse a width that cannot be split into pairs."""
    if rotary_dim < 2 or rotary_dim % 2:
        raise ValueError(
            f"frequencies: got {rotary_dim} channels, expected an even number of at least 2, because channels are "
            f"coded in pairs; use {max(2, rotary_dim + rotary_dim % 2)}."
        )


def check_base(base: float) -> None:
    """Refuse a base that gives no falling sequence of rates."""
    if not base > 1:
        raise ValueError(f"frequencies: got base {base}, expected more than 1, such as 10000.")


def check_factor(rule: str, factor: float, *, name: str = "factor") -> None:
    """Refuse a factor that would shorten the context."""
    if not factor >= 1:
        raise ValueError(f"{rule}: got {name} {factor!r}, expected {EXPECTED[name]}.")


def check_trained_length(rule: str, trained_length: float) -> None:
    """Refuse a length that no rule can be measured against."""
    if not trained_length > 1:
        raise ValueError(f"{rule}: got trained_length {trained_length!r}, expected {EXPECTED['trained_length']}.")


def check_attention_factor(rule: str, factor: float, *, name: str = "attention_factor") -> None:
    """Refuse a factor of cos and sin that would turn scores off, or around."""
    if not factor > 0:
        raise ValueError(
            f"{rule}: got {name} {factor}, expected a number above 0, by which cos and sin are multiplied."
        )


def check_choice(rule: str, name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a name that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{rule}: got {name} {value!r}, expected one of {allowed}.")
