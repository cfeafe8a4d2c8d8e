r"""The base classes of encodings: a position enters a transformer at one of three places.

::

    positions -> frequencies -+-> embeddings     x  <- x + p(i)             once, before the first block
                              +-> queries_keys   q,k <- R(i) q, R(j) k      in each layer, before the KV cache
                              +-> scores         s  <- s + b(i, j)          in each layer, after the KV cache

:class:`Encoding` has one hook for each place, and each hook returns its input. :class:`EmbeddingEncoding`,
:class:`QueryKeyEncoding` and :class:`ScoreEncoding` each change the hook of one place. A model that calls all three
hooks runs every encoding with the same code. The second place is before the cache and the third after it, so decoding
step by step gives the same result as one full forward pass.

At the third place most encodings read only positions, and two arguments are enough to define one. An encoding that
reads queries or keys is a :class:`ContextualEncoding`; if it needs more than keys and values of earlier tokens, it has
an explicit state (:meth:`Encoding.carry`).

Every encoding of the library is a final class, and is marked so: derive yours from one of these four classes. NoPE,
Temperature, SSMax and Compose derive from :class:`Encoding` itself, because they have no place of their own.
The rotations share one more abstract class, ``Rotation``, below :class:`QueryKeyEncoding`.

The scores of a query i, :math:`z_{ij} = \tau^s_i\,(\tau^p_i\, s\, q_i \cdot k_j + b_{ij})`, have two temperatures:
:math:`\tau^p` multiplies the scaled dot products alone and :math:`\tau^s` the bias too. :meth:`Encoding.temperatures`
gives both; ``kernels/biased_attention/temperature.py`` is the formula.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.frequencies import Frequencies
from posenc.frequencies.arguments import check_instance, check_keys, check_names, check_numbers, refuse_change
from posenc.hooks import refuse_call
from posenc.kernels.biased_attention.content import Content as Content
from posenc.kernels.biased_attention.content import ScoreMod as ScoreMod
from posenc.kernels.biased_attention.score_mod import score_mod
from posenc.kernels.biased_attention.temperature import Temperatures, combined
from posenc.kernels.inputs import check_inputs, check_tensors
from posenc.kernels.precision import compute_dtype, sent, without_autocast
from posenc.positions import Positions, resolve, resolve_coordinates

Place = Literal["embeddings", "queries_keys", "scores"]
Multiplies = Literal["products", "scores"]
E = TypeVar("E", bound="Encoding")


class Encoding(nn.Module):
    """A positional encoding: three hooks, each of which returns its input unless the encoding acts at that place.

    Every hook takes ``positions`` as ``None`` (0, 1, 2, ...), an ``int`` offset (offset, offset + 1, ...), or a tensor
    of ints or floats from 0 on, ``(seq,)`` or ``(batch, seq)``; some also take ``(batch, seq, coordinates)``.

    The constructor keeps each argument as an attribute of the same name, for :meth:`to_dict` and ``repr``.

    Attributes:
        places: the places where it acts.
        relative: True if the output of attention depends only on differences of positions.
        keys_cacheable: True if keys from ``on_queries_keys`` remain valid as the sequence grows.
        max_positions: the number of different positions that it can represent, or None without a limit.
        causal_only: True if it is defined only for keys at or before their query.
        scales_scores: True if :meth:`temperature` returns a factor.
        multiplies: what the temperature multiplies: only the scaled dot products ("products"), or the scores, which
            are these products plus the bias ("scores").
        settled: True if settings cannot be assigned once it is built, because numbers were computed from them.
        takes_several_rules: True if ``frequencies`` may be a list of rules, one for each coordinate.
        widening: the factor by which ``on_queries_keys`` multiplies the channels of q and k, 1 for almost all. If above
            1, ``softmax_scale`` must use the original number of channels.
    """

    places: tuple[Place, ...] = ()
    relative: bool = False
    keys_cacheable: bool = True
    max_positions: int | None = None
    causal_only: bool = False
    scales_scores: bool = False
    multiplies: Multiplies = "products"
    settled: ClassVar[bool] = False
    takes_several_rules: ClassVar[bool] = False
    widening: int = 1

    def __new__(cls: type[E], *args: Any, **options: Any) -> E:  # the type checks of the tests do not know Self
        """Check the names, numbers and rules among the arguments before the constructor runs."""
        check_names(cls, options)
        check_numbers(cls, args, options)
        if (rule := options.get("frequencies")) is not None and "frequencies" in _parameters(cls):
            for each in rule if cls.takes_several_rules and isinstance(rule, (list, tuple)) else (rule,):
                check_instance(cls.__name__, "frequencies", each, Frequencies, "Geometric(base=500_000)")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.settled and name in vars(self) and name in _parameters(type(self)) and name != "implementation":
            refuse_change(self, name)
        super().__setattr__(name, value)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Raises TypeError: an encoding is not a layer; a model calls its hooks."""
        refuse_call(type(self).__name__, self.places)

    def on_embeddings(self, x: Float[Tensor, "*batch seq dim"], positions: Positions = None) -> Tensor:
        """Place 1, once before the first block: ``x`` plus the codes of the positions, same shape and dtype."""
        return x

    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
    ) -> tuple[Tensor, Tensor]:
        """Place 2, in each layer before the KV cache: ``(q, k)``, with the same dtypes; for shapes see ``widening``.

        ``positions`` are those of the queries and, unless ``k_positions`` are given (cross-attention), of the keys.
        """
        return q, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"] | None:
        """The bias that place 3 adds to the scaled dot products, or None. :func:`posenc.attention` calls this."""
        return None

    def temperature(self, q_positions: Tensor) -> Float[Tensor, "*batch heads q_len 1"] | float:
        """The factor of the scaled dot products of each query; a dimension of heads of 1 means all heads.

        With ``multiplies = "scores"`` the factor also multiplies the bias. :func:`posenc.attention` and
        :meth:`on_scores` apply it. If you compute scores yourself, multiply all channels of the queries by the factor,
        not only the rotated part.
        """
        return 1.0

    def temperatures(self, q_positions: Tensor) -> Temperatures:
        """The temperatures of all parts, multiplied: for the dot products only, and for the scores with the bias."""
        of: dict[Multiplies, Tensor | float] = {"products": 1.0, "scores": 1.0}
        for part in self.parts:
            if part.scales_scores:
                of[part.multiplies] = of[part.multiplies] * part.temperature(q_positions)
        return Temperatures(of["products"], of["scores"])

    def on_scores(
        self,
        scores: Float[Tensor, "batch heads q_len k_len"],
        q_positions: Positions,
        k_positions: Positions,
        *,
        q: Float[Tensor, "batch heads q_len head_dim"] | None = None,
        k: Float[Tensor, "batch kv_heads k_len head_dim"] | None = None,
        state: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Place 3, in each layer after the KV cache: the temperature and the bias, on scaled dot products of q and k.

        Returns the same shape and dtype. A score of minus infinity is masked. Only a :class:`ContextualEncoding` reads
        q, k, the state and the scale, which is :meth:`softmax_scale` by default.
        """
        check_inputs(type(self).__name__, scores=scores)
        i = sent(resolve(q_positions, scores.shape[-2], device=scores.device, name="q_positions"), scores.device)
        j = sent(resolve(k_positions, scores.shape[-1], device=scores.device, name="k_positions"), scores.device)
        part = self.at("scores")
        bias: Tensor | None = None
        if isinstance(part, ContextualEncoding):
            bias = _contextual_bias(self, part, scores, i, j, q=q, k=k, state=state, scale=scale)
        elif part is not None:
            bias = part.bias(i, j)
        temperatures = self.temperatures(i) if self.scales_scores else Temperatures()
        if bias is None and not self.scales_scores:
            return scores
        return _narrowed(combined(scores.to(compute_dtype(scores.dtype)), bias, temperatures), scores.dtype)

    def carry(self, x: Float[Tensor, "batch seq dim"], state: Tensor | None = None) -> Tensor | None:
        """The state of place 3: what it needs from the tokens besides keys, appended to the state of earlier tokens.

        ``x`` is the input of the attention layer. Pass the state, a tensor whose last dimension runs over all keys, to
        :func:`posenc.attention` and to the next step. An encoding without a state returns ``state``, usually None.
        """
        return state

    def softmax_scale(self, head_dim: int) -> float:
        """The factor of the dot products of q and k before place 3: 1 / sqrt(head_dim) for almost all encodings."""
        return float(head_dim**-0.5)

    @property
    def parts(self) -> tuple["Encoding", ...]:
        """The encodings that this one consists of: itself, or the parts of a composition."""
        return (self,)

    def relative_below(self) -> float:
        """The position i below which the bias of a query depends only on i - j."""
        return math.inf if self.relative else 0.0

    def at(self, place: Place) -> "Encoding | None":
        """The part that acts at that place: this encoding, a part of a composition, or None.

        ``at("queries_keys")`` is the rotation, if there is one.
        """
        for part in self.parts:
            if place in part.places:
                return part
        return None

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, for JSON; weights are not part of it."""
        arguments = {name: getattr(self, name) for name in _parameters(type(self))}
        return {"name": type(self).__name__, **{key: _plain(value) for key, value in arguments.items()}}

    @classmethod
    def from_dict(cls: type[E], data: Mapping[str, Any]) -> E:
        """The encoding that :meth:`to_dict` described."""
        arguments = check_keys(cls.__name__, data, set(_parameters(cls)), required=_required(cls))
        if isinstance(rules := arguments.get("frequencies"), Mapping):
            arguments["frequencies"] = Frequencies.from_dict(rules)
        elif cls.takes_several_rules and isinstance(rules, list):
            arguments["frequencies"] = [Frequencies.from_dict(rule) for rule in rules]
        return cls(**arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in _parameters(type(self)))


class EmbeddingEncoding(Encoding, ABC):
    """Place 1: a code is added to each embedding. A subclass sets ``dim`` and defines :meth:`codes`.

    Attributes:
        coordinates: the number of coordinates of a token. If above 1, :meth:`codes` gets them in the last dimension,
            and in a text all coordinates of a token equal its position.
    """

    places: tuple[Place, ...] = ("embeddings",)
    dim: int
    coordinates: int = 1

    @abstractmethod
    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        """The codes p(i), in float64 or in the dtype of the parameters; the sum with x is rounded once."""

    def on_embeddings(self, x: Float[Tensor, "*batch seq dim"], positions: Positions = None) -> Tensor:
        check_tensors(type(self).__name__, x=x)
        if x.ndim < 2:
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}, expected (batch, seq, dim) or (seq, dim); for "
                "one token pass x[None]."
            )
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"{type(self).__name__}: x has {x.shape[-1]} channels but this encoding was built for dim "
                f"{self.dim}; build it with dim={x.shape[-1]}."
            )
        check_inputs(type(self).__name__, x=x)
        batch = x.shape[0] if x.ndim == 3 else None
        if self.coordinates == 1:
            resolved = resolve(positions, x.shape[-2], device=x.device, batch=batch)
        else:
            resolved = resolve_coordinates(
                positions, x.shape[-2], self.coordinates, device=x.device, batch=1 if batch is None else batch
            )
            resolved = resolved[0] if x.ndim == 2 and resolved.ndim == 3 else resolved
        codes = self.codes(resolved).to(compute_dtype(x.dtype)).to(x.device)
        return (x + codes).to(x.dtype)


