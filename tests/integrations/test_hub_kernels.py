"""Models of transformers where the package ``kernels`` is installed: functions that rotate are modules there."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.integrations import families
from tests.integrations.family_inputs import tokens
from torch import Tensor, nn

import posenc
from posenc.integrations.transformers import accelerate, check, extend, replace
from posenc.lab.diagnose import diagnose

modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
pytestmark = pytest.mark.filterwarnings("ignore")
ROTATES = "apply_rotary_pos_emb"


def as_a_module(function: Callable[..., Any]) -> nn.Module:
    """As ``use_kernel_forward_from_hub`` does with a function."""

    class Function(nn.Module):
        def forward(self, *args: Any, **options: Any) -> Any:
            return function(*args, **options)

    given = inspect.signature(function)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    Function.forward.__signature__ = given.replace(parameters=[own, *given.parameters.values()])  # type: ignore[attr-defined]
    return Function()


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Any:
    function = getattr(modeling, ROTATES)
    if not isinstance(function, nn.Module):
        monkeypatch.setattr(modeling, ROTATES, as_a_module(function))
    return families.build("llama")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens(2, 12)).logits  # type: ignore[no-any-return]


def test_a_live_model_is_patched_and_checked(llama: Any) -> None:
    before = logits(llama)
    report = check(llama)
    assert (report.findings, report.unchecked) == ((), ())
    with accelerate(llama):
        assert "forward" in vars(llama.model.layers[0].self_attn)
        assert torch.equal(logits(llama), before)
    with replace(llama, posenc.NoPE()):
        assert not torch.allclose(logits(llama), before, atol=1e-4)
    with extend(llama, posenc.YaRN(2, trained_length=llama.config.max_position_embeddings)):
        assert not torch.equal(logits(llama), before)
    assert torch.equal(logits(llama), before)


def test_a_function_that_is_a_module_is_diagnosed(llama: Any) -> None:
    found = diagnose(f"{modeling.__name__}:{ROTATES}")
    assert (found.pairing, found.faults) == ("half", ())


def test_a_module_is_diagnosed_by_what_its_forward_does() -> None:
    def rotated(x: Tensor, rope: posenc.RoPE) -> Tensor:
        return rope.rotate(x)

    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rope = posenc.RoPE(32, pairing="interleaved")

        def forward(self, x: Tensor) -> Tensor:  # a helper beside it is not what it does
            return rotated(x, self.rope)

    assert diagnose(Rotation()).pairing == "interleaved"
