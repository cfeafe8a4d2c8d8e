"""A live model that rotates otherwise than its config says is found out, and a sound one is not accused."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import foreign_code
from tests.integrations import families
from torch import nn

import posenc
from posenc.integrations.transformers import accelerate, check, extend, replace
from posenc.integrations.transformers.rotations.adapter import posenc_function
from posenc.integrations.transformers.rotations.form import Form

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

#: HY-V4's module pairs as its weights are stored.
FAULTS_MENDED = tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 25)

FAMILIES = (
    *("llama", "gemma3_text", "qwen2_vl", "glm4", "cohere2"),
    *("phi3", "smollm3", "gpt_neox", "deepseek_v3", "gpt_oss"),
)


def build(model_type: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return families.build(model_type)


def text_config(model: Any) -> Any:
    return getattr(model.config, "text_config", model.config)


def rotary(model: Any) -> nn.Module:
    """The module with the rates of the text."""
    (found,) = (
        module
        for name, module in model.named_modules()
        if any(key.endswith("inv_freq") for key in module._buffers) and "visual" not in name
    )
    return found  # type: ignore[no-any-return]


def buffers(model: Any) -> list[Any]:
    return list(rotary(model)._buffers.values())


def halve(model: Any) -> None:
    for buffer in buffers(model):
        buffer.mul_(0.5)


def fill_with_garbage(model: Any) -> None:
    """What memory held that was never written, as to_empty leaves it."""
    for buffer in buffers(model):
        buffer.copy_(torch.linspace(-3e30, 7e-20, buffer.numel()))


def fill_with_zeros(model: Any) -> None:
    for buffer in buffers(model):
        buffer.zero_()


def fill_with_nan(model: Any) -> None:
    for buffer in buffers(model):
        buffer.fill_(float("nan"))


def leave_on_meta(model: Any) -> None:
    rotary(model).to("meta")


def narrow(model: Any) -> None:
    text_config(model).max_position_embeddings = 8192
    rotary(model).bfloat16()


def narrow_and_widen(model: Any) -> None:
    narrow(model)
    rotary(model).float()


def drop_scaling(model: Any) -> None:
    """The config says YaRN, and what was built is plain."""
    config = text_config(model)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    parameters = copy.deepcopy(config.rope_parameters)
    for each in [value for value in parameters.values() if isinstance(value, dict)] or [parameters]:
        each.update(yarn)
    config.rope_parameters = parameters


def drop_factor(model: Any) -> None:
    """The rates are right, and cos and sin are multiplied by another number."""
    module = rotary(model)
    for key in [key for key in vars(module) if key.endswith("attention_scaling")]:
        setattr(module, key, 1.1386)


def scale_twice(model: Any) -> None:
    for module in model.modules():
        if "scaling" in vars(module) and "Attention" in type(module).__name__:
            module.scaling *= 2


PLANTED: dict[Callable[[Any], None], str] = {
    halve: "rates",
    fill_with_garbage: "rates",
    fill_with_zeros: "rates",
    fill_with_nan: "unset",
    leave_on_meta: "unset",
    narrow: "rates",
    narrow_and_widen: "rates",
    drop_scaling: "rates",
    drop_factor: "factor",
    scale_twice: "scale",
}


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_planted_fault_is_found(model_type: str, fault: Callable[[Any], None]) -> None:
    model = build(model_type)
    assert check(model).findings == ()
    fault(model)
    report = check(model)
    assert PLANTED[fault] in {finding.what for finding in report.findings}, report.lines()
    assert report.exit_code == 1
    if PLANTED[fault] == "rates":
        assert max(finding.angle_error or 0.0 for finding in report.findings) > 0.05


def test_the_largest_angle_error_is_that_of_the_fastest_pair() -> None:
    model = build("llama")
    halve(model)
    finding = check(model).findings[0]
    assert (finding.module, finding.layers, finding.length) == ("model.rotary_emb", (0, 1), 127)
    assert finding.angle_error == pytest.approx(127 * 0.5)
    assert "0.5 times what the config says; the largest angle error at position 127 is 63.5 rad" in str(finding)
    assert any(line.startswith("FOUND") for line in check(model).lines())


def test_a_rotation_by_the_other_pairing_or_direction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel that was patched in for a model whose weights want the other one."""
    from transformers.models.llama import modeling_llama

    model = build("llama")
    for form, words in (
        (Form("q k cos sin axis", "halves", "interleaved"), "pairs by 'interleaved' and +angle"),
        (Form("q k cos sin axis", "halves", "half", inverse=True), "pairs by 'half' and -angle"),
    ):
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", posenc_function(form))
        report = check(model)
        assert {finding.what for finding in report.findings} == {"pairing"}
        assert all(words in str(finding) for finding in report.findings)
        assert [finding.layers for finding in report.findings] == [(0,), (1,)]


