"""A bias as FlexAttention asks for it: the same numbers, looked up in a way that every promised torch takes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import posenc


class TensorsAlone(TorchFunctionMode):
    """Refuses an index that is no tensor beside those that are: under vmap torch 2.10 cannot look that up."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if function is Tensor.__getitem__ and isinstance(args[1], tuple):
            assert all(isinstance(index, Tensor) for index in args[1])
        return function(*args, **(kwargs or {}))


ENCODINGS = {
    "relative": lambda: posenc.ALiBi(num_heads=3),
    "table": lambda: posenc.T5Bias(num_heads=3),
    "dense": lambda: posenc.FIRE(num_heads=3),
}


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("rows", [None, 1, 2])
def test_a_bias_is_looked_up_by_tensors_alone(kind: str, rows: int | None) -> None:
    encoding = ENCODINGS[kind]()
    q, k = torch.arange(3, 8), torch.arange(8)
    if rows is not None:
        q, k = (torch.stack([x + 2 * row for row in range(rows)]) for x in (q, k))
    with torch.no_grad():
        bias = encoding.bias(q, k)
        add = encoding.score_mod(q, k)
        score = torch.tensor(0.5)
        for row in range(rows or 1):
            for place in ((0, 0, 0), (1, 4, 7), (2, 3, 1)):
                with TensorsAlone():
                    found = add(score, torch.tensor(row), *map(torch.tensor, place))
                want = bias[(row, *place)] if bias.ndim == 4 and bias.shape[0] > 1 else bias.reshape(3, 5, 8)[place]
                torch.testing.assert_close(found, score + want)
