"""Translation, summarisation and retrieval: their data, their model, and how what is written is scored."""

import dataclasses
import hashlib
from importlib import resources

import numpy as np
import pytest
import torch

import posenc
from posenc.lab.compare.find_task import find
from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks import retrieval, summarisation, translation
from posenc.lab.compare.tasks.shared.sequences import END, EncoderDecoder, Pairs, padded
from posenc.lab.compare.tasks.shared.text_scores import chrf, rouge_l

SMALL = Sizes(dim=16, num_heads=2, num_layers=2, length=8)


@pytest.mark.parametrize(
    ("written", "wanted", "value"),  # by sacrebleu 2.6.0
    [
        ("Y dijo David á su hijo: ¿Quién eres?", "Y dijo David al mancebo: ¿Quién eres tú?", 57.2824785758748),
        ("En el principio", "EN el principio crió Dios los cielos", 35.59758800156988),
        ("", "Amén.", 0.0),
    ],
)
def test_chrf_is_that_of_sacrebleu(written: str, wanted: str, value: float) -> None:
    assert chrf([written], [wanted]) == pytest.approx(value, abs=1e-9)


def test_chrf_of_a_corpus_counts_all_runs_together() -> None:
    written = ["Y dijo David á su hijo: ¿Quién eres?", "En el principio", "", "a"]
    wanted = [
        "Y dijo David al mancebo: ¿Quién eres tú?", "EN el principio crió Dios los cielos", "Amén.",
        "Respondió Rut y dijo",
    ]  # fmt: skip
    assert chrf(written, wanted) == pytest.approx(37.86643870700736, abs=1e-9)  # by sacrebleu 2.6.0


@pytest.mark.parametrize(
    ("written", "wanted", "value"),  # by rouge-score 0.1.2, without its stemmer
    [
        ("Return the sorted array of values.", "Return a sorted copy of the array.", 46.15384615384615),
        ("Compute x_2 of the graph", "Compute the x_2 index of a graph.", 71.42857142857143),
        ("the the the cat", "the cat sat", 57.14285714285714),
        ("", "Amen.", 0.0),
    ],
)
def test_rouge_l_is_that_of_rouge_score(written: str, wanted: str, value: float) -> None:
    assert rouge_l([written], [wanted]) == pytest.approx(value, abs=1e-9)
    assert rouge_l([written, wanted], [wanted, wanted]) == pytest.approx((value + 100) / 2, abs=1e-9)


def test_what_ships_is_what_its_provenance_says_and_small() -> None:
    folder = resources.files("posenc.lab") / "data"
    said = (folder / "PROVENANCE.md").read_text()
    for name in ("verses.tsv.gz", "docstrings.tsv.gz", "digits.csv.gz"):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() in said, name


def test_verses_stand_beside_their_translation_and_held_out_books_are_not_trained_on() -> None:
    pieces, train, held = translation.verses()
    assert (len(train.texts), len(held.texts)) == (14728, 779)
    assert train.texts[0] == (
        "In the beginning God created the heaven and the earth.", "EN el principio crió Dios los cielos y la tierra.",
    )  # fmt: skip
    assert not set(train.texts) & set(held.texts)
    assert all(
        pieces.decode(tokens) == text for tokens, (text, _) in zip(train.sources, train.texts[:50], strict=False)
    )
    lengths = np.array([[len(text) for text in pair] for pair in train.texts])
    assert np.corrcoef(lengths.T)[0, 1] > 0.75
    assert np.corrcoef(lengths[1:, 0], lengths[:-1, 1])[0, 1] < 0.3  # beside the verse before


def test_documents_are_the_same_at_every_size_and_their_lines_are_held_out() -> None:
    _, train, held = summarisation.docstrings()
    assert not {line for _, line in train.texts} & {line for _, line in held.texts}
    task = summarisation.Summarisation()
    sizes = dataclasses.replace(task.sizes, length=16)
    asked = dict(task.questions(sizes))
    assert list(asked) == ["16 tokens", "32 tokens", "64 tokens"]
    for size, pairs in asked.items():
        assert {len(source) for source in pairs.sources} == {int(size.split()[0])}
        assert pairs.targets == asked["16 tokens"].targets
    with pytest.raises(ValueError, match="--length: got 4000, expected a smaller length"):
        next(task.questions(dataclasses.replace(sizes, length=4000)))


