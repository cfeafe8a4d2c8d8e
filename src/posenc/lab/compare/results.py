"""Everything that a run of ``posenc compare`` found, computed from its folder alone."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch

import posenc
from posenc.lab.compare import continuation
from posenc.lab.drawing.words import BROKE, HELD, finite, names, times
from posenc.lab.encodings import road
from posenc.lab.encodings.properties import measure
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run.config import FORMAT, NO_COMMAND, Data, converted
from posenc.lab.run.errors import RunError

PROTOCOLS = ("windows", "last")


class _Encoding(msgspec.Struct):
    label: str
    spec: str


class _Sizes(msgspec.Struct):
    length: int
    steps: int


class _Lengths(msgspec.Struct):
    factors: list[int]


class _Config(msgspec.Struct):
    """What is read of a run's config, whichever version wrote it."""

    encodings: list[_Encoding]
    seeds: list[int]
    model: dict[str, Any]
    train: _Sizes
    evaluate: _Lengths


class _Train(msgspec.Struct):
    """What is read of a row of a training step."""

    step: int
    loss: float | None


class _Evaluate(msgspec.Struct):
    """What is read of a row of an evaluation."""

    protocol: Literal["windows", "last"]
    factor: int
    length: int
    perplexity: float | None = None


_ROWS: dict[str, type[msgspec.Struct]] = {"train": _Train, "evaluate": _Evaluate}


def collect(run: Path) -> Data:
    """Everything that the report says, as plain data: what is in ``results.json``.

    Raises:
        ValueError: a folder that is no run of ``posenc compare``, a run of another format, a broken file in it.
    """
    config = _config(run)
    return collect_with(run, encodings_of(run, config))


def collect_with(run: Path, encodings: Mapping[str, posenc.Encoding | str]) -> Data:
    """:func:`collect`, with the encodings that :func:`encodings_of` has built already."""
    config = _config(run)
    collected: Data = finite(measured(run, config) | {"properties": _properties(config, encodings)})
    return collected


def measured(run: Path, config: Data | None = None) -> Data:
    """What the run measured: perplexity, loss, speed, parameters."""
    config = _config(run) if config is None else config
    speed = runs.read_json(run / runs.SPEED) if (run / runs.SPEED).exists() else {}
    results: Data = {
        "format": FORMAT,
        "kind": "compare",
        "posenc": posenc.__version__,
        "run": run.resolve().name,
        "config": config,
        "command": config.get("command") or NO_COMMAND,
        "environment": {},
        "encodings": [],
    }
    for given in config["encodings"]:
        folders = [run / f"{given['label']}-seed{seed}" for seed in config["seeds"]]
        seeds = [_seed(folder, seed, config) for folder, seed in zip(folders, config["seeds"], strict=True)]
        written, *_ = [seed.pop("continuation") for seed in seeds]
        for folder in folders:
            if not results["environment"] and (folder / runs.ENVIRONMENT).exists():
                results["environment"] = runs.read_json(folder / runs.ENVIRONMENT)
        results["encodings"].append(
            {
                "label": given["label"],
                "spec": given["spec"],
                "state": _state(seeds),
                "perplexity": {protocol: _over_seeds(seeds, protocol) for protocol in PROTOCOLS},
                "parameters_added": next((s["parameters_added"] for s in seeds if s["state"] == "done"), None),
                "speed": speed.get(given["label"]),
                "continuation": written and continuation.parts(run, written, config["train"]["length"]),
                "seeds": seeds,
            }
        )
    results["finished"] = all(entry["state"] == "done" for entry in results["encodings"])
    results["summary"] = summary(results)
    return results


def factors(results: Data) -> list[int]:
    """How many times the trained length was evaluated."""
    return [int(factor) for factor in results["config"]["evaluate"]["factors"]]


def growth(entry: Data, results: Data, protocol: str = "last") -> tuple[int, float] | None:
    """(factor, perplexity there over that at the trained length) at the longest length that it could be read at.

    By the last-tokens protocol unless told otherwise, since there every length scores the same tokens. Infinite where
    the perplexity is; None if there is nothing to compare.
    """
    cells = entry["perplexity"][protocol]
    found = {f: cells[str(f)]["mean"] for f in factors(results) if "mean" in cells.get(str(f), {})}
    if len(found) < 2 or not found.get(1):
        return None
    last = found[max(found)]
    return max(found), last / found[1] if last is not None and math.isfinite(last) else math.inf


