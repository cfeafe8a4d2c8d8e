"""Ticks of a logarithmic axis, and files of figures."""

import errno
import os
from pathlib import Path

import pytest

from posenc.lab.drawing.plots import Picture, round_values, save


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (4.0, 60.0, "5 10 20 50"),
        (11.8741, 12.6887, "12 12.2 12.4 12.6"),
        (99.5, 103.0, "100 101 102 103"),
        (1.0, 1.001, "1 1.0002 1.0004 1.0006 1.0008"),
    ],
)
def test_ticks_are_round_numbers_in_a_narrow_range_too(low: float, high: float, ticks: str) -> None:
    found = round_values(low, high)
    assert " ".join(f"{value:g}" for value in found) == ticks
    assert all(low <= value <= high for value in found)


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_a_full_disk_leaves_the_old_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"figure{suffix}"
    picture = Picture("line", "A line", "It rises.", lambda axes: axes.plot([1, 2]))
    save([picture], path, heading="")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save([picture], path, heading="another")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
