"""What a frequency rule is."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Frequencies(ABC):
    """Which wavelengths a position is written in: a frozen dataclass with two answers.

    ``inv_freq(rotary_dim)`` gives rotary_dim / 2 rates in radians per token, float64, the first pair first;
    ``attention_factor`` is what cos and sin are multiplied by, 1 for most rules.
    """

    attention_factor: float = 1.0

    @abstractmethod
    def inv_freq(self, rotary_dim: int) -> NDArray[np.float64]:
        """Radians per token, shape ``(rotary_dim / 2,)``. The wavelength in tokens is 2 pi / inv_freq."""

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data, for JSON."""
        return {"rule": type(self).__name__, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Frequencies":
        """The rule that :meth:`to_dict` described."""
        import posenc.frequencies as home

        rule = getattr(home, str(data.get("rule")), None)
        if not (isinstance(rule, type) and issubclass(rule, Frequencies) and rule is not Frequencies):
            raise ValueError(f"Frequencies: got rule {data.get('rule')!r}, expected one of {home.RULES}.")
        return rule(**{key: value for key, value in data.items() if key != "rule"})


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
