"""posenc's rotation in live models: nothing that a model gives changes, and the model can be put back."""

import copy
import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integrations import families, outcomes
from tests.integrations.family_inputs import inputs, only_tokens
from torch import nn

from posenc.integrations.transformers import accelerate, extend
from posenc.integrations.transformers.live.accelerate import close
from posenc.kernels.rotate import choosing, op

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

#: Complex products, or gradients that reach a weight through other strides: equal to rounding.
ROUNDED = 2e-6

#: One of each kind of function that rotates.
KINDS = (
    *("llama", "gpt_neox", "cohere", "glm", "gptj", "gpt_oss", "nanochat", "gemma3_text", "deepseek_v3"),
    *("deepseek_v2", "deepseek_v4", "llama4_text", "ernie4_5", "qwen2_vl_text", "esm"),
    *("qwen2_vl", "llama4", "muse_glimmer_assistant", "qwen4_exp_text", "nemotron3_diarization_audio"),
    *("gemma4_vision", "dinov3_vit"),
)


def check(model_type: str, folder: Path) -> None:
    """Nothing that the model gives changes as it is patched, put back, or loaded from what the patched one saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = families.build(model_type)
        given = inputs(model)
        before = families.outputs(model, given)
        assert all(before.values())
        assert not isinstance(before.get("greedy"), str)
        patch = accelerate(model, inputs=None if only_tokens(given) else given)
        assert ("as before" in patch.description) == (model_type in outcomes.PARTLY)
        during = families.outputs(model, given)
        model.save_pretrained(folder / "patched")
        patch.undo()
        after = families.outputs(model, given)
        loaded = families.loaded(model, folder / "patched", given)
        if families.difference(loaded, before["outputs"]):  # what the untouched one saves is not the same either
            model.save_pretrained(folder / "untouched")
            assert not families.difference(loaded, families.loaded(model, folder / "untouched", given))
    far = families.differences(before, during)
    allowed = ROUNDED if model_type in outcomes.ROUNDED else 0.0
    assert {name: error for name, error in far.items() if error > allowed} == {}
    assert not any(families.differences(before, after).values())


@pytest.mark.transformers_as_pinned("gpt_oss", "llama4_text", "qwen2_vl_text", "llama4")
@pytest.mark.parametrize("model_type", KINDS)
def test_nothing_that_a_model_gives_changes(model_type: str, tmp_path: Path) -> None:
    check(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(outcomes.SUPPORTED - set(KINDS)))
def test_nothing_that_a_model_of_any_other_family_gives_changes(model_type: str, tmp_path: Path) -> None:
    check(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", sorted(outcomes.REFUSED))
def test_a_family_is_refused_with_the_reason(model_type: str) -> None:
    model = families.build(model_type)
    own = [set(vars(module)) for module in model.modules()]
    with pytest.raises(ValueError, match=outcomes.REFUSED[model_type]):
        accelerate(model, inputs=inputs(model))
    assert [set(vars(module)) for module in model.modules()] == own


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", sorted(outcomes.NOT_BUILT))
def test_a_family_that_is_not_built_says_why(model_type: str) -> None:
    with pytest.raises(ImportError, match=outcomes.NOT_BUILT[model_type]):
        families.build(model_type)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(transformers.__version__ != outcomes.VERSION, reason="the lists are those of another version")
def test_every_rotary_model_type_is_in_one_of_the_lists() -> None:
    lists = (outcomes.SUPPORTED, outcomes.REFUSED.keys(), outcomes.NOT_BUILT.keys())
    assert sorted(families.rotary_model_types()) == sorted(name for names in lists for name in names)


@pytest.fixture
def llama() -> Any:
    return families.build("llama")


IDS = torch.arange(3, 15)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def test_the_rotation_is_posencs(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    kernel = op._kernel
    monkeypatch.setattr(op, "_kernel", lambda chosen: calls.append(chosen) or kernel(chosen))
    logits(llama)
    assert not calls
    with accelerate(llama):
        calls.clear()
        logits(llama)
        assert len(calls) == 2 or choosing.cpu_obstacle() is not None  # layers
        calls.clear()
    logits(llama)
    assert not calls


def test_another_model_of_the_same_class_is_left_alone(llama: Any) -> None:
    other = families.build("llama")
    with accelerate(llama):
        assert "forward" in vars(llama.model.layers[0].self_attn)
        assert "forward" not in vars(other.model.layers[0].self_attn)
        assert torch.equal(logits(llama), logits(other))
    assert "forward" not in vars(llama.model.layers[0].self_attn)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_equal_to_rounding(llama: Any, dtype: torch.dtype) -> None:
    llama.to(dtype)
    before = logits(llama)
    with accelerate(llama):
        after = logits(llama)
    assert after.dtype is dtype
    assert float((after - before).abs().max() / before.abs().max()) < 8 * torch.finfo(dtype).eps


def test_exact_tables_are_right_at_long_positions() -> None:
    def far(model: Any) -> float:
        with torch.no_grad():
            reference = copy.deepcopy(model).double()
            angle = reference.model.rotary_emb.inv_freq.double()
            rates = 1.0 / 10_000.0 ** (torch.arange(0, 16, 2, dtype=torch.float64) / 16)
            assert angle.shape == rates.shape
            cos, _ = model.model.rotary_emb(torch.zeros(1, 1, 16), torch.tensor([[1_000_003]]))
            return float((cos[0, 0, :8].double() - (1_000_003 * rates).cos()).abs().max())

    model = families.build("llama")
    before, theirs = far(model), logits(model)
    with accelerate(model, numerics="exact"):
        assert far(model) < 1e-7 < 1e-3 < before
        torch.testing.assert_close(logits(model), theirs, rtol=1e-4, atol=1e-5)
    assert far(model) == before


def test_exact_tables_are_kept_in_float32_for_narrow_models() -> None:
    model = families.build("llama")
    exact = logits(model)
    model.to(torch.bfloat16)
    with accelerate(model, numerics="exact"):
        cos, _ = model.model.rotary_emb(torch.zeros(1, 1, 16, dtype=torch.bfloat16), torch.tensor([[5]]))
        assert cos.dtype is torch.float32
        assert float((logits(model).float() - exact).abs().max() / exact.abs().max()) < 0.1


def test_exact_numerics_are_refused_where_there_is_no_exact_table() -> None:
    with pytest.raises(ValueError, match=r"not computed by a separate module|does not know the rates"):
        accelerate(families.build("gptj"), numerics="exact")  # which has such a module since transformers 5.24
    model = families.build("llama")
    with pytest.raises(ValueError, match="expected one of"):
        accelerate(model, numerics="fast")  # type: ignore[arg-type]
    assert "forward" not in vars(model.model.layers[0].self_attn)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [("gpt2", "none of its modules calls a function"), ("bloom", "none of its modules"), ("roformer", "none of its")],
)
def test_models_without_a_function_that_rotates_are_refused(model_type: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accelerate(families.build(model_type))


def test_a_function_that_does_something_else_is_refused_and_nothing_is_left(llama: Any) -> None:
    module = transformers.models.llama.modeling_llama
    real = module.apply_rotary_pos_emb

    def other(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        q, k = real(q, k, cos, sin, unsqueeze_dim)
        return q * 1.01, k

    module.apply_rotary_pos_emb = other
    try:
        with pytest.raises(ValueError, match="no rotation of pairs that posenc knows"):
            accelerate(llama)
    finally:
        module.apply_rotary_pos_emb = real
    assert "forward" not in vars(llama.model.layers[0].self_attn)


def test_a_decorator_is_kept(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = type(llama.model.layers[0].self_attn)
    calls = []

    def counted(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            calls.append(function)
            return function(*args, **options)

        return call

    before, plain = logits(llama), attention.forward
    monkeypatch.setattr(attention, "forward", counted(torch.no_grad()(plain)))
    with accelerate(llama):
        calls.clear()
        assert torch.equal(logits(llama), before)
        assert len(calls) == 2  # layers
        assert plain not in calls
    hidden = functools.wraps(plain)(lambda self, *args, function=plain, **options: function(self, *args, **options))
    monkeypatch.setattr(attention, "forward", hidden)
    with pytest.raises(ValueError, match="decorator that gives no access to the wrapped function"):
        accelerate(llama)


def test_tables_that_are_no_rotation_are_refused(llama: Any) -> None:
    rotary = llama.model.rotary_emb
    real = type(rotary).forward
    rotary.forward = lambda x, position_ids: tuple(t * torch.linspace(1, 2, 16) for t in real(rotary, x, position_ids))
    with pytest.raises(ValueError, match="something other than a rotation by its tables"):
        accelerate(llama)


def test_a_second_patch_is_refused_and_extend_goes_on_top(llama: Any) -> None:
    from posenc.frequencies import Linear

    untouched = logits(llama)
    patch = accelerate(llama)
    with pytest.raises(ValueError, match="replaced already"):
        accelerate(llama)
    with extend(llama, Linear(2.0)):
        fast = logits(llama)
    patch.undo()
    with extend(llama, Linear(2.0)):
        assert torch.equal(fast, logits(llama))
    assert torch.equal(logits(llama), untouched)


def test_a_patched_model_is_saved_and_copied_as_the_model_that_it_is(llama: Any, tmp_path: Path) -> None:
    before = logits(llama)
    with accelerate(llama):
        llama.save_pretrained(tmp_path)
        twin = copy.deepcopy(llama)
    assert torch.equal(logits(type(llama).from_pretrained(tmp_path, attn_implementation="eager")), before)
    assert vars(twin.model.layers[0].self_attn)["forward"].__self__ is twin.model.layers[0].self_attn
    assert torch.equal(logits(twin), before)


def test_training_mode_and_the_generator_are_left_as_they_were(llama: Any) -> None:
    llama.train()
    llama.model.layers[0].eval()
    state = torch.get_rng_state()
    with accelerate(llama):
        assert llama.training
        assert not llama.model.layers[0].training
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.transformers_as_pinned
def test_checkpointed_gradients_are_the_same(llama: Any) -> None:
    def gradients() -> list[torch.Tensor]:
        llama.zero_grad()
        llama(IDS, labels=IDS).loss.backward()
        return [parameter.grad.clone() for parameter in llama.parameters()]

    llama.train()
    before = gradients()
    llama.activation_checkpointing_enable()
    with accelerate(llama):
        after = gradients()
    assert all(map(torch.equal, before, after))


@pytest.mark.transformers_as_pinned
def test_a_vision_tower_is_left_until_inputs_reach_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = families.build("qwen2_vl")
    with accelerate(model) as patch:
        assert "as before: ['VisionAttention']" in patch.description
        assert not any("forward" in vars(block.attn) for block in model.model.visual.blocks)


@pytest.mark.transformers_as_pinned
@pytest.mark.filterwarnings("ignore")
def test_inputs_reach_a_vision_tower() -> None:
    tower = families.build("qwen3_vl_vision")
    with pytest.raises(ValueError, match="give inputs="):
        accelerate(tower)
    assert "2 attentions" in accelerate(tower, inputs=inputs(tower)).description


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_adapters_is_accelerated_and_trains_the_same(llama: Any) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(llama, peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.eval()

    def outputs() -> list[torch.Tensor]:
        adapted.zero_grad()
        found = adapted(input_ids=IDS).logits
        found.square().sum().backward()
        return [found.detach(), *(p.grad.clone() for p in adapted.parameters() if p.grad is not None)]

    before = outputs()
    with accelerate(adapted):
        assert all(map(torch.equal, outputs(), before))
    assert len(before) > 4


@pytest.mark.parametrize("given", [nn.Linear(2, 2), 3, None])
def test_other_things_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="expected a model of transformers"):
        accelerate(given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", sorted(outcomes.SUPPORTED))
def test_a_patched_model_compiles_in_one_graph_if_it_did(model_type: str) -> None:
    model = families.build(model_type)
    given = inputs(model)
    with torch.no_grad():
        before = families.run(model, given)
    with accelerate(model, inputs=given):
        after = families.compiled(model, given)
    if isinstance(after, str):
        assert isinstance(families.compiled(model, given), str)
    else:
        assert families.difference(before, after) <= ROUNDED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "cohere", "deepseek_v3"])
def test_a_patched_model_compiles_with_the_inductor(model_type: str) -> None:
    model = families.build(model_type)
    before = logits(model)
    with accelerate(model):
        compiled = torch.compile(model, fullgraph=True)
        with torch.no_grad():
            after = compiled(IDS, use_cache=False).logits
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_no_number_in_a_result_is_no_agreement() -> None:
    nan, inf = float("nan"), float("inf")
    assert close(torch.tensor([1.0, nan, inf]), torch.tensor([1.0, nan, inf]))
    assert not close(torch.tensor([1.0, nan]), torch.tensor([5.0, nan]))
    assert not close(torch.tensor([1.0, nan]), torch.tensor([1.0, 2.0]))
    assert not close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, nan]))
    assert not close(torch.tensor([inf]), torch.tensor([-inf]))


@pytest.mark.filterwarnings("ignore:accelerate. LlamaForCausalLM did not rotate:UserWarning")
def test_a_model_whose_tables_hold_no_numbers_is_refused() -> None:
    model = families.build("llama")
    model.model.rotary_emb.inv_freq.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"no finite number.*nothing was changed"):
        accelerate(model)
