"""Who owns the encoding that ``replace`` puts in: tools that copy, wrap or save a model find the one that acts."""

import copy
import io
from typing import Any

import pytest
import torch
from tests.integrations import families
from tests.integrations.family_inputs import tokens
from torch import Tensor, nn

import posenc
from posenc.integrations.transformers import accelerate, check, describe, extend, replace

transformers = pytest.importorskip("transformers")
modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = tokens(2, 12)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits  # type: ignore[no-any-return]


def varied(encoding: Any) -> Any:
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter)
    return encoding


def adapted(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["posenc_encoding"]))


def test_peft_trains_the_copy_that_attention_uses() -> None:
    model = families.build("llama")
    replace(model, varied(posenc.T5Bias(4)))
    before = logits(model)
    lora = adapted(model)
    table = lora.base_model.model.posenc_encoding.modules_to_save["default"].table
    lora(input_ids=IDS, labels=IDS).loss.backward()
    assert float(table.grad.abs().max()) > 0
    varied(lora.base_model.model.posenc_encoding.modules_to_save)
    trained = logits(lora)
    assert not torch.allclose(trained, before, atol=1e-4)
    with lora.disable_adapter():
        assert torch.equal(logits(lora), before)
    torch.testing.assert_close(logits(lora.merge_and_unload()), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_wrapped_encoding_compiles_in_one_graph() -> None:
    model = families.build("llama")
    replace(model, varied(posenc.T5Bias(4)))
    lora = adapted(model)
    varied(lora.base_model.model.posenc_encoding.modules_to_save)
    torch.testing.assert_close(logits(torch.compile(lora, fullgraph=True)), logits(lora), rtol=1e-4, atol=1e-5)


def test_a_copied_layer_uses_the_encoding_of_its_model() -> None:
    model = families.build("llama")
    replace(model, varied(posenc.T5Bias(4)))
    model.model.layers[1] = copy.deepcopy(model.model.layers[0])
    model.model.layers[1].self_attn.layer_idx = 1
    before = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), before)
    varied(twin.posenc_encoding)
    assert torch.equal(logits(model), before)
    varied(model.posenc_encoding)
    layers = [model.model.layers[i].self_attn._posenc.encoding for i in range(2)]
    assert layers == [model.posenc_encoding] * 2


def test_the_encoding_of_an_earlier_patch_comes_back() -> None:
    model = families.build("gpt2")
    first = varied(posenc.T5Bias(4))
    patch = replace(model, first)
    before = logits(model)
    with replace(model, varied(posenc.KERPLE(4))):
        assert not torch.allclose(logits(model), before, atol=1e-5)
    assert model.posenc_encoding is first
    assert torch.equal(logits(model), before)
    patch.undo()
    assert not hasattr(model, "posenc_encoding")


@pytest.mark.skipif(
    isinstance(modeling.apply_rotary_pos_emb, nn.Module),
    reason="with the package kernels transformers' models hold what no pickle takes",
)
@pytest.mark.parametrize("encoding", [posenc.NoPE(), posenc.ALiBi(4)], ids=["none", "alibi"])
def test_a_pickle_that_would_lose_the_patch_is_refused(encoding: Any) -> None:
    model = families.build("llama")
    with replace(model, encoding), pytest.raises(TypeError, match=r"a pickle would lose them; save its state_dict\(\)"):
        torch.save(model, io.BytesIO())
    with accelerate(model):  # its numbers are those of the model's own methods
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        assert torch.equal(logits(torch.load(file, weights_only=False)), logits(model))


@pytest.mark.parametrize("encoding", [posenc.NoPE(), posenc.ALiBi(num_heads=4)], ids=["none", "ALiBi"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_only_the_config_says_is_not_said_of_a_replaced_model(family: str, encoding: Any) -> None:
    model = families.build(family)
    before = describe(model).groups[0].encoding
    patch = replace(model, encoding)
    name = type(encoding).__name__
    for each in (model, nn.Sequential(model)):
        with pytest.raises(ValueError, match=f"in which replace put {name} .* model.posenc_encoding is what acts"):
            describe(each)
    assert type(describe(model.config).groups[0].encoding) is type(before)
    with pytest.raises(ValueError, match=f"extend: got a model in which replace put {name} .* undo"):
        extend(model, posenc.YaRN(4.0, trained_length=64) if family == "llama" else "interpolate", length=256)
    report = check(model)
    assert f"the encoding: replace put {name} in place of the one that the config says" in report.unchecked
    assert not [line for line in report.checked if "rotate" in line]
    patch.undo()
    assert not hasattr(model, "posenc_encoding")
    assert type(describe(model).groups[0].encoding) is type(before)
