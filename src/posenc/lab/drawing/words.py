"""Formats numbers and names for reports."""

import math
from collections.abc import Collection, Sequence

HELD, BROKE = 1.10, 1.50
"""An encoding held up to HELD times its perplexity at the trained length, and broke from BROKE times on."""


def times(ratio: float) -> str:
    """A ratio in words: 0.95 times, 12.3 times."""
    return number(ratio, 2 if ratio < 10 else 1) + "\u00d7" * math.isfinite(ratio)


def number(value: float | None, decimals: int) -> str:
    """A number for reading: with decimals up to a hundred, then whole, from a million on in powers of ten."""
    if value is None or not math.isfinite(value):
        return "diverged"
    return f"{value:.{decimals}f}" if abs(value) < 100 else f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.1e}"


def counted(count: int, what: str) -> str:
    """A count with its noun: 1 encoding, 2 encodings."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def names(labels: Sequence[str]) -> str:
    """Labels in a sentence: one, two and three."""
    return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " and " + labels[-1]


def ranges(numbers: Collection[int], most: int | None = None) -> str:
    """Whole numbers as runs: "0-2, 4, 6-8"; of more than ``most`` runs the first, and how many numbers there are."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    if most is None or len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[: most - 1])}, ... ({len(numbers)} in all)"
