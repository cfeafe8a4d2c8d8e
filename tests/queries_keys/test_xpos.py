"""xPos: its decay, a cache that stays right, an installed library, its range, its refusals."""

import numpy as np
import pytest
import torch

import posenc


def ones(length: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.ones(1, 1, length, 64, dtype=dtype)


def test_agrees_with_an_installed_library_around_the_same_centre() -> None:
    rotary = pytest.importorskip("rotary_embedding_torch")
    length = 40
    theirs = rotary.RotaryEmbedding(dim=64, use_xpos=True, cache_if_possible=False)
    q, k = torch.randn(2, 1, 2, length, 64, generator=torch.Generator().manual_seed(0))
    xpos = posenc.XPos(head_dim=64, centre=length // 2, pairing="interleaved")
    for ours, other in zip(xpos.on_queries_keys(q, k), theirs.rotate_queries_and_keys(q, k), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=2e-5)


def test_a_score_fades_as_the_paper_s_formula_says() -> None:
    xpos = posenc.XPos(head_dim=64)
    q, k = xpos.on_queries_keys(ones(300), ones(300))
    zeta = (np.arange(32) / 32 + 0.4) / 1.4
    assert zeta[0] == pytest.approx(0.285714, abs=1e-6)
    assert zeta[-1] == pytest.approx(0.977679, abs=1e-6)
    rates = 10_000 ** (-np.arange(32) / 32)
    for distance in (0, 1, 17, 299):
        expected = (2 * np.cos(distance * rates) * zeta ** (distance / 512)).sum()
        assert (q[0, 0, 299] @ k[0, 0, 299 - distance]).item() == pytest.approx(expected, abs=1e-9)


def test_the_centre_cancels_and_cached_keys_stay_right() -> None:
    scores = []
    for centre in (0, 30, 1000):
        xpos = posenc.XPos(head_dim=64, centre=centre)
        q, k = xpos.on_queries_keys(ones(60), ones(60))
        scores.append(q @ k.mT)
        later = xpos.rotate(ones(60)[:, :, 59:], 59)  # one step of decoding, long after the keys were cached
        torch.testing.assert_close(later @ k.mT, (q @ k.mT)[:, :, 59:])
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_inverse_undoes_the_scale_too() -> None:
    xpos = posenc.XPos(head_dim=64)
    for role in ("query", "key"):
        x = torch.randn(1, 1, 5, 64, dtype=torch.float64)
        turned = xpos.rotate(x, 3000, role=role)  # type: ignore[arg-type]
        torch.testing.assert_close(xpos.inverse(turned, 3000, role=role), x)  # type: ignore[arg-type]


def test_positions_that_no_number_can_scale_are_refused() -> None:
    xpos = posenc.XPos(head_dim=64)
    last = xpos.max_positions
    assert last is not None
    for dtype in (torch.float32, torch.bfloat16):
        q, k = xpos.on_queries_keys(ones(1, dtype), ones(1, dtype), last - 1)
        assert bool(torch.isfinite(q).all() and torch.isfinite(k).all())
        assert bool((q != 0).any() and (k != 0).any())
        with pytest.raises(ValueError, match=f"got a position {last} tokens from the centre 0"):
            xpos.rotate(ones(1, dtype), last)
    with pytest.raises(ValueError, match=r"torch.float16 cannot represent the scale; expected less than 3399"):
        xpos.rotate(ones(1, torch.float16), 3399)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0}, "got gamma 0, expected more than 0"),
        ({"scale_base": -1}, "got scale_base -1"),
        ({"centre": -1}, "got centre -1, expected 0 or above"),
        ({"frequencies": posenc.frequencies.DynamicNTK(2, trained_length=9)}, "expected a rule with fixed rates"),
        ({"rotary_dim": 7}, "XPos: got rotary_dim 7"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.XPos(head_dim=64, **options)  # type: ignore[arg-type]
