"""The properties that a good encoding should have, each measured, for any encoding.

===  ==========================================  ======================================================================
1    a different code for each position          smallest distance between two codes, in float32 and bfloat16
2    a linear map from code i to code i + k      residual of the best map that is the same at every i
3    works past the trained length               a trained model's perplexity: the report takes it from the run
4    deterministic, no table                     same codes when built twice; parameters; bytes for each position
5    more than one dimension                     1 and 2 again on a grid, each axis with half of the channels or heads
\\-   sees order                                  change at one word when the other words are reordered
===  ==========================================  ======================================================================

Properties 1, 2 and 5 are about *the code of a position*. :func:`codes_of` defines the code for each place.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import posenc
from posenc.lab.run.schedule import seeded

WORDS = ("the", "quick", "brown", "fox")
SHIFTS, GRID_SHIFT = (1, 16), (3, 5)
"""The steps k of property 2, and the step along x and y on a grid."""
SEED = 0
"""Of the random words and of the random halves."""
EXACT = 1e-6
"""A residual below this is rounding of an exact map; all other residuals are above 1e-2."""


@dataclass(frozen=True)
class Unique:
    """The number of different codes at positions 0 .. positions - 1 in one dtype, and the smallest distance of two."""

    dtype: str
    positions: int
    distinct: int
    distance: float
    """Smallest Euclidean distance between the codes of two positions; 0 if a code is used twice."""
    pair: tuple[int, int]
    """Two positions at that distance: the first code that is used twice, if there is one."""


@dataclass(frozen=True)
class LinearMap:
    """How well one matrix maps the code at i to the code at i + k, for all i.

    ``residuals`` has for each k the part of the step that the best matrix misses, \\|c(i+k) - M c(i)\\| over
    \\|c(i+k) - c(i)\\|: 0 for an exact map, 1 for one no better than staying where it is. M is fitted (least squares,
    float64) on a random half of the positions and judged on the other half, so that a small table cannot be learned
    by heart.
    """

    positions: int
    residuals: dict[int, float]

    @property
    def worst(self) -> float:
        return max(self.residuals.values())


@dataclass(frozen=True)
class Cost:
    """The cost of a code: learned parameters, their bytes per position, and whether two builds give the same codes."""

    parameters: int
    bytes_per_position: float
    deterministic: bool | None


@dataclass(frozen=True)
class Grid:
    """Properties 1 and 2 on a square grid: the codes of x and y concatenated, each of half the width."""

    side: int
    distance: float
    shift: tuple[int, int]
    residual: float


@dataclass(frozen=True)
class Properties:
    """All measured properties of one encoding. One that does not apply is None, with the reason in ``reasons``."""

    places: tuple[str, ...]
    width: int
    unique: dict[str, Unique] | None
    linear_map: LinearMap | None
    cost: Cost
    grid: Grid | None
    order: float
    """Largest change of a word's attention output, relative to the output, when the other words change places."""
    reasons: dict[str, str] = field(default_factory=dict)


def measure(encoding: posenc.Encoding, *, dim: int, num_heads: int, positions: int = 2**16) -> Properties:
    """Measure all properties of one encoding that need no training.

    Args:
        encoding: any encoding, also of a class of your own.
        dim: channels of the model.
        num_heads: query heads of the model.
        positions: number of positions, from 0, that are searched for equal codes; fewer if the encoding has fewer.

    Example:
        >>> found = measure(posenc.make("sinusoidal", dim=32, num_heads=2), dim=32, num_heads=2, positions=1000)
        >>> found.unique["float32"].distinct, found.linear_map.worst < 1e-12
        (1000, True)
        >>> found.order > 0.01  # order is seen
        True
    """
    reasons: dict[str, str] = {}
    found: dict[str, Any] = {"unique": None, "linear_map": None, "grid": None}
    searched = torch.arange(min(positions, encoding.max_positions or positions))
    sizes: Any = {"dim": dim, "num_heads": num_heads}
    width = 0
    with torch.no_grad():
        if not encoding.places:
            reasons |= dict.fromkeys(found, "no code: the encoding does not use the position")
        elif isinstance(encoding.at("scores"), posenc.ContextualEncoding):
            reasons |= dict.fromkeys(found, "no code: the bias depends on the content of the tokens")
        else:
            width = codes_of(encoding, torch.arange(1), **sizes).shape[-1]
            found["unique"] = {
                name: unique_codes(codes_of(encoding, searched, **sizes, dtype=getattr(torch, name)))
                for name in ("float32", "bfloat16")
            }
            for name, measured in (("linear_map", best_linear_map), ("grid", on_a_grid)):
                try:
                    found[name] = measured(encoding, **sizes)
                except _DoesNotApply as why:
                    reasons[name] = str(why)
        cost = _cost(encoding, **sizes)
        if cost.deterministic is None:
            reasons["deterministic"] = "from_dict(to_dict()) does not rebuild the encoding"
        order = order_test(encoding, **sizes)
    return Properties(encoding.places, width, cost=cost, order=order, reasons=reasons, **found)


