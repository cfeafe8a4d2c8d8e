"""Shaw: a released voice's attention, decoding, and the two ends of the reach."""

import json
from pathlib import Path

import pytest
import torch

import posenc

VOICE = json.loads((Path(__file__).parent.parent / "golden" / "shaw_piper_joe.json").read_text())["values"]


@pytest.mark.parametrize("implementation", ["dense", "blocks"])
def test_a_released_voice_gives_the_same(implementation: str) -> None:
    """The first layer of a VITS voice that was trained with Shaw's positions, as onnxruntime runs it."""
    q, k, v = (torch.tensor(VOICE[name]).view(1, 2, 96, 7).transpose(-1, -2) for name in "qkv")
    encoding = posenc.scores.Shaw(num_heads=2, head_dim=96, reach=4, beyond="nothing")
    encoding.load_state_dict(
        {
            "keys": torch.tensor(VOICE["keys"]).view(9, 96),
            "values_table": torch.tensor(VOICE["values"]).view(9, 96),
        }
    )
    with torch.no_grad():
        y = posenc.attention(q, k, v, encoding, implementation=implementation)
        without = posenc.attention(q, k, v, implementation="sdpa")
    expected = torch.tensor(VOICE["out"]).view(1, 2, 96, 7).transpose(-1, -2)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    assert (without - expected).abs().max() > 0.1  # the positions do matter to this voice


def test_without_values_the_weights_alone_change() -> None:
    q = torch.randn(1, 2, 6, 8)
    encoding = posenc.scores.Shaw(num_heads=2, head_dim=8, reach=2, values="none")
    assert encoding.values_table is None
    weights = posenc.attention(q, q, torch.eye(6).expand(1, 2, 6, 6), encoding)
    torch.testing.assert_close(posenc.attention(q, q, q, encoding), weights @ q)


def test_heads_of_another_width_are_refused() -> None:
    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"Shaw: q has head_dim 4 .* build it with head_dim=4"):
        posenc.attention(q, q, q, posenc.scores.Shaw(num_heads=2, head_dim=8))


def test_scores_alone_are_not_enough() -> None:
    with pytest.raises(ValueError, match="on_scores got no q and k, expected both"):
        posenc.scores.Shaw(num_heads=2, head_dim=8).on_scores(torch.zeros(1, 2, 3, 3), None, None)
