"""M-RoPE: its layouts against the models that use them, its identities, its refusals."""

import pytest
import torch

import posenc
from posenc.oracle.queries_keys import mrope as oracle
from posenc.testing import assert_matches_oracle

HEAD_DIM = 64
WHERE = torch.randint(0, 40, (2, 9, 3), generator=torch.Generator().manual_seed(3))


def queries(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 4, 9, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(dtype)


def text_config(sections: list[int], **others: object) -> dict[str, object]:
    return {
        "hidden_size": 4 * HEAD_DIM,
        "num_attention_heads": 4,
        "head_dim": HEAD_DIM,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections, **others},
    }


def of_qwen2_vl() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.qwen2_vl import modeling_qwen2_vl as theirs
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig

    config = Qwen2VLTextConfig(**text_config([8, 12, 12]))
    cos, sin = theirs.Qwen2VLRotaryEmbedding(config)(queries(), WHERE.permute(2, 0, 1))
    ours = posenc.MRoPE(head_dim=HEAD_DIM, sections=(8, 12, 12), frequencies=posenc.Geometric(base=1e6))
    return theirs.apply_rotary_pos_emb(queries(), queries(), cos, sin)[0], ours.rotate(queries(), WHERE)


def of_qwen3_vl() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.qwen3_vl import modeling_qwen3_vl as theirs
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

    config = Qwen3VLTextConfig(**text_config([12, 10, 10]))
    cos, sin = theirs.Qwen3VLTextRotaryEmbedding(config)(queries(), WHERE.permute(2, 0, 1))
    ours = posenc.MRoPE(
        head_dim=HEAD_DIM, sections=(12, 10, 10), layout="interleaved", frequencies=posenc.Geometric(base=1e6)
    )
    return theirs.apply_rotary_pos_emb(queries(), queries(), cos, sin)[0], ours.rotate(queries(), WHERE)


def of_glm4v() -> tuple[torch.Tensor, torch.Tensor]:
    """Half of each head is rotated, and its channels are paired with their neighbours."""
    from transformers.models.glm4v import modeling_glm4v as theirs
    from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig

    config = Glm4vTextConfig(**text_config([4, 6, 6], partial_rotary_factor=0.5))
    cos, sin = theirs.Glm4vTextRotaryEmbedding(config)(queries(), WHERE.permute(2, 0, 1))
    ours = posenc.MRoPE(
        head_dim=HEAD_DIM,
        sections=(4, 6, 6),
        rotary_dim=32,
        pairing="interleaved",
        frequencies=posenc.Geometric(base=1e6),
    )
    return theirs.apply_rotary_pos_emb(queries(), queries(), cos, sin)[0], ours.rotate(queries(), WHERE)


def of_ernie() -> tuple[torch.Tensor, torch.Tensor]:
    """Their sections are (h, w, t)."""
    from transformers.models.ernie4_5_vl_moe import modeling_ernie4_5_vl_moe as theirs
    from transformers.models.ernie4_5_vl_moe.configuration_ernie4_5_vl_moe import Ernie4_5_VLMoeTextConfig

    config = Ernie4_5_VLMoeTextConfig(**text_config([11, 11, 10]))
    cos, sin = theirs.Ernie4_5_VLMoeTextRotaryEmbedding(config)(queries(), WHERE.permute(2, 0, 1))
    ours = posenc.MRoPE(
        head_dim=HEAD_DIM,
        sections=(10, 11, 11),
        layout="time_last",
        pairing="interleaved",
        frequencies=posenc.Geometric(base=1e6),
    )
    return theirs.apply_rotary_pos_emb(queries(), queries(), cos, sin)[0], ours.rotate(queries(), WHERE)


@pytest.mark.parametrize(
    "model",
    [pytest.param(of_qwen2_vl, marks=pytest.mark.transformers_as_pinned), of_qwen3_vl, of_glm4v, of_ernie],
    ids=lambda f: f.__name__[3:],
)
def test_each_layout_is_that_of_a_model_that_uses_it(model) -> None:  # type: ignore[no-untyped-def]
    theirs, ours = model()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)  # their angles, up to 40 radians, are in float32