@pytest.mark.parametrize(("model_type", "name"), [("gpt2", "wpe"), ("bert", "embeddings.position_embeddings")])
def test_a_table_of_another_length_is_found(model_type: str, name: str) -> None:
    model = build(model_type)
    assert check(model).findings == ()
    owner: Any = next(module for path, module in model.named_modules() if path.endswith(name))
    owner.weight = nn.Parameter(owner.weight[:100].detach())
    (finding,) = check(model).findings
    assert finding.what == "length"
    assert "(100, 64), and the config says (128, 64)" in finding.text


def test_rates_in_bfloat16_are_judged_by_what_they_cost() -> None:
    """DINOv3's coordinates end at 2 pi, so bfloat16 costs it little; 8192 tokens of text end elsewhere."""
    model = build("dinov3_vit").bfloat16()
    report = check(model)
    assert report.findings == ()
    assert any("was rounded to bfloat16, which costs at most 0.0" in line for line in report.checked)
    text = build("llama").bfloat16()
    text.config.max_position_embeddings = 8192
    first = check(text).findings[0]
    assert first.angle_error is not None
    assert 1 < first.angle_error < 16  # half a unit of bfloat16, 2**-9, of the angle 8191 x 0.3


def test_rates_that_grow_with_the_text_are_no_fault() -> None:
    for model_type, rule in (
        ("llama", posenc.frequencies.DynamicNTK(2.0, trained_length=128)),
        ("phi3", posenc.frequencies.LongRoPE([1.0] * 8, [4.0] * 8, trained_length=32, factor=4.0)),
    ):
        model = build(model_type)
        extend(model, rule, length=128)
        assert check(model).findings == (), str(rule)
        with torch.no_grad():
            model(torch.ones(1, 200, dtype=torch.long))
        assert check(model).findings == (), str(rule)


@pytest.mark.filterwarnings("ignore:.rope_scaling. is deprecated:FutureWarning")
def test_a_model_whose_own_code_drops_the_scaling_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own classes read the config right; code of a model's own may not (mlx-vlm 1710, Soup 793)."""
    foreign_code.keep_apart(tmp_path / "modules", monkeypatch)

    def load(name: str, **keys: Any) -> Any:
        folder = foreign_code.write(tmp_path / name, "base", **keys)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

    assert check(load("plain")).findings == ()
    (finding,) = check(load("scaled", rope_scaling={"rope_type": "linear", "factor": 4.0})).findings
    assert finding.what == "rates"
    assert "4 times what the config says" in finding.text
    (finding,) = check(load("unset", fills=False)).findings  # transformers 5 leaves its rates as memory was
    assert finding.what in ("rates", "unset")


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("accelerate", accelerate),
        ("replace", lambda model: replace(model, posenc.ALiBi(4))),
        ("extend", lambda model: extend(model, posenc.YaRN(2, trained_length=128), length=256)),
    ],
)
def test_patches_warn_of_a_model_that_was_wrong_before(name: str, patch: Any) -> None:
    model = build("llama")
    halve(model)
    with pytest.warns(UserWarning, match=rf"{name}: LlamaForCausalLM did not rotate as its config says.*0\.5 times"):
        patch(model).undo()


def test_a_patched_model_is_checked_as_far_as_it_can_be() -> None:
    model = build("llama")
    with accelerate(model):
        report = check(model)
    assert report.findings == ()
    assert any("replaced already" in line for line in report.unchecked)
    with extend(model, posenc.YaRN(2, trained_length=128), length=256):
        assert check(model).findings == ()