def verdict(entry: Data, results: Data, protocol: str = "last") -> Literal["held", "rose", "broke", "unclear"]:
    """What the perplexity did at the longest length, against that at the trained one.

    With several seeds the mean of the log ratios counts, and is "unclear" within two standard errors of a limit
    (``HELD``, ``BROKE``). With one seed there is no error to know, and the ratio itself counts.
    """
    cells = entry["perplexity"][protocol]
    known = {f: cells[str(f)]["values"] for f in factors(results) if cells.get(str(f), {}).get("values")}
    if len(known) < 2 or 1 not in known or len(known[max(known)]) != len(known[1]):
        return "unclear"
    pairs = zip(known[max(known)], known[1], strict=True)
    logs = [math.log(far / near) if far is not None and math.isfinite(far) else math.inf for far, near in pairs]
    middle = float(np.mean(logs))
    if not math.isfinite(middle):
        return "broke"
    error = 2 * float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    if middle + error <= math.log(HELD):
        return "held"
    if middle - error >= math.log(BROKE):
        return "broke"
    return "rose" if middle - error > math.log(HELD) and middle + error < math.log(BROKE) else "unclear"


def summary(results: Data) -> list[str]:
    """What the run found, in a few sentences computed from its numbers."""
    config, seeds = results["config"], len(results["config"]["seeds"])
    length = config["train"]["length"]
    said = []
    if unfinished := [entry["label"] for entry in results["encodings"] if entry["state"] != "done"]:
        verb = "is" if len(unfinished) == 1 else "are"
        said.append(f"This run is not finished: {names(unfinished)} {verb} still to be trained to the end.")
    groups: dict[str, list[tuple[float, str]]] = {"held": [], "rose": [], "broke": [], "unclear": []}
    refuse = [e["label"] for e in results["encodings"] if any("refused" in c for c in e["perplexity"]["last"].values())]
    longest = max(factors(results))
    for entry in results["encodings"]:
        grown = growth(entry, results)
        if grown is not None and grown[0] == longest and entry["label"] not in refuse:
            groups[verdict(entry, results)].append((grown[1], entry["label"]))
    parts = []
    for kind, verb in (("held", "kept"), ("rose", "lost some"), ("broke", "broke")):
        if groups[kind]:
            members = [f"{label} ({times(ratio)})" for ratio, label in sorted(groups[kind])]
            object_ = "" if kind != "held" else " its perplexity" if len(members) == 1 else " their perplexity"
            parts.append(f"{names(members)} {verb}{object_}")
    if groups["unclear"]:
        members = [f"{label} ({times(ratio)})" for ratio, label in sorted(groups["unclear"])]
        parts.append(f"of {names(members)} the seeds differ too much to say which")
    if parts:
        said.append(
            f"Trained on {length} tokens and read at {longest * length}, the perplexity there over that at {length} in "
            f"brackets: {'; '.join(parts)}."
        )
    by_end: dict[int, list[str]] = {}
    for entry in results["encodings"]:
        if entry["label"] in refuse:
            read = [cell["length"] for cell in entry["perplexity"]["last"].values() if "refused" not in cell]
            by_end.setdefault(max(read, default=length), []).append(entry["label"])
    for end, labels in by_end.items():
        verb = "have" if len(labels) > 1 else "has"
        where = "the trained length" if end == length else f"{end} tokens, {end // length} times the trained length,"
        said.append(f"{names(labels)} {verb} no code past {where} and cannot go further.")
    for protocol in reversed(PROTOCOLS):
        at_one = {e["label"]: e["perplexity"][protocol].get("1", {}).get("mean") for e in results["encodings"]}
        known = sorted((value, label) for label, value in at_one.items() if value is not None and math.isfinite(value))
        if len(known) > 1:
            (low, best), (high, worst) = known[0], known[-1]
            said.append(
                f"At the trained length itself {best} was best with a perplexity of {low:.2f} and {worst} last with "
                f"{high:.2f}."
            )
            break
    if seeds == 1:
        said.append("With one seed, differences of a few per cent between two encodings may be noise.")
    else:
        said.append(f"Numbers are means over {seeds} seeds, ± one standard deviation between them.")
    return said


