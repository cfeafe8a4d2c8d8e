"""Models whose weights the package ``accelerate`` moves between devices as they are needed: its hooks stay in place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integrations import families
from tests.integrations.family_inputs import tokens
from torch import Tensor

import posenc
from posenc.integrations.transformers import accelerate, check, replace

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens(2, 12)).logits  # type: ignore[no-any-return]


def test_a_model_that_lies_on_the_disk_in_part_is_patched_and_put_back(tmp_path: Path) -> None:
    whole = families.build("llama")
    before = logits(whole)
    whole.save_pretrained(tmp_path / "saved")
    places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head", "model.layers.0"), "cpu")
    model = type(whole).from_pretrained(
        tmp_path / "saved",
        device_map={**places, "model.layers.1": "disk"},
        offload_folder=tmp_path / "disk",
        attn_implementation=whole.config._attn_implementation,
    )
    layer = model.model.layers[1].self_attn
    assert (layer.q_proj.weight.device.type, hasattr(layer, "_hf_hook")) == ("meta", True)
    hooked, inner = layer.forward, layer._old_forward
    assert torch.equal(logits(model), before)
    assert check(model).findings == ()
    with accelerate(model):
        assert layer._old_forward != inner
        assert torch.equal(logits(model), before)
        with pytest.raises(ValueError, match="was replaced already, by a hook or an earlier patch"):
            accelerate(model)
    with replace(model, posenc.ALiBi(4)), replace(whole, posenc.ALiBi(4)):
        changed = logits(model)
        assert not torch.allclose(changed, before, atol=1e-4)
        torch.testing.assert_close(changed, logits(whole), rtol=1e-5, atol=1e-6)
    assert (layer.forward, layer._old_forward) == (hooked, inner)
    assert torch.equal(logits(model), before)
