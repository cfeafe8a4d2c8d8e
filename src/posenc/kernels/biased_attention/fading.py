"""A bias that fades from token to token: min(c_i - c_j, 0) of a number c for each token and head.

An encoding that has one defines ``fades(state)``, which gives c. Where c falls from token to token, as sums
of logarithms of gates do, no pair of a block has a larger bias than its first query and its last key: this tells the
compiled kernel which blocks have faded.
"""

import torch
from torch import Tensor

from posenc.kernels.biased_attention.added import Added
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.row_of_distances import home

_PLAIN = (Tensor, torch.nn.Parameter)


def refusal(problem: Problem) -> str | None:
    """Why what a contextual encoding adds is not such a bias, or None if it is."""
    state, (batch, heads) = problem.state, problem.q.shape[:2]
    if not _fades(type(problem.encoding)):
        return f"{problem.name} gives no bias of the distance alone over consecutive positions"
    if state is None:
        return f"{problem.name} got no state"
    if type(state) not in _PLAIN or not state.is_cpu or problem.q_len > problem.k_len:
        return f"the state of {problem.name} is no plain tensor on the CPU, or there are more queries than keys"
    if state.ndim != 3 or state.shape[0] not in (1, batch) or state.shape[1] not in (1, heads):
        return f"the state of {problem.name} is not (batch, heads, k_len)"
    return None


def _fades(cls: type) -> bool:
    """Whether ``fades`` stands in the class of ``contextual_bias``, or below it: a later one may give another bias."""
    return hasattr(cls, "fades") and home(cls, "fades") <= min(home(cls, "contextual_bias"), home(cls, "on_values"))


def make(problem: Problem) -> Added:
    """c of all keys, ``(batch, heads, k_len)``, as the kernel reads it."""
    fades: Tensor = problem.encoding.fades(problem.state).double()
    fades = fades if fades.stride(-1) == 1 else fades.contiguous()
    return Added(fades=fades.expand(*problem.q.shape[:2], -1))


def bias(fades: Tensor, offset: int) -> Tensor:
    """The bias of the queries from key ``offset`` on and all keys, in float32."""
    return (fades[..., offset:, None] - fades[..., None, :]).clamp(max=0).float()
