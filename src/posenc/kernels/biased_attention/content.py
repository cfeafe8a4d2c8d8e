"""What an encoding on the scores may look at."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(score, batch, head, query index, key index) -> score``, the form that FlexAttention takes."""


@dataclass(frozen=True)
class Content:
    """Some queries, all the keys that any of them may see, and their scores.

    Attributes:
        q: ``(batch, heads, q_len, head_dim)``.
        k: ``(batch, kv_heads, k_len, head_dim)``.
        scores: scaled, ``(batch, heads, q_len, k_len)``, minus infinity where a query may not see a key.
        q_positions, k_positions: ``(q_len,)``, ``(k_len,)``, or with a batch dimension before; empty for an encoding
            that says ``reads_positions = False``.
        scale: what the dot products were multiplied by.
        offset: the index, among these keys, of the first of these queries, whose key is k[offset].
        causal: whether the attention is causal, so that the scores of keys after their query are minus infinity.
        q_state, k_state: what the encoding carries, for these queries and these keys; None if it carries nothing.
    """

    q: Tensor
    k: Tensor
    scores: Tensor
    q_positions: Tensor
    k_positions: Tensor
    scale: float
    q_state: Tensor | None = None
    k_state: Tensor | None = None
    offset: int = 0
    causal: bool = False
