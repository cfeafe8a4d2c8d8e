"""Retrieval tests: five digits are hidden in a long text, and the model must give them at the end."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from posenc.lab.extend.passes import CHUNK, branch, check_fixed_rotation, new_cache, next_logits, positions_of

Task = Literal["passkey", "needle"]
TASKS: tuple[Task, ...] = ("passkey", "needle")
Form = Literal["plain", "chat"]

ANSWER = {"plain": 12, "chat": 32}  # tokens; a chat model writes a few words first


@dataclass(frozen=True)
class Words:
    """The sentences of a task: before the text, the fact within it, the question after it, the start of the answer."""

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
        form: "plain" text that the model continues, or a "chat" with the model's own template.
        length: tokens of prompt and answer together.
        depth: the place of the fact in the text, from 0 (start) to 1 (end).
        correct: whether the first number in the answer is the hidden number.
        answer: the text that the model wrote; empty if it has no positions for the length.
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
    """A question: the digits, the tokens that say them, where in the filler these stand, and how much filler there
    is."""

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
    task: Task,
    lengths: Sequence[int],
    depths: Sequence[float],
    filler_tokens: Tensor,
    form: Form,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Retrieval]:
    """Ask for a hidden number at every length and depth, with greedy decoding.

    All cases share one long text, which is read once. At the place of each fact, a branch of the cache reads
    that case to its end, and the cache is cropped back.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        task: "passkey" or "needle".
        lengths: tokens of prompt and answer together.
        depths: from 0, the start of the text, to 1, its end; moved to the nearest end of a sentence.
        filler_tokens: (n,) prose that the needle is hidden in.
        form: "plain" ends with the beginning of the answer. "chat" puts all text into the model's template as one
            message.
        seed: of the digits. The digits of a case do not depend on the other cases.
        on_progress: called with the number of tokens read so far and the total.

    Returns:
        One :class:`Retrieval` for each length and depth, in that order.

    Raises:
        ValueError: "chat" with a tokenizer without a template; a length too short for the question, or too long for the
            filler; a depth outside of 0 to 1; a rule whose rotation changes with the length, as for
            :func:`posenc.lab.extend.passes.full_pass`.
    """
    if bad := [depth for depth in depths if not 0 <= depth <= 1]:
        raise ValueError(f"retrieve: got depths {bad}, expected numbers from 0 to 1.")
    check_fixed_rotation("retrieve", model, max(lengths))
    head, tail = _around(tokenizer, WORDS[task], form)
    around = len(head) + len(tail) + ANSWER[form]
    filler, cases = _cases(tokenizer, task, lengths, depths, filler_tokens, around, seed)
    reach = positions_of(model)
    readable = sorted((case for case in cases if reach is None or case.length <= reach), key=lambda case: case.at)
    branches = sum(len(case.fact) + case.filler - case.at + len(tail) for case in readable)
    total = len(head) + max((case.at for case in readable), default=0) + branches
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
    cache, place = new_cache(model, rewinds=True), 0
    if readable:
        read(head, cache)
    for case in readable:
        read(filler[place : case.at], cache)
        place = case.at
        with branch(cache) as own:
            logits = read([*case.fact, *filler[place : case.filler], *tail], own)
            answers[case] = _answer(model, tokenizer, logits, own, at_most=ANSWER[form])
    return [
        Retrieval(
            task, form, case.length, case.depth, is_correct(said := answers.get(case, ""), case.key), said, case.key
        )
        for case in cases
    ]


def is_correct(answer: str, expected: str) -> bool:
    """Whether the first number in an answer is the expected one."""
    found = re.search(r"\d+", answer)
    return found is not None and found.group() == expected


def _cases(
    tokenizer: Any,
    task: Task,
    lengths: Sequence[int],
    depths: Sequence[float],
    prose: Tensor,
    around: int,
    seed: int,
) -> tuple[list[int], list[_Case]]:
    """The filler text of all cases, and the cases; ``around``: the number of tokens other than filler and fact."""
    keys = {
        (n, d): str(random.Random(f"{seed} {task} {n} {d}").randint(10_000, 99_999)) for n in lengths for d in depths
    }
    facts = {case: tuple(_encode(tokenizer, WORDS[task].fact.format(key=key))) for case, key in keys.items()}
    around += max(map(len, facts.values()))
    longest = max(lengths) - around
    if min(lengths) <= around:
        raise ValueError(
            f"retrieve: got length {min(lengths)}, expected at least {around + 1}, for the question alone."
        )
    if task == "passkey":
        unit = _encode(tokenizer, PASSKEY_FILLER)
        filler = unit * (longest // len(unit) + 1)
        ends = list(range(0, len(filler), len(unit)))
    else:
        filler = prose[:longest].tolist()
        if len(filler) < longest:
            raise ValueError(
                f"retrieve: got {len(prose)} filler tokens, expected at least {longest} for length {max(lengths)}; "
                "give a longer text."
            )
        ends = _ends_of_sentences(tokenizer, filler)

    def at(room: int, depth: float) -> int:
        return min((end for end in ends if end <= room), key=lambda end: abs(end - depth * room))

    return filler, [
        _Case(length, depth, key, facts[length, depth], at(length - around, depth), length - around)
        for (length, depth), key in keys.items()
    ]


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


def _answer(model: Any, tokenizer: Any, logits: Tensor, cache: Any, *, at_most: int) -> str:
    """Decode greedily until the model ends or a number is complete."""
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