class QueryKeyEncoding(Encoding, ABC):
    """Place 2: queries and keys are changed by their positions before their dot product."""

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
    """Place 3: a bias is added to the scores. A subclass sets ``num_heads`` and defines :meth:`bias`.

    posenc makes all forms from :meth:`bias`: the dense bias, the bias of a block or of a decoding step, and a function
    for FlexAttention (:meth:`score_mod`). With ``relative = True`` the bias must be a function of i - j; posenc then
    evaluates it once for each distance.

    Attributes:
        factors_are_causal: True if :meth:`factors` is right only for keys at or before the query.
        bias_is_pure: True promises that :meth:`bias` reads nothing but its arguments, the parameters and buffers, and
            public attributes; :func:`posenc.attention` then keeps the values by distance of a relative encoding from
            call to call, as long as none of these has changed.
    """

    bias_is_pure: bool = False

    places: tuple[Place, ...] = ("scores",)
    factors_are_causal: bool = False
    num_heads: int

    @abstractmethod
    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]: ...

    def factors(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """``(heads, q_len, rank)`` and ``(heads, k_len, rank)`` whose product is the bias of every visible key.

        The product may differ from the bias by a number for each query, which does not change the softmax. None if the
        bias is not such a product.
        """
        return None

    def score_mod(self, q_positions: Tensor, k_positions: Tensor) -> ScoreMod:
        """The bias as a ``score_mod`` for ``torch.nn.attention.flex_attention``, differentiable in parameters.

        On a CPU, call this outside the compiled function: the inductor of PyTorch 2.13 cannot use a table that the same
        graph computes.
        """
        return score_mod(self.bias, q_positions, k_positions, heads=self.num_heads, relative=self.relative)


class ContextualEncoding(Encoding, ABC):
    """Place 3 for encodings that read queries and keys. A subclass sets ``num_heads`` and defines the bias of a block.

    The compiled CPU attention supports two kinds that do not change values. If the bias is min(c_i - c_j, 0) for the
    query of token i and the key of token j, define ``fades(state)``, which returns c of all tokens, ``(batch, heads,
    k_len)``; the kernel skips keys of weight 0. If each query has a row of biases and the count of a key selects the
    entry, define ``length`` and ``by_count(q, scale)``, which returns the rows, ``(batch, heads, q_len, length)``; if
    q times a table gives them, define this ``count_table``. The count is the sum of the sigmoids of the scores from the
    key to the query. Biases between counts are interpolated, higher counts get the last entry. Calls must be causal.

    Attributes:
        reads_positions: False if the encoding uses the order of the sequence and ignores positions.
        value_dim: the number of channels that values must have, if the encoding adds to values; None for any number.
    """

    places: tuple[Place, ...] = ("scores",)
    num_heads: int
    reads_positions: bool = True
    value_dim: int | None = None

    @abstractmethod
    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        """The bias of the scaled scores of some queries, for all keys that any of these queries may see."""

    def on_values(
        self, weights: Float[Tensor, "batch heads q_len k_len"], q_positions: Tensor, k_positions: Tensor
    ) -> Tensor | None:
        """The tensor to add to the output of attention, computed from its weights, or None."""
        return None


def _contextual_bias(
    encoding: Encoding,
    part: ContextualEncoding,
    scores: Tensor,
    i: Tensor,
    j: Tensor,
    *,
    q: Tensor | None,
    k: Tensor | None,
    state: Tensor | None,
    scale: float | None,
) -> Tensor:
    if q is None or k is None:
        raise ValueError(
            f"{type(part).__name__}: on_scores got no q and k, expected both, because this encoding reads them; pass "
            "the q= and k= that the scores were computed from."
        )
    dtype = compute_dtype(scores.dtype)
    q, k, wide = q.to(dtype), k.to(dtype), scores.to(dtype)
    q_state = None if state is None else state[..., k.shape[-2] - q.shape[-2] :]
    scale = encoding.softmax_scale(q.shape[-1]) if scale is None else scale
    with without_autocast(scores.device.type):
        return part.contextual_bias(Content(q, k, wide, i, j, scale, q_state, state, offset=k.shape[-2] - q.shape[-2]))


def _narrowed(total: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype in (torch.float16, torch.bfloat16):  # a far key may not turn into a masked one
        info = torch.finfo(dtype)
        total = torch.where(total.isinf(), total, total.clamp(info.min, info.max))
    return total.to(dtype)


def _parameters(cls: type[nn.Module]) -> Mapping[str, inspect.Parameter]:
    """The arguments of the constructor; none if a class has none of its own."""
    return {} if cls.__init__ is nn.Module.__init__ else inspect.signature(cls).parameters


def _required(cls: type[nn.Module]) -> set[str]:
    return {name for name, parameter in _parameters(cls).items() if parameter.default is inspect.Parameter.empty}


def _plain(value: Any) -> Any:
    if isinstance(value, (Frequencies, Encoding)):
        return value.to_dict()
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
