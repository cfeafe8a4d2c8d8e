"""Temperatures by position: a softmax that sharpens as the context grows."""

import numpy as np
import numpy.typing as npt


def temperature(
    positions: npt.ArrayLike, *, form: str, length: float, strength: float = 0.1
) -> npt.NDArray[np.float64]:
    """What the scores of the query at position p are multiplied by.

        llama4      1 + strength ln(1 + floor((p + 1) / length))
        mistral     1 + strength ln(1 + floor(p / length))
        inkling     1 + strength ln max(1, (p + 1) / length)
        power       (1 + (p + 1) / length)^strength
        log         max(1, ln(p + 1) / ln length)

    Reference: transformers, models/llama4, ministral3, inkling, beam; Su, kexue.fm/archives/8823.
    """
    p = np.asarray(positions, dtype=np.float64)
    if form == "llama4":
        return np.asarray(1 + strength * np.log(1 + np.floor((p + 1) / length)))
    if form == "mistral":
        return np.asarray(1 + strength * np.log(1 + np.floor(p / length)))
    if form == "inkling":
        return np.asarray(1 + strength * np.log(np.maximum(1, (p + 1) / length)))
    if form == "power":
        return np.asarray((1 + (p + 1) / length) ** strength)
    if form == "log":
        return np.asarray(np.maximum(1, np.log(p + 1) / np.log(length)))
    raise ValueError(f"temperature: form is {form!r}, expected 'llama4', 'mistral', 'inkling', 'power' or 'log'")
