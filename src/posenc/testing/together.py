"""Tests of several calls together: two ways to the same result, and one call after any other."""

import copy
import random
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from posenc.dot_product_attention import attention
from posenc.encoding import ContextualEncoding
from posenc.explanation import explain
from posenc.kernels.biased_attention.plan import Implementation
from posenc.positions import Positions
from posenc.testing.candidate import Candidate
from posenc.testing.comparator import assert_close


def gives_attention_what_it_gives_the_scores(candidate: Candidate) -> None:
    """softmax(on_scores(...)) @ v, and what is added to the values, is attention(...), by every implementation."""
    encoding, n = candidate.encoding, candidate.length(13)
    x = candidate.embeddings(n)
    q = candidate.random(2, candidate.num_heads, n, candidate.head_dim, seed=1)
    k = candidate.random(2, candidate.kv_heads, n, candidate.head_dim, seed=2)
    v = candidate.random(2, candidate.kv_heads, n, candidate.head_dim, seed=3)
    q, k = encoding.on_queries_keys(q, k)
    state = encoding.carry(x)
    for cached in (0, n // 2):  # without a cache, and with one of this many keys
        part_q = q[:, :, cached:]
        for causal in (True, False):
            if not causal and encoding.causal_only:
                continue
            expected = _by_hand(candidate, part_q, k, v, state, causal=causal)
            for implementation in get_args(Implementation):
                options = {"causal": causal, "state": state, "implementation": implementation}
                try:
                    got = attention(part_q, k, v, encoding, **options)
                except ValueError as error:
                    if implementation != "auto" and _declines(error):
                        continue
                    raise
                # Channels round the bias with the dot product, in float32.
                tolerance = 1e-4 if implementation == "channels" else 1e-6
                assert_close(got, expected, f"{implementation}, causal={causal}, {cached} cached", tolerance=tolerance)


def _declines(error: ValueError) -> bool:
    return "cannot take this call" in str(error) or "separates" in str(error)


def _by_hand(candidate: Candidate, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, *, causal: bool) -> Tensor:
    encoding = candidate.encoding
    groups = q.shape[1] // k.shape[1]
    offset = k.shape[2] - q.shape[2]
    scores = encoding.softmax_scale(q.shape[-1]) * q @ k.repeat_interleave(groups, dim=1).mT
    i, j = torch.arange(offset, k.shape[2]), torch.arange(k.shape[2])
    if causal:
        scores = scores.masked_fill(j > i[:, None], -torch.inf)
    weights = encoding.on_scores(scores, i, j, q=q, k=k, state=state).softmax(-1)
    y: Tensor = weights @ v.repeat_interleave(groups, dim=1)
    part = encoding.at("scores")
    more = part.on_values(weights, i, j) if isinstance(part, ContextualEncoding) else None
    return y if more is None else y + more


def gives_the_same_answer_whatever_was_called_before(candidate: Candidate) -> None:
    """Valid and invalid calls on one object, each against the same call on a fresh one.

    Forms that are equal to each other, such as 1 and True, come each after each; then all calls, shuffled.
    """
    n = candidate.length(5)
    arange = torch.arange(n)
    forms: list[Positions | bool] = [None, 0, 1, True, False, -1, arange, arange.int(), arange.double()]
    alike = len(forms)
    forms += [7, arange + 1, arange.bfloat16(), torch.arange(n + 1), arange.expand(2, n), 0.5 * arange, arange - 1]
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    calls = [(form, dtype) for form in forms for dtype in dtypes]
    used = Candidate(copy.deepcopy(candidate.encoding), None)

    def answer(who: Candidate, call: int) -> list[Tensor] | str:
        form, dtype = calls[call]
        try:
            return who.hooks(form, n, dtype=dtype)
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    fresh = [answer(Candidate(copy.deepcopy(candidate.encoding), None), call) for call in range(len(calls))]
    each = range(0, alike * len(dtypes), len(dtypes))
    every = list(range(len(calls)))
    random.Random(0).shuffle(every)
    order = [call for i in each for j in each if i <= j for call in (i, j)] + every
    before = "nothing"
    for call in order:
        got, expected = answer(used, call), fresh[call]
        if isinstance(got, str) or isinstance(expected, str):
            same = got == expected
        else:
            same = all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        if not same:
            raise AssertionError(
                f"positions {calls[call]!r} after {before}: got {got if isinstance(got, str) else 'other numbers'}, "
                f"expected {expected if isinstance(expected, str) else 'those of a fresh encoding'}"
            )
        before = repr(calls[call])


def explains_what_its_calls_do(candidate: Candidate) -> None:
    """explain refuses what the call refuses, and explains what the call takes, for every pair of dtypes and lengths."""
    encoding, n = candidate.encoding, candidate.length(4)
    if getattr(encoding.on_queries_keys, "__explainer__", None) is None:
        return
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    for q_dtype in dtypes:
        for k_dtype in dtypes:
            for k_len in {n, max(n - 1, 1)}:
                q = candidate.random(1, candidate.num_heads, n, candidate.head_dim, dtype=q_dtype)
                k = candidate.random(1, candidate.kv_heads, k_len, candidate.head_dim, dtype=k_dtype)
                for name in ("on_queries_keys", "on_queries_keys_"):
                    call = getattr(encoding, name)
                    _agree(name, _refusal(explain, call, q, k), _refusal(call, q.clone(), k.clone()))


def _refusal(call: Callable[..., object], *arguments: object) -> str | None:
    try:
        call(*arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _agree(name: str, explained: str | None, called: str | None) -> None:
    if (explained is None) != (called is None):
        raise AssertionError(
            f"{name}: explain says {explained or 'what it takes'}, and the call {called or 'goes through'}"
        )


QUESTIONS: tuple[Callable[[Candidate], None], ...] = (
    gives_attention_what_it_gives_the_scores,
    gives_the_same_answer_whatever_was_called_before,
    explains_what_its_calls_do,
)
