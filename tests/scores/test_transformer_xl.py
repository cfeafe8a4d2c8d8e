"""Transformer-XL: the authors' scores after memories, and XLNet with its attention replaced."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "transformer_xl_scores.json").read_text())["values"]


def test_scores_after_memories_are_the_authors() -> None:
    encoding = posenc.scores.TransformerXL(dim=8, num_heads=2).double()
    encoding.load_state_dict(
        {
            "weight": torch.tensor(GOLDEN["weight"]).view(8, 8),
            "u": torch.tensor(GOLDEN["u"]).view(2, 4),
            "v": torch.tensor(GOLDEN["v"]).view(2, 4),
        }
    )
    q = torch.tensor(GOLDEN["q"], dtype=torch.float64).view(1, 2, 4, 4)
    k = torch.tensor(GOLDEN["k"], dtype=torch.float64).view(1, 2, 7, 4)
    scores = encoding.on_scores(0.5 * q @ k.transpose(-1, -2), 3, 0, q=q, k=k)[0]
    theirs = torch.tensor([float("nan") if x is None else x for x in GOLDEN["scores"]], dtype=torch.float64)
    seen = ~theirs.view(2, 4, 7).isnan()
    torch.testing.assert_close(scores[seen], theirs.view(2, 4, 7)[seen], rtol=0, atol=1e-6)


def test_the_attention_of_xlnet_gives_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    xlnet = pytest.importorskip("transformers.models.xlnet.modeling_xlnet")
    torch.manual_seed(0)
    config = transformers.XLNetConfig(d_model=16, n_head=2, n_layer=1, d_inner=16, vocab_size=9, dropout=0.0)
    module = xlnet.XLNetRelativeAttention(config).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    n = 7
    x = torch.randn(n, 1, 16, dtype=torch.float64)
    code = xlnet.XLNetModel(config).relative_positional_encoding(n, n, bsz=1).double()
    with torch.no_grad():
        q, k, v, r = (
            torch.einsum("ibh,hnd->bnid", h, w)
            for h, w in ((x, module.q), (x, module.k), (x, module.v), (code, module.r))
        )
        theirs = module.rel_attn_core(*(t.permute(2, 0, 1, 3) for t in (q, k, v, r)), seg_mat=None, attn_mask=None)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        encoding = posenc.scores.TransformerXL(dim=16, num_heads=2).double()
        encoding.weight.copy_(module.r.permute(1, 2, 0).reshape(16, 16))
        encoding.u.copy_(module.r_w_bias)
        encoding.v.copy_(module.r_r_bias)
        ours = posenc.attention(q, k, v, encoding)
    torch.testing.assert_close(ours.permute(2, 0, 1, 3), theirs, rtol=1e-6, atol=1e-6)


def test_an_odd_dim_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an even dim that the heads divide"):
        posenc.scores.TransformerXL(dim=9, num_heads=3)
