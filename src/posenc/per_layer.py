"""Encodings that differ from layer to layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from posenc.compose import from_dict
from posenc.encoding import Encoding
from posenc.frequencies.arguments import check_instance, check_keys, check_number


class PerLayer(nn.Module):
    """The encoding of each layer of a model: a few encodings by name, and a pattern of names that repeats.

    Layers of one name share one encoding, and so the tables of cos and sin, which are computed once per forward.

    Args:
        encodings: by name.
        pattern: names, one for each of the first layers; it starts again where it ends.
        num_layers: how many layers there are.

    Raises:
        ValueError: an empty pattern; a name without an encoding, or an encoding whose name is not in the pattern; no
            layers.

    Example:
        >>> from posenc import NoPE, RoPE
        >>> layers = PerLayer(  # SmolLM3: no rotation in every fourth layer
        ...     {"rotated": RoPE(head_dim=64), "not": NoPE()}, pattern=["rotated"] * 3 + ["not"], num_layers=36
        ... )
        >>> layers[2] is layers[0], layers[3]
        (True, NoPE())
        >>> layers.layers_of("not")
        (3, 7, 11, 15, 19, 23, 27, 31, 35)
    """

    def __init__(self, encodings: Mapping[str, Encoding], *, pattern: Sequence[str], num_layers: int) -> None:
        super().__init__()
        check_instance("PerLayer", "encodings", encodings, Mapping, '{"rotated": RoPE(head_dim=64)}')
        for name, encoding in encodings.items():
            check_instance("PerLayer", f"encodings[{name!r}]", encoding, Encoding, "RoPE(head_dim=64)")
        check_number("PerLayer", "num_layers", num_layers, whole=True)
        if num_layers < 1:
            raise ValueError(f"PerLayer: got num_layers {num_layers}, expected at least 1.")
        if not pattern or set(pattern) != set(encodings):
            raise ValueError(
                f"PerLayer: got the pattern {list(pattern)} for encodings named {sorted(encodings)}, expected a "
                "pattern that contains each of these names at least once, and no other name."
            )
        self.encodings = nn.ModuleDict(dict(encodings))
        self.pattern = tuple(pattern)
        self.num_layers = num_layers

    def __len__(self) -> int:
        return self.num_layers

    def __getitem__(self, layer: int) -> Encoding:
        """The encoding of a layer; -1 is the last."""
        if not -self.num_layers <= layer < self.num_layers:
            last = self.num_layers - 1
            raise IndexError(f"PerLayer: got layer {layer} of {self.num_layers}, expected 0 to {last}.")
        encoding: Encoding = self.encodings[self.name(layer)]  # type: ignore[assignment]
        return encoding

    def __iter__(self) -> Iterator[Encoding]:
        return (self[layer] for layer in range(self.num_layers))

    def name(self, layer: int) -> str:
        """The name of a layer's encoding."""
        return self.pattern[layer % self.num_layers % len(self.pattern)]

    def layers_of(self, name: str) -> tuple[int, ...]:
        """The layers that have the encoding of that name."""
        return tuple(layer for layer in range(self.num_layers) if self.name(layer) == name)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, for JSON; weights are not part of it."""
        encodings = {name: encoding.to_dict() for name, encoding in self.encodings.items()}  # type: ignore[operator]
        return {"encodings": encodings, "pattern": list(self.pattern), "num_layers": self.num_layers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PerLayer":
        """What :meth:`to_dict` described."""
        known = {"encodings", "pattern", "num_layers"}
        given = check_keys("PerLayer", data, known, required=known)
        check_instance("PerLayer", "encodings", given["encodings"], Mapping, '{"rotated": {"name": "RoPE", ...}}')
        encodings = {name: from_dict(encoding) for name, encoding in given["encodings"].items()}
        return cls(encodings, pattern=given["pattern"], num_layers=given["num_layers"])