LAYOUTS = {"chunked": (8, 12, 12), "interleaved": (12, 10, 10), "time_last": (10, 11, 11)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_agrees_with_the_oracle_on_coordinates(layout: str, pairing: str) -> None:
    options = {"sections": LAYOUTS[layout], "layout": layout, "pairing": pairing}
    q = queries()
    turned = posenc.MRoPE(head_dim=HEAD_DIM, **options).rotate(q, WHERE)  # type: ignore[arg-type]
    for row in range(2):
        expected = oracle.rotate(
            q[row].double().numpy(), WHERE[row].numpy(), inv_freq=posenc.Geometric().inv_freq(HEAD_DIM), **options
        )
        scale = abs(expected).max(axis=-1, keepdims=True)
        assert_matches_oracle(turned[row], expected, dtype=torch.float32, scale=scale)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_text_is_rotated_as_by_rope(layout: str) -> None:
    mrope = posenc.MRoPE(head_dim=HEAD_DIM, sections=LAYOUTS[layout], layout=layout)  # type: ignore[arg-type]
    rope = posenc.RoPE(head_dim=HEAD_DIM)
    ids = torch.arange(9) * 100
    assert torch.equal(mrope.rotate(queries(), ids), rope.rotate(queries(), ids))
    assert torch.equal(mrope.rotate(queries(), ids[None, :, None].expand(2, 9, 3)), rope.rotate(queries(), ids))


def test_qwen3_vl_gives_its_pairs_to_the_coordinates_that_its_paper_says() -> None:
    axes = posenc.MRoPE(head_dim=128, sections=(24, 20, 20), layout="interleaved").axis_of_pair
    assert axes[:6] == (0, 1, 2, 0, 1, 2)
    assert axes[57:] == (0, 1, 2, 0, 0, 0, 0)


def test_any_other_layout_can_be_given_pair_by_pair() -> None:
    by_name = posenc.MRoPE(head_dim=8, sections=(2, 1, 1))
    by_pair = posenc.MRoPE(head_dim=8, sections=(2, 1, 1), layout=(0, 0, 1, 2))
    x, where = torch.randn(1, 1, 5, 8), torch.randint(0, 9, (1, 5, 3))
    assert torch.equal(by_name.rotate(x, where), by_pair.rotate(x, where))
    assert type(by_pair).from_dict(by_pair.to_dict()).to_dict() == by_pair.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sections": (8, 12, 11)}, r"got sections \(8, 12, 11\), which sum to 31, .* expected a sum of 32"),
        ({"sections": ()}, "which sum to 0"),
        ({"sections": (40, -4, -4)}, "expected a sum of 32"),
        ({"sections": (8, 12, 12), "layout": "interleaved"}, r"gives its coordinates \(11, 11, 10\) pairs"),
        ({"sections": (8, 12, 12), "layout": "thw"}, "got layout 'thw', expected one of"),
        ({"sections": (32, 0), "layout": (0, 1)}, "expected sections equal to these numbers"),
        (
            {"sections": (8, 12, 12), "frequencies": posenc.frequencies.LearnedRates()},
            "expected a rule with fixed rates",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.MRoPE(head_dim=HEAD_DIM, **options)  # type: ignore[arg-type]


def test_each_head_may_go_by_one_coordinate() -> None:
    """MHRoPE: eight key heads, two by time, three by height, three by width; two query heads for each."""
    rope = posenc.MRoPE(head_dim=12, sections=(2, 3, 3), layout="heads")
    q, k = torch.randn(2, 16, 20, 12), torch.randn(2, 8, 20, 12)
    where = torch.randint(0, 9, (2, 20, 3))
    turned_q, turned_k = rope.on_queries_keys(q, k, where)
    plain = posenc.RoPE(head_dim=12)
    for head, axis in enumerate((0, 0, 1, 1, 1, 2, 2, 2)):
        own = where[..., axis]
        torch.testing.assert_close(turned_k[:, head], plain.rotate(k[:, head, None], own)[:, 0])
        group = slice(2 * head, 2 * head + 2)
        torch.testing.assert_close(turned_q[:, group], plain.rotate(q[:, group], own))
    assert torch.equal(rope.rotate(k), plain.rotate(k))  # a text


def test_heads_are_those_of_the_authors() -> None:
    """Their tables: the angles of each coordinate, repeated for its heads. JJJYmmm/Multimodal-RoPEs, mhrope.py."""
    rope = posenc.MRoPE(head_dim=12, sections=(2, 3, 3), layout="heads")
    where = torch.randint(0, 9, (2, 20, 3))
    freqs = where.permute(2, 0, 1)[..., None].double() * torch.tensor(posenc.Geometric().inv_freq(12))
    theirs = torch.cat([freqs[m, :, None].repeat(1, n, 1, 1) for m, n in enumerate((2, 3, 3))], dim=1)
    torch.testing.assert_close(rope.phases(where)[0], theirs)


def test_key_heads_beyond_the_sections_are_not_rotated() -> None:
    """Ten key heads, of which the authors' code gives the last two angles of 0; two query heads for each."""
    rope = posenc.MRoPE(head_dim=12, sections=(2, 3, 3), layout="heads", num_kv_heads=10)
    q, k = torch.randn(2, 20, 20, 12), torch.randn(2, 10, 20, 12)
    where = torch.randint(0, 9, (1, 20, 3))
    turned_q, turned_k = rope.on_queries_keys(q, k, where)
    assert torch.equal(turned_k[:, 8:], k[:, 8:])
    assert torch.equal(turned_q[:, 16:], q[:, 16:])
    first = posenc.MRoPE(head_dim=12, sections=(2, 3, 3), layout="heads")
    assert torch.equal(turned_k[:, :8], first.rotate(k[:, :8], where))
    rates = posenc.Geometric().inv_freq(12)
    for x, turned in ((q, turned_q), (k, turned_k)):
        expected = oracle.rotate(x, where[0], inv_freq=rates, sections=(2, 3, 3), layout="heads", kv_heads=10)
        torch.testing.assert_close(turned, torch.from_numpy(expected).float())
    freqs = where.permute(2, 0, 1)[..., None].double() * torch.tensor(rates)
    theirs = torch.cat([freqs[m, :, None].repeat(1, n, 1, 1) for m, n in enumerate((2, 3, 3))], dim=1)
    theirs = torch.cat((theirs, torch.zeros(1, 2, 20, 6)), dim=1)  # their padding
    torch.testing.assert_close(rope.phases(where)[0], theirs)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sum to 8 key heads, for num_kv_heads 4, expected a sum of at most that"):
        posenc.MRoPE(head_dim=12, sections=(2, 3, 3), layout="heads", num_kv_heads=4)
    with pytest.raises(ValueError, match="in which all heads rotate in the same way"):
        posenc.MRoPE(head_dim=12, sections=(2, 2, 2), num_kv_heads=4)


def test_the_error_names_the_sections_that_a_layout_gives() -> None:
    """As transformers would silently take them: a config whose sections do not fit the layout."""
    with pytest.raises(ValueError, match=r"gives its coordinates \(11, 11, 10\) pairs.*give sections=\(11, 11, 10\)"):
        posenc.MRoPE(head_dim=64, sections=(8, 12, 12), layout="interleaved")
    posenc.MRoPE(head_dim=64, sections=(11, 11, 10), layout="interleaved")
    for sections in ((), (0, 0, 0), (1, -1, 1)):
        with pytest.raises(ValueError, match="expected the number of key heads for each coordinate"):
            posenc.MRoPE(head_dim=64, sections=sections, layout="heads")
