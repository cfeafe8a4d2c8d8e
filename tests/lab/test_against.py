"""Two checkpoints are compared layer by layer; every verb takes what any other takes."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.integrations.gguf.test_description import gguf_file

from posenc import AxialRoPE, Learned
from posenc.embeddings import LearnedGrid
from posenc.frequencies import Geometric, YaRN
from posenc.integrations.transformers import Description, LayerGroup, describe
from posenc.lab import __main__ as door
from posenc.lab.against import compare, show
from posenc.lab.checkpoint.read import read
from posenc.lab.run.errors import RunError

LLAMA: dict[str, Any] = {
    **{"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2},
    **{"max_position_embeddings": 8192, "rope_theta": 10000.0},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}


def test_the_same_model_in_two_forms_is_the_same(tmp_path: Path) -> None:
    found = compare(describe(LLAMA), read(gguf_file(tmp_path / "m.gguf", "llama")))
    (layers,) = found.layers
    assert (layers.layers, layers.differs, found.exit_code) == ((0, 1), False, 0)
    assert layers.aside[0].startswith("pairs are half in A and interleaved in B")


def test_a_scaling_that_was_dropped_is_found_with_its_angle_and_its_factor() -> None:
    found = compare(describe({**LLAMA, "rope_scaling": YARN}), describe(LLAMA), to=8192)
    (layers,) = found.layers
    assert found.positions == (4, 16, 64, 256, 1024, 4096, 8191)
    assert layers.angles is not None
    assert layers.pair is not None
    far = abs(YaRN(4.0, trained_length=2048).inv_freq(64) - Geometric().inv_freq(64))
    assert layers.pair == far.argmax()
    assert layers.angles[-1] == pytest.approx(8191 * far.max())
    assert layers.angles[-1] / layers.angles[0] == pytest.approx(8191 / 4)
    assert layers.others == ("cos and sin times 1.13863 in A and 1 in B",)
    assert found.exit_code == 1


def test_layers_that_rotate_in_one_alone_are_found() -> None:
    smol = {**LLAMA, "model_type": "smollm3", "num_hidden_layers": 8}
    found = compare(describe(smol), describe({**smol, "model_type": "llama"}))
    assert [(each.layers, each.differs) for each in found.layers] == [((0, 1, 2, 4, 5, 6), False), ((3, 7), True)]
    assert found.layers[1].others == ("B rotates and the other does not",)
    deeper = compare(describe(LLAMA), describe({**LLAMA, "num_hidden_layers": 3}))
    assert [each.others for each in deeper.layers] == [(), ("A has no such layers, or nothing of the kind in them",)]
    part = compare(describe(LLAMA), describe({**LLAMA, "head_dim": 128}))
    assert "head_dim is 64 in A and 128 in B" in part.layers[0].others
    with pytest.raises(ValueError, match="--to 1"):
        compare(describe(LLAMA), describe(LLAMA), to=1)


def test_images_and_pipelines_are_compared_too() -> None:
    """What has no layers, no tokens or two encodings in a layer: nothing was compared of these, and called the same."""

    def rotated(axes: tuple[int, ...]) -> Description:
        group = LayerGroup("transformer", "rope", (), AxialRoPE(128, axes=axes))
        return Description("pipeline", (group, LayerGroup("text_encoder", "", (0, 1), Learned(64, length=77))))

    found = compare(rotated((16, 56, 56)), rotated((44, 42, 42)))
    assert [(each.part, each.name, each.differs) for each in found.layers] == [
        ("", "rope, all layers", True),
        ("text_encoder", "text_encoder, layers 0-1", False),
    ]
    assert found.layers[0].others == ("axes is [16, 56, 56] in A and [44, 42, 42] in B",)
    assert found.exit_code == 1
    assert compare(rotated((16, 56, 56)), rotated((16, 56, 56))).exit_code == 0

    table = LayerGroup("", "", (0, 1), LearnedGrid(64, grid=(4, 4)))
    both = Description("eva", (table, LayerGroup("", "rope", (0, 1), AxialRoPE(64), positions="grid(4, 4)")))
    alone = compare(both, Description("vit", (table,)))
    assert [(each.b, each.differs) for each in alone.layers] == [("LearnedGrid", False), ("", True)]
    moved = Description("eva", (table, LayerGroup("", "rope", (0, 1), AxialRoPE(64), positions="grid(4, 4, start=1)")))
    assert compare(both, moved).layers[1].others[0].startswith("positions are grid(4, 4) in A and grid(4, 4, start=1)")


def test_what_cannot_be_read_is_not_called_the_same() -> None:
    parts = {"model_type": "own_vlm", "text_config": LLAMA, "vision_config": {"model_type": "own", "hidden_size": 64}}
    found = compare(describe(parts), describe(LLAMA))
    assert found.aside == ("not read in A: vision_config: own",)
    console = Console(file=io.StringIO(), width=100)
    show(found, console)
    assert "not read in A: vision_config: own" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_coordinates_of_a_text_with_images() -> None:
    vl = {**LLAMA, "model_type": "qwen2_vl_text"}
    sections = [
        describe({**vl, "rope_scaling": {"type": "mrope", "mrope_section": s}}) for s in ([8, 12, 12], [16, 8, 8])
    ]
    (layers,) = compare(*sections).layers
    assert layers.others == ("sections of the coordinates: (8, 12, 12) in A and (16, 8, 8) in B",)
    (draft,) = compare(sections[0], describe(LLAMA)).layers
    assert not draft.differs
    assert any("A alone turns the tokens of images" in text for text in draft.aside)


def test_no_number_is_cut_at_80_columns() -> None:
    far = compare(describe({**LLAMA, "rope_scaling": YARN}), describe({**LLAMA, "rope_theta": 1e7}), to=1 << 20)
    console = Console(width=80, file=io.StringIO())
    show(far, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in said
    assert "Geometric(base=10000000.0)" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "at 1048575" in said


def test_one_door_for_whatever_a_model_is_given_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    for source in (tmp_path, str(tmp_path / "config.json"), tmp_path / "config.json"):
        assert read(source).model_type == "llama"
    folder = tmp_path / "gguf"
    folder.mkdir()
    gguf_file(folder / "m.gguf", "llama")
    assert read(folder).model_type == read(folder / "m.gguf").model_type == "llama (GGUF)"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(ValueError, match="'org/base'"):
        read(adapter)
    with pytest.raises(RunError, match="no such folder or file, and no such package"):
        read("no-such-package-anywhere")
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(RunError, match=r'no such package.*timm, install timm: pip install "posenc\[timm\]"'):
        read("eva02_base_patch14_224")


def test_the_command_shows_draws_and_says_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text(json.dumps(LLAMA))
    Path("b.json").write_text(json.dumps({**LLAMA, "rope_scaling": YARN}))

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["posenc", *words])
        with pytest.raises(SystemExit) as ended:
            door.main()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().out

    code, out = call("inspect", "a.json", "--against", "b.json", "--to", "8192", "--plot", "d.svg")
    assert code == 1
    assert "2 layers differ; at positions up to 8191, angles within 0.01 rad count as equal" in out
    assert "at 8191" in out
    assert Path("d.svg").read_text().startswith("<svg")
    code, out = call("inspect", "a.json", "--against", "a.json", "--json")
    assert (code, json.loads(out)["differs"]) == (0, False)
    code, out = call("inspect", "a.json", "--to", "5")
    assert code == 1


def test_an_encoder_and_a_decoder_are_told_apart() -> None:
    """Two entries said "layers 0-1", and nothing told which was the decoder's."""
    t5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    found = compare(describe(LLAMA), describe(t5))
    assert [each.name for each in found.layers][1:] == ["encoder, layers 0-1", "decoder, layers 0-1"]
    more = compare(describe(t5), describe({**t5, "relative_attention_num_buckets": 16}))
    assert [each.kind for each in more.layers] == ["encoder", "decoder"]
