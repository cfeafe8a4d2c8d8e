"""What a model of diffusers encodes positions with, from the live model and from its config alone."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integrations.diffusers.models import FAMILIES, REFUSED, build, flat, outputs
from tests.integrations.diffusers.more_models import ADDED
from torch import Tensor

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc import AxialRoPE  # noqa: E402
from posenc.embeddings import SinusoidalGrid  # noqa: E402
from posenc.frequencies import NTK, Geometric, RIFLEx  # noqa: E402
from posenc.integrations.diffusers import check, describe, extend  # noqa: E402
from posenc.integrations.diffusers.description.families import FAMILIES as ROWS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")

#: Whose rates are learned, so that there is no rule to change.
LEARNED = {"mochi"}
BASE = {"flux2": 2000, "hunyuan_video": 256, "z_image": 256}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_live_model_and_its_config_are_described_alike(family: str, tmp_path: Path) -> None:
    model = build(FAMILIES[family])
    live = describe(model)
    assert not live.unread
    assert len(live) == (2 if family == "omnigen" else 1)
    model.save_config(tmp_path)
    found = describe(tmp_path)
    assert found.cls == FAMILIES[family].cls
    for a, b in zip(live, found, strict=True):
        assert (a.module, a.kind, a.axes, a.positions, a.ends) == (b.module, b.kind, b.axes, b.positions, b.ends)
        assert a.encoding.to_dict() == b.encoding.to_dict()
    assert describe(tmp_path / "config.json").parts[0].axes == live.parts[0].axes


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_of_a_model_are_those_of_its_description(family: str) -> None:
    report = check(build(FAMILIES[family]))
    assert not report.findings
    assert report.checked or family == "cogvideox"


@pytest.mark.parametrize("family", sorted(ADDED))
def test_a_table_that_is_added_is_that_of_its_description(family: str) -> None:
    model = build(ADDED[family])
    report = check(model)
    assert not report.findings
    assert len(report.checked) == (0 if family == "auraflow" else 2 if family == "latte" else 1)
    if report.checked:
        module = model.patch_embed if hasattr(model, "patch_embed") else model.pos_embed
        next(module.buffers()).mul_(1.01)
        assert "differs by up to" in check(model).findings[0].text


def test_tables_that_were_spoiled_are_found() -> None:
    model = build(FAMILIES["wan"])
    model.rope.freqs_cos.mul_(1.01)
    finding = check(model).findings[0]
    assert (finding.module, finding.what) == ("rope", "tables")
    with pytest.raises(ValueError, match="the tables of rope differ by"):
        extend(model, NTK(2), frames=9)
    model = build(FAMILIES["qwenimage"]).to(torch.bfloat16)
    assert not check(model).findings  # its tables are no buffers
    assert "rounded to bfloat16" in check(build(FAMILIES["wan"]).to(torch.bfloat16)).findings[0].text


def test_facts_of_released_configs() -> None:
    """The sizes that the released models have, which are the defaults of their classes."""
    flux = describe({"_class_name": "FluxTransformer2DModel"}).parts[0]
    assert flux.encoding.widths == (16, 56, 56)
    wan = describe({"_class_name": "WanTransformer3DModel"}).parts[0]
    assert wan.encoding.widths == (44, 42, 42)
    assert wan.ends == (1024,) * 3
    hunyuan = describe({"_class_name": "HunyuanVideoTransformer3DModel"}).parts[0]
    assert {rule.base for rule in hunyuan.encoding.rules} == {256.0}
    cosmos = describe({"_class_name": "CosmosTransformer3DModel"}).parts[0]
    assert cosmos.encoding.rules == (NTK(2.0), Geometric(), Geometric())
    qwen = describe({"_class_name": "QwenImageTransformer2DModel"}).parts[0]
    assert qwen.ends == (4096,) * 3
    assert describe({"_class_name": "ZImageTransformer2DModel"}).parts[0].ends == (1024, 512, 512)
    assert describe({"_class_name": "CogVideoXTransformer3DModel"}).parts[0].ends == (13, 30, 45)
    stable = describe({"_class_name": "SD3Transformer2DModel"}).parts[0]
    assert isinstance(stable.encoding, SinusoidalGrid)
    assert stable.ends == (96, 96)


def test_a_table_ends_where_the_description_says() -> None:
    """Qwen-Image gives fewer rows than tokens, and no error; the others raise one."""
    model = build(FAMILIES["qwenimage"])
    end = describe(model).parts[0].ends[0]
    assert end == 4096
    _, text = model.pos_embed([[(1, 8, 6)]], device=torch.device("cpu"), max_txt_seq_len=5000)
    assert len(text) == end - 4
    with extend(model, NTK(2), size=(64, 48)):
        _, text = model.pos_embed([[(1, 8, 6)]], device=torch.device("cpu"), max_txt_seq_len=5000)
        assert len(text) == 5000
        assert describe(model).parts[0].ends == (None,) * 3
    model = build(FAMILIES["wan"])
    with pytest.raises(RuntimeError):
        model.rope(torch.zeros(1, 4, 33, 4, 4))
    with extend(model, NTK(2), frames=132):
        assert model.rope(torch.zeros(1, 4, 33, 4, 4))[0].shape == (1, 33 * 4, 1, 22)
        with pytest.raises(TypeError, match="a pickle would lose them"):
            pickle.dumps(model)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - LEARNED - {"omnigen", "ltx"}))
def test_a_rule_on_one_axis_changes_that_axis_alone(family: str) -> None:
    small = FAMILIES[family]
    model, inputs = build(small), small.inputs()
    before = outputs(model, inputs)
    rule = NTK(4, base=BASE.get(family, 10_000))
    old = describe(model).parts[0].encoding
    with extend(model, {"width": rule}) as patch:
        assert "width NTK" in patch.description
        after = outputs(model, inputs)
        new = describe(model).parts[0].encoding
    assert isinstance(old, AxialRoPE)
    assert isinstance(new, AxialRoPE)
    assert [a == b for a, b in zip(old.rules, new.rules, strict=True)] == [
        axis != "width" for axis in describe(model).parts[0].axes
    ]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, inputs), strict=True))


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - LEARNED - {"omnigen", "ltx"}))
def test_the_same_rule_gives_the_same_model(family: str) -> None:
    """With the rule that it has, posenc's tables in the place of the model's give its outputs."""
    small = FAMILIES[family]
    model, inputs = build(small), small.inputs()
    before = outputs(model, inputs)
    part = describe(model).parts[0]
    with extend(model, dict(zip(part.axes, part.encoding.rules, strict=True))):
        after = outputs(model, inputs)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_riflex_slows_one_pair_of_the_time() -> None:
    """The rates that the tables of an extended model have are those of the paper's formula, on the time alone."""
    model = build(FAMILIES["wan"])
    latents = torch.zeros(1, 4, 31, 4, 4)
    before = model.rope(latents)[0].reshape(31, 2, 2, 22)
    with extend(model, {"time": RIFLEx(1, 31)}):
        after = model.rope(latents)[0].reshape(31, 2, 2, 22)
    assert [bool((before[..., c] == after[..., c]).all()) for c in range(22)] == [c > 1 for c in range(22)]
    turn = 2 * torch.pi * 0.9 / 31
    torch.testing.assert_close(after[:, 0, 0, 0], (turn * torch.arange(31)).cos(), rtol=0, atol=1e-5)


