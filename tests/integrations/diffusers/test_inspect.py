"""`posenc inspect` of what diffusers saves."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.integrations.diffusers.models import FAMILIES, build

pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc.lab.inspect import as_data, inspect


def said(path: Path) -> str:
    file = io.StringIO()
    inspect(path, console=Console(file=file, width=160))
    return file.getvalue()


def test_a_model_of_diffusers_is_inspected(tmp_path: Path) -> None:
    build(FAMILIES["wan"]).save_config(tmp_path)
    text = said(tmp_path)
    assert "WanTransformer3DModel" in text
    assert "10 / 6 / 6" in text
    assert "its table ends before time 32, height 32, width 32" in text
    assert said(tmp_path / "config.json").splitlines()[1:] == text.splitlines()[1:]


def test_a_pipeline_is_inspected_model_by_model(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig

    index = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "strange": ["diffusers", "Nothing"],
        "../outside": ["diffusers", "FluxTransformer2DModel"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    build(FAMILIES["flux"]).save_config(tmp_path / "transformer")
    CLIPTextConfig(max_position_embeddings=77).save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"_class_name": "Nothing"}')
    text = said(tmp_path)
    assert "FluxPipeline" in text
    assert "transformer pos_embed" in text
    assert "text_encoder" in text
    assert "0 to 76, no more" in text
    assert "not read: strange:" in text
    assert "outside" not in text
    data = as_data(inspect(tmp_path / "model_index.json", console=Console(file=io.StringIO())))
    assert [group["encoding"]["name"] for group in data["groups"]] == ["Learned", "AxialRoPE"]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        ("AllegroTransformer3DModel", "not read: image_rotary_emb: an argument of the model"),
        ("SanaTransformer2DModel", "not read: no rotation: positions come from convolutions"),
        ("AutoencoderKL", "no positional encoding that is known here"),
    ],
)
def test_a_model_of_which_nothing_is_read_is_still_a_model_of_diffusers(tmp_path: Path, cls: str, words: str) -> None:
    """It was told to add a model_type."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": cls}))
    text = said(tmp_path)
    assert cls in text
    assert words in text


def test_a_pipeline_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "x"]}')
    with pytest.raises(ValueError, match="names no model whose positional encoding posenc knows"):
        inspect(tmp_path)
