"""The encoding test suite: each test is a function whose name says what an encoding must do.

The names in the code call the suite the exam, and a test a question.
"""

import copy
import functools
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from posenc.dot_product_attention import attention
from posenc.encoding import Encoding, ScoreEncoding
from posenc.testing import against_oracle, compiled, together
from posenc.testing.candidate import Candidate, Oracle
from posenc.testing.comparator import assert_close, assert_same
from posenc.testing.layers import LAYER_QUESTIONS


def check_encoding(encoding: Encoding, *, oracle: Oracle | None = None) -> None:
    """Run all tests on an encoding, and raise an error that names the first failed test.

    The tests check:

    - values and gradients in every dtype against the oracle, if there is one; ``gradcheck``;
    - that attention depends only on differences of positions, if the encoding is relative;
    - a prefix of a longer run equals the shorter run, at lengths 1, 63, 64 and 65;
    - decoding step by step equals the full forward; packed documents equal separate ones;
    - the bias is the same in every form: dense, in blocks and as a ``score_mod``;
    - left padding and other rows of the batch have no effect, and inputs are not modified;
    - all forms of positions, positions of 2**20, grouped heads, dtypes, autocast and views; bad positions are refused;
    - round trips: state dict, deepcopy, pickle, meta device and ``to_dict``;
    - ``torch.compile(fullgraph=True)`` and ``torch.export`` equal eager, with one graph for all lengths and two for
      decoding;
    - every implementation of attention that takes the encoding equals the softmax of ``on_scores``, also after other
      calls, and explanations agree with the calls;
    - within the layers of :mod:`posenc.nn`, cached equals uncached, also with a window and in a padded batch, and
      packed documents equal separate ones.

    Args:
        encoding: the encoding under test. What it declares (``places``, ``relative``, ``keys_cacheable``,
            ``max_positions``) decides which tests run.
        oracle: its NumPy reference, an object with the encoding's hooks.

    Raises:
        AssertionError: the name of the first failed test.
    """
    for name, question in checks(encoding, oracle=oracle):
        try:
            question()
        except Exception as error:
            raise AssertionError(f"{type(encoding).__name__} fails {name!r}: {error}") from error