def codes_of(
    encoding: posenc.Encoding, positions: Tensor, *, dim: int, num_heads: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The code of each position, ``(positions, width)`` in ``dtype``: the output of the hooks for a fixed input.

    - embeddings: for an embedding of zeros, which gives ``encoding.codes(p)``;
    - queries_keys: for a query with 1 on every channel, in the first head;
    - scores: of a score of 0 between a query at p and a key at 0, one number for each head, among words that are all
      alike for an encoding that reads them;
    - several places: these codes concatenated; none: width 0.
    """
    count = len(positions)
    codes = [torch.empty(count, 0, dtype=dtype)]
    if "embeddings" in encoding.places:
        codes.append(encoding.on_embeddings(torch.zeros(1, count, dim, dtype=dtype), positions)[0])
    if "queries_keys" in encoding.places:
        ones = torch.ones(1, num_heads, count, dim // num_heads, dtype=dtype)
        codes.append(encoding.on_queries_keys(ones, ones[:, :, :1], positions, k_positions=0)[0][0, 0])
    if "scores" in encoding.places:
        if isinstance(encoding.at("scores"), posenc.ContextualEncoding):
            words = torch.ones(1, count, dim, dtype=dtype)
            q, square = words.unflatten(-1, (num_heads, -1)).transpose(1, 2), torch.zeros(1, num_heads, count, count)
            scores = encoding.on_scores(square.to(dtype), positions, 0, q=q, k=q, state=encoding.carry(words))
        else:
            scores = encoding.on_scores(torch.zeros(1, num_heads, count, 1, dtype=dtype), positions, 0)
        codes.append(scores[0, :, :, 0].T)
    return torch.cat(codes, dim=-1).detach()


def unique_codes(codes: Tensor) -> Unique:
    """Count the different codes and find the two that are closest, among all pairs."""
    dtype = str(codes.dtype).removeprefix("torch.")
    wide = (codes.float() if codes.dtype == torch.bfloat16 else codes) + 0.0  # + 0.0: -0.0 and 0.0 are one number
    seen: dict[bytes, int] = {}
    twice: tuple[int, int] | None = None
    for position, row in enumerate(wide.contiguous().numpy()):
        first = seen.setdefault(row.tobytes(), position)
        if first != position and twice is None:
            twice = (first, position)
    distance, pair = smallest_distance(wide.double()) if twice is None else (0.0, twice)
    return Unique(dtype, len(codes), len(seen), distance, pair)


def smallest_distance(codes: Tensor, *, block: int = 64) -> tuple[float, tuple[int, int]]:
    """The exact smallest Euclidean distance between two rows, and the two rows.

    The search covers all pairs without computing most of them: rows are cut into blocks of neighbours, each block has a
    bounding box, and two blocks whose boxes are further apart than the best pair so far cannot hold a better one. Boxes
    of neighbours are small in every slow channel, so few pairs of blocks are left. Codes without such an
    order need all pairs.
    """
    blocks = codes.split(block)
    best, pair = math.inf, (0, 0)

    def look(a: int, b: int) -> None:
        nonlocal best, pair
        # Not by the matrix product, which loses close pairs of long codes to rounding.
        distances = torch.cdist(blocks[a], blocks[b], compute_mode="donot_use_mm_for_euclid_dist")
        if a == b:
            distances = distances + torch.full_like(distances, torch.inf).tril()
        where = int(distances.argmin())
        i, j = divmod(where, distances.shape[1])
        if (found := float(distances[i, j])) < best:
            best, pair = found, (a * block + i, b * block + j)

    for a in range(len(blocks)):
        look(a, a)
        if a + 1 < len(blocks):
            look(a, a + 1)
    low = torch.stack([part.amin(dim=0) for part in blocks])
    high = torch.stack([part.amax(dim=0) for part in blocks])
    for a in range(len(blocks) - 2):
        gap = torch.maximum(low[a + 2 :] - high[a], low[a] - high[a + 2 :]).clamp(min=0)
        bound = gap.square().sum(dim=1)
        for b in (bound < best**2).nonzero()[:, 0].tolist():
            look(a, a + 2 + b)
    return best, pair


class _DoesNotApply(Exception):
    """A property cannot be measured for this encoding; the message says why."""


def best_linear_map(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> LinearMap:
    """Fit one matrix for each shift k, from the code at i to the code at i + k."""
    width = codes_of(encoding, torch.arange(1), dim=dim, num_heads=num_heads).shape[-1]
    wanted = max(512, 4 * width) + max(SHIFTS)
    limit = wanted if encoding.max_positions is None else min(wanted, encoding.max_positions)
    if limit < 4 + max(SHIFTS):
        raise _DoesNotApply(f"only {limit} positions, too few to fit a map")
    codes = codes_of(encoding, torch.arange(limit), dim=dim, num_heads=num_heads).numpy()
    fit = _half(limit, np.random.default_rng(SEED))
    return LinearMap(limit, {k: _residual(codes[:-k], codes[k:], fit[:-k], ~fit[:-k]) for k in SHIFTS})


def _residual(
    source: NDArray[np.float64], target: NDArray[np.float64], fit: NDArray[np.bool_], judge: NDArray[np.bool_]
) -> float:
    matrix = np.linalg.lstsq(source[fit], target[fit], rcond=None)[0]
    missed = np.linalg.norm(target[judge] - source[judge] @ matrix)
    step = np.linalg.norm(target[judge] - source[judge])
    return float(missed / step) if step > 0 else 0.0


def _half(count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    return random.permutation(count) < count // 2


def on_a_grid(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> Grid:
    """The encoding for two axes: one of half the width for x and one for y, with concatenated codes."""
    half = _of_half_the_width(encoding)
    heads = num_heads // 2 if "scores" in encoding.places else num_heads
    width = codes_of(half, torch.arange(1), dim=dim // 2, num_heads=heads).shape[-1]
    side = max(64, 4 * width)
    side = side if half.max_positions is None else min(side, half.max_positions)
    if side < 4 + 2 * max(GRID_SHIFT):
        raise _DoesNotApply(f"only {side} positions on an axis, too few for a shift of {GRID_SHIFT}")
    axis = codes_of(half, torch.arange(side), dim=dim // 2, num_heads=heads)
    # The map is tested at x and y that it was not fitted on. A few points for each unknown are enough.
    random = np.random.default_rng(SEED)
    x, y = (random.integers(0, side - k, size=64 + 32 * width) for k in GRID_SHIFT)
    fit_x, fit_y = (_half(side, random)[index] for index in (x, y))
    codes = axis.numpy()
    source = np.concatenate((codes[x], codes[y]), axis=1)
    target = np.concatenate((codes[x + GRID_SHIFT[0]], codes[y + GRID_SHIFT[1]]), axis=1)
    residual = _residual(source, target, fit_x & fit_y, ~fit_x & ~fit_y)
    # The nearest point to (x, y) shares x or y with it, because squared distances add up over the axes.
    distance, _ = smallest_distance(axis)
    return Grid(side, distance, GRID_SHIFT, residual)


def _of_half_the_width(encoding: posenc.Encoding) -> posenc.Encoding:
    data = encoding.to_dict()
    widths = [key for key in data if key in ("dim", "head_dim", "rotary_dim")] or [k for k in data if k == "num_heads"]
    if not widths:
        raise _DoesNotApply("the encoding has no dim, head_dim or num_heads that could be halved")
    try:
        return _built(encoding, data | {key: data[key] // 2 for key in widths}, seed=SEED)
    except (TypeError, ValueError) as error:
        raise _DoesNotApply(f"the encoding cannot be built at half the width: {error}") from error


def _built(encoding: posenc.Encoding, data: Mapping[str, Any], *, seed: int) -> posenc.Encoding:
    """Build another encoding of the same class, with its random numbers from a given seed."""
    with seeded(seed):
        return type(encoding).from_dict(data)


def _cost(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> Cost:
    learned = list(encoding.parameters())
    stored = sum(parameter.numel() * parameter.element_size() for parameter in learned)
    rows = encoding.max_positions
    return Cost(
        sum(parameter.numel() for parameter in learned),
        stored / rows if rows else 0.0,
        _is_deterministic(encoding, dim=dim, num_heads=num_heads),
    )


def _is_deterministic(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> bool | None:
    """Whether the constructor's arguments alone determine the codes: a second build has the same codes."""
    try:
        again = _built(encoding, encoding.to_dict(), seed=2017)
    except (TypeError, ValueError):
        return None
    some = torch.arange(min(64, encoding.max_positions or 64))
    return torch.equal(*(codes_of(each, some, dim=dim, num_heads=num_heads) for each in (encoding, again)))


def order_test(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> float:
    """Measure how much a word's output changes when the other words of "the quick brown fox" are reordered.

    One layer of attention without a causal mask, random embeddings and projections, in float64, with all three hooks.
    Returns the largest change of a word's output over all words and orders, relative to the output's norm: rounding of
    float64 if the encoding gives the model no order.
    """
    generator = torch.Generator().manual_seed(SEED)
    words = torch.randn(len(WORDS), dim, dtype=torch.float64, generator=generator)
    weights = torch.randn(3, dim, dim, dtype=torch.float64, generator=generator) / dim**0.5

    def output(order: Sequence[int]) -> Tensor:
        x = encoding.on_embeddings(words[list(order)][None])
        q, k, v = (
            (x @ weight).view(1, len(order), num_heads, dim // num_heads).transpose(1, 2).to(x.dtype)
            for weight in weights.to(x.dtype)
        )
        y = posenc.attention(*encoding.on_queries_keys(q, k), v, encoding, mask=everything, state=encoding.carry(x))
        return y[0].transpose(0, 1).flatten(1)

    original = list(range(len(WORDS)))
    everything = torch.ones(len(WORDS), len(WORDS), dtype=torch.bool)  # keys after the query, on purpose
    expected = output(original)
    worst = 0.0
    for order in itertools.permutations(original):
        stayed = [t for t in original if order[t] == t]
        if 0 < len(stayed) < len(original):
            change = (output(order)[stayed] - expected[stayed]).norm(dim=1) / expected[stayed].norm(dim=1)
            worst = max(worst, float(change.max()))
    return worst
