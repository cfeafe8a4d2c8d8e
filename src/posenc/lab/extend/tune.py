"""Fine-tunes a model for a new length, in windows that fit into the memory of a laptop."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posenc
from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.extend.adapters import trainable
from posenc.lab.extend.candidates import Setting, plain
from posenc.lab.extend.config import TUNING
from posenc.lab.extend.measure import ruled
from posenc.lab.extend.processes import Processes, joined
from posenc.lab.extend.tuning_config import Method, Positions, TuneConfig, check
from posenc.lab.extend.tuning_config import TuneReport as TuneReport
from posenc.lab.extend.tuning_steps import Tuning
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

LEARNING_RATES: Mapping[Method, float] = {"lora": 5e-4, "full": 2e-5}


def tune(
    checkpoint: Checkpoint,
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
    on_progress: Callable[[int, float], None] | None = None,
) -> TuneReport:
    """Fine-tune a model for a new length with a rule. Afterwards the rule is removed, and the weights are kept.

    If the folder holds a checkpoint of the same training, continue from it, or take over its result. Under
    ``torchrun`` or ``accelerate launch`` the processes share the windows of each step; all need access to the folder.

    Args:
        checkpoint: its ``model`` is trained in place, except for a learned table of positions.
        rule: an argument for ``integrations.transformers.extend``, or None for the model's own rule.
        tokens: (n,), the tokens of the text.
        length: tokens that the model should read.
        steps: the number of steps.
        window: tokens of a training window; memory and time grow with it.
        method: "lora": small matrices beside the projections of the attention, merged into them at the end; or "full":
            all weights, which needs four times their memory.
        positions: "skipwise": chunks of the window with jumps between their positions, up to the length (PoSE); or
            "whole": the window is as long as the length.
        seed: of windows, positions and fresh weights.
        folder: the folder for checkpoints. It is made if it does not exist.
        batch: windows in a step. Each process computes its windows one by one.
        chunks: the number of chunks of a window, for "skipwise".
        learning_rate: the highest value; by default 5e-4 for "lora" and 2e-5 for "full".
        warmup: steps until that value, by default a tenth of all; then it falls linearly to a tenth.
        rank: of the LoRA matrices.
        targets: last name parts of the layers that get LoRA; by default q_proj, k_proj, v_proj and o_proj, or the
            layers that peft lists for models with other names.
        checkpoint_every: steps between two checkpoints.
        gradient_checkpointing: whether to recompute activations in the backward pass instead of storing them.
        on_progress: called in the first process after each step, with its number and its loss.

    Returns:
        The report. If an error or Ctrl-C ends the training, "lora" leaves the model unchanged; after "full" it must be
        opened again.

    Raises:
        RunError: impossible settings, a text that is too short, another training in the folder, a damaged checkpoint,
            no peft, layers that LoRA cannot find, a loss that is not finite.
        ValueError: a rule that does not fit the model.
    """
    model = checkpoint.model
    config = TuneConfig(
        rule=plain(rule),
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
        versions={"torch": str(torch.__version__), "posenc": posenc.__version__},
    )
    check(config, tokens, model)
    with joined(model.device) as processes, _alone(folder, processes):
        if processes.size > batch:
            raise RunError(
                f"tune: {processes.size} processes have {batch} windows in a step, expected at least one window for "
                f"each process; give a batch of at least {processes.size}."
            )
        _claim(folder, config, processes)
        in_bfloat16 = method == "full" and model.dtype == torch.bfloat16
        before = {id(parameter) for parameter in model.parameters()}
        with ruled(model, rule, length), _training_mode(model, gradient_checkpointing):
            # A table that the rule has resized is removed with the rule, so training it would be useless.
            frozen = {name for name, parameter in model.named_parameters() if id(parameter) not in before}
            with trainable(model, config, frozen) as parameters:
                tuning = Tuning(model, parameters, tokens, config, processes, in_bfloat16=in_bfloat16)
                tuning.run(folder / runs.CHECKPOINT, checkpoint_every, on_progress)
    return TuneReport(
        config=config,
        losses=tuple(tuning.losses),
        trained=sum(parameter.numel() for parameter in parameters.values()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=tuning.seconds,
        processes=processes.size,
    )


@contextlib.contextmanager
def _training_mode(model: Any, gradient_checkpointing: bool) -> Iterator[None]:
    """Set training mode (dropout, if the model has any), optionally with gradient checkpointing."""
    was_training = model.training
    # Newer versions of transformers call it activation checkpointing, and warn of the old name.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise RunError(
                f"tune: {type(model).__name__} does not support gradient checkpointing; set gradient_checkpointing to "
                "False."
            )
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
    """Lock the folder in the first process, for all processes."""
    with contextlib.ExitStack() as stack:
        if processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.locked(folder))
            runs.clear_partial_writes(folder)
        yield


def _claim(folder: Path, config: TuneConfig, processes: Processes) -> None:
    """Write the configuration into the folder, or refuse a folder with another configuration."""
    path, trouble = folder / TUNING, ""
    if processes.is_first:
        if path.exists():
            before, now = runs.read_json(path), config.to_dict()
            changed = [name for name in now if before.get(name) != now[name]]
            trouble = ", ".join(f"{name} {_short(before.get(name))}, not {_short(now[name])}" for name in changed)
        elif (folder / runs.CHECKPOINT).exists():
            trouble = f"no {TUNING}"
        else:
            runs.write_json(path, config.to_dict())
    if trouble := processes.share(trouble):
        raise RunError(
            f"{folder}: the folder holds another training run, with {trouble}; name another folder, or remove this one."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _digest(model: Any) -> str:
    """A digest of names, dtypes, shapes and a few values of every weight; it differs for another or a trained model."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode() + some.tobytes())
    return digest.hexdigest()
