"""ALiBi: the authors' slopes, BLOOM as referee, its shape as properties."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import posenc

SLOPES = json.loads((Path(__file__).parent.parent / "golden" / "alibi_slopes.json").read_text())["values"]


@pytest.mark.parametrize("heads", SLOPES)
def test_slopes_are_the_authors(heads: str) -> None:
    assert posenc.ALiBi(num_heads=int(heads)).slopes == pytest.approx(SLOPES[heads], rel=1e-15)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 20])
def test_bloom_has_the_same_bias_up_to_a_constant_a_row(heads: int) -> None:
    """BLOOM adds m j, which differs from -m (i - j) by m i: the same for all keys of a query, so softmax drops it."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 16), heads, torch.float32)
    ours = posenc.ALiBi(num_heads=heads).bias(torch.arange(16), torch.arange(16))
    constant = (theirs - ours).tril()
    expected = torch.arange(16.0)[:, None] * torch.tensor(posenc.ALiBi(num_heads=heads).slopes)[:, None, None]
    torch.testing.assert_close(constant, expected.expand_as(constant).tril(), rtol=1e-5, atol=1e-6)


@given(heads=st.integers(1, 40), i=st.integers(0, 2**20), distance=st.integers(0, 2**20))
def test_the_bias_is_symmetric_falls_with_distance_and_knows_nothing_else(heads: int, i: int, distance: int) -> None:
    alibi = posenc.ALiBi(num_heads=heads)
    near, far = torch.tensor([i]), torch.tensor([i + distance])
    bias = alibi.bias(far, near)
    assert torch.equal(bias, alibi.bias(near, far))
    assert torch.equal(bias, alibi.bias(torch.tensor([distance]), torch.tensor([0])))
    assert bool((alibi.bias(far + 1, near) < bias).all())


def test_the_bias_is_not_scaled() -> None:
    q = torch.zeros(1, 2, 1, 4)
    v = torch.eye(2)[None, None].expand(1, 2, 2, 2)
    weights = posenc.attention(q, torch.zeros(1, 2, 2, 4), v, posenc.ALiBi(num_heads=2), scale=1e-6)
    expected = torch.softmax(torch.tensor([[-1 / 16, 0], [-1 / 256, 0]]), dim=-1)
    torch.testing.assert_close(weights[0, :, 0], expected)


def test_no_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="got num_heads 0, expected at least 1"):
        posenc.ALiBi(num_heads=0)


@pytest.mark.parametrize("heads", [2, 6, 8, 12, 14])
def test_the_rule_of_mpt_is_that_of_mpt(heads: int) -> None:
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    theirs = -mpt.build_mpt_alibi_tensor(heads, 9)[:, 0, -2]
    assert posenc.ALiBi(num_heads=heads, rule="mpt").slopes == pytest.approx(theirs.tolist(), rel=1e-6)


@pytest.mark.parametrize("max_bias", [8, 16])
@pytest.mark.parametrize("heads", [2, 6, 8])
def test_another_last_slope_is_that_of_mpt(heads: int, max_bias: int) -> None:
    """mosaicml/mpt-7b-storywriter has alibi_bias_max 16."""
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    theirs = -mpt.build_mpt_alibi_tensor(heads, 9, max_bias)[:, 0, -2]
    alibi = posenc.ALiBi(num_heads=heads, rule="mpt", max_bias=max_bias)
    assert alibi.slopes == pytest.approx(theirs.tolist(), rel=1e-6)
    assert min(alibi.slopes) == 2.0**-max_bias


@pytest.mark.parametrize("option", ["max_bias", "strength"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_slopes_that_are_none_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"got {option} .*, expected a finite number"):
        posenc.ALiBi(num_heads=4, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "rule"), [("bloom", "authors"), ("mpt", "mpt"), ("falcon", "authors")])
