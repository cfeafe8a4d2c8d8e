"""Which implementation is taken, and what is refused in which words."""

import pytest
import torch

import posenc
from posenc.kernels.biased_attention import flex

LONG = torch.empty(1, 8, 4096, 16)
SHORT = torch.zeros(1, 8, 16, 16)


@pytest.mark.parametrize(
    ("encoding", "options", "implementation", "reason"),
    [
        (None, {"causal": True}, "cpu", "nothing but the order of tokens"),
        (None, {"mask": torch.ones(4096, 4096, dtype=torch.bool)}, "sdpa", "nothing is added"),
        (posenc.RoPE(head_dim=16), {"causal": True}, "cpu", "nothing but the order of tokens"),
        (posenc.ALiBi(num_heads=8), {"causal": True}, "cpu", "depends only on the distance"),
        (posenc.T5Bias(num_heads=8), {"causal": True, "window": 64}, "cpu", "depends only on the distance"),
        (posenc.T5Bias(num_heads=8), {"causal": True, "dropout_p": 0.1}, "blocks", "depends only on the distance"),
        (
            posenc.Compose(posenc.FIRE(num_heads=8), posenc.SSMax(num_heads=8)),
            {"causal": True},
            "blocks",
            "computed for one block at a time, and again in the backward",
        ),
        (
            posenc.ALiBi(num_heads=8),
            {"k_positions": torch.arange(4096) * 2},
            "blocks",
            "computed for one block at a time",
        ),
        (posenc.scores.TUPE(dim=128, num_heads=8, length=4096), {}, "channels", "as extra channels"),
        (
            posenc.CoPE(num_heads=8, head_dim=16),
            {"causal": True},
            "cpu",
            "gates are summed while the scores",
        ),
        (posenc.CoPE(num_heads=8, head_dim=16), {}, "blocks", "memory grows linearly"),
        (None, {"causal": True, "window": 64}, "cpu", "nothing but the order of tokens"),
        (None, {"causal": True, "window": 64, "dropout_p": 0.1}, "blocks", "memory grows linearly"),
    ],
)
def test_the_fastest_exact_path_is_taken(
    encoding: posenc.Encoding | None, options: dict[str, object], implementation: str, reason: str
) -> None:
    explanation = posenc.explain(posenc.attention, LONG, LONG, LONG, encoding, **options)
    assert explanation.implementation == implementation
    assert reason in explanation.why


def test_one_query_that_needs_gradients_goes_to_torch_itself() -> None:
    q, k = torch.zeros(1, 2, 1, 8, requires_grad=True), torch.zeros(1, 2, 65, 8, requires_grad=True)
    assert posenc.explain(posenc.attention, q, k, k, causal=True).implementation == "sdpa"
    assert posenc.explain(posenc.attention, k, k, k, causal=True).implementation == "cpu"
    with torch.no_grad():
        assert posenc.explain(posenc.attention, q, k, k, causal=True).implementation == "cpu"


def test_fire_is_a_row_of_distances_below_its_threshold_and_a_network_of_shares_past_it() -> None:
    fire = posenc.FIRE(num_heads=2, threshold=40.0)
    x, step = torch.zeros(1, 2, 41, 8), torch.zeros(1, 2, 1, 8)

    def taken(q: torch.Tensor, k: torch.Tensor, start: int = 0) -> str:
        at = start + k.shape[2] - q.shape[2]
        explanation = posenc.explain(posenc.attention, q, k, k, fire, q_positions=at, k_positions=start)
        assert explanation.implementation == "cpu"
        return explanation.why

    assert "one row of numbers" in taken(x[:, :, :40], x[:, :, :40])
    for past in (taken(x, x), taken(x[:, :, :40], x[:, :, :40], start=1), taken(step, x), taken(step, x, start=7)):
        assert "a small network of the relative distance" in past
    with torch.no_grad():
        fire.threshold_multiplier.mul_(-2)
    assert "one row of numbers" in taken(x, x)


def test_flex_attention_is_refused_where_torch_would_make_all_scores_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "_MOST_SHAPES", 1)
    monkeypatch.setattr(flex, "_shapes", {"another shape"})
    with pytest.raises(ValueError, match="cannot take this call: FlexAttention was compiled for 1 shapes already"):
        posenc.attention(SHORT, SHORT, SHORT, posenc.ALiBi(num_heads=8), causal=True, implementation="flex")


def test_many_shapes_of_flex_attention_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flex, "_shapes", set())
    monkeypatch.setattr(flex, "_compiled", lambda q, k, v, **options: v)
    for length in (16, 32, 48, 64, 80, 96, 112, 112, 128, 128, 144):
        x = torch.zeros(1, 1, length, 16)
        posenc.attention(x, x, x, posenc.ALiBi(num_heads=1), causal=True, implementation="flex")
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "posenc: FlexAttention is compiled for the 8th shape"
    ]


@pytest.mark.parametrize("keys", [8, 24, 1000])
def test_flex_attention_is_refused_where_torch_gives_garbage(keys: int) -> None:
    q, k = torch.zeros(1, 8, 8, 16), torch.zeros(1, 8, keys, 16)
    with pytest.raises(ValueError, match="gives wrong numbers on CPUs"):
        posenc.attention(q, k, k, posenc.ALiBi(num_heads=8), causal=True, implementation="flex")


