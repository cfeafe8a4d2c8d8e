"""What is kept from call to call has one bound for all of it, and what was taken away is made again."""

import copy
import gc
import pickle
import threading
from typing import Any

import pytest
import torch

import posenc
from posenc.frequencies import DynamicNTK
from posenc.kernels import kept


def held() -> int:
    gc.collect()
    return sum(slot.nbytes for slot in kept._filled)


def test_many_encodings_at_many_positions_are_held_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 rules of their own at 65 536 positions would hold 6.5 GB of tables; here an eighth of each size."""
    monkeypatch.setattr(kept, "MAX_BYTES", kept.MAX_BYTES // 8)
    ropes = [posenc.RoPE(128, frequencies=posenc.Geometric(base=1e4 + n)) for n in range(10)]  # 8 fit
    x = torch.zeros(1, 1, 1, 128)
    first = ropes[0].rotate(x + 1, 8191)
    for rope in ropes:
        rope.rotate(x, 8191)  # 4 MiB each
        assert sum(slot.nbytes for slot in kept._filled) <= kept.MAX_BYTES
    assert held() > kept.MAX_BYTES - (5 << 20)
    assert ropes[0]._shared._made[x.device, x.dtype].get() is None
    assert torch.equal(ropes[0].rotate(x + 1, 8191), first)


def test_what_is_used_stays_and_what_is_not_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_all: list[Any] = []
    names = "abcd"
    for _ in names:
        kept_all.append(kept.Slot())
    a, b, c, d = kept_all
    other = held()
    monkeypatch.setattr(kept, "MAX_BYTES", other + 3000)
    for slot in (a, b, c):
        slot.put("value", torch.zeros(250))
    assert a.get() == "value"
    d.put("value", torch.zeros(250))
    assert b.get() is None
    assert (a.get(), c.get(), d.get()) == ("value",) * 3


def test_the_newest_stays_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_BYTES", 1000)
    slot: kept.Slot[int] = kept.Slot()
    slot.put(3, torch.zeros(10_000))
    assert slot.get() == 3
    other: kept.Slot[int] = kept.Slot()
    other.put(4, torch.zeros(10))
    assert slot.get() is None
    assert other.get() == 4


def test_rows_of_biases_and_last_results_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.randn(1, 8, 1, 8)
    k = torch.randn(1, 8, 64, 8)
    alibi = posenc.ALiBi(8)
    before = held()
    first = posenc.attention(q, k, k, alibi, causal=True)
    posenc.RoPE(8).rotate(k, torch.arange(64) + 3_000_000)
    assert vars(alibi)["_row_by_distance"].nbytes > 0
    assert held() > before
    monkeypatch.setattr(kept, "MAX_BYTES", 1)
    posenc.RoPE(8).rotate(k, 3)
    assert vars(alibi)["_row_by_distance"].nbytes == 0
    assert torch.equal(posenc.attention(q, k, k, alibi, causal=True), first)


def test_what_goes_with_its_encoding_is_not_counted() -> None:
    before = held()
    rope = posenc.RoPE(16, frequencies=posenc.Geometric(base=1234.5))
    rope.rotate(torch.zeros(5, 16), 3000)
    assert held() > before
    del rope
    assert held() <= before


def test_a_copy_and_a_pickle_carry_nothing_that_is_kept() -> None:
    rope = posenc.RoPE(16, frequencies=DynamicNTK(2, trained_length=8))
    rope.rotate(torch.zeros(5, 16), 3000)
    for other in (copy.deepcopy(rope), pickle.loads(pickle.dumps(rope))):
        assert other._last._slot.get() is None
        assert torch.equal(other.rotate(torch.ones(5, 16), 3000), rope.rotate(torch.ones(5, 16), 3000))


def test_threads_that_take_each_others_tables_away_get_right_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_BYTES", 3 << 20)
    ropes = [posenc.RoPE(64, frequencies=posenc.Geometric(base=2e4 + n)) for n in range(6)]
    x = torch.randn(4, 64)
    want = [rope.rotate(x, 5000) for rope in ropes]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(60):
            n = (seed + 5 * step) % 6
            if not torch.equal(ropes[n].rotate(x, 5000), want[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
