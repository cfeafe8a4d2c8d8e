"""Raw configs, config objects and the models' own modules say the same; altered configs are read or refused."""

import copy
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc import Compose, MRoPE, RoPE
from posenc.integrations.transformers import Description, describe, to_transformers
from posenc.integrations.transformers.description.model_types import SAME_CODE

transformers = pytest.importorskip("transformers")

HUB = [
    json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "hub_configs.jsonl").read_text().splitlines()
]


def said(described: Description) -> list[Any]:
    return [(group.part, group.label, group.layers, group.encoding.to_dict()) for group in described]


@pytest.mark.transformers_as_pinned(
    "MiniMaxAI/MiniMax-M2.5",
    "deepseek-ai/DeepSeek-V4-Flash",
    "deepseek-ai/DeepSeek-V4-Pro",
    "MiniMaxAI/MiniMax-M3",
    "sgl-project/DeepSeek-V4-Flash-FP8",
    "sgl-project/DeepSeek-V4-Pro-FP8",
    "moonshotai/Kimi-K2.5",
    "nvidia/GLM-5.2-NVFP4",
    "nvidia/Kimi-K2.5-NVFP4",
    "nvidia/MiniMax-M3-NVFP4",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", HUB, ids=[line["name"] for line in HUB])
def test_a_released_config_is_read_as_its_object_and_as_its_module(line: dict[str, Any]) -> None:
    raw = line["config"]
    described = describe(copy.deepcopy(raw))
    model_type = SAME_CODE.get(raw["model_type"], raw["model_type"])
    if model_type not in transformers.CONFIG_MAPPING:
        assert described.reading == "the keys alone"
        return
    config = transformers.CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(raw) | {"model_type": model_type})
    assert said(described) == said(describe(config))
    for part in dict.fromkeys(group.part for group in described):
        _as_its_module(described, part, config.get_text_config() if part else config, part)


def _as_its_module(described: Description, part: str, config: Any, name: str) -> None:
    """The rates and the factor of the rotary module of a text model, for each kind of layer."""
    import importlib

    if name not in ("", "text_config"):
        return
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    classes = [cls for key, cls in vars(module).items() if key.endswith("RotaryEmbedding") and "Vision" not in key]
    for group in described:
        rotation = group.encoding.parts[0] if isinstance(group.encoding, Compose) else group.encoding
        if group.part != part or not isinstance(rotation, (RoPE, MRoPE)):
            continue
        built = classes[0](config)
        prefix = f"{group.label}_" if hasattr(built, f"{group.label}_inv_freq") else ""
        theirs = getattr(built, f"{prefix}inv_freq").double()
        ours = torch.from_numpy(rotation.frequencies.inv_freq(rotation.rotary_dim))
        torch.testing.assert_close(theirs, ours, rtol=3e-6, atol=0)
        assert getattr(built, f"{prefix}attention_scaling") == pytest.approx(rotation.frequencies.attention_factor)


def configs(**options: Any) -> dict[str, Any]:
    found = {}
    for model_type in sorted(transformers.CONFIG_MAPPING):
        try:
            found[model_type] = transformers.CONFIG_MAPPING[model_type](**options)
        except Exception:  # some defaults are refused by transformers itself
            continue
    return found


def outcome(source: Any, *, unread: bool = False) -> Any:
    try:
        described = describe(source)
    except ValueError as error:
        return str(error)[:72]
    found = sorted(said(described), key=lambda group: group[0])  # a file has its own order of parts
    return (found, sorted(described.unread)) if unread else found


STRAYS: dict[str, dict[str, Any]] = {
    "gpt_neox_japanese": {"rope_foo": 1}, "stablelm": {"rotary_pct": 0.5}, "dory": {},
    "evolla": {}, "gemma3": {"rope_theta": 12345.0},
}  # fmt: skip


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("model_type", STRAYS)
def test_a_config_object_names_the_keys_that_its_file_names(model_type: str) -> None:
    """Of an object no number was named that its class puts aside."""
    config = transformers.CONFIG_MAPPING[model_type](**STRAYS[model_type])
    described = describe(config)
    assert outcome(config, unread=True) == outcome(config.to_dict(), unread=True)
    assert bool(described.unread) == (model_type != "dory")
    if model_type == "evolla":
        assert not [text for text in described.unread if "rope_theta" in text]  # its part reads it


