"""posenc inspect for the name of a model of timm."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import models  # noqa: F401 - skips where timm is not installed

from posenc import positions
from posenc.integrations.timm import describe
from posenc.integrations.transformers import describe as describe_config
from posenc.lab.check import check
from posenc.lab.inspect import as_data, inspect
from posenc.lab.run.errors import RunError


def test_a_name_is_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    inspect("eva02_tiny_patch14_224")
    said = capsys.readouterr().out
    assert "16 x 16 patches after 1 other token, no more" in said
    assert "grid(16, 16, prefix=1)" in said
    assert "interleaved: channel 2c with 2c + 1" in said


def test_what_is_not_expressed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    inspect("coat_tiny")
    assert "a depthwise convolution" in capsys.readouterr().out


def test_it_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_data(inspect("swin_tiny_patch4_window7_224"))
    assert json.loads(json.dumps(found))["groups"][0]["encoding"]["window"] == [7, 7]


def test_a_name_that_is_none_is_answered_with_those_that_are_near() -> None:
    with pytest.raises(RunError, match=r"has no model 'vit_bas_patch16_224'; did you mean vit_base_patch16_224"):
        inspect("vit_bas_patch16_224")


def test_a_missing_file_is_still_a_missing_file() -> None:
    with pytest.raises(ValueError, match=r"there is no file missing/config.json"):
        inspect("missing/config.json")


CONFIG = {
    **{"architecture": "vit_small_patch16_dinov3", "num_classes": 0, "num_features": 384, "global_pool": "avg"},
    "pretrained_cfg": {"tag": "lvd1689m", "input_size": [3, 256, 256], "fixed_input_size": True, "hf_hub_id": "of/me"},
}


def test_a_config_of_timm_is_read_by_its_architecture_size_and_arguments(tmp_path: Path) -> None:
    """It was told to have no model_type."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    for found in (inspect(file), inspect(tmp_path), describe(tmp_path), describe(str(file)), describe(CONFIG)):
        (group,) = found.groups
        assert eval(group.positions, vars(positions)).shape[1] == 16 * 16 + 5
        assert found.model_type == "vit_small_patch16_dinov3"
    for given, grid in (({}, 16), ({"img_size": 512}, 32), ({"img_size": 128, "dynamic_img_size": True}, 8)):
        (group,) = describe({**CONFIG, "model_args": given})
        assert group.positions == f'grid({grid}, {grid}, prefix=5, unit="centred")'
    with pytest.raises(ValueError, match=r"timm .* refuses this config of 'vit_small_patch16_dinov3': .*rope_mode"):
        describe({**CONFIG, "model_args": {"rope_mode": 3}})
    with pytest.raises(ValueError, match="has no model 'vit_tiny_own', which the config names"):
        describe({**CONFIG, "architecture": "vit_tiny_own"})
    with pytest.raises(ValueError, match="model_args is 'img_size=3', expected an object"):
        describe({**CONFIG, "model_args": "img_size=3"})
    with pytest.raises(ValueError, match="has no architecture"):
        describe({"model_type": "llama"})
    with pytest.raises(RunError, match=r"this is a model of timm, .* posenc inspect"):
        check(str(tmp_path))


def test_the_config_of_a_wrapper_of_timm_names_its_reader() -> None:
    with pytest.raises(ValueError, match=r"timm, .vit_small_patch16_dinov3.; read it with posenc\.integ"):
        describe_config(CONFIG)
    wrapped = {**CONFIG, "model_type": "timm_wrapper"}
    assert describe(wrapped).model_type == "vit_small_patch16_dinov3"
    with pytest.raises(ValueError, match=r"a model of timm, whose modules posenc\.integrations\.timm\.describe reads"):
        describe_config(wrapped)
    text = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    unread = describe_config({"model_type": "own_vlm", "text_config": text, "vision_config": wrapped}).unread
    assert any(each.startswith("vision_config: timm_wrapper: a model of timm") for each in unread)


def test_the_name_of_timms_own_weights_is_that_of_the_model() -> None:
    for name in ("timm/eva02_tiny_patch14_224.mim_in22k", "hf-hub:timm/eva02_tiny_patch14_224.mim_in22k"):
        assert [group.label for group in inspect(name)] == [group.label for group in inspect("eva02_tiny_patch14_224")]
