"""The main job: train the same small decoder with each encoding on the same text, and measure what each one does."""

import dataclasses
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

import posenc
from posenc.lab.compare.jobs import finish as finish_run
from posenc.lab.compare.jobs import finish_trials
from posenc.lab.compare.request import Request as Request
from posenc.lab.compare.text import report, speed
from posenc.lab.compare.text.config import Given, RunConfig, TrialConfig, is_done, load_config, load_trial
from posenc.lab.compare.text.presets import PRESETS
from posenc.lab.compare.text.trial import make_model, run_trial
from posenc.lab.drawing.words import counted
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run import text
from posenc.lab.run.config import Backend, Device, check_choice
from posenc.lab.run.errors import RunError
from posenc.lab.run.options import command_of
from posenc.lab.run.progress import Stages
from posenc.lab.run.signals import cores


def prepare(request: Request) -> Path:
    """A new run folder that holds all that its trials need; what cannot run is refused before there is one."""
    config, trials, vocabulary, tokens = _plan(request)
    with runs.created(request.folder, request.preset) as run:
        runs.save_tensors(run / runs.TOKENS, tokens)
        if vocabulary.tokenizer is not None:
            runs.write(run / runs.TOKENIZER, vocabulary.tokenizer)
        for trial in trials:
            (run / trial.name).mkdir(exist_ok=True)
            runs.write_json(run / trial.name / runs.CONFIG, trial.to_dict())
        runs.write_json(run / runs.CONFIG, config.to_dict())  # last: a folder that has it is whole
    return run


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do what a run still lacks: trials, timing, report. A new run lacks all of it, one that was cut off the rest."""
    config = load_config(run)
    config = dataclasses.replace(config, jobs=jobs or config.jobs, backend=backend or config.backend)
    folders = [run / f"{entry.label}-seed{seed}" for seed in config.seeds for entry in config.encodings]

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


def _plan(request: Request) -> tuple[RunConfig, list[TrialConfig], text.Vocabulary, dict[str, torch.Tensor]]:
    """Everything that can be refused is refused here, before a folder is made."""
    check_choice("--backend", request.backend, Backend)
    request.refuse("dropout", "lengths", why="which this task does not take; leave them out, or name another --task")
    if request.preset not in PRESETS:
        raise ValueError(f"--preset: got {request.preset!r}, expected one of {', '.join(PRESETS)}.")
    preset = PRESETS[request.preset]
    model = dataclasses.replace(preset.model, **request.model_sizes())
    train = dataclasses.replace(preset.train, **request.train_sizes())
    evaluate = dataclasses.replace(preset.evaluate, last=min(preset.evaluate.last, train.length))
    corpus = text.from_files(request.texts) if request.texts else text.shipped()
    vocabulary = text.make_vocabulary(request.vocabulary or preset.vocabulary, corpus.train)
    tokens = {"train": vocabulary.encode(corpus.train), "validation": vocabulary.encode(corpus.validation)}
    text.check_long_enough(**tokens, length=train.length, longest=train.length * max(evaluate.factors))
    specs = [parse(spec) for spec in request.specs or preset.encodings]
    labels = [spec.label for spec in specs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{twice[0]!r} names two encodings of this run; give each once, with different options.")
    seeds = tuple(range(preset.seeds if request.seeds is None else request.seeds))
    if not seeds:
        raise ValueError(f"--seeds: got {request.seeds}, expected at least 1.")
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    job_count = _how_many_jobs(request.jobs, device, trials=len(specs) * len(seeds))
    threads = request.threads or max(1, cores() // job_count)
    config = RunConfig(
        command=command_of("compare", dataclasses.replace(request, threads=threads, folder=None, jobs=None)),
        preset=request.preset,
        encodings=tuple(Given(spec.label, spec.text) for spec in specs),
        seeds=seeds,
        text=corpus.describe(),
        vocabulary=vocabulary.describe(),
        model=model,
        train=train,
        evaluate=evaluate,
        threads=threads,
        jobs=job_count,
        backend=cast(Backend, request.backend),
        device=device,
        precision="bfloat16" if device == "cuda" else "float32",
    )
    trials = [_trial(config, entry, seed) for seed in seeds for entry in config.encodings]
    return config, trials, vocabulary, {name: torch.from_numpy(array.copy()) for name, array in tokens.items()}


def _how_many_jobs(wanted: int | None, device: Device, *, trials: int) -> int:
    """One for each core, or each GPU, but no more than there are trials."""
    if wanted is not None:
        return wanted
    return min(trials, torch.cuda.device_count() if device == "cuda" else cores())


def _trial(config: RunConfig, entry: Given, seed: int) -> TrialConfig:
    """A trial whose encoding has been built and tried on one window, so that it does not fail an hour later."""
    trial = TrialConfig(
        label=entry.label,
        spec=entry.spec,
        encoding={},
        file_sha256=parse(entry.spec).file_digest(),
        seed=seed,
        vocabulary=config.vocabulary,
        model=config.model,
        train=config.train,
        evaluate=config.evaluate,
        threads=config.threads,
        device=config.device,
        precision=config.precision,
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
        f"[dim]text    [/] {names}; held out: {held_out}; as {vocabulary}",
        f"[dim]model   [/] {model.num_layers} layers, dim {model.dim}, {model.num_heads} heads; "
        f"{train.steps} steps of {train.batch} x {train.length} tokens",
        f"[dim]machine [/] {config.device}; {counted(config.jobs, 'trial')} at a time, "
        f"{counted(config.threads, 'thread')} each",
    ]
