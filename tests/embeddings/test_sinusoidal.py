"""The sinusoidal code: golden dot products, referees, the addition theorem."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import posenc

GOLDEN = Path(__file__).parent.parent / "golden"
ROWS = json.loads((GOLDEN / "sinusoidal_dot_products.json").read_text())["values"]
TIMING = json.loads((GOLDEN / "tensor2tensor_timing_signal.json").read_text())["values"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['dim']}-{row['distance']}")
@pytest.mark.parametrize("start", [0, 17])
def test_the_dot_product_of_two_codes_depends_on_the_distance_and_is_known(row: dict[str, str], start: int) -> None:
    sinusoidal = posenc.Sinusoidal(dim=int(row["dim"]), frequencies=posenc.Geometric(base=float(row["base"])))
    one, other = sinusoidal.codes(torch.tensor([start, start + int(row["distance"])]))
    assert (one @ other).item() == pytest.approx(float(row["dot"]), rel=1e-12)


@pytest.mark.parametrize("row", TIMING, ids=lambda row: f"{len(row['inv_freq'])} pairs")
def test_the_concatenated_order_is_tensor2tensors(row: dict[str, list[float]]) -> None:
    dim = 2 * len(row["inv_freq"])
    sinusoidal = posenc.Sinusoidal(dim=dim, frequencies=posenc.Tensor2Tensor(), order="concatenated")
    codes = sinusoidal.codes(torch.tensor(row["positions"]))
    np.testing.assert_allclose(codes.numpy(), np.array(row["codes"]), rtol=0, atol=1e-12)


def test_whisper_has_the_same_table() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.whisper.modeling_whisper import sinusoids

    ours = posenc.Sinusoidal(dim=384, frequencies=posenc.Tensor2Tensor(), order="concatenated").codes(
        torch.arange(1500)
    )
    # Theirs forms angles in float32: 1500 radians are known to 1e-4 there.
    torch.testing.assert_close(ours.float(), sinusoids(1500, 384), rtol=0, atol=2e-4)


def test_the_orders_are_one_code_in_other_channels() -> None:
    positions = torch.arange(20)
    interleaved = posenc.Sinusoidal(dim=8).codes(positions)
    concatenated = posenc.Sinusoidal(dim=8, order="concatenated").codes(positions)
    assert torch.equal(torch.cat((interleaved[:, 0::2], interleaved[:, 1::2]), dim=-1), concatenated)


def test_a_step_is_one_linear_map_wherever_it_starts() -> None:
    sinusoidal = posenc.Sinusoidal(dim=16)
    start = sinusoidal.codes(torch.arange(0, 4000, 7))
    end = sinusoidal.codes(torch.arange(0, 4000, 7) + 13)
    step = torch.linalg.lstsq(start, end).solution
    torch.testing.assert_close(start @ step, end, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 7}, "got dim 7, expected an even number of at least 2, .* use dim=8"),
        ({"dim": 0}, "got dim 0"),
        ({"dim": 8, "order": "half"}, "got order 'half', expected one of"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.Sinusoidal(**options)  # type: ignore[arg-type]


def test_another_width_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"x has 6 channels but .* dim 8; build it with dim=6"):
        posenc.Sinusoidal(dim=8).on_embeddings(torch.zeros(1, 3, 6))
