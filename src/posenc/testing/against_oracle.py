"""The tests that compare an encoding with its oracle."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from posenc.encoding import ContextualEncoding
from posenc.testing.candidate import Candidate, Oracle
from posenc.testing.comparator import FloatArray, assert_close, assert_matches_oracle

_POSITIONS = (lambda n: np.arange(n), lambda n: 2**20 + np.arange(n), lambda n: 7.0 + 0.5 * np.arange(n))


def matches_its_oracle_in_every_dtype(candidate: Candidate) -> None:
    if candidate.oracle is None:
        return
    n = candidate.length(9)
    for make_positions in _POSITIONS if candidate.encoding.max_positions is None else _POSITIONS[:1]:
        positions = make_positions(n)
        exact = positions.astype(np.float64)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            if dtype == torch.float16 and positions[-1] > 2**15 and "embeddings" in candidate.encoding.places:
                continue  # a code that grows with the position leaves float16's range
            _compare_with_oracle(candidate, candidate.oracle, torch.from_numpy(positions), exact, dtype)


def _compare_with_oracle(
    candidate: Candidate, oracle: Oracle, positions: Tensor, exact: FloatArray, dtype: torch.dtype
) -> None:
    n, encoding = len(exact), candidate.encoding

    def double(tensor: Tensor) -> FloatArray:
        array: FloatArray = tensor.double().numpy()
        return array

    if "embeddings" in encoding.places:
        x = candidate.embeddings(n, dtype=dtype)
        expected = oracle.on_embeddings(double(x), exact)
        scale = np.abs(double(x)) + np.abs(expected)
        assert_matches_oracle(encoding.on_embeddings(x, positions), expected, dtype=dtype, scale=scale)
    if "queries_keys" in encoding.places:
        q = candidate.random(2, candidate.num_heads, n, candidate.head_dim, dtype=dtype)
        k = candidate.random(2, candidate.kv_heads, n, candidate.head_dim, dtype=dtype, seed=1)
        for got, want in zip(
            encoding.on_queries_keys(q, k, positions), oracle.on_queries_keys(double(q), double(k), exact), strict=True
        ):
            # In float64 the angle itself, of size p, is rounded before cos and sin see it.
            scale = np.abs(want).max(axis=-1, keepdims=True) * max(1.0, exact.max() if dtype == torch.float64 else 1.0)
            assert_matches_oracle(got, want, dtype=dtype, scale=scale)
    part = encoding.at("scores")
    if isinstance(part, ContextualEncoding) and dtype in (torch.float64, torch.float32):
        x, q = candidate.embeddings(n, dtype=dtype), candidate.random(2, candidate.num_heads, n, candidate.head_dim)
        q, k = q.to(dtype), q.flip(0).to(dtype)
        want, scores = _contextual(candidate, oracle, double(x), double(q), double(k), exact)
        got = encoding.on_scores(
            torch.from_numpy(scores).to(dtype), positions, positions, q=q, k=k, state=encoding.carry(x)
        )
        finite = np.isfinite(scores)
        assert bool(torch.isneginf(got[torch.from_numpy(~finite)]).all()), "a masked key came back"
        size = np.abs(want).max() + np.abs(scores[finite]).max()
        want, got = np.where(finite, want + scores, 0.0), got.masked_fill(torch.from_numpy(~finite), 0.0)
        # Sums over head_dim products, and parameters that were rounded to float32 before anybody looked.
        learned = np.finfo(np.float32).eps / np.finfo(np.float64).eps if dtype == torch.float64 else 1.0
        assert_matches_oracle(got, want, dtype=dtype, scale=size, slack=32.0 * learned)
    elif "scores" in encoding.places and dtype == torch.float32:
        bias = encoding.bias(positions, positions)
        assert bias is not None
        want = oracle.bias(exact, exact)
        if list(encoding.parameters()):  # terms of a learned sum may cancel
            assert_matches_oracle(bias, want, dtype=dtype, scale=np.abs(want).max(), slack=64.0)
        else:
            assert_matches_oracle(bias, want, dtype=dtype)
    if encoding.scales_scores and dtype == torch.float64:
        temperature = torch.as_tensor(encoding.temperature(positions), dtype=torch.float64)
        expected = np.asarray(oracle.temperature(exact), dtype=np.float64)
        assert_matches_oracle(temperature, expected, dtype=dtype)


def _contextual(
    candidate: Candidate, oracle: Oracle, x: FloatArray, q: FloatArray, k: FloatArray, exact: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What the oracle adds to causal scores, and those scores."""
    scale = candidate.encoding.softmax_scale(candidate.head_dim)
    n = len(exact)
    scores = np.where(np.tri(n, dtype=bool), scale * (q @ np.swapaxes(k, -1, -2)), -np.inf)
    return oracle.contextual_bias(
        x=x, q=q, k=k, scores=scores, scale=scale, q_positions=exact, k_positions=exact
    ), scores


def has_the_gradient_of_its_oracle(candidate: Candidate) -> None:
    oracle, encoding, n = candidate.oracle, candidate.encoding, candidate.length(5)
    if oracle is None:
        return
    positions = torch.arange(n)
    exact = positions.double().numpy()
    step = 1e-3

    def compare(ours: Callable[[Tensor], Tensor], theirs: Callable[[FloatArray], FloatArray], at: Tensor) -> None:
        towards = candidate.random(*at.shape, seed=5)
        at = at.clone().requires_grad_()
        value = ours(at)
        cotangent = candidate.random(*value.shape, seed=6)
        (gradient,) = torch.autograd.grad(value, at, cotangent)
        point, delta = at.detach().numpy(), step * towards.numpy()
        slope = (theirs(point + delta) - theirs(point - delta)) / (2 * step)
        expected = torch.from_numpy((cotangent.numpy() * slope).sum(keepdims=True))
        assert_close((gradient * towards).sum().reshape(expected.shape), expected, "directional derivative")

    if "embeddings" in encoding.places:
        compare(
            lambda x: encoding.on_embeddings(x, positions),
            lambda x: oracle.on_embeddings(x, exact),
            candidate.embeddings(n),
        )
    if isinstance(encoding.at("scores"), ContextualEncoding):
        seen = torch.ones(n, n, dtype=torch.bool).tril()

        def ours(x: Tensor) -> Tensor:
            q, k = x.unflatten(-1, (candidate.num_heads, candidate.head_dim)).transpose(1, 2).chunk(2)
            scores = torch.zeros(1, candidate.num_heads, n, n, dtype=x.dtype).masked_fill(~seen, -torch.inf)
            scale = encoding.softmax_scale(candidate.head_dim)
            scores = scores + scale * (q @ k.transpose(-1, -2))
            added = encoding.on_scores(scores, positions, positions, q=q, k=k, state=encoding.carry(x[:1]))
            slope: Tensor = (added - scores)[..., seen]
            return slope

        def theirs(x: FloatArray) -> FloatArray:
            q, k = x.reshape(2, 1, n, candidate.num_heads, candidate.head_dim).swapaxes(2, 3)
            return _contextual(candidate, oracle, x[:1], q, k, exact)[0][..., seen.numpy()]

        compare(ours, theirs, candidate.embeddings(n))
    if "queries_keys" in encoding.places:
        compare(
            lambda x: torch.cat(encoding.on_queries_keys(x, x, positions)),
            lambda x: np.concatenate(oracle.on_queries_keys(x, x, exact)),
            candidate.random(2, candidate.kv_heads, n, candidate.head_dim),
        )


QUESTIONS: tuple[Callable[[Candidate], None], ...] = (
    matches_its_oracle_in_every_dtype,
    has_the_gradient_of_its_oracle,
)
