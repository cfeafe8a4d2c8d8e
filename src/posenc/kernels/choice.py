"""Which implementation of an operation a call takes, and why: said before the call, by the rules the call follows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Implementation = Literal["auto", "eager", "cpu", "triton"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Choice:
    """What :func:`posenc.explain` returns.

    Attributes:
        operation: what is computed, such as "rotate".
        implementation: "eager" (plain torch), "cpu" (compiled C++) or "triton".
        why: what decided it, in a sentence, with what to do if a faster one could be had.
    """

    operation: str
    implementation: str
    why: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.implementation}, because {self.why}"


def explained_by(explainer: Callable[..., Choice]) -> Callable[[F], F]:
    """Let :func:`posenc.explain` answer for a function: ``explainer`` takes the same arguments. Calls cost no more."""

    def mark(function: F) -> F:
        function.__explainer__ = explainer  # type: ignore[attr-defined]
        return function

    return mark
