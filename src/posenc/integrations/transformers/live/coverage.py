"""What check does not compare of the encodings that describe finds, and why."""

from collections.abc import Iterable, Iterator
from typing import Any

from posenc import Learned, MRoPE, NoPE, RoPE
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.frequencies import LearnedRates
from posenc.integrations.transformers.description.description import LayerGroup


def rotation(group: LayerGroup) -> Any:
    """The rotation of a group, whose attributes depend on its class."""
    return group.rotation


def layers_of(layers: tuple[int, ...]) -> str:
    """ "layer 3", "layers 0 to 11" or, where some between are missing, "layers 0, 2, 4"."""
    if not layers:
        return "all layers"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def not_compared(groups: Iterable[LayerGroup], rated: set[int], paired: set[int]) -> Iterator[str]:
    """One line for each encoding that was not compared with the model.

    Args:
        groups: of :func:`describe`.
        rated: ``id`` of the groups whose rates were compared.
        paired: ``id`` of those whose pairing was compared.
    """
    for group in groups:
        where = ", ".join(word for word in (group.part, group.label) if word)
        where = f"{layers_of(group.layers)} ({where})" if where else layers_of(group.layers)
        for part in group.encoding.parts:
            if isinstance(part, (RoPE, MRoPE)):
                if id(group) not in rated:
                    yield f"{where}: the rates of {part.frequencies}: {_why(part)}"
                if id(group) not in paired:
                    reason = "their attention calls several rotations, or none that check knows"
                    yield f"{where}: pairs by {part.pairing!r}: {reason}"
            else:
                yield f"{where}: {part}: {_why(part)}"


def _why(part: Encoding) -> str:
    rule = getattr(part, "frequencies", None)
    if isinstance(part, (Learned, LearnedGrid)) or isinstance(rule, LearnedRates):
        return "its numbers are weights, which check does not read"
    if isinstance(part, (RoPE, MRoPE)):
        if part.frequencies.depends_on_length:
            return "they depend on the length of the text, so only the tables of the modules are compared"
        return "no module keeps them in a buffer called inv_freq"
    if "scores" in part.places:
        return "check does not run the attention, so it does not see the bias"
    if isinstance(part, NoPE):
        return "check does not run the attention, so it does not see whether these layers rotate"
    return "check does not compare the model with this formula"