def checks(encoding: Encoding, *, oracle: Oracle | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
    """The tests of :func:`check_encoding`, as (name, function to call) pairs."""
    candidate = Candidate(encoding, oracle)
    # Tests of single calls come first: they name a fault more exactly than tests of several calls or of a compiler.
    later = {question.__name__: question for question in (*together.QUESTIONS, *compiled.QUESTIONS)}
    for name, question in (_QUESTIONS | later).items():
        yield name, functools.partial(question, candidate)


_QUESTIONS: dict[str, Callable[[Candidate], None]] = {
    question.__name__: question for question in against_oracle.QUESTIONS
}


def _question(function: Callable[[Candidate], None]) -> Callable[["Candidate"], None]:
    _QUESTIONS[function.__name__] = function
    return function


@_question
def passes_gradcheck(candidate: Candidate) -> None:
    n = candidate.length(4)
    encoding = copy.deepcopy(candidate.encoding).double()
    parameters = list(encoding.parameters())
    x = candidate.embeddings(n, batch=1).requires_grad_()

    def output(x: Tensor, *_: Tensor) -> Tensor:
        return candidate.layer(x, encoding=encoding)[0]

    torch.autograd.gradcheck(output, (x, *parameters), fast_mode=True)


@_question
def depends_on_differences_alone_if_it_says_that_it_is_relative(candidate: Candidate) -> None:
    if not candidate.encoding.relative:
        return
    n = candidate.length(12)
    x = candidate.embeddings(n)
    for shift in (1, 1000, 2**20):
        if candidate.encoding.max_positions is None or n + shift <= candidate.encoding.max_positions:
            assert_close(candidate.layer(x, shift)[0], candidate.layer(x, 0)[0], f"all positions shifted by {shift}")


@_question
def gives_one_bias_in_every_form(candidate: Candidate) -> None:
    part = candidate.encoding.at("scores")
    n = candidate.length(24)
    if isinstance(part, ScoreEncoding):
        positions = torch.arange(n)
        full = part.bias(positions, positions)
        block = part.bias(positions[3 : n - 2], positions[1 : n - 4])
        assert_close(block, full[..., 3 : n - 2, 1 : n - 4], "the bias of a block")
        assert_close(part.bias(positions[-1:], positions), full[..., -1:, :], "the bias of a step of decoding")
        heads = torch.arange(candidate.num_heads)[:, None, None]
        mod = part.score_mod(positions, positions)
        seen = mod(torch.zeros_like(full), torch.tensor(0), heads, positions[:, None], positions[None])
        assert_close(seen, full, "the score_mod")
        if part.relative and part.max_positions is None:
            assert_close(part.bias(positions + 2**20, positions + 2**20), full, "the bias of a shifted run")
    n = candidate.length(300)
    x = candidate.embeddings(n)
    if part is not None:
        dense, _ = candidate.layer(x, implementation="dense")
        assert_close(candidate.layer(x, implementation="blocks")[0], dense, "attention in blocks")


@_question
def gives_a_prefix_what_it_gives_the_shorter_run(candidate: Candidate) -> None:
    if not candidate.encoding.keys_cacheable:  # keys change as the sequence grows, and with them the scores
        return
    full = candidate.length(80)
    x = candidate.embeddings(full)
    whole, _ = candidate.layer(x)
    for n in (1, 63, 64, 65):
        if n <= full:
            assert_close(candidate.layer(x[:, :n])[0], whole[:, :, :n], f"the first {n} tokens of {full}")


@_question
def decodes_step_by_step_as_in_a_full_forward(candidate: Candidate) -> None:
    if not candidate.encoding.keys_cacheable:
        return
    n = candidate.length(11)
    kv_heads = candidate.kv_heads
    x = candidate.embeddings(n)
    whole, _ = candidate.layer(x, kv_heads=kv_heads)
    _, cache = candidate.layer(x[:, :3], kv_heads=kv_heads)
    for t in range(3, n):
        step, cache = candidate.layer(x[:, t : t + 1], t, kv_heads=kv_heads, cache=cache, all_positions=0)
        assert_close(step, whole[:, :, t : t + 1], f"step {t}")


@_question
def gives_packed_documents_what_it_gives_separate_ones(candidate: Candidate) -> None:
    lengths = (candidate.length(5), candidate.length(7))
    x = candidate.embeddings(sum(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths])
    document = torch.repeat_interleave(torch.tensor([0, 1]), torch.tensor(lengths))
    packed, _ = candidate.layer(x, positions, mask=document[:, None] == document[None, :])
    for part, rows in zip(packed.split(lengths, dim=2), x.split(lengths, dim=1), strict=True):
        assert_close(part, candidate.layer(rows)[0], "a document of a pack")


@_question
def is_not_touched_by_left_padding_or_batch_mates(candidate: Candidate) -> None:
    n, pad = candidate.length(9), 4
    x = candidate.embeddings(n)
    real = torch.arange(n) >= torch.tensor([[0], [pad]])
    positions = torch.stack((torch.arange(n), (torch.arange(n) - pad).clamp(min=0)))
    padded, _ = candidate.layer(x, positions, mask=real[:, None, None, :])
    assert_close(padded[:1], candidate.layer(x[:1])[0], "the row without padding")
    if n > pad:
        assert_close(padded[1:, :, pad:], candidate.layer(x[1:, pad:])[0], "the row with padding")


@_question
def takes_all_forms_of_positions(candidate: Candidate) -> None:
    n = candidate.length(6)
    expected = candidate.hooks(None, n)
    arange = torch.arange(n)
    for form in (0, arange, arange.int(), arange.float(), arange.double(), arange.expand(2, n)):
        got, what = candidate.hooks(form, n), f"positions given as {form!r}"
        batched = isinstance(form, Tensor) and form.ndim == 2
        if batched and "scores" in candidate.encoding.places and list(candidate.encoding.parameters()):
            for one, other in zip(
                got, expected, strict=True
            ):  # matrix products of another shape round in another order
                assert_close(one, other, what)
        else:
            assert_same(got, expected, what)
    if candidate.encoding.max_positions is None:
        assert_same(candidate.hooks(7, n), candidate.hooks(arange + 7, n), "an offset of 7")
        if candidate.encoding.places and getattr(candidate.encoding.at("scores"), "reads_positions", True):
            different = zip(candidate.hooks(2 * arange, n), expected, strict=True)
            assert all(not torch.equal(a, b) for a, b in different), "positions make no difference"


@_question
def stays_finite_at_two_to_the_twenty(candidate: Candidate) -> None:
    if candidate.encoding.max_positions is None:
        for value in candidate.hooks(2**20, 5):
            assert bool(torch.isfinite(value).all()), "got NaN or infinity at position 2**20"


@_question
def serves_grouped_heads(candidate: Candidate) -> None:
    n = candidate.length(6)
    q = candidate.random(2, candidate.num_heads, n, candidate.head_dim)
    k = candidate.random(2, candidate.kv_heads, n, candidate.head_dim, seed=1)
    for_each = k.repeat_interleave(candidate.num_heads // candidate.kv_heads, dim=1)
    q1, k1 = candidate.encoding.on_queries_keys(q, k)
    q2, k2 = candidate.encoding.on_queries_keys(q, for_each)
    state = candidate.encoding.carry(candidate.embeddings(n))
    assert_close(
        attention(q1, k1, k, candidate.encoding, causal=True, state=state),
        attention(q2, k2, for_each, candidate.encoding, causal=True, state=state),
        "one key head for many query heads",
    )


@_question
def leaves_its_inputs_alone(candidate: Candidate) -> None:
    n = candidate.length(6)
    x = candidate.embeddings(n)
    q = candidate.random(2, candidate.num_heads, n, candidate.head_dim)
    scores = candidate.random(2, candidate.num_heads, n, n)
    positions = torch.arange(n)
    tensors = (x, q, scores, positions)
    before = [tensor.clone() for tensor in tensors]
    candidate.encoding.on_embeddings(x, positions)
    candidate.encoding.on_queries_keys(q, q, positions)
    state = candidate.encoding.carry(x)
    candidate.encoding.on_scores(scores, positions, positions, q=q, k=q, state=state)
    attention(q, q, q, candidate.encoding, q_positions=positions, k_positions=positions, causal=True, state=state)
    assert_same(list(tensors), before, "inputs after the call")


@_question
def keeps_shapes_and_dtypes_and_takes_views(candidate: Candidate) -> None:
    n, encoding = candidate.length(6), candidate.encoding
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        x = candidate.embeddings(n, dtype=dtype)
        q = candidate.random(2, candidate.num_heads, n, candidate.head_dim, dtype=dtype)
        scores = candidate.random(2, candidate.num_heads, n, n, dtype=dtype)
        q_view = q.transpose(1, 2).contiguous().transpose(1, 2)
        x_view = x.transpose(0, 1).contiguous().transpose(0, 1)
        scored = encoding.on_scores(scores, None, None, q=q, k=q, state=encoding.carry(x))
        outputs = [encoding.on_embeddings(x), *encoding.on_queries_keys(q, q), scored]
        times = (1, encoding.widening, encoding.widening, 1)
        for given, got, wider in zip((x, q, q, scores), outputs, times, strict=True):
            shape = (*given.shape[:-1], given.shape[-1] * wider)
            assert got.shape == shape, f"got shape {tuple(got.shape)}, expected {shape}"
            assert got.dtype == dtype, f"got {got.dtype} for an input of {dtype}"
        views = [encoding.on_embeddings(x_view), *encoding.on_queries_keys(q_view, q_view)]
        assert_same(views, outputs[:3], "transposed views")


@_question
def is_not_spoiled_by_casts_or_autocast(candidate: Candidate) -> None:
    n = candidate.length(6)
    expected = candidate.hooks(None, n)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = candidate.hooks(None, n)
    exact = not list(candidate.encoding.parameters())
    for got, want in zip(under_autocast, expected, strict=True):
        assert_close(got, want, "under autocast", tolerance=0 if exact else 2e-2)
    if exact:
        cast = Candidate(copy.deepcopy(candidate.encoding).bfloat16(), None)
        assert_same(cast.hooks(None, n), expected, "after .bfloat16()")


@_question
def survives_every_round_trip(candidate: Candidate) -> None:
    n, encoding = candidate.length(6), candidate.encoding
    expected = candidate.hooks(None, n)
    data = json.loads(json.dumps(encoding.to_dict()))
    assert type(encoding).from_dict(data).to_dict() == encoding.to_dict(), "to_dict and from_dict do not agree"
    rebuilt = type(encoding).from_dict(data)
    rebuilt.load_state_dict(encoding.state_dict())
    with torch.device("meta"):
        empty = type(encoding).from_dict(data)
    empty.to_empty(device="cpu").load_state_dict(encoding.state_dict())
    copies: dict[str, Encoding] = {
        "to_dict and state dict": rebuilt,
        "the meta device": empty,
        "deepcopy": copy.deepcopy(encoding),
        "pickle": pickle.loads(pickle.dumps(encoding)),
    }
    for what, other in copies.items():
        assert_same(Candidate(other, None).hooks(None, n), expected, what)
    assert set(encoding.state_dict()) == {name for name, _ in encoding.named_parameters()}, "buffers in the state dict"


@_question
def refuses_bad_positions(candidate: Candidate) -> None:
    n = candidate.length(6)
    if not candidate.encoding.places:
        return
    ascending = torch.arange(n)
    bad: dict[str, Any] = {
        "a negative offset": -1,
        "a negative position": ascending - 1,
        "NaN": torch.full((n,), torch.nan),
        "infinity": torch.full((n,), torch.inf),
        "one position too many": torch.arange(n + 1),
        "another rank": ascending.expand(2, 2, n),
        "booleans": ascending > 0,
        "a list": ascending.tolist(),
    }
    if any(getattr(part, "signed", False) for part in candidate.encoding.parts):
        del bad["a negative position"]  # coordinates may be counted from the centre
    if (limit := candidate.encoding.max_positions) is not None:
        bad["a position past the table"] = ascending + limit
    for what, positions in bad.items():
        try:
            candidate.hooks(positions, n)
        except (ValueError, TypeError) as error:
            if "got" not in str(error):
                raise AssertionError(f"the refusal of {what} does not say what it got: {error}") from error
        else:
            raise AssertionError(f"{what} was not refused")


_QUESTIONS.update((question.__name__, question) for question in LAYER_QUESTIONS)