@pytest.mark.slow
def test_flex_attention_is_compiled_for_more_shapes_than_torch_lets_by_itself() -> None:
    alibi, before = posenc.ALiBi(num_heads=1), torch._dynamo.config.recompile_limit
    for length in range(17, 17 + before + 2):  # torch warns where it gives up, and a warning is an error here
        q = k = torch.randn(1, 1, length, 32)
        y = posenc.attention(q, k, k, alibi, causal=True, implementation="flex")
        torch.testing.assert_close(y, posenc.attention(q, k, k, alibi, causal=True, implementation="dense"))
    assert torch._dynamo.config.recompile_limit == before


def test_few_scores_are_made_at_once() -> None:
    assert (
        str(posenc.explain(posenc.attention, SHORT, SHORT, SHORT, posenc.scores.TUPE(dim=16, num_heads=8, length=16)))
        == "attention: dense, because 2048 scores fit in 0.0 MiB"
    )


def test_one_query_is_never_taken_in_blocks_or_compiled_for() -> None:
    q, k = torch.zeros(1, 1, 1, 16).expand(600, 8, -1, -1), torch.zeros(1, 1, 1, 16).expand(600, 8, 1000, -1)
    taken = posenc.explain(posenc.attention, q, k, k, posenc.ALiBi(num_heads=8), causal=True, dropout_p=0.5)
    assert str(taken).startswith("attention: dense, because there is one query for each head")


@pytest.mark.parametrize(
    ("implementation", "encoding", "options", "reason"),
    [
        ("sdpa", posenc.ALiBi(num_heads=8), {}, "ALiBi adds to the scores"),
        ("sdpa", None, {"sinks": torch.zeros(8)}, "it does not support attention sinks"),
        ("cpu", posenc.FIRE(num_heads=8, threshold=1.0, width=128), {}, "FIRE gives no bias of the distance alone"),
        ("cpu", posenc.ALiBi(num_heads=8), {"dropout_p": 0.1}, "it has no dropout"),
        (
            "flex",
            posenc.CoPE(num_heads=8, head_dim=16),
            {},
            "CoPE reads queries and keys, which a score_mod",
        ),
        ("flex", posenc.ALiBi(num_heads=8), {"dropout_p": 0.1}, "FlexAttention has no dropout"),
        ("flex", posenc.T5Bias(num_heads=8), {"causal": True}, "no backward on the CPU"),
        ("flex", posenc.ALiBi(num_heads=8), {"mask": torch.zeros(16, 16)}, "only boolean masks"),
        ("channels", posenc.scores.Shaw(num_heads=8, head_dim=16), {}, "no bias that depends only on positions"),
        ("channels", None, {}, "no bias that depends only on positions"),
        ("blocks", None, {"mask": torch.zeros(16, 16, requires_grad=True)}, "no gradient for the mask"),
    ],
)
def test_what_was_asked_for_by_name_never_falls_back(
    implementation: str, encoding: posenc.Encoding | None, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=rf'implementation="{implementation}" cannot take this call: .*{reason}'):
        posenc.attention(SHORT, SHORT, SHORT, encoding, implementation=implementation, **options)


def test_a_bias_that_does_not_separate_has_no_channels() -> None:
    with pytest.raises(ValueError, match="got T5Bias, expected an encoding whose bias separates"):
        posenc.attention(SHORT, SHORT, SHORT, posenc.T5Bias(num_heads=8), causal=True, implementation="channels")


def test_an_unknown_implementation_is_refused_with_all_names() -> None:
    with pytest.raises(ValueError, match="got implementation 'flash', expected one of auto, cpu, sdpa, blocks, flex"):
        posenc.attention(SHORT, SHORT, SHORT, implementation="flash")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": 0}, "got window 0, expected at least 1"),
        (
            {"documents": torch.zeros(15, dtype=torch.int64)},
            r"expected one integer for each key, the number of its document",
        ),
        ({"documents": torch.zeros(16)}, r"got documents torch.float32"),
        ({"sinks": torch.zeros(4)}, r"got sinks of shape \(4,\), expected \(8,\)"),
        ({"mask": torch.ones(1, 16, dtype=torch.int64)}, "got a mask of torch.int64"),
        ({"mask": torch.ones(2, 16, dtype=torch.bool)}, "a padding mask .* is mask"),
        ({"mask": torch.ones(1, 1, 1, 16, 16, dtype=torch.bool)}, "expected one that broadcasts"),
        ({"state": torch.zeros(1, 8, 3)}, "got a state of 3 tokens for 16 keys"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        posenc.attention(SHORT, SHORT, SHORT, posenc.ALiBi(num_heads=8), **options)


@pytest.mark.parametrize("implementation", ["dense", "blocks"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_far_keys_in_half_precision_give_no_nan(implementation: str, dtype: torch.dtype) -> None:
    """At 2**20 tokens the largest slope asks for -524288, far beyond float16."""
    q = torch.randn(1, 8, 4, 16).to(dtype)
    positions = torch.tensor([0, 2**10, 2**19, 2**20])
    encoding = posenc.ALiBi(num_heads=8)
    y = posenc.attention(q, q, q, encoding, q_positions=positions, k_positions=positions, implementation=implementation)
    exact = posenc.attention(q.double(), q.double(), q.double(), encoding, q_positions=positions, k_positions=positions)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-2)
    scores = encoding.on_scores(torch.zeros(1, 8, 4, 4, dtype=dtype), positions, positions)
    assert bool(torch.isfinite(scores).all())
    assert bool(torch.isfinite(scores.softmax(dim=-1)).all())
