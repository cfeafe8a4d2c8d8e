"""Fine-tuning a model at a new length, in windows that fit a laptop."""

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
from posenc.lab.extend.tuning_config import TuneStep as TuneStep
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
        versions={"torch": torch.__version__, "posenc": posenc.__version__},
    )
    check(config, tokens, model)
    with joined(model.device) as processes, _alone(folder, processes):
        if processes.size > batch:
            raise RunError(f"tune: {processes.size} processes have {batch} windows a step; give a batch of as many.")
        _claim(folder, config, processes)
        in_bfloat16 = method == "full" and model.dtype == torch.bfloat16
        before = {id(parameter) for parameter in model.parameters()}
        with ruled(model, rule, length), _training_mode(model, gradient_checkpointing):
            # A table that the rule has stretched goes with the rule: to train it would be to throw work away.
            frozen = {name for name, parameter in model.named_parameters() if id(parameter) not in before}
            with trainable(model, config, frozen) as adapted:
                tuning = Tuning(model, adapted.parameters, tokens, config, processes, in_bfloat16=in_bfloat16)
                tuning.run(folder / runs.CHECKPOINT, checkpoint_every, on_progress, should_stop or (lambda: False))
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
        raise RunError(f"{folder}: another tuning is there, with {trouble}; name another folder, or remove this one.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _digest(model: Any) -> str:
    """Of names, types, shapes and a few numbers of every weight: another model, or this one already tuned, differs."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode() + some.tobytes())
    return digest.hexdigest()
