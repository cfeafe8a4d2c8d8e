"""What a model's positional encoding is, layer by layer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posenc.encoding import Encoding


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share one encoding.

    Attributes:
        part: which part of the model, as the key of its config ("text_config"); "" for the model itself.
        label: what the config calls this kind of layer ("sliding_attention"); "" if it does not tell kinds apart.
        layers: which layers, counted from 0.
        encoding: the encoding; :class:`posenc.NoPE` for layers without one.
        trained_length: the number of tokens in training before any extension, if the config says.
        longest: the longest context in tokens that the model is made for, if the config says.
        notes: further remarks.
        positions: the coordinates of its tokens, as an expression of :mod:`posenc.positions` ("grid(14, 14,
            prefix=1)"); "" for 0, 1, 2, ...
    """

    part: str
    label: str
    layers: tuple[int, ...]
    encoding: Encoding
    trained_length: int | None = None
    longest: int | None = None
    notes: tuple[str, ...] = ()
    positions: str = ""

    @property
    def rotation(self) -> Encoding:
        """The part of the encoding that acts on queries and keys; where none does, its first part."""
        return self.encoding.at("queries_keys") or self.encoding.parts[0]


@dataclass(frozen=True)
class Description:
    """The encodings of a model: an iterable of :class:`LayerGroup`.

    Attributes:
        model_type: as in the config.
        groups: groups of layers with one encoding, for each part in the order of their first layer.
        unread: what is not read, in words: unknown parts, as "part: model type"; parts that cannot be read, with the
            reason; unused keys that concern positions.
        reading: how the config was read: filled in by a config class ("transformers 5.24.0"), or "the keys alone".
    """

    model_type: str
    groups: tuple[LayerGroup, ...]
    unread: tuple[str, ...] = ()
    reading: str = ""

    def __iter__(self) -> Iterator[LayerGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def layer(self, index: int, *, part: str | None = None) -> LayerGroup:
        """The group of a layer of a part; of the first part that has rotary layers by default."""
        chosen = self.groups[0].part if part is None and self.groups else part
        for group in self.groups:
            if group.part == chosen and index in group.layers:
                return group
        raise ValueError(f"describe: part {chosen!r} of {self.model_type!r} has no layer {index} with attention.")


def named(groups: Iterable[LayerGroup]) -> str:
    """The encodings of groups, each with its part and kind of layer: "T5Bias (encoder), T5Bias (decoder)"."""
    found = []
    for group in groups:
        where = " ".join(filter(None, (group.part, group.label)))
        found.append(type(group.encoding).__name__ + (f" ({where})" if where else ""))
    return ", ".join(dict.fromkeys(found))
