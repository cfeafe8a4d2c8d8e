"""Positions of images and videos, against the numbering of the installed Qwen models."""

from types import SimpleNamespace

import pytest
import torch

from posenc.positions import hunyuan_vl, multimodal


def theirs(model: str, kinds: torch.Tensor, images=None, videos=None, mask=None, **options):  # type: ignore[no-untyped-def]
    import importlib

    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    names = {
        "qwen2_vl": "Qwen2VLModel",
        "qwen2_5_vl": "Qwen2_5_VLModel",
        "qwen3_vl": "Qwen3VLModel",
        "glm4v": "Glm4vModel",
        "glm4v_moe": "Glm4vMoeModel",
        "glm46v": "Glm46VModel",
        "glm_ocr": "GlmOcrModel",
        "qwen3_5": "Qwen3_5Model",
        "qwen3_vl_moe": "Qwen3VLMoeModel",
        "cosmos3_omni": "Cosmos3OmniModel",
        "cosmos3_edge": "Cosmos3EdgeModel",
        "paddleocr_vl": "PaddleOCRVLModel",
        "ernie4_5_vl_moe": "Ernie4_5_VLMoeModel",
    }
    cls = getattr(module, names[model])
    vision = SimpleNamespace(spatial_merge_size=2, temporal_merge_size=2, tokens_per_second=2)
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


@pytest.mark.parametrize("model", ["qwen2_vl", "paddleocr_vl"])
def test_is_the_numbering_of_qwen2_vl(model: str) -> None:
    ours = multimodal(KINDS, image_grids=IMAGES, video_grids=VIDEOS, merge=2)
    expected, deltas = theirs(model, KINDS, IMAGES, VIDEOS)
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


@pytest.mark.transformers_as_pinned
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


