"""What describe says of each model type of images is what the model has: rows, widths, grids, windows and layers."""

import copy
import re
from typing import Any

import pytest
import torch

from posenc import AxialRoPE, Geometric, Learned
from posenc.embeddings import LearnedGrid
from posenc.integrations.transformers import describe, extend, to_transformers
from posenc.integrations.transformers.description import rotary
from posenc.integrations.transformers.description.images import READERS
from posenc.integrations.transformers.description.in_words import INSTEAD
from posenc.integrations.transformers.description.patch_tables import BESIDE_ROTATION, TABLES
from posenc.scores import DecomposedBias, LeViTBias, SwinBias

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

from tools.census.census import rows_of  # noqa: E402
from tools.census.comparisons import _tensors  # noqa: E402
from tools.census.configs import REPAIRS  # noqa: E402
from transformers import CONFIG_MAPPING  # noqa: E402

#: One of each reader and each way of writing a table's size; the census asks them all.
QUICK = (
    *("clap_audio_model", "eomt", "got_ocr2_vision", "hiera", "hunyuan_vl_vision", "lw_detr_vit"),
    *("mgp-str", "mllama_vision_model", "molmo2_vision", "pixio", "pvt", "radio", "seggpt", "timesformer"),
    *("videoprism_vision_model", "vilt", "vitdet", "vitpose_backbone", "yolos"),
    *("kimi_k25_vision", "llama4_vision_model", "muse_glimmer_vision", "qwen3_vl_vision", "sam3_vit_model"),
)


def known(model_type: str) -> None:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")


@pytest.mark.transformers_as_pinned("qwen3_vl_vision", "sam3_vit_model")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", QUICK)
def test_what_is_described_is_the_models(model_type: str) -> None:
    known(model_type)
    rows = [row for row in rows_of(model_type) if row.status != "not rotary"]
    assert rows
    assert {(row.label, row.status) for row in rows if row.status != "agreed"} == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", sorted({*READERS, *TABLES, *BESIDE_ROTATION} - {*QUICK}))
def test_what_is_described_is_every_models(model_type: str) -> None:
    test_what_is_described_is_the_models(model_type)


SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": [32, 48]}


def built(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**SMALL, **options}))


@pytest.mark.transformers_as_pinned
def test_yolos_has_a_table_between_layers() -> None:
    model = built("Yolos", patch_size=8, num_detection_tokens=5, intermediate_size=64)
    first, between = describe(model)
    assert (first.layers, between.layers) == ((0, 1, 2), (1, 2))
    assert isinstance(first.encoding, LearnedGrid)
    assert (first.encoding.grid, first.encoding.prefix) == ((4, 6), 6)
    assert model.embeddings.position_embeddings.shape[1] == first.encoding.max_positions
    assert model.encoder.interpolation.mid_position_embeddings.shape[::2] == (2, first.encoding.max_positions)


def test_vitdet_has_windows_in_some_layers() -> None:
    keys = {"use_relative_position_embeddings": True, "window_block_indices": [0, 2], "window_size": 2}
    model = built("VitDet", patch_size=8, pretrain_image_size=16, **keys)
    table, window, whole = describe(model)
    assert (table.encoding.grid, table.encoding.prefix) == ((2, 2), 1)
    assert (window.layers, whole.layers) == ((0, 2), (1,))
    for group in (window, whole):
        attention = model.encoder.layer[group.layers[0]].attention
        assert isinstance(group.encoding, DecomposedBias)
        assert group.encoding.rows.shape == attention.rel_pos_h.shape
        assert group.encoding.columns.shape == attention.rel_pos_w.shape
    (alone,) = describe(transformers.VitDetConfig())
    assert isinstance(alone.encoding, LearnedGrid)


def test_a_video_has_tables_of_space_and_of_time() -> None:
    model = built("Timesformer", patch_size=8, num_frames=4, intermediate_size=64, image_size=32)
    space, time = describe(model)
    assert model.embeddings.position_embeddings.shape[1] == space.encoding.max_positions == 17
    assert isinstance(time.encoding, Learned)
    assert model.embeddings.time_embeddings.shape[1] == time.encoding.length == 4


def test_vilt_has_a_table_of_words_and_one_of_patches() -> None:
    text, image = describe(built("Vilt", patch_size=8, image_size=32, intermediate_size=64))
    assert (text.label, text.encoding.length, image.encoding.grid, image.encoding.prefix) == ("text", 40, (4, 4), 1)


