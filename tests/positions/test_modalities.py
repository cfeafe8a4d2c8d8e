"""Positions of images and videos, against the numbering of the installed Qwen models."""

from types import SimpleNamespace

import pytest
import torch

from posenc.positions import multimodal


def theirs(model: str, kinds: torch.Tensor, images=None, videos=None, mask=None, **options):  # type: ignore[no-untyped-def]
    import importlib

    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    name = {"qwen2_vl": "Qwen2VLModel", "qwen2_5_vl": "Qwen2_5_VLModel", "qwen3_vl": "Qwen3VLModel"}[model]
    cls = getattr(module, name)
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=2)
    fake = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    fake.get_vision_position_ids = lambda *a, **k: cls.get_vision_position_ids(fake, *a, **k)
    ids, deltas = cls.get_rope_index(
        fake,
        torch.zeros_like(kinds),
        kinds,
        image_grid_thw=images,
        video_grid_thw=videos,
        attention_mask=mask,
        **options,
    )
    return ids.permute(1, 2, 0), deltas


def row(*parts: tuple[int, int]) -> list[int]:
    return [kind for kind, count in parts for _ in range(count)]


IMAGES = torch.tensor([[1, 4, 6], [1, 8, 2]])
VIDEOS = torch.tensor([[3, 8, 4]])
KINDS = torch.tensor(
    [
        row((0, 3), (1, 6), (0, 2), (2, 24), (0, 5)),
        row((0, 7), (1, 4), (0, 29)),
    ]
)


def test_is_the_numbering_of_qwen2_vl() -> None:
    ours = multimodal(KINDS, image_grids=IMAGES, video_grids=VIDEOS, merge=2)
    expected, deltas = theirs("qwen2_vl", KINDS, IMAGES, VIDEOS)
    assert torch.equal(ours, expected)
    assert torch.equal(ours.amax((1, 2)) + 1 - KINDS.shape[1], deltas[:, 0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_effect(side: str) -> None:
    kinds = KINDS.clone()
    mask = torch.ones_like(kinds)
    if side == "left":
        kinds[1], mask[1, :4] = kinds[1].roll(4), 0
    else:
        mask[1, -4:] = 0
    ours = multimodal(kinds, image_grids=IMAGES, video_grids=VIDEOS, merge=2, mask=mask)
    expected, _ = theirs("qwen2_vl", kinds, IMAGES, VIDEOS, mask)
    assert torch.equal(ours, expected)
    assert torch.equal(ours[0], multimodal(KINDS, image_grids=IMAGES, video_grids=VIDEOS, merge=2)[0])


def test_is_the_numbering_of_qwen2_5_vl_with_its_seconds() -> None:
    seconds = torch.tensor([1.5])
    ours = multimodal(
        KINDS, image_grids=IMAGES, video_grids=VIDEOS, merge=2, time_steps=[2 * 1.5], text_goes_on="after_space"
    )
    expected, _ = theirs("qwen2_5_vl", KINDS, IMAGES, VIDEOS, second_per_grid_ts=seconds)
    assert torch.equal(ours, expected)


def test_is_the_numbering_of_qwen3_vl_with_a_text_before_each_frame() -> None:
    frames = [part for _ in range(3) for part in ((0, 4), (2, 8))]
    kinds = torch.tensor([row((0, 2), *frames, (0, 3))])
    ours = multimodal(kinds, video_grids=VIDEOS, merge=2, frames="apart")
    expected, _ = theirs("qwen3_vl", kinds, None, VIDEOS)
    assert torch.equal(ours, expected)
    assert bool((ours[0, 6:14, 0] == 6).all())  # the time stands still within a frame


def test_after_a_long_video_the_paper_and_transformers_go_on_from_different_places() -> None:
    video = torch.tensor([[9, 2, 2]])
    kinds = torch.tensor([row((0, 1), (2, 9), (0, 1))])
    paper = multimodal(kinds, video_grids=video, merge=2)
    code = multimodal(kinds, video_grids=video, merge=2, text_goes_on="after_space")
    assert paper[0, -1].tolist() == [10, 10, 10]  # "the maximum position ID of the preceding modality" plus 1
    assert code[0, -1].tolist() == [2, 2, 2]  # earlier than the video's last frame
    assert torch.equal(code, theirs("qwen2_vl", kinds, None, video)[0])


def test_two_images_may_stand_side_by_side() -> None:
    ours = multimodal(torch.tensor([1, 1, 1, 1]), image_grids=torch.tensor([[1, 1, 2], [1, 2, 1]]))
    assert ours.tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 3, 2]]


def test_a_text_alone_counts_on_all_three() -> None:
    assert multimodal(torch.zeros(4, dtype=torch.long)).tolist() == [[i] * 3 for i in range(4)]


@pytest.mark.parametrize(
    ("kinds", "options", "message"),
    [
        ([0, 1, 1], {}, "got 2 image tokens at token 1 of a row, and its grid has no places"),
        ([1, 1], {"image_grids": torch.tensor([[1, 2, 2]])}, "got 2 image tokens .* its grid has 4 places"),
        ([1], {"image_grids": torch.tensor([[1, 1, 1], [1, 1, 1]])}, "got 1 image blocks more"),
        ([3], {}, "got kind 3, expected 0"),
        ([0], {"frames": "split"}, "got frames 'split'"),
        ([0], {"merge": 0}, "got merge 0"),
        ([2], {"video_grids": torch.tensor([[1, 1, 1]]), "time_steps": [1.0, 2.0]}, "got 2 time_steps for 1 videos"),
    ],
)
def test_grids_that_do_not_fit_are_refused(kinds: list[int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multimodal(torch.tensor(kinds), **options)  # type: ignore[type-var]


def test_is_what_the_documentation_draws() -> None:
    kinds = torch.tensor(row((0, 2), (1, 6), (2, 4), (0, 2)))
    drawn = multimodal(kinds, image_grids=torch.tensor([[1, 2, 3]]), video_grids=torch.tensor([[2, 1, 2]]))
    assert ["".join(map(str, axis)) for axis in drawn.T.tolist()] == [
        "01222222556678",
        "01222333555578",
        "01234234565678",
    ]
