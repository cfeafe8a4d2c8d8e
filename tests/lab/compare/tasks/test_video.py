"""The task video: how its digits move, how their place is read, and what each rule changes."""

import dataclasses

import numpy as np
import pytest
import torch

from posenc.lab.compare.find_task import find
from posenc.lab.compare.tasks import video
from posenc.lab.compare.tasks.shared import patches
from posenc.lab.compare.train import Training
from posenc.lab.drawing import plots


def small(spec: str = "axial", **sizes: int) -> Training:
    task = find("video")
    options = {"dim": 32, "num_heads": 2, "num_layers": 1, "batch": 4, "steps": 3, **sizes}
    return Training(task, spec, dataclasses.replace(task.sizes, **options), 0)


def test_a_digit_moves_one_pixel_in_a_frame_and_comes_back_after_a_turn() -> None:
    images, _, _ = video.tested(2)
    starts, ways = torch.tensor([3, 14]), torch.tensor([1, 0])
    videos = video.moving(images, starts, ways, 17)
    assert torch.equal(videos[0, 0, :, 3:11], images[0])
    assert torch.equal(videos[0, 5, :, 8:16], images[0])
    assert torch.equal(videos[0, 1], videos[0, 0].roll(1, dims=-1))
    assert torch.equal(videos[1, 1], videos[1, 0].roll(-1, dims=-1))
    assert torch.equal(videos[:, 16], videos[:, 0])
    assert not torch.equal(videos[:, 8], videos[:, 0])


def test_the_place_of_a_digit_is_read_from_a_frame_with_noise_in_it() -> None:
    images, starts, ways = video.tested(32)
    videos = video.moving(images, starts, ways, 16)
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    read = video.place(videos + 0.3 * noise, images)
    wanted = (starts[:, None] + (2 * ways - 1)[:, None] * torch.arange(16)) % 16
    assert (read == wanted).double().mean() > 0.95
    assert bool(video.near(read, wanted).all())


def test_what_repeats_and_what_stands_still_is_counted() -> None:
    wanted = torch.arange(16)[None]
    begins_anew, half_as_fast = torch.cat((wanted[:, :8], wanted[:, :8]), dim=1), wanted // 2
    assert video.shares(wanted, wanted, 8) == (1.0, 0.0, 0.0)
    assert video.shares(begins_anew, wanted, 8) == (0.0, 1.0, 0.0)
    assert video.shares(half_as_fast, wanted, 8) == (0.0, 0.0, 0.5)
    assert video.shares(wanted, wanted, 1) == (1.0, 1.0, 0.0)  # of a step of one pixel every frame is near the last


def test_places_are_near_around_the_ring() -> None:
    assert video.near(torch.tensor([0, 15, 2, 8]), torch.tensor([15, 0, 0, 7])).tolist() == [True, True, False, True]


def test_a_rule_changes_the_rates_of_time_alone() -> None:
    model = small(dim=64, num_heads=4).model
    assert isinstance(model, video.VideoDiT)
    trained = np.array(model.rotation("as trained").rules[0].inv_freq(8))
    for rule, changed in (("RIFLEx", [1]), ("NTK", [1, 2, 3]), ("Linear", [0, 1, 2, 3])):
        rotation = model.rotation(rule)
        assert np.flatnonzero(rotation.rules[0].inv_freq(8) != trained).tolist() == changed
        assert rotation.rules[1:] == model.rotation("as trained").rules[1:]
    # Within one turn in 16 frames of two units each.
    assert model.rotation("RIFLEx").rules[0].inv_freq(8)[1] * 32 < 2 * np.pi


def test_the_rule_reaches_every_layer_and_the_first_frame_stays() -> None:
    training = small(num_layers=2)
    for _ in range(3):
        training.advance()
    model = training.model.eval()
    assert isinstance(model, video.VideoDiT)
    images, starts, ways = video.tested(2)
    first = video.moving(images, starts, ways, 1)[:, 0]
    made = {}
    for rule in model.rules:
        model.use(rule)
        torch.manual_seed(0)
        made[rule] = model.sample(first, ways, 16, steps=3)
        assert torch.equal(made[rule][:, 0], first)
    assert len({tuple(video.flatten().tolist()) for video in made.values()}) == 4
    model.use("as trained")
    torch.manual_seed(0)
    assert torch.equal(model.sample(first, ways, 16, steps=3), made["as trained"])


@pytest.mark.parametrize(
    ("change", "message"), [({"length": 9}, "expected 2 to 8 frames"), ({"spec": "sinusoidal"}, "expected an encoding")]
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**change)


def test_the_report_shows_the_truth_above_each_rule() -> None:
    training = small()
    model = training.model.eval()
    shown = training.task.show(model, "axial", training.config)
    assert list(shown) == ["truth", "as trained", "RIFLEx", "NTK", "Linear"]
    assert shown["truth"].shape == (16, patches.SIDE, video.WIDTH)
    (picture,) = training.task.pictures({"axial": shown})
    assert plots.svg(picture).count("<image") == 5 * 8