def test_clap_and_levit_have_biases_by_stage() -> None:
    clap = describe(transformers.CONFIG_MAPPING["clap_audio_model"]())
    assert [(type(g.encoding), g.layers[0]) for g in clap] == [
        (SwinBias, 0),
        (SwinBias, 2),
        (SwinBias, 4),
        (SwinBias, 10),
    ]
    levit = describe(transformers.LevitConfig())
    assert [(type(g.encoding), g.encoding.window) for g in levit] == [(LeViTBias, (n, n)) for n in (14, 7, 4)]


@pytest.mark.transformers_as_pinned("qwen3_vl_vision")
@pytest.mark.parametrize("model_type", ["sam3_vit_model", "qwen3_vl_vision", "llama4_vision_model", "kimi_k25_vision"])
def test_a_table_beside_a_rotation_is_named_and_is_not_written(model_type: str) -> None:
    known(model_type)
    config = transformers.CONFIG_MAPPING[model_type]()
    raw = config.to_dict() | {"model_type": model_type}
    rotation, table = describe(raw)
    assert isinstance(rotation.encoding, AxialRoPE)
    assert isinstance(table.encoding, LearnedGrid)
    assert (table.label, table.layers) == ("table", rotation.layers)
    assert describe(raw).layer(0).label == rotation.label != table.label
    written = to_transformers(describe(raw), raw)
    assert "table" not in written["rope_parameters"]
    assert describe(written).groups[0].encoding.to_dict() == rotation.encoding.to_dict()


@pytest.mark.transformers_as_pinned
def test_what_is_no_table_of_patches_is_said_in_words() -> None:
    for model_type in ("gemma4_vision", "sam2_video"):
        known(model_type)
        config = transformers.CONFIG_MAPPING[model_type]()
        assert any("also" in note for group in describe(config) for note in group.notes)
    whole = describe(transformers.CONFIG_MAPPING["sam3_tracker_video"]())
    assert any(group.label == "table" for group in whole)
    with pytest.raises(ValueError, match="stretched over the image"):
        describe(transformers.CONFIG_MAPPING["sam2_hiera_det_model"]())


# Another size


