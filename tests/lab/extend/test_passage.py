"""The text that is read."""

from pathlib import Path

import pytest

from posenc.lab.extend.passage import check_long_enough, documents, joined_lines, tokens
from posenc.lab.run.text import Document


class Letters:
    """A tokenizer with a token for each letter, that counts what it is given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, text: str, *, verbose: bool) -> dict[str, list[int]]:
        assert not verbose
        self.given.append(len(text))
        return {"input_ids": [ord(letter) for letter in text]}


def test_hard_line_breaks_are_joined_and_paragraphs_stay() -> None:
    assert joined_lines("a\nb\n\nc\nd\n\n\ne") == "a b\n\nc d\n\n\ne"
    texts, described = documents([])
    assert [part["name"] for part in described] == ["emma.txt", "pride_and_prejudice.txt", "persuasion.txt"]
    assert "\n\n" in texts[0].text
    assert max(len(line) for line in texts[0].text.splitlines()) > 200


def test_the_text_of_a_user_keeps_its_lines_and_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a\nb")
    texts, described = documents([path])
    assert texts[0].text == "a\nb"
    assert described[0]["path"] == str(path)


def test_the_first_tokens_are_taken_and_a_long_text_is_not_read_to_its_end() -> None:
    tokenizer = Letters()
    found = tokens([Document("long", "ab" * 50_000)], tokenizer, 10)
    assert found.tolist() == [97, 98] * 5
    assert max(tokenizer.given) < 1000
    assert len(tokens([Document("a", "abc"), Document("b", "de")], tokenizer, 3, more=100)) == 7  # two line breaks


def test_texts_too_short_are_refused_by_bytes_and_by_tokens() -> None:
    texts = [Document("short", "abc")]
    check_long_enough(texts, 3)
    with pytest.raises(ValueError, match=r"--text: the text has 3 bytes, expected at least 4 tokens; give more text"):
        check_long_enough(texts, 4)
    with pytest.raises(ValueError, match=r"the text has 3 tokens, expected at least 4 tokens"):
        tokens(texts, Letters(), 4)
