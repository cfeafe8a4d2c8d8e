"""The main job: train the same small decoder with each encoding on the same text, and measure each one."""

import dataclasses
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

import posenc
from posenc.lab.compare.jobs import finish as finish_run
from posenc.lab.compare.jobs import finish_trials, write_configs
from posenc.lab.compare.request import MODEL, TRAIN
from posenc.lab.compare.request import Request as Request
from posenc.lab.compare.text import report, speed
from posenc.lab.compare.text.config import Given, RunConfig, TrialConfig, is_done, load_config, load_trial
from posenc.lab.compare.text.presets import PRESETS
from posenc.lab.compare.text.trial import make_model, run_trial
from posenc.lab.drawing.words import counted
from posenc.lab.encodings.spec import file_digest, parse
from posenc.lab.run import folder as runs
from posenc.lab.run import text
from posenc.lab.run.config import Backend, Device, to_dict
from posenc.lab.run.errors import RunError
from posenc.lab.run.printable import escape
from posenc.lab.run.progress import Stages
from posenc.lab.run.signals import cores


def prepare(request: Request) -> Path:
    """Make a new run folder with everything that its trials need; refuse impossible options before."""
    request.refuse("dropout", "lengths", why="which this task does not take; leave them out, or name another --task")
    preset = PRESETS[request.preset]
    model = dataclasses.replace(preset.model, **request.sizes(*MODEL))
    train = dataclasses.replace(preset.train, **request.sizes(*TRAIN) | request.train)
    evaluate = dataclasses.replace(preset.evaluate, last=min(preset.evaluate.last, train.length))
    corpus = text.from_files(request.texts) if request.texts else text.shipped()
    vocabulary = text.make_vocabulary(request.vocabulary or preset.vocabulary, corpus.train)
    tokens = {"train": vocabulary.encode(corpus.train), "validation": vocabulary.encode(corpus.validation)}
    text.check_long_enough(**tokens, length=train.length, longest=train.length * max(evaluate.factors))
    labels = request.labelled(preset.encodings, lambda spec: parse(spec).label)
    seeds = request.numbered_seeds(preset.seeds)
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    processors = torch.cuda.device_count() if device == "cuda" else cores()
    jobs, threads = request.side_by_side(len(labels) * len(seeds), processors)
    config = RunConfig(
        command=request.command(threads),
        preset=request.preset,
        encodings=tuple(Given(label, spec) for label, spec in labels.items()),
        seeds=seeds,
        text=corpus.describe(),
        vocabulary=vocabulary.describe(),
        model=model,
        train=train,
        evaluate=evaluate,
        threads=threads,
        jobs=jobs,
        backend=cast(Backend, request.backend),
        device=device,
        precision="bfloat16" if device == "cuda" else "float32",
    )
    trials = [_trial(config, entry, seed) for seed in seeds for entry in config.encodings]
    with runs.created(request.folder, request.preset) as run:
        runs.save_tensors(run / runs.TOKENS, {name: torch.from_numpy(array.copy()) for name, array in tokens.items()})
        if vocabulary.tokenizer is not None:
            runs.write(run / runs.TOKENIZER, vocabulary.tokenizer)
        every = {runs.of_trial(run, trial.label, trial.seed): to_dict("trial", trial) for trial in trials}
        write_configs(run, config.to_dict(), every)
    return run


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do the unfinished work of a run: trials, timing, report. In a new run, this is all of it."""
    config = load_config(run)
    config = dataclasses.replace(config, jobs=jobs or config.jobs, backend=backend or config.backend)
    folders = [runs.of_trial(run, entry.label, seed) for seed in config.seeds for entry in config.encodings]

    def work() -> None:
        how = {name: getattr(config, name) for name in ("jobs", "threads", "backend", "device")}
        finish_trials(folders, is_done, config.train, console, run=run_trial, **how)
        if not (run / runs.SPEED).exists():
            with Stages(console) as stages:
                stage = stages.begin("timing", speed.WARM_UP + speed.ROUNDS, unit="round")
                stage.at(0)
                first_seed = [load_trial(folder) for folder in folders[: len(config.encodings)]]
                runs.write_json(run / runs.SPEED, speed.measure(run, first_seed, on_progress=stage.at))
                stage.done()

    finish_run(run, console, introduction=_introduction(config), work=work, report=report)


def _trial(config: RunConfig, entry: Given, seed: int) -> TrialConfig:
    """The config of a trial, after a test of its encoding on one window, so that it does not fail an hour later."""
    kept = ("vocabulary", "model", "train", "evaluate", "threads", "device", "precision")
    trial = TrialConfig(
        label=entry.label,
        spec=entry.spec,
        encoding={},
        file_sha256=file_digest(entry.spec),
        seed=seed,
        **{name: getattr(config, name) for name in kept},
    )
    model = make_model(trial)
    limit, length = model.encoding.max_positions, config.train.length
    if limit is not None and limit < length:
        raise ValueError(f"{entry.label} has {limit} positions, expected at least {length}, the length to train at.")
    try:
        model(torch.zeros(1, length, dtype=torch.int64)).sum().backward()
        return dataclasses.replace(trial, encoding=model.encoding.to_dict())
    except Exception as error:
        raise RunError(f"{entry.label} fails on its first window: {type(error).__name__}: {error}") from error


def _introduction(config: RunConfig) -> list[str]:
    model, train = config.model, config.train
    names = " + ".join(part["name"] for part in config.text["train"])
    held_out = " + ".join(part["name"] for part in config.text["validation"])
    vocabulary = "bytes" if config.vocabulary["kind"] == "bytes" else f"{config.vocabulary['size']} byte pairs"
    return [
        f"[bold]posenc {posenc.__version__}[/] compares {counted(len(config.encodings), 'encoding')}, "
        f"{counted(len(config.seeds), 'seed')} each, preset {config.preset}.",
        f"[dim]text    [/] {escape(names)}; held out: {escape(held_out)}; as {vocabulary}",
        f"[dim]model   [/] {model.num_layers} layers, dim {model.dim}, {model.num_heads} heads; "
        f"{train.steps} steps of {train.batch} x {train.length} tokens",
        f"[dim]machine [/] {config.device}; {counted(config.jobs, 'trial')} at a time, "
        f"{counted(config.threads, 'thread')} each",
    ]
