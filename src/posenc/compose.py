"""Several encodings as one."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, final

from torch import Tensor, nn

from posenc import catalogue
from posenc.encoding import E, Encoding
from posenc.frequencies.arguments import check_instance, check_keys
from posenc.positions import Positions


class Parts(nn.ModuleList):
    """The parts of a composition, which stay: what it says of itself was worked out from them."""

    def __init__(self, encodings: Iterable[nn.Module]) -> None:
        super().__init__()
        for index, encoding in enumerate(encodings):
            self.add_module(str(index), encoding)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "Compose: got another encoding for a composition that is built, expected none, because its places and its "
            "temperature were worked out from its parts; build another one: Compose(*parts)."
        )

    __setitem__ = __delitem__ = __iadd__ = append = extend = insert = pop = _refuse


@final
class Compose(Encoding):
    """Join encodings of different places: each hook calls the encoding that acts at its place.

    Place: those of its parts. Learned: what its parts learn. Relative: if all parts are. Keys may be cached: if all
    parts allow it.

    Args:
        encodings: two or more, no two at the same place. They cannot be exchanged once it is built; their own
            parameters can be.

    Raises:
        TypeError: an argument that is no encoding; another part for a composition that is built.
        ValueError: two encodings at one place, or fewer than two encodings.

    Example:
        >>> from posenc import ALiBi, RoPE
        >>> Compose(RoPE(head_dim=8), ALiBi(num_heads=2)).places
        ('queries_keys', 'scores')
    """

    def __init__(self, *encodings: Encoding) -> None:
        super().__init__()
        for encoding in encodings:
            check_instance("Compose", "an encoding", encoding, Encoding, "ALiBi(num_heads=8)")
        if len(encodings) < 2:
            raise ValueError(f"Compose: got {len(encodings)} encodings, expected two or more.")
        places = [place for encoding in encodings for place in encoding.places]
        if doubled := sorted({place for place in places if places.count(place) > 1}):
            raise ValueError(
                f"Compose: got two encodings that act on {doubled[0]}, expected at most one encoding for each place; "
                "write one encoding that does both."
            )
        self.encodings = Parts(encodings)
        self.places = tuple(places)
        self.causal_only = any(encoding.causal_only for encoding in encodings)
        self.relative = all(encoding.relative for encoding in encodings)
        self.keys_cacheable = all(encoding.keys_cacheable for encoding in encodings)
        self.scales_scores = any(encoding.scales_scores for encoding in encodings)
        limits = [encoding.max_positions for encoding in encodings if encoding.max_positions is not None]
        self.max_positions = min(limits) if limits else None
        self.widening = math.prod(encoding.widening for encoding in encodings)

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """The encodings in the given order; a composition among them is replaced by its parts."""
        return tuple(part for encoding in self.encodings for part in encoding.parts)  # type: ignore[union-attr]

    def on_embeddings(self, x: Tensor, positions: Positions = None) -> Tensor:
        for part in self.parts:
            x = part.on_embeddings(x, positions)
        return x

    def on_queries_keys(
        self, q: Tensor, k: Tensor, positions: Positions = None, *, k_positions: Positions = None
    ) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            q, k = part.on_queries_keys(q, k, positions, k_positions=k_positions)
        return q, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor | None:
        part = self.at("scores")
        return None if part is None else part.bias(q_positions, k_positions)

    def carry(self, x: Tensor, state: Tensor | None = None) -> Tensor | None:
        part = self.at("scores")
        return state if part is None else part.carry(x, state)

    def softmax_scale(self, head_dim: int) -> float:
        for part in self.parts:
            if part.widening != 1:  # it knows the channels before place 2, which the others count by
                head_dim = round(part.softmax_scale(head_dim) ** -2)
        plain: float = head_dim**-0.5
        return plain * math.prod([part.softmax_scale(head_dim) / plain for part in self.parts])

    def temperature(self, q_positions: Tensor) -> Tensor | float:
        product: Tensor | float = 1.0
        for part in self.parts:
            product = product * part.temperature(q_positions)
        return product

    def to_dict(self) -> dict[str, Any]:
        return {"name": "Compose", "encodings": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls: type[E], data: Mapping[str, Any]) -> E:
        given = check_keys("Compose", data, {"encodings"}, required={"encodings"})
        check_instance("Compose", "encodings", given["encodings"], list, '[{"name": "NoPE"}, ...]')
        return cls(*(from_dict(part) for part in given["encodings"]))

    def extra_repr(self) -> str:
        return ""


def from_dict(data: Mapping[str, Any]) -> Encoding:
    """The encoding that ``to_dict`` described, of any class of the catalogue, or a composition of them."""
    if isinstance(data, Mapping) and data.get("name") == "Compose":
        return Compose.from_dict(data)
    return catalogue.from_dict(data)