@pytest.mark.transformers_as_pinned
def test_a_module_that_pairs_otherwise_than_its_weights_are_stored_is_found() -> None:
    """WestWaters/pollard-weights#70: a perplexity of 151 in place of 6.4. The weights are for neighbouring pairs."""
    if FAULTS_MENDED:
        pytest.skip("the module pairs neighbours since transformers 5.25")
    report = check(build("hy_v4"))
    assert {finding.what for finding in report.findings} == {"pairing"}
    assert "turns pairs by 'half' and +angle, and the config means 'interleaved'" in report.findings[0].text


@pytest.mark.filterwarnings("ignore:.*rope_scaling.* is deprecated:FutureWarning")
def test_rope_scaling_set_on_a_config_is_compared_with_the_base_that_the_model_has() -> None:
    """The setter of transformers 5 drops the base, and the model goes on as it was built."""
    model = build("llama")
    base = model.config.rope_parameters["rope_theta"]
    model.config.rope_scaling = {"rope_type": "linear", "factor": 4.0}
    if model.config.rope_parameters.get("rope_theta") is not None:
        pytest.skip("this transformers keeps the base")
    before = dict(model.config.rope_parameters)
    report = check(model)
    assert report.findings[0].text.startswith("the config has no rope_theta, which setting rope_scaling drops")
    assert f"compared with {base:g}" in report.findings[0].text
    assert any("inv_freq is 4 times what the config says" in finding.text for finding in report.findings)
    assert report.unchecked == ()
    assert model.config.rope_parameters == before


NOT_COMPARED = {
    "t5": ["layers 0 to 1 (encoder): T5Bias(", "layers 0 to 1 (decoder): T5Bias("],
    "bloom": ["layers 0 to 1: ALiBi("],
    "swin": [f"layers {layers} (stage {stage}): SwinBias(" for stage, layers in enumerate(("0 to 1", "2 to 3"))],
    "gpt2": ["layers 0 to 1: Learned("],
    "clip": ["layers 0 to 1 (text_config): Learned(", "layers 0 to 1 (vision_config): LearnedGrid("],
    "qwen2_vl": ["layers 0 to 1 (vision_config): AxialRoPE("],
    "gptj": ["layers 0 to 1: the rates of Geometric(base=10000.0): no module keeps them"],
    "jamba": ["NoPE"],
    "llama": [],
}


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("model_type", NOT_COMPARED)
def test_each_encoding_that_was_not_compared_is_named(model_type: str) -> None:
    """A report of T5 once said "1 agree, 0 not checked", and its bias was never looked at."""
    report = check(build(model_type))
    assert report.findings == ()
    for named in NOT_COMPARED[model_type]:
        assert any(named in line for line in report.unchecked), report.lines()
    assert len(report.unchecked) == {"swin": 4}.get(model_type, len(NOT_COMPARED[model_type])), report.lines()


def test_rates_that_depend_on_the_length_are_said_to_be_compared_as_tables_alone() -> None:
    model = build("llama")
    extend(model, posenc.frequencies.DynamicNTK(2.0, trained_length=128), length=256)
    (line,) = check(model).unchecked
    assert "they depend on the length of the text, so only the tables of the modules are compared" in line


def test_other_things_than_models_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a model of transformers"):
        check(nn.Linear(2, 2))


@pytest.mark.slow
def test_no_model_type_of_transformers_is_accused() -> None:
    accused, built = {}, 0
    for model_type in sorted(transformers.CONFIG_MAPPING.keys()):
        if families.model_class(model_type) is None:
            continue
        try:
            model = build(model_type)
        except Exception:  # too large, or of packages that are not here
            continue
        built += 1
        if findings := check(model).findings:
            accused[model_type] = [str(finding) for finding in findings]
    assert (accused.pop("hy_v4", None) is None) is FAULTS_MENDED
    assert not accused
    assert built > 400


def test_the_default_device_changes_no_finding() -> None:
    """What check made on the default device met a copy of the module on the CPU, failed there, and counted as sound."""
    for damage in (lambda model: None, halve):
        model, ids = build("llama"), torch.arange(5)[None]
        damage(model)
        expected = check(model)
        with torch.device("meta"):
            assert check(model) == expected
    model = build("llama").eval()
    with torch.no_grad():
        expected = model(ids).logits
        with torch.device("meta"):
            patch = accelerate(model)
            torch.testing.assert_close(model(ids).logits, expected)
            patch.undo()
