"""Two processes that share the work train every encoding that learns as one process does; layers may be made again."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tests.launch.processes import LAUNCHERS, every_learner, model, run, x
from torch.utils.checkpoint import checkpoint

from posenc.kernels.biased_attention import plan

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")

NAMES = tuple(every_learner())
QUICK = ("learned, rope and t5", "fire", "forgetting")


def check(names: Iterable[str], folder: Path) -> None:
    world = 2
    torch.multiprocessing.spawn(run, args=(world, str(folder), list(names)), nprocs=world)  # type: ignore[attr-defined]
    for rank in range(world):
        wrong = json.loads((folder / f"{rank}.json").read_text())
        assert "stopped" not in wrong, wrong["stopped"]
        assert set(wrong) == {f"{name}, {launcher}" for name in names for launcher in LAUNCHERS}
        assert {call: which for call, which in wrong.items() if which} == {}


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    check(QUICK, tmp_path)


@pytest.mark.slow
def test_two_processes_train_every_encoding_as_one(tmp_path: Path) -> None:
    check([name for name in NAMES if name not in QUICK], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_are_made_again_in_the_backward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = model(every_learner()[name])
    for limit in (
        plan._SMALL,
        0,
    ):  # of the scores that may be held at once: for more of them, blocks are made again too
        monkeypatch.setattr(plan, "_SMALL", limit)
        alone.zero_grad()
        alone(x()).square().mean().backward()
        for reentrant in (False, True):
            again = copy.deepcopy(alone)
            again.zero_grad()
            y = x().requires_grad_()  # the reentrant kind sees inputs alone
            for part in again.encoding.parts:  # type: ignore[union-attr]
                y = part.on_embeddings(y)
            for layer in again.layers:
                y = checkpoint(layer, y, use_reentrant=reentrant)  # type: ignore[assignment]
            again.norm(y).square().mean().backward()
            for got, expected in zip(again.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(got.grad, expected.grad)
