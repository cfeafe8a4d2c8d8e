"""The whole idea on one page: a position enters a transformer at one of three places.

::

    positions -> frequencies -+-> embeddings     x  <- x + p(i)             once, before the first block
                              +-> queries_keys   q,k <- R(i) q, R(j) k      in each layer, before the KV cache
                              +-> scores         s  <- s + b(i, j)          in each layer, after the KV cache

:class:`Encoding` has one hook for each place, and each hook is the identity. :class:`EmbeddingEncoding`,
:class:`QueryKeyEncoding` and :class:`ScoreEncoding` open one of them each; every encoding is a final class below one
of these three, so a model that calls all three hooks runs every encoding with the same code. The cut between the
second place, before the cache, and the third, after it, is what makes decoding step by step equal to a full forward.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from posenc.frequencies import Frequencies
from posenc.kernels.precision import compute_dtype
from posenc.positions import Positions, resolve

Place = Literal["embeddings", "queries_keys", "scores"]
E = TypeVar("E", bound="Encoding")


class Encoding(nn.Module):
    """A positional encoding: three hooks, each the identity unless the encoding acts there.

    Every hook takes ``positions`` in one of these forms: ``None`` (0, 1, 2, ...), an ``int`` offset (offset,
    offset + 1, ...), a tensor ``(seq,)``, or a tensor ``(batch, seq)``; integer or float, zero or above.

    A constructor argument is kept as an attribute of the same name, which is all that :meth:`to_dict` and ``repr``
    need.

    Attributes:
        places: where it acts.
        relative: True if the output of attention depends on differences of positions alone.
        keys_cacheable: True if keys that went through ``on_queries_keys`` stay right as the sequence grows.
        max_positions: how many positions it can tell apart by construction, or None if there is no such limit.
    """

    places: tuple[Place, ...] = ()
    relative: bool = False
    keys_cacheable: bool = True
    max_positions: int | None = None

    def on_embeddings(self, x: Float[Tensor, "*batch seq dim"], positions: Positions = None) -> Tensor:
        """Place 1, once before the first block: ``x`` with the positions written into it, same shape and dtype."""
        return x

    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
    ) -> tuple[Tensor, Tensor]:
        """Place 2, in each layer before the KV cache: ``(q, k)``, same shapes and dtypes.

        ``positions`` are those of the queries and, unless ``k_positions`` are given (cross-attention), of the keys.
        """
        return q, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"] | None:
        """What place 3 adds to the scaled scores, or None for nothing: :func:`posenc.attention` asks for it."""
        return None

    def on_scores(
        self, scores: Float[Tensor, "batch heads q_len k_len"], q_positions: Positions, k_positions: Positions
    ) -> Tensor:
        """Place 3, in each layer after the KV cache: scaled scores with the bias added, same shape and dtype."""
        bias = self.bias(
            resolve(q_positions, scores.shape[-2], device=scores.device, name="q_positions"),
            resolve(k_positions, scores.shape[-1], device=scores.device, name="k_positions"),
        )
        if bias is None:
            return scores
        return (scores + bias.to(compute_dtype(scores.dtype))).to(scores.dtype)

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, for JSON; weights are not part of it."""
        arguments = {name: getattr(self, name) for name in _parameters(type(self))}
        return {"name": type(self).__name__, **{key: _plain(value) for key, value in arguments.items()}}

    @classmethod
    def from_dict(cls: type[E], data: Mapping[str, Any]) -> E:
        """The encoding that :meth:`to_dict` described."""
        arguments = {key: value for key, value in data.items() if key != "name"}
        if unknown := sorted(arguments.keys() - set(_parameters(cls))):
            raise ValueError(
                f"{cls.__name__}: from_dict got unknown keys {unknown}, expected {_parameters(cls)}; "
                "was this written by another version?"
            )
        if isinstance(arguments.get("frequencies"), Mapping):
            arguments["frequencies"] = Frequencies.from_dict(arguments["frequencies"])
        return cls(**arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in _parameters(type(self)))


class EmbeddingEncoding(Encoding, ABC):
    """Place 1: a code is added to each embedding. A subclass sets ``dim`` and defines :meth:`codes`."""

    places: tuple[Place, ...] = ("embeddings",)
    dim: int

    @abstractmethod
    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        """The codes p(i), in float64 or in the dtype of the parameters; the sum with x is rounded once."""

    def on_embeddings(self, x: Float[Tensor, "*batch seq dim"], positions: Positions = None) -> Tensor:
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"{type(self).__name__}: x has {x.shape[-1]} channels but this encoding was built for dim "
                f"{self.dim}; build it with dim={x.shape[-1]}."
            )
        resolved = resolve(
            positions, x.shape[-2], device=x.device, name="positions", batch=x.shape[0] if x.ndim == 3 else None
        )
        codes = self.codes(resolved).to(compute_dtype(x.dtype)).to(x.device)
        return (x + codes).to(x.dtype)


class QueryKeyEncoding(Encoding, ABC):
    """Place 2: queries and keys are turned by their positions before they meet."""

    places: tuple[Place, ...] = ("queries_keys",)

    @abstractmethod
    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
    ) -> tuple[Tensor, Tensor]: ...


class ScoreEncoding(Encoding, ABC):
    """Place 3: a bias is added to the scores. A subclass sets ``num_heads`` and defines :meth:`bias`."""

    places: tuple[Place, ...] = ("scores",)
    num_heads: int

    @abstractmethod
    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]: ...


def _parameters(cls: type[nn.Module]) -> list[str]:
    if cls.__init__ is nn.Module.__init__:  # no constructor of its own: no arguments
        return []
    return list(inspect.signature(cls).parameters)


def _plain(value: Any) -> Any:
    if isinstance(value, (Frequencies, Encoding)):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
