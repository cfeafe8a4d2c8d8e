"""Retrieval: five digits are hidden in a long text, and the model must give them at its end."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from posenc.lab.extend.passes import branch, check_fixed_rotation, new_cache, next_logits, positions_of

Task = Literal["passkey", "needle"]
TASKS: tuple[Task, ...] = ("passkey", "needle")
Form = Literal["plain", "chat"]

CHUNK = 512
ANSWER = {"plain": 12, "chat": 32}  # tokens; a chat model says a few words first


@dataclass(frozen=True)
class Words:
    """What a task says: before the text, the fact within it, the question after it, and how the answer begins."""

    intro: str
    fact: str
    question: str
    lead: str


PASSKEY_FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
WORDS: dict[Task, Words] = {
    "passkey": Words(
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you "
        "about the important information there.",
        " The pass key is {key}. Remember it. {key} is the pass key.",
        " What is the pass key?",
        " The pass key is",
    ),
    "needle": Words(
        "",
        " The number of the old house by the river is {key}.",
        "\n\nWhat is the number of the old house by the river?",
        " The number of the old house by the river is",
    ),
}


@dataclass(frozen=True)
class Retrieval:
    """One question and its answer.

    Attributes:
        task: "passkey" (digits in repeated sentences) or "needle" (a sentence in real prose).
        form: "plain" text that is to be continued, or a "chat" by the model's own template.
        length: tokens of prompt and answer together.
        depth: how far into the text the fact stands, from 0 to 1.
        correct: whether the first number of the answer is the one hidden.
        answer: what the model wrote; empty if it has no positions for the length.
        expected: the digits.
    """

    task: Task
    form: Form
    length: int
    depth: float
    correct: bool
    answer: str
    expected: str


@dataclass(frozen=True)
class _Case:
    """Where in the filler the fact stands, how much filler there is, and the tokens around it."""

    task: Task
    length: int
    depth: float
    key: str
    fact: tuple[int, ...]
    at: int
    filler: int


@torch.no_grad()
def retrieve(
    model: Any,
    tokenizer: Any,
    *,
    tasks: Sequence[Task],
    lengths: Sequence[int],
    depths: Sequence[float],
    filler_tokens: Tensor,
    form: Form,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Retrieval]:
    """Ask for a hidden number at every length and depth, and decode the answer greedily.

    All cases of a task share one long text, which is read once: at each place where a fact stands, the cache branches
    off to read that case to its end, and is cropped back.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        tasks: "passkey", "needle" or both.
        lengths: tokens of prompt and answer together.
        depths: from 0, the start of the text, to 1, its end; moved to the nearest end of a sentence.
        filler_tokens: (n,) prose that the needle is hidden in.
        form: "plain" ends with the beginning of the answer. "chat" puts the whole into the model's template as one
            message.
        seed: of the digits. A case has the same digits whichever others are asked.
        on_progress: called with the tokens that were read so far and those that there are to read.

    Returns:
        One :class:`Retrieval` for each task, length and depth, in that order.

    Raises:
        ValueError: "chat" with a tokenizer without a template; a length too short for the question, or too long for the
            filler; a depth outside of 0 to 1; a rule whose rotation changes with the length, as for
            :func:`posenc.lab.extend.passes.full_pass`.
    """
    if bad := [depth for depth in depths if not 0 <= depth <= 1]:
        raise ValueError(f"retrieve: got depths {bad}, expected numbers from 0 to 1.")
    reach = positions_of(model)
    check_fixed_rotation("retrieve", model, max(lengths))
    plans = {task: _plan(tokenizer, task, lengths, depths, filler_tokens, form, seed) for task in tasks}
    readable = {
        task: cases
        for task, plan in plans.items()
        if (cases := [case for case in plan.cases if reach is None or case.length <= reach])
    }
    total = sum(plans[task].cost(cases) for task, cases in readable.items())
    done = 0

    def read(tokens: list[int], cache: Any) -> Tensor:
        nonlocal done
        logits = torch.empty(0)
        for start in range(0, len(tokens), CHUNK):
            piece = torch.tensor([tokens[start : start + CHUNK]], device=model.device)
            logits = next_logits(model, piece, cache=cache, keep=1)
            done += piece.shape[1]
            if on_progress is not None:
                on_progress(done, total)
        return logits

    answers: dict[_Case, str] = {}
    for task, cases in readable.items():
        plan, cache, place = plans[task], new_cache(model, rewinds=True), 0
        read(plan.head, cache)
        for case in sorted(cases, key=lambda case: case.at):
            read(plan.filler[place : case.at], cache)
            place = case.at
            with branch(cache) as own:
                logits = read([*case.fact, *plan.filler[place : case.filler], *plan.tail], own)
                answers[case] = _answer(model, tokenizer, logits, own, at_most=ANSWER[form])
    return [
        Retrieval(
            case.task,
            form,
            case.length,
            case.depth,
            is_correct(answers.get(case, ""), case.key),
            answers.get(case, ""),
            case.key,
        )
        for task in tasks
        for case in plans[task].cases
    ]


def is_correct(answer: str, expected: str) -> bool:
    """Whether the first number in an answer is the expected one."""
    found = re.search(r"\d+", answer)
    return found is not None and found.group() == expected


@dataclass(frozen=True)
class _Plan:
    """The tokens that all cases of a task share, and the cases."""

    head: list[int]
    filler: list[int]
    tail: list[int]
    cases: list[_Case]

    def cost(self, cases: list[_Case]) -> int:
        """Tokens to read, answers not counted."""
        branches = sum(len(case.fact) + case.filler - case.at + len(self.tail) for case in cases)
        return len(self.head) + max((case.at for case in cases), default=0) + branches


def _plan(
    tokenizer: Any,
    task: Task,
    lengths: Sequence[int],
    depths: Sequence[float],
    prose: Tensor,
    form: Form,
    seed: int,
) -> _Plan:
    words = WORDS[task]
    head, tail = _around(tokenizer, words, form)
    keys = {
        (n, d): str(random.Random(f"{seed} {task} {n} {d}").randint(10_000, 99_999)) for n in lengths for d in depths
    }
    facts = {case: tuple(_encode(tokenizer, words.fact.format(key=key))) for case, key in keys.items()}
    longest = max(map(len, facts.values()))
    room = {length: length - len(head) - longest - len(tail) - ANSWER[form] for length in lengths}
    if min(room.values()) < 1:
        shortest = min(lengths) - min(room.values()) + 1
        raise ValueError(f"retrieve: got length {min(lengths)}, expected at least {shortest}, for the question alone.")
    if task == "passkey":
        unit = _encode(tokenizer, PASSKEY_FILLER)
        filler = unit * (max(room.values()) // len(unit) + 1)
        ends = list(range(0, len(filler), len(unit)))
    else:
        filler = prose[: max(room.values())].tolist()
        if len(filler) < max(room.values()):
            raise ValueError(
                f"retrieve: got {len(prose)} filler tokens, expected at least {max(room.values())} for length "
                f"{max(lengths)}; give a longer text."
            )
        ends = _ends_of_sentences(tokenizer, filler)
    cases = [
        _Case(
            task,
            length,
            depth,
            keys[length, depth],
            facts[length, depth],
            _nearest(ends, depth * room[length], room[length]),
            room[length],
        )
        for length in lengths
        for depth in depths
    ]
    return _Plan(head, filler, tail, cases)


def _around(tokenizer: Any, words: Words, form: Form) -> tuple[list[int], list[int]]:
    """The tokens before the text and after it."""
    if form == "plain":
        start = [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]
        return start + _encode(tokenizer, words.intro), _encode(tokenizer, words.question + words.lead)
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("retrieve: got form 'chat' and a tokenizer without a chat template; use form='plain'.")
    mark = "THE-TEXT-STANDS-HERE"
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    before, after = whole.split(mark)
    return _encode(tokenizer, before + words.intro), _encode(tokenizer, words.question + after)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _ends_of_sentences(tokenizer: Any, tokens: list[int]) -> list[int]:
    closing = {token for token in set(tokens) if tokenizer.decode([token]).rstrip().endswith((".", "!", "?"))}
    return [0, *(place + 1 for place, token in enumerate(tokens) if token in closing)]


def _nearest(ends: list[int], wanted: float, limit: int) -> int:
    return min((end for end in ends if end <= limit), key=lambda end: abs(end - wanted))


def _answer(model: Any, tokenizer: Any, logits: Tensor, cache: Any, *, at_most: int) -> str:
    """Greedy decoding, until the model ends or a number is complete."""
    stop = model.generation_config.eos_token_id
    stops = set(stop if isinstance(stop, list) else [stop]) | {tokenizer.eos_token_id}
    written: list[int] = []
    text = ""
    while (token := int(logits[0, -1].argmax())) not in stops:
        written.append(token)
        text = tokenizer.decode(written)
        if len(written) == at_most or re.search(r"\d\D", text):
            break
        logits = next_logits(model, torch.tensor([[token]], device=model.device), cache=cache, keep=1)
    return text
