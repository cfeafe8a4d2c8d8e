"""No positional encoding."""

from typing import final

from posenc.encoding import Encoding


@final
class NoPE(Encoding):
    """No positional encoding: all three hooks return their input.

    Place: none. Learned: nothing. Relative: yes. Keys may be cached: yes.

    A decoder without an encoding still sees order: under the causal mask a token can count the tokens before it.

    Example:
        >>> import torch
        >>> x = torch.randn(1, 3, 8)
        >>> NoPE().on_embeddings(x) is x
        True

    References:
        Haviv et al. Transformer Language Models without Positional Encodings Still Learn Positional Information. 2022.
        arXiv:2203.16634.
        Kazemnejad et al. The Impact of Positional Encoding on Length Generalization. 2023. arXiv:2305.19466, theorems
        1, 2.
    """

    relative = True
