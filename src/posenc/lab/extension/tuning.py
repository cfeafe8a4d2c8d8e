"""Fine-tuning a model at a new length, in windows that fit a laptop.

What happens in a step depends on the seed and the number of the step alone: a tuning that was cut off goes on from its
last checkpoint to the numbers of an unbroken one, and several processes come to what one comes to, but for rounding.
"""

import contextlib
import hashlib
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.frequencies import Frequencies
from posenc.lab import runs
from posenc.lab.errors import RunError
from posenc.lab.extension.adapters import Method, trainable
from posenc.lab.extension.processes import Processes, joined
from posenc.lab.train import batch_at, learning_rate_at
from posenc.positions import skipwise

Positions = Literal["skipwise", "whole"]
Setting = Frequencies | Literal["interpolate"] | None

CONFIG = "tuning.json"
LEARNING_RATES: Mapping[Method, float] = {"lora": 5e-4, "full": 2e-5}
MOST_SCORED = 4096
"""Tokens of a window that are scored; of longer ones a part, drawn anew at each step, because logits are large."""


class Loaded(Protocol):
    """What is tuned of a checkpoint: a causal language model of transformers."""

    model: Any


@dataclass(frozen=True)
class TuneConfig:
    """All that the numbers depend on, as FOLDER/tuning.json holds it.

    Attributes:
        rule: the rule as plain data.
        length: tokens that the model is to read.
        steps: how many.
        window: tokens of a training window.
        batch: windows of a step, shared out among the processes.
        method: "lora" or "full".
        positions: "skipwise" or "whole".
        chunks: into how many a window is cut, if skip-wise.
        learning_rate: at its highest.
        warmup: steps until there.
        rank: of the LoRA matrices.
        targets: names of the layers that LoRA goes into; None for those of the attention.
        seed: of windows, positions and fresh weights.
        text: SHA-256 of the tokens.
        model: SHA-256 of a sample of the weights.
        versions: of the packages that compute.
    """

    rule: Any
    length: int
    steps: int
    window: int
    batch: int
    method: Method
    positions: Positions
    chunks: int
    learning_rate: float
    warmup: int
    rank: int
    targets: tuple[str, ...] | None
    seed: int
    text: str
    model: str
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        return {**plain, "targets": None if self.targets is None else list(self.targets)}


@dataclass(frozen=True)
class TuneStep:
    """How far a tuning is.

    Attributes:
        step: steps that are done.
        steps: how many there will be.
        loss: of this step, in nats a token.
        seconds: since the beginning, without pauses.
    """

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class TuneReport:
    """What a tuning did. The losses are those of its own windows; what it is worth, a full pass says.

    Attributes:
        config: what was asked for.
        finished: whether all steps are done. Only then the model has the new weights.
        losses: of each step, in nats a token.
        trained: how many numbers were trained.
        parameters: how many the model has.
        seconds: of all steps.
        processes: how many took part, the last time.
    """

    config: TuneConfig
    finished: bool
    losses: tuple[float, ...]
    trained: int
    parameters: int
    seconds: float
    processes: int

    @property
    def tokens(self) -> int:
        """How many tokens the model was trained with."""
        return len(self.losses) * self.config.batch * self.config.window

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        plain = {name: getattr(self, name) for name in ("finished", "trained", "parameters", "seconds", "processes")}
        return {"config": self.config.to_dict(), "losses": list(self.losses), "tokens": self.tokens, **plain}


