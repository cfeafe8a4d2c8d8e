"""The benchmark of attention on a device: every contestant agrees before it is timed, and who cannot run is named."""

import json
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).parent.parent.parent

#: FlexAttention warns that it is slow where nothing compiles it.
pytestmark = pytest.mark.filterwarnings("ignore:.*flex_attention.*:UserWarning")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, with nothing compiled: what a compiler makes of it takes minutes."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import attention_peers

    from posenc.kernels.biased_attention import flex

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    flex._one_for_each_shape.cache_clear()
    yield attention_peers
    flex._one_for_each_shape.cache_clear()


@pytest.mark.parametrize(
    ("encoding", "training"),
    [
        ("t5", False),  # all contestants there are
        ("alibi", True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("no bias", False), ("alibi", False), ("no bias", True), ("t5", True))
        ),
    ],
)
def test_every_contestant_agrees_and_is_timed(peers: ModuleType, encoding: str, training: bool) -> None:
    case = peers.Case(encoding, 160, training, "cpu")
    times, absent = peers.measure(case, rounds=2)
    flexible = set() if training else {"posenc, flex", "FlexAttention, written by hand"}
    by_hand = {"SDPA with a ready mask", "by hand", "by hand, compiled"}
    assert set(times) == {"posenc, auto", peers.BASE} | by_hand | flexible
    assert ("FlexAttention" in absent) == training
    assert "flash-attention" in absent
    kept = json.loads(json.dumps(peers.lines(case, times)))
    assert {line["contestant"] for line in kept} == set(times)
    assert all(line["seconds"] > 0 for line in kept)


def test_a_wrong_contestant_is_not_timed(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: right(*a, **k) * 1.01)
    with pytest.raises(AssertionError, match=r"attention, no bias, forward, 64 tokens: .* is wrong by .*; no figures"):
        peers.contestants(peers.Case("no bias", 64, False, "cpu"))


def test_flash_attention_is_called_as_it_asks(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with its signature, since it runs on a GPU alone."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, alibi_slopes: Tensor | None) -> Tensor:
        assert causal
        distance = torch.arange(q.shape[1])[:, None] - torch.arange(k.shape[1])
        slopes = torch.zeros(q.shape[2]) if alibi_slopes is None else alibi_slopes
        bias = (-slopes[:, None, None] * distance).masked_fill(distance < 0, float("-inf"))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, bias[None]).transpose(1, 2)

    module: Any = ModuleType("flash_attn")
    module.__spec__, module.flash_attn_func = ModuleSpec("flash_attn", None), flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(peers, "_flash_is_absent", lambda case: "")
    for encoding in ("no bias", "alibi"):
        calls, absent = peers.contestants(peers.Case(encoding, 64, False, "cpu"))
        assert "flash-attention" in calls
        assert not absent


def test_a_gpu_is_measured_at_every_length_and_with_gradients(peers: ModuleType) -> None:
    found = list(peers.cases("cuda"))
    assert {case.tokens for case in found} == {1024, 4096, 16_384}
    assert {(case.encoding, case.training) for case in found} == {
        (encoding, training) for encoding in peers.ENCODINGS for training in (False, True)
    }
    assert all(case.dtype == torch.bfloat16 for case in found)
