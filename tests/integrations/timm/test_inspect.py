"""posenc inspect for the name of a model of timm."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import models  # noqa: F401 - skips where timm is not installed

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
