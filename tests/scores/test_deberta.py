"""DeBERTa: rows in exact integers, and DeBERTa v2 with its attention replaced."""

import pytest
import torch
from torch import Tensor

import posenc


@pytest.mark.parametrize(("span", "max_distance"), [(256, 512), (32, 128), (8, 64)])
def test_rows_are_those_of_deberta_v2(span: int, max_distance: int) -> None:
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    n = torch.arange(max_distance)
    encoding = posenc.scores.DeBERTa(dim=2, num_heads=1, span=span, max_distance=max_distance)
    theirs = deberta.make_log_bucket_position(n[:, None] - n[None], span, max_distance).long()
    assert torch.equal(encoding.rows(n, n), (theirs + span).clamp(0, 2 * span - 1))


@pytest.mark.parametrize("buckets", [-1, 6])
def test_deberta_v2_gives_the_same_with_its_attention_replaced(buckets: int) -> None:
    transformers = pytest.importorskip("transformers")
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    torch.manual_seed(0)
    config = transformers.DebertaV2Config(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=16, vocab_size=40,
        relative_attention=True, position_buckets=buckets, max_relative_positions=12, pos_att_type=["p2c", "c2p"],
        share_att_key=True, position_biased_input=False,
    )  # fmt: skip
    model = transformers.DebertaV2Model(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(40, (2, 20))
    span = 12 if buckets < 0 else buckets

    def forward(
        self: torch.nn.Module, hidden_states: Tensor, *_: object, rel_embeddings: Tensor, **__: object
    ) -> tuple[Tensor, None]:
        encoding = posenc.scores.DeBERTa(
            dim=16, num_heads=2, span=span, max_distance=None if buckets < 0 else 12
        ).double()
        encoding.table.copy_(rel_embeddings[: 2 * span])
        encoding.q_proj.load_state_dict(self.query_proj.state_dict())
        encoding.k_proj.load_state_dict(self.key_proj.state_dict())
        q, k, v = (
            p(hidden_states).unflatten(-1, (2, 8)).transpose(1, 2)
            for p in (self.query_proj, self.key_proj, self.value_proj)
        )
        return posenc.attention(q, k, v, encoding).transpose(1, 2).flatten(2), None

    with torch.no_grad():
        expected = model(ids).last_hidden_state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deberta.DisentangledSelfAttention, "forward", forward)
            got = model(ids).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # their scale is a float32


def test_the_scale_is_that_of_three_terms() -> None:
    assert posenc.scores.DeBERTa(dim=16, num_heads=2).softmax_scale(8) == pytest.approx(24**-0.5)


def test_buckets_that_are_all_exact_are_refused() -> None:
    with pytest.raises(ValueError, match="got max_distance 5 for a span of 8"):
        posenc.scores.DeBERTa(dim=4, num_heads=1, span=8, max_distance=5)
