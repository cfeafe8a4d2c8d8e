"""`posenc extend`: measures on real text with which rule a model reads N tokens, and writes a model with that rule."""

import contextlib
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

import posenc
from posenc.lab.checkpoint.fingerprint import check_same, fingerprint
from posenc.lab.checkpoint.memory import check_memory
from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.checkpoint.preview import look
from posenc.lab.extend import config as files
from posenc.lab.extend import report
from posenc.lab.extend.adapters import check_peft
from posenc.lab.extend.announce import estimate, introduce
from posenc.lab.extend.candidates import Candidate, base_of
from posenc.lab.extend.config import ExtendConfig, load_config, rule_folder
from posenc.lab.extend.costs import measure
from posenc.lab.extend.flags import stored_as_factors
from posenc.lab.extend.folder import Measured, rule_of
from posenc.lab.extend.measure import SHORTEST, Work, applied, save_candidate, unasked
from posenc.lab.extend.model import candidates_for, check_search, device_here, looked_at, opened, those_that_can_be_set
from posenc.lab.extend.passage import check_long_enough, documents, tokens, training_text
from posenc.lab.extend.passes import CHUNK
from posenc.lab.extend.processes import Processes, joined, local_device
from posenc.lab.extend.request import Ending as Ending
from posenc.lab.extend.request import Request as Request
from posenc.lab.extend.results import collect
from posenc.lab.extend.save import check_free, check_loads, save
from posenc.lab.extend.table import for_card
from posenc.lab.extend.tuning_config import Positions, TuneConfig
from posenc.lab.run import environment
from posenc.lab.run import folder as runs
from posenc.lab.run.config import read
from posenc.lab.run.errors import RunError, Stopped, resumable
from posenc.lab.run.options import command_of, words_of
from posenc.lab.run.printable import escape
from posenc.lab.run.progress import Stages
from posenc.lab.run.signals import cores, listening


def extend(request: Request, ending: Ending, console: Console) -> Path:
    """Do a new run, from the model's name to the report. Impossible requests are refused before a folder is made."""
    with joined(torch.device(local_device(device_here()))) as processes:
        run, checkpoint = prepare(request, ending, console) if processes.is_first else (None, None)
        shared: Path = processes.share(run)
        _finish(shared, ending, console, processes, checkpoint)
    return shared


def resume(run: Path, ending: Ending, console: Console) -> None:
    """Continue a run, then train and save if requested."""
    with joined(torch.device(local_device(device_here()))) as processes:
        _finish(run, ending, console, processes)


def prepare(request: Request, ending: Ending, console: Console) -> tuple[Path, Checkpoint]:
    """Make a new run folder and open the model. Impossible requests are refused before the model is loaded."""
    if request.model is not None and request.length is None:
        raise ValueError(
            "extend: got no --to, expected the number of tokens that the model should read, such as --to 12288."
        )
    preview = looked_at("extend", request)
    trained, length = preview.trained_length, request.length or 0
    wanted = candidates_for(preview, length, request.rules)
    if request.full < 1:
        raise ValueError(f"--full: got {request.full}, expected at least 1.")
    if request.retrieval and length < SHORTEST:
        raise ValueError(
            f"--to: got {length}, expected at least {SHORTEST} for the test of retrieval; give a larger number, or "
            "--no-retrieval."
        )
    if ending.save is not None:
        check_free(ending.save)
    if request.search:
        base_of(preview.frequencies)
    texts, described = documents(request.texts)
    check_long_enough(texts, length)
    check_memory(preview, length, chunk=CHUNK, dtype=request.dtype, device=device_here())
    threads = request.threads or cores()
    torch.set_num_threads(threads)
    checkpoint = opened(preview.source, request.dtype, request.trust_remote_code)
    tried = those_that_can_be_set(checkpoint, wanted, length, console, named=bool(request.rules))
    if request.search:
        check_search(checkpoint, length)
    read = tokens(texts, checkpoint.tokenizer, length)
    config = ExtendConfig(
        model=str(Path(preview.source).absolute()) if Path(preview.source).exists() else preview.source,
        label=preview.label,
        files=fingerprint(preview),
        positions=checkpoint.kind,
        trained_length=trained,
        length=length,
        rotary_dim=checkpoint.rotary_dim,
        head_dim=preview.head_dim,
        text=tuple(described),
        rules=tuple(candidate.name for candidate in tried),
        chosen=bool(request.rules),
        search=request.search,
        full=request.full,
        retrieval=request.retrieval,
        dtype=request.dtype,
        threads=threads,
        seed=request.seed,
        device=device_here(),
        trust_remote_code=request.trust_remote_code,
        versions=_versions(),
        command=command_of("extend", replace(request, threads=threads, folder=None)),
        factors=stored_as_factors(preview.frequencies),
    )
    if ending.tune:
        _training(config, ending, checkpoint, read)
    with runs.created(request.folder, f"{preview.label}-{length}") as run:
        runs.save_tensors(run / runs.TOKENS, {"tokens": read})
        for candidate in tried:
            save_candidate(run, candidate)
        runs.write_json(run / runs.CONFIG, config.to_dict())  # last: a folder with this file is complete
    return run, checkpoint