@pytest.mark.parametrize("model_type", ["gpt_neox", "gpt_neox_japanese"])
def test_a_share_that_a_class_has_under_another_name_is_named_in_an_object_and_refused_in_its_file(
    model_type: str,
) -> None:
    """The object is the model's, which rotates by the other one; a file can be corrected."""
    config = transformers.CONFIG_MAPPING[model_type](partial_rotary_factor=0.5, rotary_pct=0.75)
    assert describe(config).unread == ("partial_rotary_factor, 0.5: its class has 0.75 instead",)
    with pytest.raises(ValueError, match=r"partial_rotary_factor is 0\.75 in the rotary parameters and 0\.5 beside"):
        describe(config.to_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stray", [{}, {"rope_theta": 12345.0}, {"rotary_pct": 0.5, "rope_foo": 1}], ids=str)
def test_every_default_config_says_the_same_as_its_object(stray: dict[str, Any]) -> None:
    differing, checked = [], 0
    for model_type, config in configs(**stray).items():
        raw = json.loads(config.to_json_string(use_diff=False))
        if raw.get("model_type") != model_type:
            continue  # another name of a class whose own name is in the file
        ours, theirs = outcome(raw, unread=True), outcome(config, unread=True)
        if isinstance(ours, str) and "in the rotary par" in ours:
            continue  # a file that says two things is refused
        checked += not isinstance(ours, str)
        if ours != theirs:
            differing.append(model_type)
    assert differing == []
    assert checked > 300


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_without_its_class_a_config_says_the_same_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dory's layers had the numbers of its blocks."""
    configs_and_objects = [(json.loads(one.to_json_string(use_diff=False)), outcome(one)) for one in configs().values()]
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)  # transformers is not installed
    alone = [(raw["model_type"], outcome(raw), theirs) for raw, theirs in configs_and_objects]
    read = [(name, ours, theirs) for name, ours, theirs in alone if not isinstance(ours, str)]
    assert [name for name, ours, theirs in read if not isinstance(theirs, str) and ours != theirs] == []
    assert len(read) > 300


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_default_config_that_is_written_is_loaded_and_means_the_same() -> None:
    differing, written, refused = [], 0, 0
    for model_type, config in configs().items():
        raw = config.to_dict() | {"model_type": model_type}
        try:
            described = describe(raw)
            found = to_transformers(described, raw, part="")
        except ValueError:  # no encoding, none of the whole, or none that a config can say
            refused += 1
            continue
        written += 1
        loaded = transformers.CONFIG_MAPPING[model_type].from_dict(found)
        if [g for g in said(describe(loaded)) if not g[0]] != [g for g in said(described) if not g[0]]:
            differing.append(model_type)
    assert differing == []
    assert written > 220


LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4096}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
HOSTILE = {
    "no heads": {"num_attention_heads": 0},
    "more layers than any model": {"num_hidden_layers": 10**8},
    "channels of which no table can be made": {"hidden_size": 4 * 10**12},
    "a size without end": {"max_position_embeddings": math.inf},
    "a size that is no number": {"head_dim": math.nan},
    "a size of 400 digits": {"hidden_size": 10**400},
    "a factor that is no number": {"rope_scaling": YARN | {"attention_factor": math.nan}},
    "a factor without end": {"rope_scaling": YARN | {"factor": math.inf}},
    "a base that is no number": {"rope_theta": math.nan},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_number_that_no_model_has_is_refused_at_once(name: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=r"expected|refuses this config"):
        describe(LLAMA | HOSTILE[name])
    assert time.process_time() - started < 5  # with the import of transformers


WORDS = [None, True, False, -1, 0, 1, 2, 3, 7, 0.5, 1e400, -1e400, 10**12, 10**30, "", "yarn", "default", "1", "llama"]


def altered(config: Any, chance: random.Random) -> Any:
    """The config with one to three values changed, keys dropped or keys moved."""
    config = copy.deepcopy(config)
    places = [config, *(value for value in config.values() if isinstance(value, dict))]
    for _ in range(chance.randint(1, 3)):
        place = chance.choice(places)
        if not place:
            continue
        key = chance.choice(list(place))
        what = chance.random()
        if what < 0.2:
            del place[key]
        elif what < 0.3:
            place[chance.choice(["rope_scaling", "rope_parameters", "layer_types", "rotary_dim"])] = place[key]
        elif what < 0.45:
            place[key] = chance.choice([[], {}, [1], ["a"], {"type": "yarn"}, {"a": {}}, [[1]], {"rope_type": 3}])
        else:
            place[key] = chance.choice(WORDS)
    return config


def try_altered(count: int, seed: int) -> int:
    chance = random.Random(seed)
    sources = [line["config"] for line in HUB if len(json.dumps(line)) < 4000]
    read = 0
    for _ in range(count):
        config = altered(chance.choice(sources), chance)
        try:
            read += bool(len(describe(config, pairing=chance.choice([None, "half"]))))
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}: {json.dumps(config)}") from error
    return read


@pytest.mark.filterwarnings("ignore")
def test_altered_configs_are_read_or_refused() -> None:
    assert try_altered(200, seed=0) > 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_altered_configs_are_read_or_refused() -> None:
    assert try_altered(20_000, seed=1) > 2_000