def padded(kinds: torch.Tensor, before: int, after: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both rows with padding, which is called text as tokenizers call it, and the mask."""
    real = torch.nn.functional.pad(torch.ones_like(kinds), (before, after))
    return torch.nn.functional.pad(kinds, (before, after)), real


APART = (
    "glm4v",
    "glm4v_moe",
    "glm46v",
    "glm_ocr",
    "qwen3_5",
    "qwen3_vl",
    "qwen3_vl_moe",
    "cosmos3_omni",
    "cosmos3_edge",
)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=pytest.mark.transformers_as_pinned if name.startswith("cosmos3") else ())
        for name in APART
    ],
)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 3)])
def test_is_the_numbering_of_glm_4v_and_of_those_that_put_a_text_before_each_frame(
    model: str, before: int, after: int
) -> None:
    frames = [part for _ in range(3) for part in ((0, 2), (2, 8))]
    kinds, mask = padded(torch.tensor([row((0, 3), (1, 6), (0, 1), *frames, (0, 2))]), before, after)
    ours = multimodal(kinds, image_grids=IMAGES[:1], video_grids=VIDEOS, merge=2, frames="apart", mask=mask)
    expected, _ = theirs(model, kinds, IMAGES[:1], VIDEOS, mask)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 3)])
def test_is_the_numbering_of_ernie_4_5_vl(before: int, after: int) -> None:
    """Two frames of a video become one: six of 8 x 4 patches are three of 4 x 2 tokens."""
    kinds, mask = padded(KINDS, before, after)
    videos = torch.tensor([[6, 8, 4]])
    ours = multimodal(
        kinds, image_grids=IMAGES, video_grids=videos, merge=2, time_merge=2, text_goes_on="after_space", mask=mask
    )
    expected, _ = theirs("ernie4_5_vl_moe", kinds, IMAGES, videos, mask)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 3)])
def test_is_the_numbering_of_glm_image(before: int, after: int) -> None:
    """An image that is read, and two that are to be made, the last grid first: 3 x 2, then 4 x 5 tokens."""
    module = pytest.importorskip("transformers.models.glm_image.modeling_glm_image")
    fake = SimpleNamespace(config=SimpleNamespace(image_start_token_id=20, image_end_token_id=21))
    fake.get_vision_position_ids = lambda *a, **k: module.GlmImageModel.get_vision_position_ids(fake, *a, **k)
    grids = torch.tensor([[1, 2, 3], [1, 4, 5], [1, 3, 2]])
    prompt = torch.tensor([[1, 1, 1, 20, *[10] * 6, 21, 1, 1, 20]])
    ids, mask = padded(prompt, before, after)
    expected, _ = module.GlmImageModel.get_rope_index(
        fake, ids, image_grid_thw=grids, images_per_sample=torch.tensor([3]), attention_mask=mask
    )
    made = fake._cached_decode_position_ids[0].T  # and the end after them
    whole = torch.cat(((prompt[0] == 10).long(), torch.tensor(row((1, 26), (0, 1)))))
    ours = multimodal(whole, image_grids=grids[[0, 2, 1]])
    assert torch.equal(ours[:14], expected.permute(1, 2, 0)[0][mask[0] == 1])
    assert torch.equal(ours[14:], made)


@pytest.mark.parametrize("by", ["documents", "mask"])
def test_each_document_of_a_pack_is_numbered_as_if_it_were_alone(by: str) -> None:
    """Three documents in one row, by any numbers, and padding at the end."""
    first, second = KINDS[0, :35], KINDS[1, :18]
    kinds = torch.cat((first, second, first[:3], torch.zeros(4, dtype=torch.long)))
    sizes = torch.tensor([35, 18, 3])
    options = {"merge": 2, "video_grids": VIDEOS}
    if by == "mask":
        options["mask"] = torch.cat((torch.tensor([1, 2, 3]).repeat_interleave(sizes), torch.zeros(4).long()))
    else:
        options["documents"] = torch.cat((torch.tensor([7, -2, 7]).repeat_interleave(sizes), torch.full((4,), 7)))
        options["mask"] = torch.arange(60) < 56
    together = multimodal(kinds, image_grids=IMAGES, **options)  # type: ignore[arg-type]
    parts = [
        theirs("qwen2_vl", first[None], IMAGES[:1], VIDEOS)[0][0],
        theirs("qwen2_vl", second[None], IMAGES[1:])[0][0],
        torch.arange(3)[:, None].expand(3, 3),
        torch.zeros(4, 3, dtype=torch.long),
    ]
    assert torch.equal(together, torch.cat(parts))


TOKENS = SimpleNamespace(
    image_token_id=10, video_token_id=11, audio_token_id=12, vision_start_token_id=20, audio_start_token_id=22,
    position_id_per_seconds=25, seconds_per_chunk=2, audio_config=SimpleNamespace(n_window=50),
)  # fmt: skip


def omni(model: str, ids: torch.Tensor, mask: torch.Tensor, **options: object) -> torch.Tensor:
    import importlib

    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    name = {"qwen2_5_omni": "Qwen2_5Omni", "qwen3_omni_moe": "Qwen3OmniMoe"}[model]
    cls = getattr(module, f"{name}PreTrainedModelForConditionalGeneration")
    fake = SimpleNamespace(spatial_merge_size=2, config=TOKENS)
    for method in ("get_llm_pos_ids_for_vision", "get_chunked_index"):
        setattr(fake, method, lambda *a, _method=method, **k: getattr(cls, _method)(fake, *a, **k))
    positions, _ = cls.get_rope_index(fake, ids, attention_mask=mask, **options)
    return positions.permute(1, 2, 0)


def of_ids(ids: torch.Tensor) -> torch.Tensor:
    return (ids == 10) * 1 + (ids == 11) * 2 + (ids == 12) * 3


def in_chunks(video: list[float], sounds: int) -> list[int]:
    """Tokens of a video and of its sound in turns of two seconds, as Qwen2.5-Omni's processor puts them."""
    ids, last = [], max(*video, sounds - 1)
    for start in range(0, int(last) + 1, 50):
        ids += [11] * sum(start <= t < start + 50 for t in video)
        ids += [12] * len(range(start, min(start + 50, sounds)))
    return ids


def by_time(video: list[float], sounds: int) -> list[int]:
    """The same, each token at its time, as Qwen3-Omni's processor puts them."""
    return [kind for _, kind in sorted([(t, 11) for t in video] + [(t, 12) for t in range(sounds)])]


@pytest.mark.parametrize("model", ["qwen2_5_omni", "qwen3_omni_moe"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (0, 2)])
@pytest.mark.parametrize("seconds", [0.5, 1.37])
def test_is_the_numbering_of_the_omni_models(model: str, before: int, after: int, seconds: float) -> None:
    """A text with an image, a sound and a silent video; then one with a video and its sound, in tokens of both."""
    old = model == "qwen2_5_omni"
    images, videos = torch.tensor([[1, 4, 6]]), torch.tensor([[4, 2, 4]])
    options = {"times": "whole" if old else "exact", "marks": "shared" if old else "apart", "merge": 2}
    # The lengths in frames of sound make 13 and 152 tokens of the one model, 13 and 152 of the other.
    lengths = {13: 52 if old else 100, 152: 608 if old else 1169}
    ids = [1] * 3 + [20] + [10] * 6 + [21, 1, 22] + [12] * 13 + [23, 1, 20] + [11] * 8 + [21, 1, 1]
    ids = [0] * before + ids + [0] * after
    mask = torch.tensor([[0] * before + [1] * (len(ids) - before - after) + [0] * after])
    expected = omni(
        model, torch.tensor([ids]), mask, image_grid_thw=images, video_grid_thw=videos,
        audio_seqlens=torch.tensor([lengths[13]]), second_per_grids=torch.tensor([seconds]),
    )  # fmt: skip
    ours = multimodal(
        of_ids(torch.tensor([ids])), image_grids=images, video_grids=videos, time_steps=[seconds],
        positions_per_second=25, mask=mask, **options,
    )  # fmt: skip
    real = mask.bool()
    torch.testing.assert_close(ours[real].to(expected.dtype), expected[real], rtol=1e-6, atol=0)

    times = [t for i in range(4) for t in [i * seconds * 25] * 2]
    if old:
        times = [int(t) for t in times]
    mixed = (in_chunks if old else by_time)(times, 152)
    ids = [0] * before + [1] * 3 + [20, 22] + mixed + [23, 21] + [1] * 4 + [0] * after
    mask = torch.tensor([[0] * before + [1] * (len(ids) - before - after) + [0] * after])
    expected = omni(
        model, torch.tensor([ids]), mask, video_grid_thw=videos, use_audio_in_video=True,
        audio_seqlens=torch.tensor([lengths[152]]), second_per_grids=torch.tensor([seconds]),
    )  # fmt: skip
    ours = multimodal(
        of_ids(torch.tensor([ids])), video_grids=videos, time_steps=[seconds], positions_per_second=25, mask=mask,
        **options,
    )  # fmt: skip
    real = mask.bool()
    torch.testing.assert_close(ours[real].to(expected.dtype), expected[real], rtol=1e-6, atol=0)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("axes", [3, 4])
@pytest.mark.parametrize("marks", [0, 2])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 3)])
def test_is_the_numbering_of_hunyuan_vl(axes: int, marks: int, before: int, after: int) -> None:
    from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLModel as Theirs

    first = row((0, 3), (1, 2 * 4 + marks), (0, 2), (1, 4 * 2 + marks), (0, 1))
    kinds, mask = padded(
        torch.tensor([first, row((0, 9), (1, 8 + marks), (0, len(first) - 17 - marks))]), before, after
    )
    grids = torch.tensor([[1, 4, 6], [1, 8, 2], [1, 4, 6]])
    fake = SimpleNamespace(
        config=SimpleNamespace(
            text_config=SimpleNamespace(rope_parameters={"mrope_section": [4] * axes}),
            vision_config=SimpleNamespace(spatial_merge_size=2),
        )
    )
    fake.get_vision_position_ids = lambda *a, **k: Theirs.get_vision_position_ids(fake, *a, **k)
    expected, _ = Theirs.get_rope_index(fake, torch.zeros_like(kinds), kinds, grids, mask)
    ours = hunyuan_vl(kinds, image_grids=grids, merge=2, mask=mask, axes=axes)  # type: ignore[arg-type]
    assert torch.equal(ours, expected.permute(1, 2, 0))


