"""The tests of an encoding within the layers of :mod:`posenc.nn`."""

import copy
from collections.abc import Callable

import torch

from posenc.nn import Transformer
from posenc.testing.candidate import Candidate
from posenc.testing.comparator import assert_close


def decodes_in_layers_as_without_a_cache(candidate: Candidate) -> None:
    n = candidate.length(9)
    model, x = _model(candidate), candidate.embeddings(n)
    for max_length in (None, n):
        cache = model.new_cache(max_length)
        parts = [model(x[:, :3], cache=cache)]
        parts += [model(x[:, t : t + 1], cache=cache) for t in range(3, n)]
        kind = type(cache[0].own).__name__
        if candidate.encoding.keys_cacheable:
            assert_close(torch.cat(parts, dim=1), model(x), f"decoding with {kind}")
            continue
        for t in range(3, n):  # rates change with the length, so each step is a run of its own
            assert_close(parts[t - 2], model(x[:, : t + 1])[:, -1:], f"step {t} with {kind}")


def decodes_in_a_window_as_without_a_cache(candidate: Candidate) -> None:
    n = candidate.length(11)
    x = candidate.embeddings(n)
    for window in (1, 4):
        model = _model(candidate, window=window)
        cache = model.new_cache()
        parts = [model(x[:, :5], cache=cache)]
        parts += [model(x[:, t : t + 1], cache=cache) for t in range(5, n)]
        kept = cache[0].own.length
        assert kept == max(1, window - 1), f"got {kept} keys kept for a window of {window}"
        if candidate.encoding.keys_cacheable:
            assert_close(torch.cat(parts, dim=1), model(x), f"decoding in a window of {window}")
            continue
        for t in range(5, n):
            assert_close(parts[t - 4], model(x[:, : t + 1])[:, -1:], f"step {t} in a window of {window}")


def decodes_a_padded_batch_as_each_row_alone(candidate: Candidate) -> None:
    n, pad = candidate.length(9), 3
    model, x = _model(candidate), candidate.embeddings(n + pad)
    prompt = pad + 2
    mask = torch.arange(prompt) >= torch.tensor([[0], [pad]])
    cache = model.new_cache()
    parts = [model(x[:, :prompt], attention_mask=mask, cache=cache)]
    parts += [model(x[:, t : t + 1], cache=cache) for t in range(prompt, n)]
    padded = torch.cat(parts, dim=1)
    for row, first in ((0, 0), (1, pad)):
        alone = model.new_cache()
        own = [model(x[row : row + 1, first:prompt], cache=alone)]
        own += [model(x[row : row + 1, t : t + 1], cache=alone) for t in range(prompt, n)]
        assert_close(padded[row : row + 1, first:], torch.cat(own, dim=1), f"row {row} of a padded batch")


def packs_in_layers_as_separate_documents(candidate: Candidate) -> None:
    lengths = (candidate.length(5), candidate.length(7))
    model, x = _model(candidate), candidate.embeddings(sum(lengths))
    documents = torch.repeat_interleave(torch.tensor([4, 9]), torch.tensor(lengths))
    packed = model(x, documents=documents)
    for part, rows in zip(packed.split(lengths, dim=1), x.split(lengths, dim=1), strict=True):
        assert_close(part, model(rows), "a document of a pack")
    if candidate.encoding.keys_cacheable:
        cache, cut = model.new_cache(), lengths[0] + 2
        parts = [model(x[:, :cut], documents=documents[:cut], cache=cache)]
        parts += [model(x[:, t : t + 1], cache=cache) for t in range(cut, sum(lengths))]
        assert_close(torch.cat(parts, dim=1), packed, "a pack whose last document is decoded")


LAYER_QUESTIONS: tuple[Callable[[Candidate], None], ...] = (
    decodes_in_layers_as_without_a_cache,
    decodes_in_a_window_as_without_a_cache,
    decodes_a_padded_batch_as_each_row_alone,
    packs_in_layers_as_separate_documents,
)


def _model(candidate: Candidate, window: int | None = None) -> Transformer:
    """Two blocks around a copy of the encoding; one where keys depend on the length, as earlier features then do."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Transformer(
            candidate.dim, candidate.num_heads, 2 if candidate.encoding.keys_cacheable else 1,
            copy.deepcopy(candidate.encoding), num_kv_heads=candidate.kv_heads, head_dim=candidate.head_dim,
            causal=True, window=window, mlp_dim=8,
        )  # fmt: skip
    return model.double().eval().requires_grad_(False)
