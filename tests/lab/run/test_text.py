"""Text and vocabularies."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from posenc.lab.run import text
from posenc.lab.run.text import Document


def test_the_novels_ship_inside_the_package_as_their_provenance_says() -> None:
    corpus = text.shipped()
    provenance = (Path(text.__file__).parents[1] / "data" / "PROVENANCE.md").read_text()
    for document in (*corpus.train, *corpus.validation):
        assert f"{hashlib.sha256(document.text.encode()).hexdigest()}  {document.name}" in provenance
    assert [document.name for document in corpus.validation] == ["persuasion.txt"]


def test_the_last_tenth_of_a_users_text_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("abcdefghij" * 10)
    corpus = text.from_files([path])
    assert corpus.train[0].text + corpus.validation[0].text == path.read_text()
    assert len(corpus.validation[0].text) == 10


@pytest.mark.parametrize(
    ("data", "complaint"),
    [(b"", "empty"), (b" \n", "empty"), (b"\x7fELF\xff\xfe", "not UTF-8"), (b"a\0b" * 100, "is zero")],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=complaint):
        text.from_files([path])


def test_a_vocabulary_of_bytes_keeps_every_byte() -> None:
    vocabulary = text.make_vocabulary("bytes", ())
    tokens = vocabulary.encode([Document("a", "naïve"), Document("b", "b")])
    assert vocabulary.size == 256
    assert bytes(tokens) == "naïve\n\nb".encode()


def test_byte_pairs_are_learned_from_the_text_and_give_it_back() -> None:
    prose = Document("prose", "the cat and the dog and the naïve bird " * 50)
    vocabulary = text.make_vocabulary("270", [prose])
    tokens = vocabulary.encode([prose])
    assert vocabulary.size == 270
    assert len(tokens) < 0.7 * len(prose.text)
    assert int(np.max(tokens)) < 270
    assert vocabulary.tokenizer is not None
    assert tokenizers.Tokenizer.from_str(vocabulary.tokenizer).decode(tokens.tolist()) == prose.text


@pytest.mark.parametrize("wanted", ["256", "words", "-5"])
def test_other_vocabularies_are_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="at least 257"):
        text.make_vocabulary(wanted, ())


def test_a_text_shorter_than_the_window_is_refused() -> None:
    tokens = np.zeros(17, dtype=np.uint8)
    text.check_long_enough(tokens, tokens, length=16, longest=16)
    with pytest.raises(ValueError, match="validation part has 17 tokens, expected at least 18"):
        text.check_long_enough(tokens, tokens, length=16, longest=17)
    with pytest.raises(ValueError, match="training part has 17 tokens, expected at least 18"):
        text.check_long_enough(tokens, tokens, length=17, longest=16)
