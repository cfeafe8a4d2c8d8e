"""Times of calls that take turns, so that what slows the machine slows all of them.

On Linux a measurement during which a thread of ours was ready but had to wait for a processor is repeated: the kernel
counts that time. So neighbours on the machine cost patience, not truth.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.registry import Bench, Call

OnRound = Callable[[int], None]


def ignore(done: int) -> None:
    """Nobody is told how many rounds are done."""


@dataclass(frozen=True)
class Times:
    """Seconds of one contestant, a number for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.rounds)
        return ordered[round(share * (len(ordered) - 1))]

    def ratio(self, other: "Times") -> float:
        """The median over rounds of this time over the other's of the same round."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    def more_than(self, other: "Times") -> float:
        """The same of the difference, in seconds."""
        return statistics.median(a - b for a, b in zip(self.rounds, other.rounds, strict=True))


def measure(bench: Bench, *, rounds: int, budget: float = 0.003, on_round: OnRound = ignore) -> dict[str, Times]:
    """Every contestant once a round, in an order that turns; each repeats until ``budget`` seconds are filled."""
    calls = {name: contestant.call for name, contestant in bench.contestants.items()}
    return in_turn(calls, rounds=rounds, budget=budget, device=bench.case.device, on_round=on_round)


def in_turn(
    calls: dict[str, Call],
    *,
    rounds: int,
    budget: float = 0.003,
    device: str = "cpu",
    on_round: OnRound = ignore,
) -> dict[str, Times]:
    """The same of calls by name. ``on_round`` is told how many rounds are done."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        repeats = {name: _repeats(call, budget, device) for name, call in calls.items()}
        names = list(calls)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(_time(calls[name], repeats[name], device))
            on_round(number + 1)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _repeats(call: Call, budget: float, device: str) -> int:
    started = time.perf_counter()
    call()
    if device == "cpu" and time.perf_counter() - started > 100 * budget:
        return 1
    for _ in range(2):
        call()
    return max(1, int(budget / max(_time(call, 3, device), 1e-9)))


def _time(call: Call, repeats: int, device: str) -> float:
    if device == "cuda":  # events: what the host takes to launch is no part of it
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / repeats
    best, least = 0.0, float("inf")
    for _ in range(TRIES):
        call()  # the caches are this contestant's own, whoever came before
        waited = _waited()
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        took = time.perf_counter() - started
        share = (_waited() - waited) / took
        if share < least:
            best, least = took / repeats, share
        if share < DISTURBED:
            break
    return best


#: A measurement counts if our threads waited for a processor for less than this share of it, or after this many tries.
DISTURBED, TRIES = 0.01, 12


def _waited() -> float:
    """Seconds that the threads of this process have been ready and waiting for a processor; 0 where nobody counts."""
    total = 0
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError, IndexError), open(f"/proc/self/task/{task}/schedstat") as file:
                total += int(file.read().split()[1])
    return total / 1e9


def peak_bytes(call: Call, device: str = "cpu") -> int:
    """The most memory that the call held at once, what it returned included."""
    with torch.no_grad():
        call()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            return torch.cuda.max_memory_allocated() - before
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
            kept = call()
    held = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    del kept
    return most