def _config(run: Path) -> Data:
    path = run / runs.CONFIG
    if not path.is_file():
        raise ValueError(f"report: {run} has no {runs.CONFIG}, expected the folder of a run, such as runs/latest.")
    config = runs.read_json(path)
    if config.get("format") != FORMAT or config.get("kind") != "compare":
        raise ValueError(
            f"report: {path} has format {config.get('format')!r} and kind {config.get('kind')!r}, expected format "
            f"{FORMAT} and kind 'compare'; posenc {config.get('posenc')!r} wrote it, read it with that version."
        )
    converted(config, _Config, where=str(path))
    return config


def _seed(folder: Path, seed: int, config: Data) -> Data:
    rows = runs.Metrics(folder / runs.METRICS).rows()
    for number, row in enumerate(rows, 1):
        if row["event"] in _ROWS:
            converted(row, _ROWS[row["event"]], where=f"{folder / runs.METRICS}, line {number}")
    loss = {row["step"]: row["loss"] for row in rows if row["event"] == "train"}  # a resumed step counts once
    evaluate: dict[str, dict[str, Data]] = {protocol: {} for protocol in PROTOCOLS}
    for row in rows:
        if row["event"] == "evaluate":
            kept = {key: value for key, value in row.items() if key not in ("event", "protocol", "factor")}
            evaluate[row["protocol"]][str(row["factor"])] = kept
    done = next((row for row in reversed(rows) if row["event"] == "done"), None)
    return {
        "seed": seed,
        "state": "done" if done else "unfinished" if rows else "not started",
        "steps": max(loss, default=0),
        "steps_planned": config["train"]["steps"],
        "loss": sorted(loss.items()),
        "evaluate": evaluate,
        "continuation": next((row["tokens"] for row in rows if row["event"] == "continuation"), None),
        "parameters": done and done.get("parameters"),
        "parameters_added": done and done.get("parameters_added"),
        "seconds": done and done.get("seconds"),
    }


def _state(seeds: Sequence[Data]) -> str:
    states = {seed["state"] for seed in seeds}
    return states.pop() if len(states) == 1 else "unfinished"


def _over_seeds(seeds: Sequence[Data], protocol: str) -> dict[str, Data]:
    cells: dict[str, Data] = {}
    for factor in sorted({f for seed in seeds for f in seed["evaluate"][protocol]}, key=float):
        found = [seed["evaluate"][protocol][factor] for seed in seeds if factor in seed["evaluate"][protocol]]
        refused = [row["refused"] for row in found if "refused" in row]
        values = [float(row["perplexity"]) for row in found if row.get("perplexity") is not None]
        cell: Data = {"length": found[0]["length"], "values": values}
        if refused:
            cell["refused"] = refused[0]
        elif values:
            cell["mean"] = float(np.mean(values))
            cell["spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        cells[factor] = cell
    return cells


def encodings_of(run: Path, config: Data | None = None) -> dict[str, posenc.Encoding | str]:
    """Each encoding with the weights that its first seed learned, or the reason why it cannot be had."""
    config = _config(run) if config is None else config
    return {given["label"]: _encoding(run, given, config) for given in config["encodings"]}


def _encoding(run: Path, given: Data, config: Data) -> posenc.Encoding | str:
    model = config["model"]
    try:
        with torch.random.fork_rng(devices=[]):  # one that was not trained yet is the same in every report
            torch.manual_seed(0)
            encoding = parse(given["spec"]).build(
                dim=model["dim"], num_heads=model["num_heads"], length=config["train"]["length"]
            )
        weights = run / f"{given['label']}-seed{config['seeds'][0]}" / runs.MODEL
        if list(encoding.parameters()) and weights.exists():
            tensors = runs.load_tensors(weights)
            own = {key: tensors[f"encoding.{key}"] for key in encoding.state_dict() if f"encoding.{key}" in tensors}
            encoding.load_state_dict(own)
    except (ValueError, TypeError, OSError, RuntimeError, RunError) as error:
        return f"{given['spec']} cannot be built here: {error}"
    return encoding


def _properties(config: Data, encodings: Mapping[str, posenc.Encoding | str]) -> Data:
    """For each label what was measured, its words on the road, or why there is nothing."""
    found: Data = {}
    for label, encoding in encodings.items():
        if isinstance(encoding, str):
            found[label] = {"why_not": encoding}
            continue
        measured = measure(encoding, dim=config["model"]["dim"], num_heads=config["model"]["num_heads"])
        found[label] = {
            **measured.to_dict(),
            "relative": encoding.relative,
            "max_positions": encoding.max_positions,
            "step": dataclasses.asdict(road.step(encoding)),
        }
    return found
