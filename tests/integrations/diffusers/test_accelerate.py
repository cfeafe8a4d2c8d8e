"""Transformers of diffusers with posenc's rotation give what they gave."""

import copy
from typing import Any

import pytest
import torch
from tests.integrations.diffusers.models import FAMILIES, REFUSED, build, outputs
from torch import Tensor, nn

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc.integrations.diffusers import accelerate  # noqa: E402
from posenc.kernels.rotate import choosing, op  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")  # Mochi's own, on a CPU

#: Families that multiply complex numbers, where torch rounds in another order; all others give the same bits.
COMPLEX = {"qwenimage", "z_image", "lumina2"}


def largest(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference, as a share of the largest number."""
    return max(float((x.double() - y.double()).abs().max() / x.abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compared", ["now", "in the first call"])
def test_a_model_gives_what_it_gave(family: str, compared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(FAMILIES[family]), FAMILIES[family].inputs()
    before = outputs(model, inputs)
    calls: list[str] = []
    kernel = op._kernel
    monkeypatch.setattr(op, "_kernel", lambda chosen: calls.append(chosen) or kernel(chosen))
    with accelerate(model, inputs=inputs if compared == "now" else None):
        outputs(model, inputs)
        calls.clear()
        after = outputs(model, inputs)
        assert calls or choosing.cpu_obstacle() is not None
        calls.clear()
    again = outputs(model, inputs)
    assert not calls
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
    assert largest(before, after) <= (1e-6 if family in COMPLEX else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_model(family: str) -> None:
    model, inputs = build(FAMILIES[family]), FAMILIES[family].inputs()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        result = model(**inputs)[0]
        torch.manual_seed(0)
        sum(
            (part * torch.randn(part.shape)).sum() for part in (result if isinstance(result, list) else [result])
        ).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    with accelerate(model, inputs=inputs):
        after = gradients()
    assert len(before) == len(after) > 10
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5 * float(a.abs().max()) + 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_equal_to_rounding(family: str) -> None:
    model = build(FAMILIES[family]).to(torch.bfloat16)
    inputs = {
        name: value if name.endswith("_ids") else _narrowed(value)  # coordinates stay as they are
        for name, value in FAMILIES[family].inputs().items()
    }
    before = outputs(model, inputs)
    with accelerate(model, inputs=inputs):
        after = outputs(model, inputs)
    assert largest(before, after) < 8 * torch.finfo(torch.bfloat16).eps


def _narrowed(value: Any) -> Any:
    if isinstance(value, list):
        return [_narrowed(part) for part in value]
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype is torch.float32 else value


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "wan", "cogvideox", "qwenimage", "ltx"])
def test_a_compiled_model_gives_what_it_gave(family: str) -> None:
    model, inputs = build(FAMILIES[family]), FAMILIES[family].inputs()
    before = outputs(model, inputs)
    with accelerate(model):
        after = outputs(torch.compile(model, backend="aot_eager"), inputs)
    torch._dynamo.reset()
    assert largest(before, after) < 1e-5


def test_another_model_and_the_library_are_left_alone() -> None:
    model, other = build(FAMILIES["flux"]), build(FAMILIES["flux"])
    own = diffusers.models.transformers.transformer_flux.FluxAttnProcessor
    with accelerate(model):
        assert type(model.transformer_blocks[0].attn.processor) is not own
        assert isinstance(model.transformer_blocks[0].attn.processor, own)
        assert type(other.transformer_blocks[0].attn.processor) is own
    assert type(model.transformer_blocks[0].attn.processor) is own


def test_a_copy_stays_accelerated_and_is_right() -> None:
    model, inputs = build(FAMILIES["wan"]), FAMILIES["wan"].inputs()
    before = outputs(model, inputs)
    with accelerate(model):
        twin = copy.deepcopy(model)
    assert largest(before, outputs(twin, inputs)) == 0
    assert type(twin.blocks[0].attn1.processor) is not type(model.blocks[0].attn1.processor)


def test_sizes_may_change_between_calls() -> None:
    small = FAMILIES["wan"]
    model = build(small)
    larger = small.inputs() | {
        "hidden_states": torch.randn(2, 4, 5, 12, 10),
        "encoder_hidden_states": torch.randn(2, 5, 8),
    }
    before = [outputs(model, inputs) for inputs in (small.inputs(), larger)]
    with accelerate(model, inputs=small.inputs()):
        after = [outputs(model, inputs) for inputs in (small.inputs(), larger)]
    assert [largest(a, b) for a, b in zip(before, after, strict=True)] == [0, 0]


def test_tables_of_position_zero_alone_settle_nothing() -> None:
    """With cos 1 and sin 0 every reading of a table agrees; the next call tells."""
    small = FAMILIES["flux"]
    model, inputs = build(small), small.inputs()
    nowhere = inputs | {"img_ids": torch.zeros(12, 3)}
    before = [outputs(model, inputs) for inputs in (nowhere, inputs)]
    with accelerate(model):
        after = [outputs(model, given) for given in (nowhere, inputs, inputs)]
    assert largest(before[0], after[0]) == largest(before[1], after[1]) == largest(before[1], after[2]) == 0


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("ernie_image", "does not recognise how the function rotates these by its tables"),
        ("ideogram4", "none of its modules calls a function that rotates"),
        ("sd3", "none of its modules calls a function that rotates"),
    ],
)
def test_what_is_no_rotation_by_its_tables_is_refused(family: str, message: str) -> None:
    model, inputs = build(REFUSED[family]), REFUSED[family].inputs()
    before = outputs(model, inputs)
    with pytest.raises(ValueError, match=message):
        accelerate(model, inputs=inputs)
    assert largest(before, outputs(model, inputs)) == 0


def test_without_inputs_a_call_that_does_not_agree_is_left_with_a_warning() -> None:
    model, inputs = build(REFUSED["ernie_image"]), REFUSED["ernie_image"].inputs()
    before = outputs(model, inputs)
    with accelerate(model):
        with pytest.warns(UserWarning, match="computed by the model's own code"):
            after = outputs(model, inputs)
        assert largest(before, after) == 0
        assert largest(before, outputs(model, inputs)) == 0  # and is said once


def test_a_function_that_does_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    home = diffusers.models.transformers.transformer_flux
    real = home.apply_rotary_emb
    monkeypatch.setattr(home, "apply_rotary_emb", lambda x, *args, **options: 1.01 * real(x, *args, **options))
    model = build(FAMILIES["flux"])
    with pytest.raises(ValueError, match="does not recognise how the function rotates these by its tables"):
        accelerate(model, inputs=FAMILIES["flux"].inputs())


def test_bad_arguments() -> None:
    model = build(FAMILIES["flux"])
    with pytest.raises(TypeError, match="expected a model of diffusers"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="a forward pass of the model failed on"):
        accelerate(model, inputs={"hidden_states": torch.zeros(1)})
    with accelerate(model), pytest.raises(ValueError, match="replaced already by an earlier patch"):
        accelerate(model)
    assert not hasattr(model.transformer_blocks[0].attn.processor, "_posenc")
