"""One encoding for all layers, written into a config: what the class of the model type makes of it, or why not."""

from typing import Any

import pytest

from posenc import RoPE
from posenc.frequencies import DynamicNTK, Geometric, Linear, YaRN
from posenc.integrations.transformers import describe, to_transformers

transformers = pytest.importorskip("transformers")

#: DeepSeek's temperature in the softmax scale.
DEEPSEEK = YaRN(40.0, trained_length=2048, mscale=0.707, mscale_all_dim=0.707)


@pytest.mark.transformers_as_pinned("olmo3-frequencies6-for each kind of layer", "cohere2_moe-frequencies9-None")
@pytest.mark.parametrize(
    ("model_type", "frequencies", "message"),
    [
        ("deepseek_v3", DEEPSEEK, None),
        ("llama", DEEPSEEK, "this config cannot express the encoding"),  # whose model does not raise its scores
        ("llama", YaRN(4.0, trained_length=2048), None),
        ("gptj", Geometric(5e5), "this config cannot express the encoding"),  # the base stands in its code
        ("roformer", Linear(4.0), "this config cannot express the encoding"),
        ("gemma3_text", Geometric(5e5), "for each kind of layer"),
        ("olmo3", DynamicNTK(4.0, trained_length=8192), "for each kind of layer"),  # its windows are not scaled
        ("modernbert", Geometric(5e5), "cannot be read back"),
        ("phi3", YaRN(4.0, trained_length=2048), "cannot be read back"),
        ("cohere2_moe", Linear(4.0, base=5e5), None),  # a field of its own for the base
    ],
)
def test_one_encoding_for_all_layers_is_what_the_class_reads(
    model_type: str, frequencies: Any, message: str | None
) -> None:
    config = transformers.AutoConfig.for_model(model_type).to_dict()
    rotation = next(group.rotation for group in describe(config) if isinstance(group.rotation, RoPE))
    ways = {"pairing": rotation.pairing, "rotary_dim": rotation.rotary_dim, "rotary_start": rotation.rotary_start}
    rope = RoPE(rotation.head_dim, frequencies=frequencies, **ways)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            to_transformers(rope, config)
        return
    written = to_transformers(rope, config)
    saved = transformers.AutoConfig.for_model(**written).to_dict()  # as its folder is written
    rotations = [group.rotation for group in describe(saved) if isinstance(group.rotation, RoPE)]
    assert rotations
    assert all(found.frequencies == frequencies for found in rotations)