def test_a_model_gives_the_same_logits_with_its_attention_replaced(model: str, rule: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if model == "bloom":
        from transformers.models.bloom import modeling_bloom as module

        config = transformers.BloomConfig(vocab_size=40, hidden_size=48, n_layer=2, n_head=6, use_cache=False)
        network, layer = transformers.BloomForCausalLM(config), module.BloomAttention
    elif model == "falcon":
        from transformers.models.falcon import modeling_falcon as module  # type: ignore[no-redef]

        # By SDPA, as by default: the eager code of transformers 5.24 adds the biases twice.
        options = {"alibi": True, "multi_query": False, "parallel_attn": False, "attn_implementation": "sdpa"}
        config = transformers.FalconConfig(
            vocab_size=40, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, use_cache=False, **options
        )
        network, layer = transformers.FalconForCausalLM(config), module.FalconAttention  # type: ignore[attr-defined]
    else:
        from transformers.models.mpt import modeling_mpt as module  # type: ignore[no-redef]

        config = transformers.MptConfig(
            vocab_size=40, d_model=48, n_layers=2, n_heads=6, max_seq_len=30, use_cache=False
        )
        network, layer = transformers.MptForCausalLM(config), module.MptAttention  # type: ignore[attr-defined]
    network = network.double().eval()
    from posenc.integrations.transformers import describe

    (group,) = describe(config)
    encoding = group.encoding
    assert isinstance(encoding, posenc.ALiBi)
    assert (encoding.rule, encoding.strength) == (rule, 1.0 if model != "falcon" else 8**-0.5)

    def bloom(self: torch.nn.Module, x: torch.Tensor, residual: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        q, k, v = self._reshape(self.query_key_value(x))
        y = posenc.attention(q, k, v, encoding, causal=True)
        return self.dense(y.transpose(1, 2).flatten(2)) + residual, None

    def mpt(self: torch.nn.Module, x: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        q, k, v = (t.unflatten(-1, (6, 8)).transpose(1, 2) for t in self.Wqkv(x).chunk(3, dim=2))
        y = posenc.attention(q, k, v, encoding, causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2)), None

    def falcon(self: torch.nn.Module, x: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        q, k, v = (t.transpose(1, 2) for t in self.query_key_value(x).unflatten(-1, (6, 3, 8)).unbind(-2))
        y = posenc.attention(q, k, v, encoding, causal=True)
        return self.dense(y.transpose(1, 2).flatten(2)), None

    ids = torch.randint(40, (2, 30))
    with torch.no_grad():
        expected = network(ids).logits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer, "forward", {"bloom": bloom, "mpt": mpt, "falcon": falcon}[model])
            got = network(ids).logits
    # Their softmax and slopes are float32; Falcon's biases are bfloat16.
    rounding = {"rtol": 1e-4, "atol": 1e-5} if model != "falcon" else {"rtol": 0, "atol": 2e-4}
    torch.testing.assert_close(got, expected, **rounding)
    if model == "falcon":
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            encoding = posenc.ALiBi(num_heads=6)  # as it is in other models
            patch.setattr(layer, "forward", falcon)
            assert float((network(ids).logits - expected).abs().max()) > 2e-3


def test_another_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="got rule 'paper', expected one of"):
        posenc.ALiBi(num_heads=4, rule="paper")


def test_given_slopes_are_the_slopes() -> None:
    slopes = (0.5, 0.0, 0.125)
    alibi = posenc.ALiBi(num_heads=3, rule=slopes)
    assert alibi.slopes == slopes
    assert posenc.ALiBi(num_heads=3, rule=torch.tensor(slopes), strength=0.5).slopes == (0.25, 0.0, 0.0625)  # type: ignore[arg-type]
    assert posenc.ALiBi.from_dict(alibi.to_dict()).slopes == slopes  # type: ignore[attr-defined]
    assert "rule=(0.5, 0.0, 0.125)" in repr(alibi)
    bias = alibi.bias(torch.tensor([4]), torch.arange(5))
    assert torch.equal(bias[:, 0, 0], torch.tensor([-2.0, 0.0, -0.5]))


@pytest.mark.parametrize(
    ("slopes", "message"),
    [
        ((0.5,), "got 1 slopes as rule, expected 2, one for each head"),
        (0.5, "got 0.5 as rule, expected 2, one for each head"),
        (((0.5, 0.25), (0.5, 0.25)), "got slope"),
        ((0.5, -0.25), "got slope -0.25, expected 0 or above"),
        ((0.5, float("nan")), "got slope nan, expected a finite number"),
        ((0.5, True), "got slope True, expected a finite number"),
    ],
)
def test_slopes_that_do_not_fit_are_refused(slopes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.ALiBi(num_heads=2, rule=slopes)  # type: ignore[arg-type]


def test_a_largest_bias_beside_slopes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got max_bias 16\.0 together with slopes, expected one"):
        posenc.ALiBi(num_heads=2, rule=(0.5, 0.25), max_bias=16.0)


@pytest.mark.parametrize(
    ("name", "ours"), [("slopes", "rule"), ("alibi_slopes", "rule"), ("alibi_bias_max", "max_bias")]
)
def test_other_libraries_names_are_answered(name: str, ours: str) -> None:
    with pytest.raises(TypeError, match=f"expected {ours}"):
        posenc.ALiBi(num_heads=2, **{name: 8.0})  # type: ignore[arg-type]
