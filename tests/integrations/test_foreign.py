"""Rules in a model with code of its own, which transformers does not know: set where its code follows, refused else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import foreign_code
from torch import Tensor

from posenc import Geometric, YaRN
from posenc.frequencies import NTK, DynamicNTK, Frequencies, Linear, Llama3, LongRoPE
from posenc.integrations.transformers import describe, extend

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
pytestmark = pytest.mark.filterwarnings("ignore:.rope_scaling. is deprecated:FutureWarning")

Open = Callable[..., Any]

BASES: list[Frequencies] = [Geometric(5e4), NTK(2.0, base=1000.0)]
SCALED: list[Frequencies] = [
    Linear(2.0, base=1000.0),
    YaRN(2.0, trained_length=64, base=1000.0),
    Llama3(2.0, trained_length=64, base=1000.0),
    LongRoPE([1.0, 1.5, 2.0, 2.0], [1.0, 1.5, 2.0, 2.0], trained_length=64, factor=2.0, base=1000.0, switch="long"),
]
BY_LENGTH: list[Frequencies] = [
    DynamicNTK(2.0, trained_length=64, base=1000.0),
    LongRoPE([1.0] * 4, [1.0, 1.5, 2.0, 2.0], trained_length=64, factor=2.0, base=1000.0),
]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Loads a folder, or makes one and loads it."""
    foreign_code.keep_apart(tmp_path / "modules", monkeypatch)

    def load(rotary: str | Path, **options: Any) -> Any:
        name = "_".join([str(rotary), *map(str, options)])
        folder = rotary if isinstance(rotary, Path) else foreign_code.write(tmp_path / name, rotary, **options)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()

    return load


def read(model: Any, length: int = 100) -> Tensor:
    tokens = torch.randint(1, 300, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=tokens).logits  # type: ignore[no-any-return]


def state(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return model.config.to_dict(), {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(a: tuple[dict[str, Any], dict[str, Tensor]], b: tuple[dict[str, Any], dict[str, Tensor]]) -> bool:
    return a[0] == b[0] and all(torch.equal(buffer, b[1][name]) for name, buffer in a[1].items())


@pytest.mark.transformers_as_pinned("functions-options2-rules2")
@pytest.mark.parametrize(
    ("rotary", "options", "rules"),
    [
        ("base", {}, BASES),
        ("base", {"persistent": True, "fills": False}, BASES),
        ("functions", {}, BASES + SCALED + BY_LENGTH),
        pytest.param(
            "functions",
            {"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}},
            BASES + SCALED,
            marks=pytest.mark.slow,
        ),
        ("tensor", {}, BASES + SCALED[:3]),
    ],
)
def test_what_its_code_follows_is_what_it_computes_when_it_was_loaded_again(
    rotary: str, options: dict[str, Any], rules: list[Frequencies], load: Open, tmp_path: Path
) -> None:
    model = load(rotary, **options)
    before, untouched = state(model), read(model)
    for number, rule in enumerate(rules):
        with extend(model, rule, length=128):
            extended = read(model)
            model.save_pretrained(tmp_path / f"saved_{rotary}_{number}")
        assert not torch.equal(extended, untouched)
        saved = tmp_path / f"saved_{rotary}_{number}"
        again = load(saved)
        assert torch.equal(read(again), extended)
        (group,) = describe(saved, pairing="half")
        found = group.encoding.frequencies  # type: ignore[attr-defined]
        assert found.inv_freq(8, length=100) == pytest.approx(rule.inv_freq(8, length=100), rel=1e-6)
        assert same(state(model), before)
        assert torch.equal(read(model), untouched)


@pytest.mark.transformers_as_pinned("tensor-rules2-gave no cos and sin")
@pytest.mark.parametrize(
    ("rotary", "rules", "message"),
    [
        ("base", SCALED, "its own code computes other rates"),
        ("base", BY_LENGTH[:1], r"does not rotate by DynamicNTK.* at 128 tokens"),
        ("tensor", [*BY_LENGTH, SCALED[3]], "gave no cos and sin"),
        ("classes", SCALED[:1], "takes Divided for this rule, got one with Plain"),
        ("lies", SCALED[:1], "does not rotate by Linear.* at 64 tokens"),
    ],
)
def test_what_its_code_does_not_follow_is_refused_and_nothing_changes(
    rotary: str, rules: list[Frequencies], message: str, load: Open
) -> None:
    model = load(rotary)
    before, untouched = state(model), read(model)
    for rule in rules:
        with pytest.raises(ValueError, match=message):
            extend(model, rule, length=128)
        assert same(state(model), before)
        assert torch.equal(read(model), untouched)


@pytest.mark.filterwarnings("ignore:extend. MineForCausalLM did not rotate:UserWarning")
def test_rates_that_loading_left_unset_are_set_with_the_rule(load: Open) -> None:
    model, filled = load("base", fills=False), load("base")
    model.model.rotary_emb.inv_freq.fill_(float("nan"))  # what is left there is what memory had
    with extend(model, Geometric(5e4)), extend(filled, Geometric(5e4)):
        assert torch.equal(read(model), read(filled))


def test_rates_that_cannot_be_seen_are_refused(load: Open) -> None:
    model = load("base")
    rotary = model.model.rotary_emb
    type(rotary).forward, kept = (lambda self, x: x), type(rotary).forward
    try:
        with pytest.raises(ValueError, match="gave no cos and sin"):
            extend(model, DynamicNTK(2.0, trained_length=64, base=1000.0))
        extend(model, Geometric(5e4)).undo()  # its rates are told by their buffer
    finally:
        type(rotary).forward = kept


class BaseConfig(transformers.PreTrainedConfig):  # type: ignore[name-defined, misc]
    model_type = "mine_with_a_base"

    def __init__(self, rope_theta: float = 1000.0, **options: Any) -> None:
        self.hidden_size, self.num_attention_heads, self.num_hidden_layers = 16, 2, 1
        self.max_position_embeddings, self.rope_theta = 64, rope_theta
        super().__init__(**options)


class Rotary(torch.nn.Module):
    inv_freq: Tensor

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.register_buffer("inv_freq", config.rope_theta ** (-torch.arange(0, 8, 2) / 8), persistent=False)


class BaseModel(transformers.PreTrainedModel):  # type: ignore[name-defined, misc]
    config_class = BaseConfig

    def __init__(self, config: BaseConfig) -> None:
        super().__init__(config)
        self.rotary = Rotary(config)
        self.post_init()


def test_a_config_with_a_base_alone_takes_another_base_and_no_other_rule() -> None:
    model = BaseModel(BaseConfig())
    before = state(model)
    assert not hasattr(model.config, "rope_parameters")
    with extend(model, NTK(2.0, base=1000.0), length=128):
        assert model.config.rope_theta == pytest.approx(1000 * 2 ** (8 / 6))
        assert model.config.max_position_embeddings == 128
        assert model.rotary.inv_freq.numpy() == pytest.approx(NTK(2.0, base=1000.0).inv_freq(8), rel=1e-6)
    assert same(state(model), before)
    with pytest.raises(ValueError, match="has rope_theta and no rope_parameters; give another base"):
        extend(model, SCALED[0])
    assert same(state(model), before)
