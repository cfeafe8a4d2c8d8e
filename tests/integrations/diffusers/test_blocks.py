"""`posenc bench blocks` times both rotations after it has seen that they agree."""

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")


def test_blocks_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    from benchmarks import blocks

    gains = list(blocks.measure(rounds=2, small=True, only="float32"))
    assert [gain.block for gain in gains] == ["flux", "wan"]
    assert all(gain.largest_difference == 0 and gain.rotation_ours > 0 and gain.block_theirs > 0 for gain in gains)
    assert not blocks.missing()
