"""Passages look for the documents that they are from, under an encoder whose table of positions ends."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from examples.long_documents import (
    METHODS,
    PACKAGE,
    Encoder,
    Score,
    draw,
    main,
    make_task,
    measure,
    open_encoder,
    score,
    shipped_tokens,
    table,
    wall,
)
from torch import Tensor
from torch.nn import functional as F

from posenc.lab.run.errors import RunError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

ROWS, WORDS = 64, 1000


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=ROWS,
    )
    return Encoder(transformers.BertModel(config).eval(), SimpleNamespace(cls_token_id=1, sep_token_id=2), ROWS)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(3, WORDS, size=8000))


class Bag(Encoder):
    """Knows which words are in a text, and nothing else: whoever sees the passage finds the document."""

    def __init__(self) -> None:
        super().__init__(None, None, ROWS)

    def encode(self, content: Tensor) -> Tensor:
        return F.normalize(F.one_hot(content, WORDS).sum(dim=1).float(), dim=-1)


def test_passages_are_where_they_are_said_to_be(tokens: Tensor) -> None:
    task = make_task(tokens, length=130, documents=20, passage=8, parts=4, draws=3, seed=1)
    assert task.documents.shape == (20, 128)
    assert task.queries.shape == (20 * 4 * 3, 8)
    for query, answer, place in zip(task.queries, task.answers, task.places, strict=True):
        part = task.documents[answer].view(4, 32)[place]
        assert any(torch.equal(part[at : at + 8], query) for at in range(25))
    starts = {tuple(row[:4].tolist()) for row in task.documents}
    assert len(starts) == 20


def test_vectors_have_length_one_and_see_the_special_tokens(tiny: Encoder, tokens: Tensor) -> None:
    content = tokens[: 3 * 10].view(3, 10)
    found = tiny.encode(content)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    with_special = torch.cat([torch.full((3, 1), 1), content, torch.full((3, 1), 2)], dim=1)
    with torch.no_grad():
        mean = tiny.model(with_special).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(found, F.normalize(mean, dim=-1))


def test_many_texts_at_once_are_the_same_as_one_by_one(
    tiny: Encoder, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tokens[: 7 * 20].view(7, 20)
    together = tiny.encode(content)
    monkeypatch.setattr("examples.long_documents.TOKENS_AT_ONCE", 50)
    torch.testing.assert_close(tiny.encode(content), together, atol=1e-6, rtol=1e-5)


def test_the_table_ends(tiny: Encoder) -> None:
    tiny.encode(torch.zeros(1, ROWS - 2, dtype=torch.long))
    assert "Error: " in wall(tiny)


def test_within_the_table_all_methods_are_one(tiny: Encoder, tokens: Tensor) -> None:
    found = score(tiny, make_task(tokens, length=ROWS, documents=10, passage=8))
    assert [one.method for one in found] == list(METHODS)
    for one in found:
        np.testing.assert_array_equal(one.ranks, found[0].ranks)


def test_past_the_table_the_beginning_answers_for_its_own_part_only(
    tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.long_documents._interpolated", lambda encoder, task: encoder.encode(task.documents))
    found = {one.method: one for one in score(Bag(), make_task(tokens, length=4 * ROWS - 6, documents=20, passage=8))}
    assert found["windows, best"].recall() > 0.9
    assert found["interpolate"].recall() > 0.9
    beginning = found["truncate"]
    assert beginning.recall(0) > 0.9
    assert max(beginning.recall(place) for place in (1, 2, 3)) < 0.3


def test_the_stretched_table_is_gone_afterwards(tiny: Encoder, tokens: Tensor) -> None:
    before = tiny.model.embeddings.position_embeddings.weight
    found = {one.method: one for one in score(tiny, make_task(tokens, length=2 * ROWS, documents=10, passage=8))}
    assert tiny.model.embeddings.position_embeddings.weight is before
    assert not np.array_equal(found["interpolate"].ranks, found["windows, mean"].ranks)


def test_ranks_become_figures() -> None:
    one = Score("truncate", 256, np.array([1, 2, 1, 4]), np.array([0, 0, 1, 1]), 2)
    assert (one.recall(), one.recall(0), one.mean_reciprocal_rank(1)) == (0.5, 0.5, 0.625)
    assert table([one]).splitlines()[-1] == "| 256 | truncate | 0.50 | 0.69 | 0.50 | 0.50 |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 512, "documents": 64}, "make 15 documents of 512, expected 64"),
        ({"length": 64, "passage": 16}, "parts of 15, expected at least a passage, 16"),
    ],
)
def test_tasks_that_cannot_be_made_are_refused(tokens: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        make_task(tokens, **options)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_it_is_drawn(tmp_path: Path, tiny: Encoder, tokens: Tensor, suffix: str) -> None:
    scores = measure(tiny, tokens, [ROWS // 2, ROWS, 2 * ROWS], documents=5, passage=4)
    path = tmp_path / f"drawn{suffix}"
    draw(scores, path, rows=ROWS)
    assert path.stat().st_size > 1000


def test_bad_input_is_one_sentence_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 1
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2}')
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path), "--plot", "drawn.jpeg"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = printed.err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.slow
def test_the_real_encoder_meets_its_wall_and_windows_pass_it() -> None:
    if importlib.util.find_spec(PACKAGE.replace("-", "_")) is None:
        pytest.skip(f"{PACKAGE}, the package with the real encoder, is not installed")
    real = open_encoder()
    assert real.rows == 512
    assert "513" in wall(real) or "index" in wall(real)
    found = {one.method: one for one in measure(real, shipped_tokens(real), [1024], documents=16, draws=1)}
    assert found["windows, best"].recall(3) > found["truncate"].recall(3) + 0.3
    assert found["interpolate"].recall(3) > found["truncate"].recall(3)
