"""All forms of positions become one, and what is none is refused."""

import pytest
import torch

import posenc
from posenc.nn import Transformer
from posenc.positions import resolve

CPU = torch.device("cpu")


def test_none_an_offset_and_tensors_become_tensors() -> None:
    assert resolve(None, 4, device=CPU).tolist() == [0, 1, 2, 3]
    assert resolve(7, 3, device=CPU).tolist() == [7, 8, 9]
    given = torch.tensor([[0.5, 2.0]])
    assert resolve(given, 2, device=CPU) is given
    assert resolve(None, 0, device=CPU).shape == (0,)
    assert resolve(torch.empty(0), 0, device=CPU).shape == (0,)


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (-3, ValueError, "got offset -3, expected 0 or above"),
        (torch.tensor([2, -1]), ValueError, "got -1, expected 0 or above; shift all positions by 1"),
        (torch.tensor([0.0, torch.nan]), ValueError, "got NaN or infinite positions"),
        (torch.tensor([0.0, torch.inf]), ValueError, "got NaN or infinite positions"),
        (torch.arange(3), ValueError, r"got shape \(3,\), expected \(2,\) or \(batch, 2\)"),
        (torch.zeros(1, 1, 2), ValueError, r"got shape \(1, 1, 2\)"),
        (torch.tensor(3), ValueError, r"got shape \(\)"),
        (torch.zeros(3, 2), ValueError, "got 3 rows for a batch of 5"),
        (torch.tensor([True, False]), TypeError, "got a torch.bool tensor"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "got a torch.complex64 tensor"),
        (True, TypeError, "got a value of type bool"),
        ([0, 1], TypeError, "got a value of type list, expected None, an int offset, or"),
        (1.5, TypeError, "got a value of type float"),
    ],
)
def test_what_is_no_position_is_refused(positions: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(positions, 2, device=CPU, batch=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["LearnedGrid", "SwinBias"])
def test_rows_and_columns_for_a_learned_grid_are_told_to_be_left_out(name: str) -> None:
    rows_and_columns = posenc.positions.grid(2, 3)
    if name == "LearnedGrid":
        encoding: posenc.Encoding = posenc.embeddings.LearnedGrid(8, grid=(2, 3))
    else:
        encoding = posenc.scores.SwinBias(2, window=(2, 3))
    vit = Transformer(8, 2, num_layers=1, encoding=encoding)
    message = rf"learned grid or window \(.*{name}.*\) leave positions out, and use .resized\(height, width\)"
    with pytest.raises(ValueError, match=message):
        vit(torch.zeros(1, 6, 8), positions=rows_and_columns)
    assert vit(torch.zeros(1, 6, 8)).shape == (1, 6, 8)
