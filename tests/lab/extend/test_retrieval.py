"""Retrieval, against prompts that are put together by hand and read in one go."""

from typing import Any

import pytest
import torch

from posenc.lab.extend.retrieval import ANSWER, PASSKEY_FILLER, WORDS, is_correct, retrieve

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PROSE = "It was late. The horses were tired, and so were we! Who would have thought it? Nobody spoke. " * 20
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"


def bytes_tokenizer(**more: Any) -> Any:
    """One token for each byte."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={letter: i for i, letter in enumerate(["<eos>", *alphabet])}, merges=[])
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", **more)


def make(family: str = "Llama", **config: Any) -> Any:
    sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": None}
    if family == "GPT2":
        sizes = {"vocab_size": 257, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    torch.manual_seed(0)
    built = getattr(transformers, f"{family}Config")(**{**sizes, "bos_token_id": None, "eos_token_id": 0, **config})
    return transformers.AutoModelForCausalLM.from_config(built).eval()


TOKENIZER = bytes_tokenizer()
FILLER = torch.tensor(TOKENIZER(PROSE)["input_ids"])
ASK: dict[str, Any] = {"lengths": [700, 420], "depths": [0.9, 0.0, 0.5], "filler_tokens": FILLER, "seed": 3}


@torch.no_grad()
def continued(model: Any, prompt: str, tokens: int) -> str:
    """Greedy, the whole prompt anew for each token."""
    ids = TOKENIZER(prompt)["input_ids"]
    start = len(ids)
    for _ in range(tokens):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return TOKENIZER.decode(ids[start:])


def prompt(task: str, length: int, depth: float, key: str, *, before: str = "", after: str | None = None) -> str:
    words = WORDS[task]  # type: ignore[index]
    head, fact, tail = before + words.intro, words.fact.format(key=key), words.question
    tail += words.lead if after is None else after
    room = length - len(head) - len(fact) - len(tail) - ANSWER["plain" if after is None else "chat"]
    filler = ((PASSKEY_FILLER * 20) if task == "passkey" else PROSE)[:room]
    if task == "passkey":
        ends = list(range(0, room + 1, len(PASSKEY_FILLER)))
    else:
        ends = [0, *(place + 1 for place in range(room) if filler[place] in ".!?")]
    at = min(ends, key=lambda end: abs(end - depth * room))
    return head + filler[:at] + fact + filler[at:] + tail


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("task", ["passkey", "needle"])
def test_answers_are_those_to_the_whole_prompt_read_alone(task: Any, sliding: bool) -> None:
    model = make("Mistral", sliding_window=90) if sliding else make()
    found = retrieve(model, TOKENIZER, task=task, form="plain", **ASK)
    assert [(case.length, case.depth) for case in found] == [(n, d) for n in (700, 420) for d in (0.9, 0.0, 0.5)]
    for case in found:
        text = prompt(task, case.length, case.depth, case.expected)
        assert len(text) == case.length - ANSWER["plain"]
        assert case.answer.rstrip("\ufffd")
        assert continued(model, text, ANSWER["plain"]).startswith(case.answer.rstrip("\ufffd"))


def test_a_chat_model_is_asked_by_its_own_template() -> None:
    model, chat = make(), bytes_tokenizer(chat_template=TEMPLATE)
    for case in retrieve(model, chat, task="needle", form="chat", **ASK):
        text = prompt("needle", case.length, case.depth, case.expected, before="<user>", after="</><assistant>")
        assert len(text) == case.length - ANSWER["chat"]
        assert continued(model, text, ANSWER["chat"]).startswith(case.answer.rstrip("\ufffd"))
    with pytest.raises(ValueError, match="without a chat template"):
        retrieve(model, TOKENIZER, task="needle", form="chat", **ASK)


def test_digits_depend_on_the_seed_and_the_case_alone() -> None:
    def digits(**more: Any) -> dict[tuple[int, float], str]:
        found = retrieve(make(), TOKENIZER, task="passkey", form="plain", **{**ASK, **more})
        return {(case.length, case.depth): case.expected for case in found}

    every = digits()
    assert len(set(every.values())) == 6
    assert digits(lengths=[420], depths=[0.5]) == {(420, 0.5): every[420, 0.5]}
    assert digits(seed=4) != every
    assert all(len(key) == 5 for key in every.values())


def test_progress_ends_at_the_total_and_counts_what_is_read_once() -> None:
    seen: list[tuple[int, int]] = []
    retrieve(make(), TOKENIZER, task="needle", form="plain", on_progress=lambda *now: seen.append(now), **ASK)
    done = [now for now, _ in seen]
    assert done == sorted(set(done))
    assert seen[-1] == (done[-1], done[-1])
    assert done[-1] < 3 * (700 + 420)  # less than each prompt by itself


def test_past_the_end_of_a_learned_table_there_is_no_answer() -> None:
    found = retrieve(make("GPT2", n_positions=420), TOKENIZER, task="passkey", form="plain", **ASK)
    assert [bool(case.answer) for case in found] == [False] * 3 + [True] * 3
    assert not any(case.correct for case in found[:3])


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        (" 12345.", True),
        (" 12345 is the", True),
        ("The pass key is 12345", True),
        (" 123456", False),
        (" 1234", False),
        (" 99999 or 12345", False),
        ("", False),
        (" green", False),
    ],
)
def test_the_first_number_of_an_answer_counts(answer: str, correct: bool) -> None:
    assert is_correct(answer, "12345") is correct


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": [1.5]}, "depths"),
        ({"task": "passkey", "lengths": [50]}, "expected at least 256, for the question"),
        ({"filler_tokens": FILLER[:100]}, "100 filler tokens, expected at least"),
    ],
)
def test_what_cannot_be_asked_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieve(make(), TOKENIZER, form="plain", **{"task": "needle", **ASK, **change})