def test_hunyuan_vl_in_a_pack_starts_anew_and_refuses_what_does_not_fit() -> None:
    kinds = torch.tensor(row((0, 2), (1, 6), (0, 1), (0, 1), (1, 6)))
    grids = torch.tensor([[1, 2, 2], [1, 2, 2]])
    documents = torch.tensor([5] * 9 + [2] * 7)
    packed = hunyuan_vl(kinds, image_grids=grids, documents=documents)
    assert torch.equal(packed[:9], hunyuan_vl(kinds[:9], image_grids=grids[:1]))
    alone = hunyuan_vl(kinds[9:], image_grids=grids[:1])
    alone[1:, 3] += 1  # the second image of the batch
    assert torch.equal(packed[9:], alone)
    for options, message in (
        ({}, "hunyuan_vl: got 6 image tokens from token 2 of a row on, expected a grid for them in image_grids"),
        ({"image_grids": grids, "merge": 2}, "got 6 image tokens .* expected 2 or 4 for its grid"),
        ({"image_grids": grids[[0, 1, 1]]}, "got 1 image grids without tokens"),
        ({"image_grids": grids, "axes": 2}, "got axes 2, expected 3 or 4"),
        ({"image_grids": grids, "mask": documents[:3]}, r"hunyuan_vl: got a mask of shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            hunyuan_vl(kinds, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got kind 2, expected 0"):
        hunyuan_vl(torch.tensor([2]), image_grids=grids)


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
        ([0, 1, 1], {}, "got 2 image tokens from token 1 of a row on, and no grid for them"),
        (
            [1, 1],
            {"image_grids": torch.tensor([[1, 2, 2]])},
            "got 2 image tokens .* a grid of 4 tokens for them",
        ),
        ([1], {"image_grids": torch.tensor([[1, 1, 1], [1, 1, 1]])}, "got 1 image blocks without tokens"),
        ([4], {}, "got kind 4, expected 0"),
        (
            [2, 3, 2],
            {"video_grids": torch.tensor([[1, 2, 2]])},
            "got 2 video tokens .* a grid of 4 tokens for them",
        ),
        (
            [2, 3, 2],
            {"video_grids": torch.tensor([[1, 1, 1]])},
            "got 2 video tokens .* a grid of 1 tokens for them",
        ),
        ([0], {"times": "rounded"}, "got times 'rounded'"),
        ([0], {"marks": "none"}, "got marks 'none'"),
        ([0], {"time_merge": 0}, "got time_merge 0"),
        ([0], {"documents": torch.zeros(2, dtype=torch.long)}, r"got documents of shape \(2,\)"),
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
