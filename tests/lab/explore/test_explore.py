"""The explorer: what the file holds, whose numbers it starts with, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posenc import Geometric, MixedRoPE, Sinusoidal
from posenc.lab.explore.job import explore

HERE = Path(__file__).parents[3] / "src/posenc/lab/explore"
CONFIG = {
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "max_position_embeddings": 4096,
    "rope_theta": 10_000.0,
}


def data(page: Path) -> dict[str, Any]:
    found = re.search(r"<script>const DATA = (.*?);</script>", page.read_text(encoding="utf-8"), re.S)
    assert found
    read: dict[str, Any] = json.loads(found[1].replace("<\\/", "</"))
    return read


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    def write(**keys: Any) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(CONFIG | keys))
        return str(path)

    return write


def test_the_page_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    page = explore("rope", tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""https?://|//cdn|@import|url\(|fetch\(|XMLHttpRequest|<link|src=""", page)
    assert sum(len((HERE / name).read_bytes()) for name in ("maths.js", "views.js")) < 60_000


def test_it_starts_with_the_numbers_of_a_model(tmp_path: Path, config: Callable[..., str]) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    path = config(model_type="llama", rope_theta=5e5, rope_scaling=scaling, max_position_embeddings=131_072)
    start = data(explore(path, tmp_path / "page.html"))["start"]
    assert (start["base"], start["dim"], start["trained"], start["tokens"]) == (5e5, 64, 8192, 131_072)
    assert (start["rule"], start["factor"]) == ("llama3", 32)


def test_a_part_of_the_head_that_rotates_is_the_width_of_the_dials(tmp_path: Path, config: Callable[..., str]) -> None:
    start = data(explore(config(model_type="gpt_neox", rotary_pct=0.25), tmp_path / "page.html"))["start"]
    assert (start["head_dim"], start["dim"]) == (64, 16)


def test_rates_that_no_control_can_say_are_handed_over_as_they_are(tmp_path: Path, config: Callable[..., str]) -> None:
    factors = np.linspace(1, 4, 32).tolist()
    scaling = {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": factors,
        "long_factor": factors,
        "original_max_position_embeddings": 4096,
    }
    path = config(model_type="phi3", rope_scaling=scaling, max_position_embeddings=16_384)
    file = data(explore(path, tmp_path / "page.html"))["file"]
    np.testing.assert_allclose(np.array(file["plain"]) / file["rates"], factors, rtol=1e-12)
    np.testing.assert_allclose(file["plain"], Geometric().inv_freq(64), rtol=1e-12)


def test_the_other_encodings_are_the_librarys(tmp_path: Path) -> None:
    shown = data(explore("rope", tmp_path / "page.html"))
    codes = Sinusoidal(dim=32).codes(torch.arange(64))
    np.testing.assert_allclose(shown["codes"]["Sinusoidal"]["values"], codes, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(shown["curves"]["ALiBi"]["values"][:5], [0, -0.25, -0.5, -0.75, -1], rtol=1e-5)
    assert np.shape(shown["mixed"]) == (4, MixedRoPE(64, num_heads=4).rates.shape[-1], 2)


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (explore("rope", tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_what_a_file_calls_itself_cannot_leave_its_place(tmp_path: Path, config: Callable[..., str]) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    folder = tmp_path / "<img src=x>"
    folder.mkdir()
    target = folder / "config.json"
    factors = [1.0] * 32
    scaling = {"rope_type": "longrope", "factor": 4.0, "short_factor": factors, "long_factor": factors}
    keys = {"model_type": "phi3", "rope_scaling": scaling | {"original_max_position_embeddings": 4096}}
    target.write_text(json.dumps(CONFIG | keys | {"_name_or_path": hostile}))
    page = explore(str(target), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "&lt;img src=x&gt;, phi3</h1>" in page  # the name of the folder, and of the model type


@pytest.mark.parametrize(
    ("target", "out", "message"),
    [
        ("alibi", "page.html", "rotates by one position"),
        ("ropee", "page.html", "rope"),
        ("rope", "page.txt", r"ends in \.html"),
    ],
)
def test_what_cannot_be_explored_is_refused_and_nothing_is_written(
    tmp_path: Path, target: str, out: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explore(target, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_rotation_is_refused_by_what_it_has(tmp_path: Path, config: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"no layers that rotate.*ALiBi"):
        explore(config(model_type="bloom", n_head=4, n_layer=2), tmp_path / "page.html")