def tune(
    checkpoint: Loaded,
    rule: Setting,
    tokens: Tensor,
    *,
    length: int,
    steps: int,
    window: int,
    method: Method = "lora",
    positions: Positions = "skipwise",
    seed: int = 0,
    folder: Path,
    batch: int = 4,
    chunks: int = 2,
    learning_rate: float | None = None,
    warmup: int | None = None,
    rank: int = 16,
    targets: Sequence[str] | None = None,
    checkpoint_every: int = 10,
    gradient_checkpointing: bool = True,
    on_progress: Callable[[TuneStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TuneReport:
    """Fine-tune a model at a new length, after a rule was set. The rule goes when it is done, and the weights stay.

    If the folder holds the checkpoint of the same tuning, it goes on from there, or takes over the result. Under
    ``torchrun`` or ``accelerate launch`` the windows of each step are shared out; all processes must see the folder.

    Args:
        checkpoint: whose ``model`` is trained, in place. Its table of positions, if it has one, is not.
        rule: what ``integrations.transformers.extend`` takes, or None for the rule that the model has.
        tokens: (n,) of the text.
        length: tokens that the model is to read.
        steps: how many.
        window: tokens of a training window, which memory and time grow with.
        method: "lora", small matrices beside the projections of the attention, merged into them at the end; or "full",
            all weights, which needs four times their memory.
        positions: "skipwise", chunks of the window with leaps between them up to the length (PoSE); or "whole", where
            the window is as long as the length.
        seed: of windows, positions and fresh weights.
        folder: where checkpoints go. It is made if need be.
        batch: windows of a step. A process goes through its own one by one.
        chunks: into how many a window is cut, if skip-wise.
        learning_rate: at its highest; 5e-4 for "lora" and 2e-5 for "full" by default.
        warmup: steps until there, a tenth of all by default; then it falls linearly to a tenth.
        rank: of the LoRA matrices.
        targets: last names of the layers that LoRA goes into; q_proj, k_proj, v_proj and o_proj by default, or what
            peft has for models that call them otherwise.
        checkpoint_every: steps.
        gradient_checkpointing: whether to compute activations twice instead of keeping them.
        on_progress: called after each step, in the first process.
        should_stop: asked before each step; True writes a checkpoint and ends. So does Ctrl-C, but for the checkpoint.

    Returns:
        What was done. If ``finished`` is False the model is as it was with "lora"; with "full" it is to be opened anew.

    Raises:
        RunError: settings that cannot work, a text too short, another tuning in the folder, a damaged checkpoint, no
            peft, layers that LoRA cannot find, a loss that is no number.
        ValueError: a rule that does not fit the model.
    """
    model = checkpoint.model
    config = TuneConfig(
        rule=rule.to_dict() if isinstance(rule, Frequencies) else rule,
        length=length,
        steps=steps,
        window=window,
        batch=batch,
        method=method,
        positions=positions,
        chunks=chunks,
        learning_rate=LEARNING_RATES.get(method, 0.0) if learning_rate is None else learning_rate,
        warmup=math.ceil(steps / 10) if warmup is None else warmup,
        rank=rank,
        targets=None if targets is None else tuple(targets),
        seed=seed,
        text=hashlib.sha256(tokens.cpu().long().numpy().tobytes()).hexdigest(),
        model=_digest(model),
        versions={"torch": torch.__version__, "posenc": posenc.__version__},
    )
    _check(config, tokens, model)
    with joined(model.device) as processes, _alone(folder, processes):
        if processes.size > batch:
            raise RunError(f"tune: {processes.size} processes have {batch} windows a step; give a batch of as many.")
        _claim(folder, config, processes)
        in_bfloat16 = method == "full" and model.dtype == torch.bfloat16
        before = {id(parameter) for parameter in model.parameters()}
        with _ruled(model, rule, length), _training_mode(model, gradient_checkpointing):
            # A table that the rule has stretched goes with the rule: to train it would be to throw work away.
            frozen = {name for name, parameter in model.named_parameters() if id(parameter) not in before}
            with trainable(model, config, frozen) as adapted:
                tuning = Tuning(model, adapted.parameters, tokens, config, processes, in_bfloat16=in_bfloat16)
                tuning.run(folder / runs.CHECKPOINT, checkpoint_every, on_progress, should_stop or _never)
                adapted.keep = tuning.is_finished
    return TuneReport(
        config=config,
        finished=tuning.is_finished,
        losses=tuple(tuning.losses),
        trained=sum(parameter.numel() for parameter in adapted.parameters.values()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=tuning.seconds,
        processes=processes.size,
    )


class Tuning:
    """A model, its optimizer, and how far they are."""

    def __init__(
        self,
        model: Any,
        parameters: Mapping[str, nn.Parameter],
        tokens: Tensor,
        config: TuneConfig,
        processes: Processes,
        *,
        in_bfloat16: bool,
    ) -> None:
        self._in_bfloat16 = in_bfloat16
        self.model, self.parameters, self.tokens, self.config = model, parameters, tokens.cpu(), config
        self.processes = processes
        self.losses: list[float] = []
        self.seconds = 0.0
        self.optimizer = torch.optim.AdamW(
            parameters.values(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self._device: torch.device = model.device
        self._can_choose = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def step(self) -> int:
        """Steps that are done."""
        return len(self.losses)

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.steps

    def run(
        self,
        path: Path,
        checkpoint_every: int,
        on_progress: Callable[[TuneStep], None] | None,
        should_stop: Callable[[], bool],
    ) -> None:
        """From the checkpoint, if there is one, to the last step or to where it is told to stop."""
        if self.processes.share(path.exists()):
            self.load(runs.load_tensors(path), path)
        saved = self.step
        while not self.is_finished:
            if self.processes.share(should_stop()):
                break
            begun = time.perf_counter()
            self.advance()
            self.seconds += time.perf_counter() - begun
            if self.step % checkpoint_every == 0 or self.is_finished:
                self._save(path)
                saved = self.step
            if on_progress is not None and self.processes.is_first:
                on_progress(TuneStep(self.step, self.config.steps, self.losses[-1], self.seconds))
        if self.step > saved:
            self._save(path)

    def advance(self) -> None:
        """One step."""
        config, step = self.config, self.step
        windows = batch_at(self.tokens, seed=config.seed, step=step, batch=config.batch, length=config.window)
        positions = positions_at(config, step)
        scored = _scored_at(config, step) if self._can_choose else None
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        self.optimizer.zero_grad()
        with _seeded(config.seed, step, self.processes.rank, self._device):  # for dropout, where a model has it
            for index in range(self.processes.rank, config.batch, self.processes.size):
                loss = self._loss(windows[index : index + 1], positions[index : index + 1], scored) / config.batch
                loss.backward()
                total += loss.detach()
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        self.processes.sum(gradients)
        self.processes.sum([total])
        loss_value = total.item()
        if not math.isfinite(loss_value):
            raise RunError(f"tune: the loss is {loss_value} at step {step + 1}; try a smaller learning rate.")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.losses.append(loss_value)

    def _loss(self, window: Tensor, positions: Tensor, scored: Tensor | None) -> Tensor:
        """Mean nats of the scored tokens of one window."""
        window, positions = window.to(self._device), positions.to(self._device)
        targets, options = window[:, 1:], {}
        if scored is not None:
            scored = scored.to(self._device)
            targets, options = targets[:, scored], {"logits_to_keep": scored}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bfloat16):
            logits = self.model(
                input_ids=window[:, :-1],
                position_ids=positions,
                # Without a mask transformers takes a leap for the start of another text, and cuts attention there.
                attention_mask=torch.ones_like(positions),
                use_cache=False,
                **options,
            ).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, as named tensors; after the last one, what it led to.

        Random numbers are drawn from the seed and the number of the step: there is no generator to keep.
        """
        state = {f"weights.{name}": parameter for name, parameter in self.parameters.items()}
        if not self.is_finished:
            state |= {
                f"optimizer.{kind}.{name}": value
                for name, parameter in self.parameters.items()
                for kind, value in self.optimizer.state[parameter].items()
            }
        progress = {"losses": self.losses, "seconds": [self.seconds]}
        return {
            **state,
            **{f"progress.{name}": torch.tensor(values, dtype=torch.float64) for name, values in progress.items()},
        }

    def load(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Go back to where :meth:`state` was taken."""
        names = {f"weights.{name}" for name in self.parameters}
        found = {name for name in state if name.startswith("weights.")}
        if found != names or "progress.losses" not in state:
            raise RunError(f"{path}: it holds other weights than those that are trained; the file is damaged.")
        self.losses = state["progress.losses"].tolist()
        self.seconds = state["progress.seconds"].item()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"weights.{name}"])
        if not self.is_finished:
            kinds = ("step", "exp_avg", "exp_avg_sq")
            moments = {
                index: {
                    kind: state[f"optimizer.{kind}.{name}"] for kind in kinds if f"optimizer.{kind}.{name}" in state
                }
                for index, name in enumerate(self.parameters)
            }
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict(
                {"state": {index: kept for index, kept in moments.items() if kept}, "param_groups": groups}
            )

    def _save(self, path: Path) -> None:
        if self.processes.is_first:
            runs.save_tensors(path, self.state())


def positions_at(config: TuneConfig, step: int) -> Tensor:
    """(batch, window): the positions of each window of a step."""
    if config.positions == "whole":
        return torch.arange(config.window).expand(config.batch, -1)
    generator = torch.Generator().manual_seed(_number(config.seed, step, 1))
    return torch.stack(
        [
            skipwise(config.window, target_length=config.length, chunks=config.chunks, generator=generator)
            for _ in range(config.batch)
        ]
    )


def _scored_at(config: TuneConfig, step: int) -> Tensor | None:
    """Which tokens of a long window are scored; None for all."""
    if config.window <= MOST_SCORED:
        return None
    generator = torch.Generator().manual_seed(_number(config.seed, step, 2))
    return torch.randperm(config.window, generator=generator)[:MOST_SCORED].sort().values


def _number(*numbers: int) -> int:
    """One seed from several."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextlib.contextmanager
def _seeded(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_number(seed, step, 3, rank))
        yield


@contextlib.contextmanager
def _ruled(model: Any, rule: Setting, length: int) -> Iterator[None]:
    """The model with the rule, and afterwards without it."""
    if rule is None:
        yield
        return
    from posenc.integrations.transformers import extend

    with extend(model, rule, length=length):
        yield


@contextlib.contextmanager
def _training_mode(model: Any, gradient_checkpointing: bool) -> Iterator[None]:
    """The model with dropout, if it has any, and with activations that are computed anew in the backward pass."""
    was_training = model.training
    # Newer transformers calls it activation checkpointing, and warns of the old name.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise RunError(f"tune: {type(model).__name__} has no gradient checkpointing; set it to False.")
        options = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
        getattr(model, f"{kind}_checkpointing_enable")(**options)
    model.train()
    try:
        yield
    finally:
        model.train(was_training)
        if gradient_checkpointing:
            getattr(model, f"{kind}_checkpointing_disable")()


@contextlib.contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    """The folder, held by the first process for all of them."""
    with contextlib.ExitStack() as stack:
        if processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.locked(folder))
            runs.clear_partial_writes(folder)
        yield


def _claim(folder: Path, config: TuneConfig, processes: Processes) -> None:
    """Write down what is done here, or refuse to go on with something else."""
    path, trouble = folder / CONFIG, ""
    if processes.is_first:
        if path.exists():
            before, now = runs.read_json(path), config.to_dict()
            changed = [name for name in now if before.get(name) != now[name]]
            trouble = ", ".join(f"{name} {_short(before.get(name))}, not {_short(now[name])}" for name in changed)
        elif (folder / runs.CHECKPOINT).exists():
            trouble = f"no {CONFIG}"
        else:
            runs.write_json(path, config.to_dict())
    if trouble := processes.share(trouble):
        raise RunError(f"{folder}: another tuning is there, with {trouble}; name another folder, or remove this one.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _check(config: TuneConfig, tokens: Tensor, model: Any) -> None:
    for name, choices in (("method", Method), ("positions", Positions)):
        if getattr(config, name) not in get_args(choices):
            raise RunError(f"tune: got {name} {getattr(config, name)!r}, expected {' or '.join(get_args(choices))}.")
    for name in ("steps", "window", "batch", "chunks", "rank"):
        if getattr(config, name) < 1:
            raise RunError(f"tune: got {name} {getattr(config, name)}, expected at least 1.")
    if tokens.ndim != 1 or len(tokens) <= config.window:
        raise RunError(f"tune: the text has {tokens.numel()} tokens, expected more than one window, {config.window}.")
    if config.positions == "whole" and config.window != config.length:
        raise RunError(
            f"tune: got windows of {config.window} tokens with their own positions, expected as many as the length, "
            f"{config.length}: the model would meet nothing new; give that, or positions skipwise."
        )
    if config.positions == "skipwise" and not config.chunks <= config.window <= config.length:
        raise RunError(
            f"tune: got windows of {config.window} tokens, expected at least {config.chunks}, one for each chunk, and "
            f"at most the length, {config.length}."
        )
    if model.dtype == torch.float16:
        raise RunError("tune: got a model in float16, whose gradients overflow; open it in bfloat16 or float32.")


def _digest(model: Any) -> str:
    """Of names, shapes and a few numbers of every weight: another model, or this one already tuned, differs."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + some.tobytes())
    return digest.hexdigest()


def _never() -> bool:
    return False
