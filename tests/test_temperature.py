"""Temperatures by position: the models that have them, and attention that honours them."""

import pytest
import torch

import posenc

P = torch.arange(0, 40_000, 37)


def test_is_that_of_llama4() -> None:
    """The factors of Llama 4 with attn_scale 0.1 and floor_scale 8192."""
    tau = posenc.Temperature("llama4", length=8192).temperature(torch.tensor([8190, 8191, 131071, 1048575, 10485759]))
    expected = torch.tensor([1.0, 1.06931, 1.28332, 1.48598, 1.71554], dtype=torch.float64)
    torch.testing.assert_close(tau[0, :, 0], expected, rtol=0, atol=5e-6)


def test_is_that_of_ministral() -> None:
    from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale

    theirs = get_llama_4_attn_scale(P[None], 0.1, 16384)
    ours = posenc.Temperature("mistral", length=16384, strength=0.1).temperature(P[None])
    torch.testing.assert_close(ours.float(), theirs)


def test_is_that_of_beam() -> None:
    beam = pytest.importorskip("transformers.models.beam.modeling_beam", reason="this transformers has no Beam")
    ours = posenc.Temperature("power", length=2048).temperature(P[None])
    torch.testing.assert_close(ours.float(), beam.compute_attention_scaling(P[None]))


def test_is_that_of_inkling() -> None:
    expected = 1 + 0.3 * ((P + 1).double() / 4096).clamp(min=1).log()
    ours = posenc.Temperature("inkling", length=4096, strength=0.3).temperature(P)
    torch.testing.assert_close(ours[0, :, 0], expected)


def test_fewer_queries_than_keys_are_the_last_tokens() -> None:
    warm = posenc.Temperature("log", length=4)
    q, k, v = torch.randn(3, 1, 2, 30, 16)
    whole = posenc.attention(q, k, v, warm, causal=True)
    torch.testing.assert_close(posenc.attention(q[:, :, -3:], k, v, warm, causal=True), whole[:, :, -3:])


def test_log_n_begins_at_the_trained_length() -> None:
    tau = posenc.Temperature("log", length=512).temperature(torch.tensor([0, 511, 512 * 512 - 1]))
    torch.testing.assert_close(tau[0, :, 0], torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attention_multiplies_the_scores_by_it_and_not_the_bias(dtype: torch.dtype) -> None:
    warm = posenc.Temperature("inkling", length=4, strength=1.0, multiplies="products")
    alibi = posenc.ALiBi(num_heads=2)
    q, k, v = torch.randn(3, 1, 2, 30, 16).to(dtype)
    tau = warm.temperature(torch.arange(30))
    scores = (q.double() @ k.double().mT) / 4 * tau + alibi.bias(torch.arange(30), torch.arange(30)).double()
    scores = scores.masked_fill(~torch.ones(30, 30).bool().tril(), -torch.inf)
    expected = (scores.softmax(-1) @ v.double()).to(dtype)
    # A composition that has both; and the same with the bias alone as a mask.
    both = posenc.Compose(warm, alibi)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(
        posenc.attention(q, k, v, both, causal=True), expected, rtol=0, atol=max(tolerance, 1e-6)
    )
    torch.testing.assert_close(
        both.on_scores((q.double() @ k.double().mT) / 4, None, None),
        (q.double() @ k.double().mT) / 4 * tau + alibi.bias(torch.arange(30), torch.arange(30)),
    )


def test_the_bias_is_multiplied_or_not_as_the_name_says() -> None:
    alibi, p = posenc.ALiBi(num_heads=2), torch.arange(20)
    scores = torch.randn(1, 2, 20, 20, dtype=torch.float64)
    for multiplies in ("products", "scores"):
        warm = posenc.Temperature("power", length=4, strength=1.0, multiplies=multiplies)
        tau, bias = warm.temperature(p), alibi.bias(p, p).double()
        expected = tau * scores + bias if multiplies == "products" else tau * (scores + bias)
        torch.testing.assert_close(posenc.Compose(warm, alibi).on_scores(scores, None, None), expected)


def test_scalable_softmax_is_a_power_of_n_of_the_whole_score() -> None:
    """The paper's definition, which sees one vector of scores, on scores that hold a bias."""
    from posenc.oracle import ssmax as oracle

    alibi, p = posenc.ALiBi(num_heads=1), torch.arange(12)
    scores = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    ours = posenc.Compose(posenc.SSMax(num_heads=1, start=0.5), alibi).on_scores(scores, None, None)
    whole = (scores + alibi.bias(p, p).double())[0, 0]
    for t in (0, 5, 11):  # each query over the keys up to its own
        expected = torch.from_numpy(oracle.weights(whole[t, : t + 1].numpy(), scale=0.5))
        torch.testing.assert_close(ours[0, 0, t, : t + 1].softmax(-1), expected)


def test_a_masked_score_stays_masked_at_a_temperature_of_zero() -> None:
    scores = torch.zeros(1, 2, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    heated = posenc.SSMax(num_heads=2).on_scores(scores, None, None)  # ln 1 = 0 at the first position
    assert torch.equal(heated.isneginf(), scores.isneginf())
    assert not heated.isnan().any()


def test_several_temperatures_multiply_and_each_row_has_its_positions() -> None:
    rope = posenc.RoPE(head_dim=16, frequencies=posenc.YaRN(4, trained_length=64, mscale_all_dim=1.0))
    warm = posenc.Temperature("mistral", length=4)
    both = posenc.Compose(rope, warm)
    assert both.scales_scores
    ids = torch.stack((torch.arange(9), torch.arange(9) + 50))
    torch.testing.assert_close(both.temperature(ids), rope.frequencies.score_factor * warm.temperature(ids))
    q, k, v = torch.randn(3, 2, 2, 9, 16, dtype=torch.float64)
    together = posenc.attention(q, k, v, both, q_positions=ids, k_positions=ids, causal=True)
    for row in range(2):
        alone = posenc.attention(
            q[row, None], k[row, None], v[row, None], both, q_positions=ids[row], k_positions=ids[row], causal=True
        )
        torch.testing.assert_close(together[row, None], alone)


def test_a_composition_without_one_has_none() -> None:
    plain = posenc.Compose(posenc.RoPE(head_dim=16), posenc.ALiBi(num_heads=2))
    assert not plain.scales_scores
    assert plain.temperature(torch.arange(3)) == 1


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("llama5", {"length": 8}, "got form 'llama5', expected one of"),
        ("llama4", {"length": 1}, "got length 1"),
        ("llama4", {"length": 8, "strength": 0}, "got strength 0, expected more than 0"),
        ("log", {"length": 8, "strength": 0.1}, 'got strength 0.1 with form "log"'),
        ("log", {"length": 8, "multiplies": "bias"}, "got multiplies 'bias', expected one of"),
    ],
)
def test_what_cannot_be_built_is_refused(form: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.Temperature(form, **options)  # type: ignore[arg-type]
