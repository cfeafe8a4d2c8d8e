"""The tasks on images: the digits, the numbers of patches, the tables, the classifier that reads samples."""

import dataclasses

import pytest
import torch
from matplotlib.figure import Figure
from tests.lab.compare.trained import train

import posenc
from posenc.lab.compare.find_task import find
from posenc.lab.compare.tasks import generation, images
from posenc.lab.compare.tasks.shared import patches
from posenc.lab.compare.tasks.shared.patches import NUMBERS, TABLES, Where
from posenc.lab.compare.train import Training
from posenc.lab.drawing import plots


def test_the_digits_are_those_of_the_file_and_every_fifth_is_for_the_test() -> None:
    pictures, labels = patches.digits()
    assert (tuple(pictures.shape), labels.bincount().tolist()) == (
        (1797, 8, 8), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180],
    )  # fmt: skip
    assert (pictures.min(), pictures.max()) == (-1, 1)
    (seen, _), (unseen, answers) = patches.split()
    assert (len(seen), len(unseen)) == (1438, 359)
    assert torch.equal(unseen[1], pictures[9])
    assert answers.bincount().min() > 20


def test_an_image_is_put_together_from_its_patches() -> None:
    image = torch.arange(2 * 4 * 6.0).view(2, 4, 6)
    cut = patches.patched(image, 2)
    assert cut.shape == (2, 6, 4)
    assert cut[0, 1].tolist() == [2, 3, 8, 9]
    assert torch.equal(patches.joined(cut, 4, 6, 2), image)


def test_numbers_by_rule() -> None:
    at = {rule: patches.numbers(8, 4, 4, rule)[0] for rule in NUMBERS}
    assert at["raw"].amax(0).tolist() == [7, 3]
    assert at["fitted"].amax(0).tolist() == [3, 3]
    assert at["fitted"].amin(0).tolist() == [0, 0]
    # Two patches stand where one was, at a quarter and three quarters of it.
    assert at["centred"][:, 0].unique().tolist() == [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]
    for rule in NUMBERS:
        assert torch.equal(patches.numbers(4, 4, 4, rule), posenc.positions.grid(4, 4).double())


@pytest.mark.parametrize(
    ("spec", "rules"),
    [("none", ("",)), ("sinusoidal", ("",)), ("rope", ("",)), ("learned", TABLES), ("sincos", NUMBERS),
     ("axial", NUMBERS), ("axial:layout=interleaved", NUMBERS), ("mixed", NUMBERS)],
)  # fmt: skip
def test_every_rule_is_the_same_at_the_trained_size_and_differs_past_it(spec: str, rules: tuple[str, ...]) -> None:
    task = find("images")
    model = Training(task, spec, dataclasses.replace(task.sizes, dim=16, num_heads=2), 0).model.eval()
    assert isinstance(model, images.ViT)
    assert model.where.rules == rules
    (shown, _), _ = patches.split()
    trained, larger = (
        [model(patches.resized(shown[:2], side, side), rule) for rule in rules] for side in (8, 16)
    )  # fmt: skip
    for logits in trained[1:]:
        torch.testing.assert_close(logits, trained[0])
    for index, logits in enumerate(larger[1:]):
        assert not torch.allclose(logits, larger[index])


def test_only_without_an_encoding_is_an_image_a_bag_of_patches() -> None:
    task = find("images")
    (shown, _), _ = patches.split()
    turned = shown[:4].flip(1)
    cut = patches.patched(shown[:4], 2)
    mixed_up = patches.joined(cut[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))], 8, 8, 2)
    for spec in task.encodings:
        model = Training(task, spec, dataclasses.replace(task.sizes, dim=32), 0).model.eval()
        same = torch.allclose(model(shown[:4]), model(mixed_up), atol=1e-5)
        assert same == (spec == "none")
        assert not torch.allclose(model(shown[:4]), model(turned), atol=1e-5)


def test_a_table_is_stretched_in_two_dimensions() -> None:
    where = Where("learned", dim=8, num_heads=1, side=4)
    assert isinstance(where.code, torch.nn.Module)
    ramp = torch.arange(4.0)[:, None].expand(4, 4).reshape(16, 1).expand(16, 8)
    with torch.no_grad():
        next(where.code.parameters()).copy_(ramp)
    wide, _ = where(torch.zeros(1, 32, 8), 4, 8, "bicubic")
    torch.testing.assert_close(wide[0].view(4, 8, 8), ramp.view(4, 4, 8)[:, :1].expand(4, 8, 8))
    mixed_up, _ = where(torch.zeros(1, 32, 8), 4, 8, "in one dimension")
    assert not torch.allclose(mixed_up, wide)


