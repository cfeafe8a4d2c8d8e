"""`posenc extend` on models some of whose layers do not rotate, or rotate by a rule of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.lab.conftest import save_tokenizer
from tests.lab.extend.test_job import begin as begin  # a fixture

from posenc import Compose, NoPE
from posenc.frequencies import YaRN
from posenc.integrations.transformers import describe

transformers = pytest.importorskip("transformers")

Begin = Callable[..., Path]
SIZES: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 0},
    "eos_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "cohere2": {"sliding_window": 64, "head_dim": 16, "logit_scale": 1.0},
    "llama4_text": {
        **{"head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 256},
        "no_rope_layers": [1, 1, 1, 0],
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", MODELS)
def test_a_mixed_model_is_extended_saved_loaded_and_described_as_the_same(
    model_type: str, begin: Begin, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[model_type](**SIZES | MODELS[model_type])
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    before = describe(tmp_path / "model")
    begin(tmp_path / "model", rules=["yarn:4"], ending={"save": tmp_path / "longer"})
    after = describe(tmp_path / "longer")
    assert [group.layers for group in after] == [group.layers for group in before]
    for old, new in zip(before, after, strict=True):
        old_part, new_part = (
            each.encoding.parts[0] if isinstance(each.encoding, Compose) else each.encoding for each in (old, new)
        )
        assert type(old_part) is type(new_part)
        if not isinstance(new_part, NoPE):
            assert isinstance(new_part.frequencies, YaRN)  # type: ignore[attr-defined]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "longer")
    assert [(g.layers, g.encoding.to_dict()) for g in describe(loaded)] == [
        (g.layers, g.encoding.to_dict()) for g in after
    ]