def model(spec: str = "rope") -> EncoderDecoder:
    torch.manual_seed(0)
    return EncoderDecoder(spec, SMALL, 40, (8, 9)).eval().requires_grad_(False)


@pytest.mark.parametrize("spec", ["none", "sinusoidal", "learned", "rope", "alibi", "t5"])
def test_what_is_written_token_by_token_is_what_a_whole_pass_finds_likeliest(spec: str) -> None:
    sources = [[3, 4, 5], [6, 7, 8, 9, 10]]
    network = model(spec)
    written = network.write(sources, 6)
    source, mask = padded(sources)
    shifted = torch.tensor([[END, *row[:-1]] for row in written])
    whole = network.logits(shifted, network.read(source, mask), mask).argmax(-1)
    assert torch.equal(whole, torch.tensor(written))


def test_padding_changes_no_loss_and_the_end_is_a_token_too() -> None:
    network = model()
    one, other = Pairs([[3, 4, 5]], [[6, 7]], []), Pairs([[6, 7, 8, 9, 10]], [[3, 4, 5, 6]], [])
    both = Pairs(one.sources + other.sources, one.targets + other.targets, [])
    apart = torch.cat((network.losses(one), network.losses(other)))
    assert len(apart) == 3 + 5
    torch.testing.assert_close(network.losses(both), apart)


def test_a_look_is_a_share_of_the_source_for_each_token_of_the_target() -> None:
    looks = model().looks([3, 4, 5, 6], [7, 8, 9])
    assert looks.shape == (3, 4)
    torch.testing.assert_close(looks.sum(1), torch.ones(3))


def test_past_a_table_the_measurement_says_so() -> None:
    task = find("translation")
    sizes = dataclasses.replace(task.sizes, dim=16, num_heads=2, num_layers=1)
    network = task.model("learned", sizes).eval().requires_grad_(False)
    near, _, far, *_ = task.measure(network, "learned", sizes)
    assert near.value is not None
    assert far.value is None
    assert "past its table of 32" in far.note


def test_each_key_of_a_list_stands_there_once_and_its_value_is_asked_for() -> None:
    for pairs in (3, 20):
        tokens, asked = retrieval.lists(pairs, 50, np.random.default_rng(0))
        keys, values = tokens[:, : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2]
        for row in range(50):
            assert len(set(keys[row].tolist())) == pairs
            value_of = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
            questions, answers = tokens[row, 2 * pairs :: 2].tolist(), tokens[row, 2 * pairs + 1 :: 2].tolist()
            assert len(questions) == retrieval.ASKED
            assert len(set(questions[:pairs])) == min(pairs, retrieval.ASKED)  # all once before one comes again
            assert [value_of[key] for key in questions] == answers
            assert keys[row, asked[row]].tolist() == questions


def test_depth_is_where_in_the_list_a_key_stands() -> None:
    class Late(torch.nn.Module):
        """Knows the values of the last half of the list."""

        max_positions = None

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            pairs = tokens.shape[1] // 2 - retrieval.ASKED
            keys, values = tokens[:, 0 : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2]
            asked = tokens[:, 2 * pairs :: 2]
            place = (asked[:, :, None] == keys[:, None]).long().argmax(-1)
            said = torch.where(place >= pairs // 2, values.gather(1, place) - retrieval.KEYS, -1) % retrieval.VALUES
            wrong = (said + 1) % retrieval.VALUES
            return torch.nn.functional.one_hot(torch.where(place >= pairs // 2, said, wrong), retrieval.VALUES).float()

    found = retrieval.found(Late(), 16)  # type: ignore[arg-type]
    assert found is not None
    assert found[2:].tolist() == [100, 100]
    assert found[:2].max() < 15


def test_t5_tells_both_sides_apart_where_the_model_reads_both() -> None:
    network = model("t5")
    sides = [
        next(x for x in part.modules() if isinstance(x, posenc.T5Bias)) for part in (network.encoder, network.decoder)
    ]
    assert [side.direction for side in sides] == ["both", "causal"]
    with pytest.raises(ValueError, match="T5Bias, which is defined only for keys at or before"):
        model("t5:direction=causal").write([[3, 4, 5]], 2)