def test_the_distance_is_that_of_two_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(5000, 3, generator=generator)
    assert generation.frechet(one, one) == pytest.approx(0, abs=1e-9)
    # N(0, 1) and N(2, 3): (mean difference)^2 + (difference of standard deviations)^2, in each of three directions.
    other = 2 + 3 * torch.randn(5000, 3, generator=generator)
    assert generation.frechet(one, other) == pytest.approx(3 * (2**2 + 2**2), rel=0.05)
    assert generation.frechet(one, other) == pytest.approx(generation.frechet(other, one))


def test_the_judge_reads_digits_it_never_saw_and_sees_noise_as_far() -> None:
    features, classifier = generation.judge()
    (_, _), (unseen, answers) = patches.split()
    assert (classifier(unseen).argmax(-1) == answers).double().mean() > 0.94
    noise = torch.randn(200, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    near, far = (
        generation.frechet(features(unseen[::2]), features(unseen[1::2])),
        generation.frechet(features(noise), features(unseen)),
    )
    assert far > 10 * near


def test_samples_depend_on_the_digit_and_on_nothing_that_was_drawn_before() -> None:
    task = find("generation")
    sizes = dataclasses.replace(task.sizes, dim=16, num_heads=2, num_layers=1, steps=30, batch=8)
    model = train(task, "axial", sizes, 0)
    assert isinstance(model, generation.DiT)
    threes = torch.full((2,), 3)
    first = generation.drawn(model, threes, 8, 8, "raw")
    torch.rand(3)
    assert torch.equal(generation.drawn(model, threes, 8, 8, "fitted"), first)
    assert not torch.equal(generation.drawn(model, threes + 1, 8, 8, "raw"), first)
    assert generation.drawn(model, threes, 12, 16, "raw").shape == (2, 12, 16)


@pytest.mark.parametrize("name", ["images", "generation"])
def test_the_pictures_are_drawn_from_what_is_kept(name: str) -> None:
    task = find(name)
    sizes = dataclasses.replace(task.sizes, dim=16, num_heads=2, num_layers=1, steps=1, batch=2)
    shown = {spec: task.show(train(task, spec, sizes, 0), spec, sizes) for spec in ("none", "sincos")}
    pictures = task.pictures(shown)
    assert [picture.name for picture in pictures] == (
        ["rules"] if name == "images" else ["samples none", "samples sincos"]
    )
    for picture in pictures:
        text = plots.svg(picture)
        if name == "generation":  # ten digits: 8x8 twice, 12x12 and 16x16 under each rule
            rules = 3 if "sincos" in picture.name else 1
            assert text.count("<image") == 10 * (2 + 2 * rules)
        else:
            assert all(rule in text for rule in NUMBERS)


def test_a_code_of_two_coordinates_is_given_rows_and_columns() -> None:
    for spec in ("sincos", "sinusoidal_grid:layout=interleaved,frequencies=Geometric(base=100)"):
        where = Where(spec, dim=8, num_heads=1, side=4)
        assert where.rules == patches.NUMBERS
        x = torch.zeros(1, 15, 8)
        assert where.code is not None
        expected = where.code.on_embeddings(x, patches.numbers(3, 5, 4, "fitted"))
        assert torch.equal(where(x, 3, 5, "fitted")[0], expected)
        assert not torch.equal(expected, where.code.on_embeddings(x))


def test_a_table_of_another_grid_is_refused() -> None:
    assert Where("learned_grid:grid=(4,4)", dim=8, num_heads=1, side=4).rules == patches.TABLES
    with pytest.raises(ValueError, match=r"got a table for 14 x 14 patches, expected 4 x 4; give grid=\(4,4\)"):
        Where("learned_grid", dim=8, num_heads=1, side=4)


def test_pictures_have_one_order_whatever_the_order_of_the_tensors_in_a_file() -> None:
    """safetensors gives the tensors of a file in another order at each call."""
    axes = Figure().add_subplot()
    one = torch.tensor(50.0)
    (picture,) = images.Images().pictures({"axial": dict.fromkeys(("centred", "raw", "fitted"), one)})
    picture.draw(axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["raw", "fitted", "centred"]
    samples = dict.fromkeys(("16x16, fitted", "12x12, raw", "8x8", "12x12, fitted"), torch.zeros(10, 8, 8))
    (picture,) = generation.Generation().pictures({"axial": samples})
    axes.clear()
    picture.draw(axes)
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["8x8", "12x12, raw", "12x12, fitted", "16x16, fitted"]
