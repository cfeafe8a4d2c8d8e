"""The gap probe: two blocks of text with a gap between their positions, in place of a long context.

The second block attends to the first at distances beyond the gap, with no tokens between. A rule that fails at some
distance fails here too, at the cost of two short blocks instead of a long text.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.lab.extend.passes import branch, check_fixed_rotation, nats, new_cache, next_logits, positions_of


@dataclass(frozen=True)
class Gaps:
    """The plan of a probe.

    Attributes:
        gaps: number of positions skipped between the blocks; distances from block to block are larger.
        block: tokens in each of the two blocks.
        scored: tokens at the end of the second block whose loss is measured.
        places: number of places in the text, spread evenly.

    Raises:
        ValueError: no gaps, or one below 0; not 0 < scored < block; no places.
    """

    gaps: tuple[int, ...]
    block: int = 256
    scored: int = 192
    places: int = 3

    def __post_init__(self) -> None:
        if not self.gaps or min(self.gaps) < 0:
            raise ValueError(f"Gaps: got gaps {self.gaps}, expected one or more, none below 0.")
        if not 0 < self.scored < self.block:
            raise ValueError(f"Gaps: got scored {self.scored} and block {self.block}, expected 0 < scored < block.")
        if self.places < 1:
            raise ValueError(f"Gaps: got places {self.places}, expected at least 1.")

    @property
    def tokens(self) -> int:
        """The shortest text in which the places do not overlap."""
        return self.places * 2 * self.block


def plan(trained_length: int, ends: Iterable[int], *, places: int) -> Gaps:
    """Plan no gap, and gaps with which the second block ends at given lengths; short trained lengths get small blocks.

    The last two blocks of a text of n tokens reach back n - 1 tokens with a gap of n - 2 * block; so the gap that ends
    at the trained length has no distance that the model did not see in training, and the one that ends at the wanted
    length has all that are wanted.
    """
    block = min(256, max(4, trained_length // 4))
    gaps = {0, *(max(0, end - 2 * block) for end in ends)}
    return Gaps(tuple(sorted(gaps)), block=block, scored=3 * block // 4, places=places)


def default_plan(trained_length: int, length: int) -> Gaps:
    """The plan of ``posenc extend``: one gap for the trained length, and two or three beyond it."""
    ends = [trained_length, (trained_length + length) // 2, length]
    if length > 3 * trained_length:
        ends.append(round((trained_length * length) ** 0.5))
    return plan(trained_length, ends, places=3)


@torch.no_grad()
def gap_losses(
    model: Any, tokens: Tensor, plan: Gaps, *, on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float64]:
    """Mean loss of the last tokens of the second block, in nats, for each gap and place.

    Keys and values of the first block are the same for each gap and are computed once.

    Args:
        model: a causal language model of transformers.
        tokens: (n,) the text; at least ``2 * plan.block`` of them. Places overlap if there are fewer than
            ``plan.tokens``.
        plan: gaps, blocks and places.
        on_progress: called after each gap with the number of cells (of ``len(plan.gaps) * plan.places``) done.

    Returns:
        (gaps, places). NaN where a gap leads past the end of a learned table.

    Raises:
        ValueError: too short a text; a rule whose rotation changes with the length, as for
            :func:`posenc.lab.extend.passes.full_pass`.
    """
    block, pair = plan.block, 2 * plan.block
    if tokens.ndim != 1 or len(tokens) < pair:
        raise ValueError(
            f"gap_losses: got tokens of shape {tuple(tokens.shape)}, expected a row of at least {pair}, two blocks; "
            "give a longer text, or smaller blocks."
        )
    check_fixed_rotation("gap_losses", model, pair + max(plan.gaps))
    starts = np.linspace(0, len(tokens) - pair, plan.places).astype(np.int64)
    windows = torch.stack([tokens[start : start + pair] for start in starts]).to(model.device)
    # Without a mask, transformers treats a jump of positions as the start of a new document, and cuts attention there.
    mask = torch.ones_like(windows)
    here = torch.arange(pair, device=windows.device).expand_as(windows)
    reach = positions_of(model)
    losses = np.full((len(plan.gaps), plan.places), np.nan)
    if reach is not None and reach < block:
        return losses
    cache = new_cache(model, rewinds=True)
    next_logits(model, windows[:, :block], cache=cache, keep=1, attention_mask=mask[:, :block])
    for row, gap in enumerate(plan.gaps):
        if reach is None or pair + gap <= reach:
            with branch(cache) as whole:
                logits = next_logits(
                    model,
                    windows[:, block:],
                    cache=whole,
                    keep=plan.scored + 1,
                    attention_mask=mask,
                    position_ids=here[:, block:] + gap,
                )
            for place in range(plan.places):
                found = nats(logits[place, :-1], windows[place, -plan.scored :])
                losses[row, place] = found.double().mean().item()
        if on_progress is not None:
            on_progress((row + 1) * plan.places)
    return losses
