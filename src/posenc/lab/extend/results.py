"""Everything that a run of ``posenc extend`` found, computed from its folder alone: what is in ``results.json``."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import posenc
from posenc.frequencies import Frequencies
from posenc.lab.drawing.words import finite, names
from posenc.lab.extend import config as files
from posenc.lab.extend.config import ExtendConfig, load_config, retrieval_file, rule_folder
from posenc.lab.extend.flags import flags
from posenc.lab.extend.passes import position_bins
from posenc.lab.extend.retrieval import TASKS
from posenc.lab.extend.verdict import HELD, Bins, Mean, Nats, decide, difference, excess, holds, mean, worst
from posenc.lab.extend.words import NOT_FINISHED, perplexities, recommendation, summary
from posenc.lab.run import folder as runs
from posenc.lab.run.config import FORMAT, NO_COMMAND, Data, check
from posenc.lab.run.errors import RunError

POINTS = 48
"""Points of a curve by position."""


def collect(run: Path) -> Data:
    """The results of a run, finished or not.

    Raises:
        RunError: a folder that is no run of ``posenc extend``, a run of another format, a broken file in it.
    """
    config = load_config(run)
    losses = load_losses(run, config)
    baseline = load_baseline(run, config)
    bins = position_bins(config.trained_length, config.length)
    environment = run / runs.ENVIRONMENT
    results: Data = {
        "format": FORMAT,
        "kind": files.KIND,
        "posenc": posenc.__version__,
        "run": run.resolve().name,
        "config": config.to_dict(),
        "command": config.command or NO_COMMAND,
        "environment": runs.read_json(environment) if environment.exists() else {},
        "bins": [list(one) for one in bins],
        "windows": None if baseline is None else perplexities(baseline, bins),
        "rules": [_rule(run, name, config, losses, baseline, bins) for name in named(run, config)],
    }
    results["probe"] = _probe_plan(results["rules"])
    results["finished"] = not unfinished(run, config)
    results["verdict"] = _verdict(losses, baseline, bins, config, finished=results["finished"])
    results["curves"] = _curves(losses, baseline, config.length)
    results["trust"] = _trust(results, losses, baseline, config)
    results["search"] = _read(run / files.SEARCH)
    results["tuned"] = _tuned(run, losses, baseline, bins, config)
    results["flags"] = _flags(run, results["verdict"], config)
    results["summary"] = summary(results)
    found: Data = finite(results)
    return found


# What there is in the folder


def named(run: Path, config: ExtendConfig) -> list[str]:
    """The rules of a run, the one that its search found among them."""
    found = [*config.rules]
    if config.search and (rule_folder(run, "longrope") / files.CANDIDATE).exists() and "longrope" not in found:
        found.append("longrope")
    return found


def load_losses(run: Path, config: ExtendConfig) -> dict[str, NDArray[np.float32]]:
    """The losses of each rule that had its full pass."""
    found = {}
    for name in named(run, config):
        path = rule_folder(run, name) / files.PASS
        if path.exists():
            found[name] = _nats(path)
    return found


def load_baseline(run: Path, config: ExtendConfig) -> NDArray[np.float32] | None:
    """The losses of the untouched model within the trained length, and beyond it in windows of the trained length."""
    untouched = rule_folder(run, "none") / files.PASS
    windows = run / files.WINDOWS
    if not (untouched.exists() and windows.exists()):
        return None
    found = _nats(untouched).copy()
    found[config.trained_length :] = _nats(windows)
    return found


def probe_scores(run: Path, config: ExtendConfig) -> dict[str, float]:
    """What the probe makes of each rule: its mean loss over all gaps, of which the first is none."""
    found = {}
    for name in named(run, config):
        probe = _probe(run, name)
        if probe is not None:
            found[name] = _score(probe)
    return found


def finalists(run: Path, config: ExtendConfig) -> list[str]:
    """Who gets the full pass: "none", then the best by the probe, or all in the order in which the user named them."""
    tried = [name for name in named(run, config) if name != "none"]
    if not config.chosen:
        scores = probe_scores(run, config)
        tried = sorted((name for name in tried if name in scores), key=lambda name: scores[name])[: config.full]
    return ["none", *tried]


def unfinished(run: Path, config: ExtendConfig) -> list[str]:
    """What a run still lacks, in words."""
    lacking = []
    waiting = [name for name in named(run, config) if not (rule_folder(run, name) / files.PROBE).exists()]
    if config.search and not (run / files.SEARCH).exists():
        lacking.append("the search")
    if waiting:
        lacking.append(f"the probe of {names(waiting)}")
    elif passing := [name for name in finalists(run, config) if not (rule_folder(run, name) / files.PASS).exists()]:
        lacking.append(f"the full pass of {names(passing)}")
    if not (run / files.WINDOWS).exists():
        lacking.append("the pass in windows")
    return lacking


def chosen(run: Path, config: ExtendConfig) -> str:
    """The rule to save or to train with: the only one that the user named, else the recommended or the closest one."""
    tried = [name for name in named(run, config) if name != "none"]
    if config.chosen and len(tried) == 1:
        return tried[0]
    losses, baseline = load_losses(run, config), load_baseline(run, config)
    if baseline is None:
        raise RunError(f"{run}: the run is not finished, so that no rule is chosen; go on with it first.")
    bins = position_bins(config.trained_length, config.length)
    return decide(losses, baseline, bins, trained_length=config.trained_length).rule


def rule_of(run: Path, name: str) -> Any:
    """The rule of that name as the run has it: a Frequencies, "interpolate", or None."""
    path = rule_folder(run, name) / files.CANDIDATE
    candidate = runs.read_json(path)
    rule = candidate.get("rule", "")
    if not (rule is None or rule == "interpolate" or isinstance(rule, Mapping)):
        raise RunError(f"{path}: there is no rule; the file is damaged.")
    return Frequencies.from_dict(rule) if isinstance(rule, Mapping) else rule


def _nats(path: Path) -> NDArray[np.float32]:
    found: NDArray[np.float32] = _tensor(path, "nats").numpy()
    return found


def _tensor(path: Path, name: str) -> Any:
    tensors = runs.load_tensors(path)
    if name not in tensors:
        raise RunError(f"{path}: there is no tensor {name!r}; the file is damaged.")
    return tensors[name]


class _Probe(msgspec.Struct):
    """What a probe measured: a loss for each gap and place, null where there is no number."""

    gaps: list[int]
    block: int
    scored: int
    places: int
    losses: list[list[float | None]]


def _probe(run: Path, name: str) -> Data | None:
    path = rule_folder(run, name) / files.PROBE
    probe = _read(path)
    if probe is None:
        return None
    check(probe, _Probe, where=str(path))
    if [len(row) for row in probe["losses"]] != [probe["places"]] * len(probe["gaps"]):
        raise RunError(
            f"{path}: expected a loss for each of {len(probe['gaps'])} gaps and {probe['places']} places; "
            "the file is damaged."
        )
    return probe


def _read(path: Path) -> Data | None:
    return runs.read_json(path) if path.exists() else None


# What follows from it


def _rule(
    run: Path,
    name: str,
    config: ExtendConfig,
    losses: Mapping[str, Nats],
    baseline: Nats | None,
    bins: Bins,
) -> Data:
    folder = rule_folder(run, name)
    probe = _probe(run, name)
    asked = [found for task in TASKS if (found := _read(retrieval_file(run, name, task))) is not None]
    found = _passed(name, losses, baseline, bins, config) if name in losses else None
    if found is not None:
        found["seconds"] = float(_tensor(folder / files.PASS, "seconds"))
    return {
        "name": name,
        "rule": (_read(folder / files.CANDIDATE) or {}).get("rule"),
        "probe": None if probe is None else probed(probe),
        "pass": found,
        "retrieval": [answer for found in asked for answer in found["answers"]] or None,
    }


def probed(probe: Data) -> Data:
    """What was probed of a rule, with its mean over the places for each gap, and its score."""
    cells = np.array(probe["losses"], dtype=np.float64)  # a null of JSON is NaN
    return {**probe, "mean": _means(cells), "score": _score(probe)}


def _passed(name: str, losses: Mapping[str, Nats], baseline: Nats | None, bins: Bins, config: ExtendConfig) -> Data:
    mine, trained = losses[name], config.trained_length
    above = None if baseline is None else excess(mine, baseline, bins)
    untouched = losses.get("none") if name != "none" else None
    return {
        "perplexity": perplexities(mine, bins),
        "above": None if above is None else [_mean(one) for one in above],
        "holds": None if above is None else holds(above),
        "worst": None if above is None else worst(above),
        "cost": None if untouched is None else _mean(difference(mine[:trained], untouched[:trained])),
        "gain": None if untouched is None else _mean(difference(untouched[trained:], mine[trained:])),
    }


def _mean(found: Mean | None) -> Data | None:
    return None if found is None else {"nats": found.nats, "error": found.error}


def _means(cells: NDArray[np.float64]) -> list[float | None]:
    """Over the places, gap by gap; None where a place has no number."""
    return [None if np.isnan(row).any() else float(row.mean()) for row in cells]


def _score(probe: Data) -> float:
    cells = np.array(probe["losses"], dtype=np.float64)  # a null of JSON is NaN
    return math.inf if np.isnan(cells).any() else float(cells.mean())


def _probe_plan(rules: Sequence[Data]) -> Data | None:
    return next(
        ({key: rule["probe"][key] for key in ("gaps", "block", "scored", "places")} for rule in rules if rule["probe"]),
        None,
    )


def _verdict(
    losses: Mapping[str, Nats],
    baseline: Nats | None,
    bins: Bins,
    config: ExtendConfig,
    *,
    finished: bool,
) -> Data:
    if not finished or baseline is None:
        return {
            "kind": "not finished",
            "rule": None,
            "sentence": NOT_FINISHED,
        }
    found = decide(losses, baseline, bins, trained_length=config.trained_length)
    above = excess(losses[found.rule], baseline, bins)
    sentence = recommendation(found, losses, above, bins, config)
    return {"kind": found.kind, "rule": found.rule, "sentence": sentence}


def _curves(losses: Mapping[str, Nats], baseline: Nats | None, length: int) -> Data:
    """Smooth curves by position: means of some hundred tokens, in nats."""
    edges = np.linspace(0, length - 1, min(POINTS, max(2, length // 4)) + 1).round().astype(int)
    parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def curve(values: Nats) -> list[float | None]:
        return [None if (found := mean(values[first:last])) is None else found.nats for first, last in parts]

    return {
        "positions": [(first + last) / 2 for first, last in parts],
        "rules": {name: curve(values) for name, values in losses.items()},
        "windows": None if baseline is None else curve(baseline),
    }


def _trust(results: Data, losses: Mapping[str, Nats], baseline: Nats | None, config: ExtendConfig) -> Data | None:
    """Probe against full pass, for each rule and gap that both have measured.

    Both are nats above a baseline. The probe's baseline is the untouched model at the largest gap whose blocks end
    within the trained length (or the gap itself, if it is smaller). The full pass is averaged over the tokens before
    the end of the blocks: an eighth of the trained length, or as many as there are. The untouched model within its
    trained length has zero in both by definition, and is left
    out. They agree if both say that the rule holds there, or both that it does not.
    """
    plan = results["probe"]
    by_name = {rule["name"]: rule["probe"] for rule in results["rules"]}
    if plan is None or baseline is None or by_name.get("none") is None:
        return None
    ends = [gap + 2 * plan["block"] for gap in plan["gaps"]]
    homes = [at for at, end in enumerate(ends) if end <= config.trained_length] or [0]
    points = []
    for name in losses:
        for at, end in enumerate(ends):
            if by_name.get(name) is None or (name == "none" and at in homes):
                continue
            first = max(0, end - max(1, config.trained_length // 8))
            measured = difference(losses[name][first:end], baseline[first:end])
            home = by_name["none"]["mean"][min(at, homes[-1])]
            probed = by_name[name]["mean"][at]
            if measured is not None and home is not None and probed is not None:
                points.append({"rule": name, "gap": plan["gaps"][at], "probe": probed - home, "pass": measured.nats})
    if not points:
        return None
    limit = math.log(HELD)
    return {
        "points": points,
        "agree": sum((point["probe"] <= limit) == (point["pass"] <= limit) for point in points),
        "difference": float(np.median([abs(point["probe"] - point["pass"]) for point in points])),
    }


def _tuned(
    run: Path,
    losses: Mapping[str, Nats],
    baseline: Nats | None,
    bins: Bins,
    config: ExtendConfig,
) -> Data | None:
    """What training did: the model with its rule before and after, by the full pass."""
    for name in losses:
        path = rule_folder(run, name) / files.TUNED / files.PASS
        if path.exists():
            after = _nats(path)
            trained = config.trained_length
            return {
                "rule": name,
                **_passed(f"{name} tuned", {**losses, f"{name} tuned": after}, baseline, bins, config),
                "report": _read(path.with_name(files.TUNE_REPORT)),
                "lowered": {
                    "within": _mean(difference(losses[name][:trained], after[:trained])),
                    "beyond": _mean(difference(losses[name][trained:], after[trained:])),
                },
            }
    return None


def _flags(run: Path, verdict: Data, config: ExtendConfig) -> Data | None:
    """What other programs are told for the rule of the verdict."""
    if verdict["rule"] is None:
        return None
    rule = rule_of(run, verdict["rule"])
    widths = {"rotary_dim": config.rotary_dim, "head_dim": config.head_dim}
    return flags(rule, trained_length=config.trained_length, length=config.length, **widths)
