"""What the command line calls an encoding."""

from pathlib import Path

import pytest

import posenc
from posenc.lab.compare.text.presets import ROAD
from posenc.lab.encodings.spec import parse

MINE = """
import posenc
import torch

class Mine(posenc.EmbeddingEncoding):
    def __init__(self, dim, *, length, width=2):
        super().__init__()
        self.dim, self.length, self.width = dim, length, width

    def codes(self, positions):
        return torch.full((*positions.shape, self.dim), float(self.width))

class NotAnEncoding:
    pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", ROAD)
def test_every_encoding_of_the_road_builds_with_the_sizes_of_the_model_alone(name: str) -> None:
    encoding = parse(name).build(dim=32, num_heads=4, length=64)
    assert type(encoding) is parse(name).load()


def test_the_trained_length_goes_to_constructors_that_ask_for_one_and_were_not_given_it() -> None:
    assert parse("learned").build(dim=8, num_heads=2, length=64).max_positions == 64
    assert parse("learned:length=100").build(dim=8, num_heads=2, length=64).max_positions == 100


def test_options_are_numbers_words_and_objects_of_posenc() -> None:
    spec = parse("rope:frequencies=Geometric(base=500000),pairing=interleaved,rotary_dim=8")
    rope = spec.build(dim=64, num_heads=4, length=16)
    assert isinstance(rope, posenc.RoPE)
    assert (rope.frequencies, rope.pairing, rope.rotary_dim) == (posenc.Geometric(base=500_000), "interleaved", 8)


def test_a_class_of_ones_own_is_built_from_its_file(mine: Path) -> None:
    spec = parse(f"{mine}:Mine:width=3")
    encoding = spec.build(dim=8, num_heads=2, length=5)
    assert (encoding.dim, encoding.length, encoding.width) == (8, 5, 3)
    assert spec.label == "Mine-width=3"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("rope", "rope"),
        ("rope:pairing=interleaved", "rope-pairing=interleaved"),
        ("rope:pairing=half,rotary_dim=4", "rope-pairing=half-rotary_dim=4"),
        ("rope:frequencies=Geometric(base=1e6)", "rope-frequencies=Geometric-base=1e6"),
    ],
)
def test_a_label_is_fit_for_a_file_name(text: str, label: str) -> None:
    assert parse(text).label == label


def test_a_long_label_still_names_a_folder_and_one_encoding() -> None:
    """The folder of a run was made before that of a trial failed: "File name too long"."""
    one, other = (parse(f"rope:frequencies=Custom([{'0.5,' * 80}{last}])").label for last in (0.25, 0.125))
    assert max(len(one), len(other)) < 100
    assert one.startswith("rope-frequencies=Custom--0.5-")
    assert one != other


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'rope'"):
        parse("roep")


def test_an_unknown_class_is_refused_with_the_nearest_of_its_file(mine: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'Mine'"):
        parse(f"{mine}:Mien").load()


def test_a_class_that_is_no_encoding_is_refused(mine: Path) -> None:
    with pytest.raises(TypeError, match="expected a subclass of posenc"):
        parse(f"{mine}:NotAnEncoding").load()


def test_a_file_without_a_class_a_missing_one_and_one_that_does_not_run_are_refused(mine: Path) -> None:
    with pytest.raises(ValueError, match=r"the name of the class in .*mine\.py"):
        parse(str(mine))
    with pytest.raises(FileNotFoundError, match=r"no file theirs\.py"):
        parse("theirs.py:Mine")
    mine.write_text("import nowhere_to_be_found")
    with pytest.raises(ValueError, match="fails when it is imported: ModuleNotFoundError"):
        parse(f"{mine}:Mine").load()


@pytest.mark.parametrize("options", ["rope:interleaved", "rope:pairing=", "rope:**x", "rope:pairing=half) + (1"])
def test_options_that_are_no_keyword_arguments_are_refused(options: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        parse(options)


@pytest.mark.parametrize("options", ["rope:frequencies=open(x=1)", "rope:frequencies=a.b", "rope:rotary_dim=1+1"])
def test_options_run_no_code(options: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        parse(options)


def test_an_option_that_the_class_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="got base=3, expected frequencies"):
        parse("rope:base=3").build(dim=8, num_heads=2, length=4)


@pytest.mark.parametrize(
    "rule",
    [
        "Geometric", "geometric", "Linear(factor=4)", "Linear(4)", "NTK(2)", "NTKAlpha(2)", "NTKMixed(2,0.625)",
        "YaRN(4,trained_length=64)",
        "DynamicNTK(2,trained_length=64)", "Llama3(8,trained_length=64)", "Proportional(0.5)",
        "LearnedRates(Geometric())",
        f"LongRoPE({[1] * 16},{[2] * 16},trained_length=64,factor=2)", f"Custom({[1] * 16})", "Tensor2Tensor",
        "RIFLEx(2,50)", "Linspaced(0,1)", "Logspaced(1,100)", "Turns(Geometric(100))",
    ],
)  # fmt: skip
def test_every_rule_can_be_named(rule: str) -> None:
    encoding = parse(f"rope:frequencies={rule}").build(dim=64, num_heads=2, length=64)
    assert type(encoding.frequencies).__name__.lower() == rule.split("(")[0].lower()


def test_each_axis_may_have_a_rule_and_a_width() -> None:
    encoding = parse("axial:axes=(8,24),layout=interleaved,frequencies=(geometric,NTK(2))").build(
        dim=64, num_heads=2, length=64
    )
    assert encoding.axes == (8, 24)
    assert [type(rule).__name__ for rule in encoding.frequencies] == ["Geometric", "NTK"]
    with pytest.raises(ValueError, match=r"such as axes=\(12, 10, 10\)"):
        parse("axial:axes=3").build(dim=64, num_heads=2, length=64)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("yarn", r"YaRN cannot be built from these arguments .* expected YaRN\(factor=\.\.\."),
        ("yarm", r"there is no rule 'yarm', .*; did you mean YaRN\?"),
        ("Linear(facto=4)", r"Linear cannot be built from these arguments .* expected Linear\(factor=\.\.\."),
        ("Ropy(3)", "posenc has no 'Ropy'"),
    ],
)
def test_a_rule_that_cannot_be_made_is_refused(rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(f"rope:frequencies={rule}")
