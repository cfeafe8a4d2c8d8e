"""The forgetting transformer's gate."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.precision import as_float64, without_autocast
from posenc.scores._linear import ExactLinear


@final
class Forgetting(ContextualEncoding):
    r"""FoX: each token sets, for each head, the share of the weight of earlier tokens that the head keeps.

    Place: scores. Learned: ``gate``. Relative: yes, no position is read. Keys may be cached: yes, with the state.

    .. math::  s_{hij} \leftarrow s_{hij} + \sum_{l=j+1}^{i} \ln f_{hl}, \qquad f_{hl} = \sigma(w_h \cdot x_l + c_h)

    Here :math:`i, j, l` count tokens, :math:`x_l` is the input of the attention layer, and :math:`w, c` are the weight
    and bias of ``gate``. Keys after the query are not faded. With a constant f this is ALiBi of slope -ln f.

    The gates are read from the layer's input: call :meth:`carry` with it, hand the state to
    :func:`posenc.attention`, and keep the state with the KV cache:

        state = encoding.carry(x, state)
        y = posenc.attention(q, k, v, encoding, causal=True, state=state)

    Args:
        dim: channels of the layer's input.
        num_heads: number of heads.

    Shape:
        carry: ``(batch, seq, dim)`` -> ``(batch, heads, all tokens so far)``, float64
        contextual_bias: ``(batch, heads, q_len, k_len)``

    Precision: the logarithms are summed in float64 and differences rounded once: in float32 a sum over thousands of
    tokens would lose most of the difference between two neighbours.

    Raises:
        ValueError: sizes below 1, input of another width, a state of another batch, or attention without a state.

    Example:
        >>> import posenc
        >>> x, q = torch.randn(1, 5, 16), torch.randn(1, 2, 5, 8)
        >>> fox = Forgetting(dim=16, num_heads=2)
        >>> posenc.attention(q, q, q, fox, causal=True, state=fox.carry(x)).shape
        torch.Size([1, 2, 5, 8])

    Differs from the paper: nothing; the "pro" block's other parts (QK norm, output gate, shift of keys and values) are
    the model's.

    References:
        Lin, Nikishin, He, Courville. Forgetting Transformer: Softmax Attention with a Forget Gate. 2025.
        arXiv:2503.02130, section 3; zhixuan-lin/forgetting-transformer.
    """

    relative = True
    reads_positions = False

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1:
            raise ValueError(f"Forgetting: got dim {dim} and num_heads {num_heads}, expected at least 1 each.")
        self.dim = dim
        self.num_heads = num_heads
        self.gate = ExactLinear(dim, num_heads)

    def reset_parameters(self) -> None:
        """Initialise the gate as PyTorch initialises a linear layer."""
        self.gate.reset_parameters()

    def carry(self, x: Float[Tensor, "batch seq dim"], state: Tensor | None = None) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(
                f"Forgetting: got x of shape {tuple(x.shape)}, expected (batch, seq, {self.dim}): the input of the "
                "attention layer."
            )
        if state is not None and tuple(state.shape[:2]) != (x.shape[0], self.num_heads):
            raise ValueError(
                f"Forgetting: got a state of shape {tuple(state.shape)}, expected ({x.shape[0]}, {self.num_heads}, "
                "the number of tokens before x)."
            )
        with without_autocast(x.device.type):
            dtype = torch.promote_types(torch.float32, x.dtype)
            logits = F.linear(x.to(dtype), self.gate.weight.to(dtype), self.gate.bias.to(dtype))
        log_gates = -torch.logaddexp(
            torch.zeros_like(logits), -logits
        )  # as logsigmoid, which DTensor cannot differentiate
        faded = as_float64(log_gates).transpose(-1, -2).cumsum(dim=-1)
        return faded if state is None else torch.cat((state, state[..., -1:] + faded), dim=-1)

    def fades(self, state: Tensor) -> Tensor:
        """The sums of the logarithms, whose differences are the bias."""
        return state

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        if content.q_state is None or content.k_state is None:
            raise ValueError(
                "Forgetting: attention got no state, expected the state that carry computes from the layer's input; "
                "pass state=encoding.carry(x, state)."
            )
        faded = content.q_state[..., :, None] - content.k_state[..., None, :]
        return faded.clamp(max=0).to(content.scores)
