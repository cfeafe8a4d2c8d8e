"""``posenc show`` draws real files, and what it draws is true."""

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

import posenc
from posenc.lab.encodings import grid_pictures, pictures
from posenc.lab.encodings.show import drawing, show
from posenc.lab.encodings.spec import parse

GOLDEN = Path(__file__).parents[2] / "golden"


def shown(spec: str, width: int = 90, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(spec, console=console, **options)  # type: ignore[arg-type]
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


SPECS = {"mrope": "mrope:sections=(4,6,6)", "temperature": "temperature:form=llama4,length=64"}


@pytest.mark.parametrize("name", [name for name in posenc.names() if name != "none"])
def test_an_encoding_is_drawn_in_the_terminal_with_its_facts(name: str) -> None:
    text = shown(SPECS.get(name, name))
    for word in ("place", "formula", "paper", "positions"):
        assert word in text
    # A fresh CoPE adds nothing.
    assert any(shade in text for shade in "\u2592\u2593\u2588") or name == "cope" or "nothing to draw" in text
    assert all(len(line) <= 90 for line in text.splitlines())


def test_learned_has_as_many_positions_as_it_is_given() -> None:
    assert "40, 0 to 39" in shown("learned", length=40)


@pytest.mark.parametrize(
    ("spec", "length", "said"),
    [
        ("rope", 128, "rows for 16 of 128 positions, a column for each channel (0 to 31)"),
        ("rope", 10, "a row for each position, a column"),
        ("rope", 10, "a query of ones after the encoding"),
        ("sinusoidal", 128, "what is added to an embedding"),
        ("sinusoidal", 128, "columns for 96 of 128 channels (0 to 127)"),
        ("alibi", 128, "rows for 16 of 128 distances, a column for each head (0 to 3)"),
        ("t5", 128, "what is added to the score of a query and a key so far before it"),
        ("cope", 128, "among words that are all alike"),
        ("swin", 128, "the score of a query there and the key at 0"),
    ],
)
def test_the_caption_says_what_rows_columns_and_numbers_are(spec: str, length: int, said: str) -> None:
    assert said in shown(spec, width=400, length=length)


def test_nothing_to_draw_is_said_and_no_file_is_made(tmp_path: Path) -> None:
    assert "nothing to draw" in shown("none")
    with pytest.raises(ValueError, match="nothing to draw"):
        shown("none", output=tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "rope.png"
    assert f"Drawn: {path}" in shown("rope", output=path, width=300)
    pixels = imread(path)
    assert pixels.shape[0] > 1000
    assert pixels.shape[1] > 1000
    assert float(pixels[..., :3].std()) > 0.05


def test_an_svg_stands_alone_and_takes_the_theme_of_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "sinusoidal.svg"
    shown("sinusoidal", output=path)
    text = path.read_text()
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in text
    assert "currentColor" in text
    assert "#1c1d1f" not in text.replace("color:#1c1d1f;font-family", "")  # no ink that would vanish on black
    targets = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert targets
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": Path("rope.gif")}, "ends in .png, .svg or .pdf"),
        ({"length": 1}, "at least 2 positions"),
        ({"dim": 30, "heads": 4}, "multiple of the number of heads"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shown("rope", **options)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'rope'"):
        shown("ropes")


def test_the_drawing_is_darker_where_the_value_is_larger() -> None:
    lines, low, high = drawing(np.array([[0.0, 1.0], [0.5, 0.0]]), width=2, height=2)
    assert (lines, low, high) == (["     0   \u2588", "     1  \u2592 "], 0, 1)
    lines, low, high = drawing(np.full((3, 1), 7.0), width=1, height=3)
    assert (lines, low, high) == (["     0   ", "     1   ", "     2   "], 7, 7)


def test_a_large_value_between_the_rows_that_are_drawn_hides_none_of_them() -> None:
    lines, low, high = drawing(np.array([[0.0], [1000.0], [1.0]]), width=1, height=2)
    assert (lines, low, high) == (["     0   ", "     2  \u2588"], 0, 1)


def test_the_drawing_of_a_spec_is_the_same_each_time_and_leaves_the_seed_of_its_caller() -> None:
    torch.manual_seed(1)
    first = shown("shaw")
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn
    assert shown("shaw") == first


# The decay of RoPE, in three forms


def test_aligned_vectors_decay_and_gaussian_ones_do_not() -> None:
    curves = pictures.decay_curves(posenc.RoPE(head_dim=64), dim=64, num_heads=1)
    assert curves["aligned"][0] == pytest.approx(1)
    assert np.abs(curves["aligned"][-128:]).mean() < 0.5
    assert np.abs(curves["gaussian_mean"]).max() < 5 / 256**0.5
    assert curves["gaussian_std"].min() > 0.75
    assert curves["gaussian_std"].max() < 1.25


def test_the_aligned_curve_is_the_mean_of_the_cosines() -> None:
    rope = posenc.RoPE(head_dim=16)
    curves = pictures.decay_curves(rope, dim=16, num_heads=1, reach=40)
    expected = np.cos(np.outer(np.arange(41), rope.frequencies.inv_freq(16))).mean(axis=1)
    np.testing.assert_allclose(curves["aligned"], expected, atol=1e-12)


def test_the_bound_is_that_of_the_roformer_paper() -> None:
    rows = json.loads((GOLDEN / "roformer_decay.json").read_text())["values"]
    curves = pictures.decay_curves(posenc.RoPE(head_dim=128), dim=128, num_heads=1, reach=1000, samples=2)
    for row in rows:
        assert 32.5 * curves["bound"][row["distance"]] == pytest.approx(float(row["mean"]), rel=1e-9)


def test_titles_are_drawn_from_the_numbers() -> None:
    titles = {
        name: [picture.title for picture in pictures.pictures_of(encoding, dim=32, num_heads=4, length=64)]
        for name, encoding in (
            ("integer", posenc.Integer(dim=32)),
            ("rope", posenc.RoPE(head_dim=8)),
            ("alibi", posenc.ALiBi(num_heads=4)),
        )
    }
    assert titles["integer"][0] == "Codes: all channels have the same value"
    assert "so they also depend on the positions" in titles["integer"][1]
    assert "Rotation: the first pair turns 57.3\u00b0 a token, the last 0.057\u00b0" in titles["rope"]
    assert "Dot products: they depend on the distance of two tokens alone" in titles["rope"]
    assert "straight penalty" in titles["alibi"][0]
    assert "same along every diagonal" in titles["alibi"][1]


def test_the_gaussian_curve_of_magnitudes_starts_at_its_size() -> None:
    curves = pictures.decay_curves(posenc.PoPE(head_dim=16, num_heads=1), dim=16, num_heads=1, reach=3)
    mean, std = curves["gaussian_mean"][0], curves["gaussian_std"][0]
    assert mean > 0
    assert mean**2 + std**2 == pytest.approx(1)


def test_what_starts_at_zero_is_drawn_with_random_parameters_and_says_so() -> None:
    console = Console(file=io.StringIO(), width=160)
    show("cope", console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "start at zero; the drawing uses random values" in said
    assert pictures.visible(pope := posenc.PoPE(head_dim=8, num_heads=2)) is pope  # which shows without its phases
    cope = posenc.make("cope", dim=32, num_heads=2)
    assert any(parameter.any() for parameter in pictures.visible(cope).parameters())
    assert not any(parameter.any() for parameter in cope.parameters())
    show("learned", console=console)
    assert "before any training" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_rates_of_a_grid_are_those_of_one_coordinate() -> None:
    axial = posenc.make("axial", dim=64, num_heads=2)
    rates = pictures.rates(axial)
    assert rates is not None
    assert len(rates) == axial.rotary_dim // axial.axes // 2


def test_what_a_run_has_trained_is_drawn(prepare, finish_trial) -> None:
    run = prepare("learned", "rope")
    assert finish_trial(run / "learned-seed0").status == "done"
    before, after = shown("learned", dim=16, heads=2, length=8), shown("learned", width=300, run=run)
    assert "before any training" in before
    assert f"its 128 parameters are those of {run}" in after
    assert before.splitlines()[-3:] != after.splitlines()[-3:]
    with pytest.raises(ValueError, match="has not trained 'alibi', expected one of learned; train it"):
        shown("alibi", run=run)
    with pytest.raises(ValueError, match="has not trained 'rope'"):  # it is not done
        shown("rope", run=run)


# Encodings of grids


@pytest.mark.parametrize(
    ("spec", "first", "second"),
    [
        ("sinusoidal_grid", "most similar in the same row and column", "each follows the rows or the columns"),
        ("fourier", "more similar the nearer, in every direction", "waves in many directions"),
        ("learned_grid", "no other is similar", "each patch has its own value"),
        ("levit", "the same to the left and to the right", "4 heads"),
        ("swin:window=(6,9),prefix=1", "a number for each offset", "4 heads"),
        ("decomposed", "a number for the row, plus one for the column", "4 heads"),
    ],
)
def test_an_encoding_of_a_grid_is_drawn_as_maps(spec: str, first: str, second: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoding = parse(spec).build(dim=64, num_heads=4, length=64)
    titles = [picture.title for picture in pictures.pictures_of(encoding, dim=64, num_heads=4, length=64)]
    assert len(titles) == 2
    assert first in titles[0]
    assert second in titles[1]
    shown(spec, output=tmp_path / "grid.svg")
    assert ET.fromstring((tmp_path / "grid.svg").read_text()).tag.endswith("svg")


def test_the_map_is_of_the_place_in_the_middle() -> None:
    encoding = posenc.scores.SwinBias(num_heads=2, window=(3, 5), prefix=1)
    bias = encoding.bias(torch.tensor([8]), torch.arange(1, 16)).detach().view(2, 3, 5).numpy()
    drawn = grid_pictures._bias_from_the_middle(encoding, (3, 5), dim=8, num_heads=2)
    np.testing.assert_allclose(drawn, bias, rtol=1e-6)


def test_a_video_is_drawn_by_its_first_frame() -> None:
    video = posenc.embeddings.SinusoidalGrid.as_in("cogvideox", 64)
    codes = grid_pictures._codes(video)
    assert codes is not None
    assert codes.shape == (16, 16, 64)
    assert not codes[..., :8].any()  # the sines of time 0


def test_pairs_that_turn_at_many_rates_have_no_wavelength_drawn() -> None:
    fope = posenc.FoPE(head_dim=16, num_heads=2, trained_length=64)
    assert pictures.rates(fope) is None
    assert pictures.rates(posenc.RoPE(16)) is not None
    titles = [picture.title for picture in pictures.pictures_of(fope, dim=32, num_heads=2, length=64)]
    assert not any("Wavelengths" in title or "Rotation" in title for title in titles), titles