def test_the_tables_of_an_extended_model_are_those_of_the_rule() -> None:
    """Against diffusers' own function, which knows NTK as a factor of the base."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    model = build(FAMILIES["flux"])
    ids = FAMILIES["flux"].inputs()["img_ids"]
    factor = 2 ** (10 / 8)  # NTK(2) on 10 channels
    wanted = get_1d_rotary_pos_embed(
        10, ids[:, 2], theta=1e4, ntk_factor=factor, use_real=True, freqs_dtype=torch.float64
    )
    with extend(model, NTK(2), size=(2048, 2048)):
        cos, sin = model.pos_embed(ids)
    torch.testing.assert_close(cos[:, 10:], wanted[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[:, 10:], wanted[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "rules", "options", "message"),
    [
        ("flux", NTK(2), {}, "give size=.height, width. or frames="),
        ("flux", {"depth": NTK(2)}, {}, r"got a rule for \['depth'\], expected names of the axes"),
        ("hunyuan_video", {"time": NTK(2)}, {}, "give the rule base=256"),
        ("mochi", {"time": NTK(2)}, {}, "rates are learned"),
        ("ltx", {"time": NTK(2)}, {}, "does not start from"),
        ("flux", NTK(2), {"size": 2048}, "expected height and width"),
        ("flux", NTK(2), {"frames": 0}, "expected the number of frames"),
        ("sd3", NTK(2), {"frames": 9}, "pos_embed: a table that is added"),
        ("ernie_image", NTK(2), {"size": (8, 8)}, "two channels of a pair turn by different angles"),
    ],
)
def test_what_cannot_be_extended_is_refused(family: str, rules: Any, options: Any, message: str) -> None:
    small = {**FAMILIES, **REFUSED}[family]
    model = build(small)
    before = outputs(model, small.inputs())
    with pytest.raises(ValueError, match=message):
        extend(model, rules, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, small.inputs()), strict=True))


def test_bad_arguments() -> None:
    model = build(FAMILIES["flux"])
    with pytest.raises(TypeError, match="expected a rule such as"):
        extend(model, 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a rule such as"):
        extend(model, {})
    for given in (3, None, [model]):
        with pytest.raises(TypeError, match="expected a model of diffusers"):
            describe(given)
        with pytest.raises(TypeError, match="expected a model of diffusers"):
            check(given)


def test_bad_configs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="expected an object, the keys of a config"):
        describe(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not valid JSON"):
        describe(tmp_path)
    for name in (None, 3, "Nothing", "os.system", "DDPMScheduler"):
        with pytest.raises(ValueError, match="expected the name of a model of diffusers"):
            describe({"_class_name": name})
    with pytest.raises(ValueError, match="rope_max_seq_len 10000000000"):
        describe({"_class_name": "WanTransformer3DModel", "rope_max_seq_len": 10**10})
    with pytest.raises(ValueError, match="sizes with which no rotation can be built"):
        describe({"_class_name": "FluxTransformer2DModel", "axes_dims_rope": "wide"})
    for name, key, value, said in (
        ("OvisImageTransformer2DModel", "axes_dims_rope", {"a": 1}, r"got widths \{'a': 1\}, expected a list"),
        ("BriaTransformer2DModel", "rope_theta", [[1]], r"got base \[\[1\]\], expected one number"),
    ):
        with pytest.raises(ValueError, match=f"sizes with which no rotation can be built: {said}"):
            describe({"_class_name": name, key: value})
    with pytest.raises(ValueError, match="cannot build"):
        describe({"_class_name": "FluxTransformer2DModel", "num_attention_heads": "many"})


def test_a_config_of_many_layers_is_read_at_once(tmp_path: Path) -> None:
    config = {"_class_name": "FluxTransformer2DModel", "num_layers": 100_000, "num_single_layers": 100_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(tmp_path).parts[0].kind == "FluxPosEmbed"


def test_tensors_of_nested_outputs() -> None:
    assert flat({"a": torch.ones(1), "b": (torch.ones(2), [torch.ones(3)])})[2].shape == (3,)
    assert all(isinstance(row.axes, tuple) and row.positions for row in ROWS.values())
    assert isinstance(torch.ones(1), Tensor)


@pytest.mark.parametrize(("width", "shares"), [(32, (12, 10, 10)), (64, (24, 20, 20)), (96, (32, 32, 32))])
def test_wans_axes_are_shared_out_in_its_code_as_in_ours(width: int, shares: tuple[int, ...]) -> None:
    """huggingface/diffusers 12538: thirds that are no whole pairs were split otherwise than they were made."""
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=width, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    (part,) = describe(model)
    assert part.encoding.widths == shares
    assert not check(model).findings


def test_the_end_of_qwen_images_table_is_said() -> None:
    """huggingface/diffusers 12083, vllm-omni 2791: a long prompt runs past it, and gets fewer rows than tokens."""
    (part,) = describe(build(FAMILIES["qwenimage"]))
    assert part.ends[0] == 4096
    assert "fewer rows than tokens" in " ".join(part.notes)