def _finish(
    run: Path, ending: Ending, console: Console, processes: Processes, checkpoint: Checkpoint | None = None
) -> None:
    """Do the unfinished work of a run, write its report, then train and save if requested."""
    config = load_config(run)
    alone = runs.locked(run, patience=1.0) if processes.is_first else contextlib.nullcontext()
    with alone, resumable(["posenc", "extend", "--resume", str(run), *words_of(ending)]), listening(_stop):
        _Job.begun(run, config, ending, console, processes, checkpoint).finish()


def _stop(number: int) -> None:
    raise Stopped(number)


@dataclass(frozen=True)
class _Job:
    """A run whose folder was made: what is left to do of it, in this process."""

    run: Path
    config: ExtendConfig
    ending: Ending
    console: Console
    processes: Processes
    checkpoint: Checkpoint
    read: Tensor  # the tokens of the measured text

    @classmethod
    def begun(
        cls,
        run: Path,
        config: ExtendConfig,
        ending: Ending,
        console: Console,
        processes: Processes,
        checkpoint: Checkpoint | None,
    ) -> "_Job":
        """Check that the model and the versions are those of the run, and load what it needs."""
        trusted = config.trust_remote_code
        preview = checkpoint.preview if checkpoint else look(config.model, trust_remote_code=trusted)
        check_same(preview, dict(config.files))
        environment.check_versions("run", config.versions, _versions())
        if config.device != (here := device_here()):
            raise RunError(
                f"the run began on {config.device} and would continue on {here}, which computes other numbers; "
                "continue where it began, or start a new run."
            )
        if ending.save is not None:
            check_free(ending.save)
        torch.set_num_threads(config.threads)
        read = runs.load_tensors(run / runs.TOKENS)["tokens"]
        if checkpoint is None:
            checkpoint = opened(config.model, config.dtype, trusted)
            if ending.tune:
                _training(config, ending, checkpoint, read)
        if ending.save is not None:
            check_loads(checkpoint)
        return cls(run, config, ending, console, processes, checkpoint, read)

    def finish(self) -> None:
        if self.processes.is_first:
            for folder in (self.run, *self.run.glob(f"{files.RULES}/*")):
                runs.clear_partial_writes(folder)
            self._measure()
        name: str = self.processes.share(self._measured().chosen() if self.processes.is_first else None)
        ending = self.ending
        if ending.save is not None and not ending.tune:
            ending = self.processes.share(self._as_trained(name) if self.processes.is_first else ending)
        if ending.tune:
            self._tune(name, ending)
        if self.processes.is_first:
            self._report(name, ending)

    def _measured(self) -> Measured:
        return Measured.read(self.run, self.config)

    def _measure(self) -> None:
        introduce(self.run, self.config, self.checkpoint, self.console)
        if not (self.run / runs.ENVIRONMENT).exists():
            here = environment.describe(threads=self.config.threads, device=self.config.device)
            runs.write_json(self.run / runs.ENVIRONMENT, here)
        lacking = self._lacking()
        if not lacking:
            return
        if (rule_folder(self.run, "none") / files.PROBE).exists():
            self.console.print(f"[dim]next    [/] {escape(lacking[0])}: what comes before it is done")
        time = estimate(self.run, self.config, measure(self.checkpoint, self.read))
        self.console.print(f"[dim]time    [/] {time}\n", soft_wrap=True)
        with Stages(self.console) as stages:
            work = Work(self.run, self.config, self.checkpoint, self.read, stages)
            work.probe(list(self.config.rules))
            if self.config.search:
                work.search()
                work.probe(["longrope"])
            work.full("none")
            work.windows()
            for name in self._measured().finalists():
                work.full(name)
            if self.config.retrieval:
                for name in dict.fromkeys(("none", self._measured().chosen())):
                    work.retrieve(name)

    def _lacking(self) -> list[str]:
        measured = self._measured()
        lacking = measured.lacks()
        if self.config.retrieval and not lacking:
            asked = dict.fromkeys(("none", measured.chosen()))
            lacking = [f"retrieval with {name}" for name in asked if unasked(self.run, name)]
        return lacking

    def _as_trained(self, name: str) -> Ending:
        """Save a run as it is: take over its finished training, without further steps."""
        folder = rule_folder(self.run, name) / files.TUNED
        if not (folder / files.TUNING).exists():
            return self.ending
        told = read(folder / files.TUNING, TuneConfig)
        ending = Ending(self.ending.save, told.steps, told.method, told.positions, told.window, told.batch)
        if not (folder / files.TUNE_REPORT).exists():
            raise ValueError(  # as this error says how the run goes on
                "--save: the training of this run stopped before its end, and posenc saves no half-trained weights; "
                f"continue with {shlex.join(words_of(ending))}, or remove {folder} to save the weights as they were "
                "before the training."
            )
        return ending

    def _tune(self, name: str, ending: Ending) -> None:
        from posenc.lab.extend.tune import tune

        rule = rule_of(self.run, name)
        folder = rule_folder(self.run, name) / files.TUNED
        positions, window, text = _training(self.config, ending, self.checkpoint, self.read)
        if self.processes.is_first and (checkpoint_file := folder / runs.CHECKPOINT).exists():
            steps_done = len(runs.load_tensors(checkpoint_file).get("progress.losses", ()))
            self.console.print(f"The training continues after step {steps_done} of {ending.tune}.")
        with Stages(self.console) as stages:
            stage = stages.begin(f"{name}, training", ending.tune, unit="step")
            stage.at(0)
            done = tune(
                self.checkpoint,
                rule,
                text,
                length=self.config.length,
                steps=ending.tune,
                window=window,
                batch=ending.batch or max(2, self.processes.size),
                method=ending.method,  # type: ignore[arg-type]  # the command line has checked it
                positions=positions,
                seed=self.config.seed,
                folder=folder,
                on_progress=lambda step, loss: stage.at(step, loss=loss),
            )
            stage.done()
            if self.processes.is_first and not (folder / files.PASS).exists():
                runs.write_json(folder / files.TUNE_REPORT, done.to_dict())
                work = Work(self.run, self.config, self.checkpoint, self.read, stages)
                candidate = Candidate(name, rule, self.checkpoint.frequencies)
                with applied(self.checkpoint, candidate, self.config.length) as model:
                    work.read(model, folder / files.PASS, title=f"{name} tuned")

    def _report(self, name: str, ending: Ending) -> None:
        with self.console.status("Writing the report"):
            found = collect(self.run)
            page = report.write(self.run, found)
        report.print_table(self.run, self.console, found)
        self.console.print(f"Report: {escape(page)}", soft_wrap=True)
        if ending.save is not None:
            if found.verdict.kind == "none of them" and not self.config.chosen and not ending.tune:
                raise ValueError(
                    "--save: no rule holds, so nothing is saved; to save the model nevertheless, name a rule: --rules "
                    f"{name}."
                )
            rule = rule_of(self.run, name)
            save(
                self.checkpoint,
                rule or self.checkpoint.frequencies,  # its own rule, with the new length in the config
                ending.save,
                length=self.config.length,
                name=name,
                tuned=bool(ending.tune),
                perplexities=for_card(found),
            )
            self.console.print(f"Saved: {escape(ending.save)}, {escape(self.config.label)} with {name}", soft_wrap=True)


def _training(
    config: ExtendConfig, ending: Ending, checkpoint: Checkpoint, read: Tensor
) -> tuple[Positions, int, Tensor]:
    """The positions, the window and the text of a training; asked before the measurement, it refuses what cannot be."""
    check_peft(ending.method)
    whole = ending.positions == "whole" or (ending.positions is None and config.device == "cuda")
    window = config.length if whole else ending.window or min(512, max(16, config.trained_length // 8))
    if window > config.length:
        raise ValueError(f"--window: got {window}, expected at most {config.length}, the tokens to read.")
    return "whole" if whole else "skipwise", window, training_text(config, checkpoint.tokenizer, read, window)


def _versions() -> dict[str, str]:
    import transformers

    return {"posenc": posenc.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__}
