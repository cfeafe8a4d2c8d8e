"""A full pass over a long text: the loss of every token, in bounded memory."""

import contextlib
import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from posenc import Learned
from posenc.integrations.transformers import describe
from posenc.lab.checkpoint.memory import ROWS, chunk_of

CHUNK = 512
"""Tokens that a model reads at a time."""


@torch.no_grad()
def full_pass(
    model: Any, tokens: Tensor, *, chunk: int = CHUNK, on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """The loss of each next token of a text that is read once from its start, in nats.

    The model reads the text in chunks, with a KV cache; the logits of at most one chunk exist at a time.
    The result is that of one forward pass over the whole text.

    Args:
        model: a causal language model of transformers.
        tokens: (n,), at least 2 tokens.
        chunk: tokens at a time; fewer if their logits would take more than 256 MiB.
        on_progress: called after each chunk with the number of tokens read so far.

    Returns:
        (n - 1,): entry i is the loss of token i + 1 given those before it. It is NaN past the end of a learned table,
        where the model has no position. An infinite or NaN loss of the model is kept.

    Raises:
        ValueError: fewer than 2 tokens; a rule whose rotation changes within the text, such as dynamic NTK.
            transformers caches rotated keys, so that in chunks each would have the base of its own chunk, while one
            forward over n tokens gives all of them the base of n. ``Candidate.measured(n)`` is that base: set it first.
    """
    count = len(tokens)
    if tokens.ndim != 1 or count < 2:
        raise ValueError(f"full_pass: got tokens of shape {tuple(tokens.shape)}, expected a row of at least 2.")
    if chunk < 1:
        raise ValueError(f"full_pass: got chunk {chunk}, expected at least 1, such as 512.")
    check_fixed_rotation("full_pass", model, count)
    losses = np.full(count - 1, np.nan, dtype=np.float32)
    reach = min(count, positions_of(model) or count)
    step = chunk_of(chunk, model.config.get_text_config().vocab_size)
    cache = new_cache(model)
    for start in range(0, reach, step):
        stop = min(start + step, reach)
        scored = min(stop, count - 1) - start  # the last token predicts no known token
        read = tokens[None, start:stop].to(model.device)
        logits = next_logits(model, read, cache=cache)[0, :scored]
        losses[start : start + scored] = nats(logits, tokens[start + 1 : start + 1 + scored]).numpy()
        del logits
        if on_progress is not None:
            on_progress(stop)
    return losses


def position_bins(trained_length: int, length: int) -> list[tuple[int, int]]:
    """Ranges of positions to average losses over: (first, one past the last).

    The trained length L is split at L/4 and L/2, to show the cost of a rule on short texts separately; the part
    beyond is split in steps of L/4, or of a multiple of L/4 that gives at most six ranges.
    """
    inside = [edge for edge in (trained_length // 4, trained_length // 2, trained_length) if 0 < edge < length]
    step = max(1, trained_length // 4)
    while 6 * step < length - trained_length:
        step *= 2
    # A last range shorter than half a step would be noisy, so it is joined to the one before.
    beyond = [edge for edge in range(trained_length + step, length, step) if length - edge >= step / 2]
    edges = [0, *inside, *beyond, length]
    return list(itertools.pairwise(edges))


def new_cache(model: Any, *, rewinds: bool = False) -> Any:
    """An empty KV cache for a model; its layers have the model's sliding windows.

    Args:
        model: the model.
        rewinds: whether the cache will be branched; then sliding layers keep keys that have left their window.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if rewinds:
        cache.activate_past_recording()
    return cache


@contextlib.contextmanager
def branch(cache: Any) -> Iterator[Any]:
    """A cache that continues from this one; afterwards this one is cropped to its present length."""
    if not cache.is_croppable:  # a recurrent state, which each token overwrites
        yield copy.deepcopy(cache)
        return
    here = cache.get_seq_length()
    if here:
        cache.crop(0)  # sliding layers drop keys that left their window
    yield cache
    cache.crop(here - cache.get_seq_length())


def next_logits(model: Any, tokens: Tensor, *, cache: Any, keep: int | None = None, **more: Any) -> Tensor:
    """Logits after the last ``keep`` tokens, or after each token; the tokens are added to the cache.

    They come from the model's own forward pass, which may scale or cap the output of its head.
    """
    if keep is not None and "logits_to_keep" in inspect.signature(model.forward).parameters:
        more["logits_to_keep"] = keep
    # transformers 5.24 renamed the argument.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    logits: Tensor = model(input_ids=tokens, **{name: cache}, use_cache=True, **more).logits
    return logits if keep is None else logits[:, -keep:]


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(n,) float32 losses on the CPU, for n rows of logits; only a few rows are float32 at a time."""
    targets = targets.to(logits.device).long()
    pieces = [
        F.cross_entropy(rows.float(), aims, reduction="none")
        for rows, aims in zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    ]
    return torch.cat(pieces).cpu() if pieces else torch.empty(0)


def positions_of(model: Any) -> int | None:
    """The number of positions for which a model has a learned vector; None without such a limit."""
    lengths = [group.encoding.length for group in _groups(model) if isinstance(group.encoding, Learned)]
    return min(lengths, default=None)


def check_fixed_rotation(caller: str, model: Any, length: int) -> None:
    """Refuse a rotary rule whose rates change within a text of ``length`` tokens."""
    for group in _groups(model):
        rule = getattr(group.encoding, "frequencies", None)
        if rule is None or not rule.depends_on_length:
            continue
        width = group.encoding.rotary_dim
        start, end = rule.inv_freq(width, length=1), rule.inv_freq(width, length=length)
        if not (np.array_equal(start, end) and rule.attention_factor_at(1) == rule.attention_factor_at(length)):
            raise ValueError(
                f"{caller}: got a model with {type(rule).__name__}, whose rotation changes within {length} tokens, "
                "expected a fixed rotation, because transformers caches keys after it rotated them; set "
                "Candidate.measured(length) first, the rotation that one forward pass over all tokens uses."
            )


def _groups(model: Any) -> list[Any]:
    try:
        return list(describe(model))
    except ValueError:  # a model type with its own code, which posenc does not know
        return []