def real(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    small = {key: value for key, value in SMALL.items() if key != "image_size"} if "embed_dim" in options else SMALL
    config = getattr(transformers, f"{name}Config")(**{**small, **options})
    model = getattr(transformers, name if name.endswith("Backbone") else f"{name}Model")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


HIERA = {"image_size": [64, 64], "patch_size": [7, 7], "patch_stride": [4, 4], "embed_dim": 16, "depths": [1] * 4}
FLAVA = {"image_size": 32, "patch_size": 8, "intermediate_size": 64}


@torch.no_grad()
@pytest.mark.parametrize(("name", "options", "size"), [("Hiera", HIERA, (128, 64)), ("FlavaImage", FLAVA, (64, 48))])
def test_another_size_is_what_its_own_code_reads(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    model, pixels = real(name, **options), torch.randn(1, 3, *size)
    theirs = model(pixels, interpolate_pos_encoding=True).last_hidden_state
    with extend(model, size=size):
        torch.testing.assert_close(model(pixels).last_hidden_state, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_table_without_a_class_token_keeps_its_first_row() -> None:
    model = real("VitPoseBackbone", image_size=[32, 24], patch_size=[8, 8])
    table = model.embeddings.position_embeddings
    before = LearnedGrid.from_table(table.detach(), grid=(4, 3), prefix=1)
    with extend(model, size=(64, 48)):
        torch.testing.assert_close(model.embeddings.position_embeddings[0], before.resized(8, 6).table)
        assert model(torch.randn(1, 3, 64, 48)).feature_maps[0].shape[1] == 48


@pytest.mark.parametrize(
    ("name", "options", "size", "said"),
    [
        ("VitDet", {"patch_size": 8, "image_size": 32}, 64, "already interpolates its table"),
        ("Yolos", {"patch_size": 8, "intermediate_size": 64}, 64, "already interpolates its table"),
        (
            "Timesformer",
            {"patch_size": 8, "image_size": 32, "intermediate_size": 64},
            (64, 48),
            "takes only square images",
        ),
        ("Levit", {"image_size": 64, "hidden_sizes": [16] * 3, "num_attention_heads": [2] * 3}, 128, "LeViTBias"),
        ("Pvt", {"image_size": 64, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4}, 128, "several grids"),
    ],
)
def test_another_size_is_refused_where_there_is_nothing_to_carry_or_no_way(
    name: str, options: dict[str, Any], size: Any, said: str
) -> None:
    stages = "hidden_sizes" in options
    cls, config = getattr(transformers, f"{name}Model"), getattr(transformers, f"{name}Config")
    model = cls(config(**({"depths": [1] * len(options["hidden_sizes"])} if stages else SMALL) | options))
    with pytest.raises(ValueError, match=said):
        extend(model, size=size)


#: Models with tensors that their names take for positions, and that are no positions of tokens.
NO_POSITIONS = {"perceiver", "wavtokenizer"}
_NAMES = re.compile(
    r"pos(?!t)|rel_|relative|bias_table|attention_bias|wpe|time_embed|row_embed|distance", re.IGNORECASE
)
_INDEX = re.compile(r"position_ids|relative_position_index|bias_idxs|position_index", re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_model_type_with_positions_is_passed_over_in_silence() -> None:
    """Of every model type of which nothing is said, the default model has no tensor with a name of positions."""
    silent, asked = {}, 0
    for model_type in sorted(transformers.CONFIG_MAPPING):
        try:
            config = transformers.CONFIG_MAPPING[model_type](**copy.deepcopy(REPAIRS.get(model_type, ({}, ""))[0]))
        except Exception:  # transformers refuses its own default
            continue
        raw = config.to_dict() | {"model_type": model_type}
        if model_type in INSTEAD or any(isinstance(part, dict) and "model_type" in part for part in raw.values()):
            continue
        try:
            describe(raw)
        except ValueError as error:
            if "says nothing of a positional encoding" not in str(error):
                continue
        else:
            continue
        try:
            tensors = [n for n, t in _tensors(config) if t.ndim > 1 and _NAMES.search(n) and not _INDEX.search(n)]
        except Exception:  # what it needs is not installed, or its default cannot be built
            continue
        asked += 1
        if tensors and model_type not in NO_POSITIONS:
            silent[model_type] = tensors[:2]
    assert silent == {}
    assert asked > 80


def test_a_tower_whose_config_has_no_base_has_that_of_its_code() -> None:
    """As configs are in transformers 5.6, and as they lie on a disk."""
    pe = rotary.axial("qwen3_vl_vision", {"hidden_size": 1152, "num_heads": 16}, {})
    assert (pe.head_dim, pe.frequencies) == (72, Geometric(base=10_000.0))
    with pytest.raises(ValueError, match="the config of 'pixtral' has no rope_theta; add it"):
        rotary.axial("pixtral", {"hidden_size": 1152, "num_heads": 16}, {})


@pytest.mark.parametrize("model_type", ["qwen2_vl_vision", "pixtral", "gemma4_vision", "minimax_m3_vl_vision"])
@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.5, "partial_rotary_factor of '{}' is 0.5, and its code rotates whole heads and ignores the factor; remove"),
        *((value, "partial_rotary_factor of '{}' is " + repr(value)) for value in (2, -1, 0)),
        ("half", "partial_rotary_factor"),
        (True, "partial_rotary_factor"),
        (None, "partial_rotary_factor of '{}' is None, expected a number above 0 and at most 1; correct it."),
    ],
)
@pytest.mark.transformers_as_pinned
def test_a_share_of_a_head_is_refused_where_an_image_models_code_reads_none(
    model_type: str, share: Any, said: str
) -> None:
    config = CONFIG_MAPPING[model_type]()
    config.rope_parameters = {**config.rope_parameters, "partial_rotary_factor": share}
    with pytest.raises(ValueError, match=re.escape(said.format(model_type))):
        describe(config)
    if share is not None:  # null says nothing in a file
        with pytest.raises(ValueError, match="partial_rotary_factor"):
            describe(config.to_dict())


@pytest.mark.transformers_as_pinned
def test_a_share_of_a_head_counts_where_an_image_models_code_reads_it() -> None:
    shares = {group.label: group.encoding for group in describe(CONFIG_MAPPING["neomme"]())}
    assert {
        label: encoding.rotary_dim / encoding.head_dim
        for label, encoding in shares.items()
        if isinstance(encoding, AxialRoPE)
    } == {"sliding_attention": 1.0, "full_attention": 0.25}
