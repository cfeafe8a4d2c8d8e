"""A tuning lowers the loss, goes on where it was cut off, and leaves a plain model."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from posenc import YaRN
from posenc.lab.extend.tune import TuneReport, tune
from posenc.lab.extend.tuning_config import TuneConfig
from posenc.lab.extend.tuning_steps import positions_at
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LENGTH, WINDOW = 128, 32


def tiny(seed: int = 0, **options: Any) -> SimpleNamespace:
    """A checkpoint with a random Llama of two layers, trained with nothing."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        **options,
    )
    return SimpleNamespace(model=transformers.LlamaForCausalLM(config).eval())


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    """A text that can be learned: each token is one of two, chosen by the one before."""
    rng = np.random.default_rng(0)
    text = [1]
    for choice in rng.integers(0, 2, size=2000):
        text.append((5 * text[-1] + 7 + 11 * int(choice)) % 64)
    return torch.tensor(text)


def tuned(checkpoint: Any, tokens: Tensor, folder: Path, **options: Any) -> TuneReport:
    settings: dict[str, Any] = {
        "length": LENGTH,
        "steps": 6,
        "window": WINDOW,
        "batch": 2,
        "method": "full",
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
    }
    return tune(checkpoint, options.pop("rule", None), tokens, folder=folder, **settings | options)


def weights(checkpoint: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in checkpoint.model.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def methods(*names: str) -> list[Any]:
    """Those that need peft are left out where it is missing."""
    return [pytest.param(name, marks=[needs_peft] if name == "lora" else []) for name in names]


def _has_peft() -> bool:
    import importlib.util

    return importlib.util.find_spec("peft") is not None


needs_peft = pytest.mark.skipif(not _has_peft(), reason="peft is not installed")


# Learning


@pytest.mark.parametrize("method", methods("lora", "full"))
@pytest.mark.parametrize("positions", ["skipwise", "whole"])
def test_the_loss_goes_down(tokens: Tensor, tmp_path: Path, method: str, positions: str) -> None:
    checkpoint = tiny()
    before = weights(checkpoint)
    window = LENGTH if positions == "whole" else WINDOW
    # the adapters of a random model have little to work with; they need a large step
    options = {"learning_rate": 3e-2 if method == "lora" else 3e-3, "targets": ("q_proj", "v_proj", "down_proj")}
    report = tuned(
        checkpoint, tokens, tmp_path, method=method, positions=positions, window=window, steps=20, batch=4, **options
    )
    assert np.mean(report.losses[-5:]) < np.mean(report.losses[:5]) - 0.05
    after = weights(checkpoint)
    assert after.keys() == before.keys()
    changed = {
        name.rpartition(".")[0].rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])
    }
    assert changed == {"q_proj", "v_proj", "down_proj"} if method == "lora" else "embed_tokens" in changed


def test_the_report_says_what_was_done(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint = tiny()
    seen: list[tuple[int, float]] = []
    report = tuned(checkpoint, tokens, tmp_path, on_progress=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(report.losses, 1))
    assert len(seen) == 6
    assert report.tokens == 6 * 2 * WINDOW
    assert report.trained == report.parameters == sum(p.numel() for p in checkpoint.model.parameters())
    assert json.loads(json.dumps(report.to_dict()))["config"]["length"] == LENGTH


def test_the_model_is_as_before_but_for_its_weights(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint = tiny()
    model = checkpoint.model
    for parameter in model.lm_head.parameters():
        parameter.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modules = [(name, type(module)) for name, module in model.named_modules()]
    config = model.config.to_dict()
    tuned(checkpoint, tokens, tmp_path)
    assert not model.training
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    assert model.config.to_dict() == config


def test_the_rule_is_set_while_it_learns_and_gone_afterwards(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint = tiny()
    rates = checkpoint.model.model.rotary_emb.inv_freq.clone()
    seen = []

    def look(step: int, loss: float) -> None:
        seen.append(checkpoint.model.model.rotary_emb.inv_freq.clone())

    rule = YaRN(2, trained_length=64)
    tuned(checkpoint, tokens, tmp_path, rule=rule, steps=1, on_progress=look)
    torch.testing.assert_close(seen[0].double(), torch.from_numpy(rule.inv_freq(8)), rtol=1e-6, atol=0)
    assert torch.equal(checkpoint.model.model.rotary_emb.inv_freq, rates)


def test_gradient_checkpointing_changes_no_number(tokens: Tensor, tmp_path: Path) -> None:
    reports = [tuned(tiny(), tokens, tmp_path / str(on), gradient_checkpointing=on) for on in (True, False)]
    np.testing.assert_allclose(reports[0].losses, reports[1].losses, rtol=1e-6)


def test_weights_in_bfloat16_learn_by_small_steps_and_stay_bfloat16(tokens: Tensor, tmp_path: Path) -> None:
    """A step of 1e-5 is below half a unit in the last place of most weights: in bfloat16 nothing would move."""
    checkpoint = tiny()
    checkpoint.model.to(torch.bfloat16)
    before = weights(checkpoint)
    tuned(checkpoint, tokens, tmp_path, learning_rate=1e-4, steps=8)
    after = weights(checkpoint)
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    moved = torch.cat([(after[name] != before[name]).flatten() for name in after]).float().mean()
    assert moved > 0.2
    assert (
        checkpoint.model.model.rotary_emb.inv_freq.dtype
        == tiny().model.to(torch.bfloat16).model.rotary_emb.inv_freq.dtype
    )


# Positions


def config_with(**options: Any) -> TuneConfig:
    plain: dict[str, Any] = dict.fromkeys(TuneConfig.__dataclass_fields__)
    return TuneConfig(**plain | {"length": LENGTH, "window": WINDOW, "batch": 3, "chunks": 2, "seed": 5} | options)


def test_skipwise_windows_span_the_new_length() -> None:
    config = config_with(positions="skipwise")
    drawn = torch.stack([positions_at(config, step) for step in range(200)])
    assert drawn.shape == (200, 3, WINDOW)
    assert int(drawn.min()) == 0
    assert LENGTH - 8 < int(drawn.max()) < LENGTH
    assert ((drawn.diff() > 1).sum(-1) <= 1).all()
    assert torch.equal(positions_at(config, 7), drawn[7])
    assert len({tuple(row.tolist()) for row in drawn[7]}) == 3


def test_whole_windows_have_their_own_positions() -> None:
    config = config_with(positions="whole", window=LENGTH)
    assert torch.equal(positions_at(config, 3), torch.arange(LENGTH).expand(3, -1))


def test_attention_is_not_cut_at_the_leap(tokens: Tensor, tmp_path: Path) -> None:
    """transformers takes a leap for another text if it gets no mask: the second chunk would not see the first."""
    given: list[dict[str, Any]] = []
    checkpoint = tiny()
    handle = checkpoint.model.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs), with_kwargs=True)
    tuned(checkpoint, tokens, tmp_path, steps=1, batch=1, seed=3)
    handle.remove()
    (kwargs,) = given
    leap = int(kwargs["position_ids"][0].diff().argmax()) + 1
    assert int(kwargs["position_ids"][0].diff().max()) > 1
    other = kwargs["input_ids"].clone()
    other[0, : leap - 1] = (other[0, : leap - 1] + 1) % 64
    with torch.no_grad():
        a, b = (
            checkpoint.model(**{**kwargs, "input_ids": ids}).logits[0, leap:] for ids in (kwargs["input_ids"], other)
        )
    assert not torch.allclose(a, b)


def test_of_long_windows_a_part_is_scored(tokens: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posenc.lab.extend.tuning_steps.MOST_SCORED", 8)
    checkpoint, shapes = tiny(), []
    handle = checkpoint.model.lm_head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    report = tuned(checkpoint, tokens, tmp_path, steps=2)
    handle.remove()
    assert set(shapes) == {(1, 8, 64)}
    assert abs(report.losses[0] - np.log(64)) < 0.5


# Cut off and gone on


def interrupted(checkpoint: Any, tokens: Tensor, folder: Path, *, at: int = 3, **options: Any) -> None:
    """A training that Ctrl-C ends after a step; the last checkpoint is that of the last even step."""

    def interrupt(step: int, loss: float) -> None:
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(checkpoint, tokens, folder, on_progress=interrupt, **options)
    assert len(runs.load_tensors(folder / runs.CHECKPOINT)["progress.losses"]) == at // 2 * 2


@pytest.mark.parametrize("method", methods("lora", "full"))
def test_stopped_and_resumed_equals_unbroken(tokens: Tensor, tmp_path: Path, method: str) -> None:
    """Bit for bit, with dropout: what a step draws hangs on the seed and its number alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, parts = tiny(attention_dropout=0.1), tiny(attention_dropout=0.1)
        untouched, modules = weights(parts), [type(module) for module in parts.model.modules()]
        unbroken = tuned(whole, tokens, tmp_path / "whole", method=method)
        interrupted(parts, tokens, tmp_path / "parts", at=5, method=method)
        assert [type(module) for module in parts.model.modules()] == modules
        if method == "lora":
            assert_same(weights(parts), untouched)
        torch.rand(3)  # other random numbers in between change nothing
        fresh = tiny(attention_dropout=0.1)
        rest = tuned(fresh, tokens, tmp_path / "parts", method=method)
        assert rest.losses == unbroken.losses
        assert_same(weights(fresh), weights(whole))
    finally:
        torch.set_num_threads(before)


def test_a_finished_tuning_is_taken_over_without_a_step(tokens: Tensor, tmp_path: Path) -> None:
    first, again = tiny(), tiny()
    report = tuned(first, tokens, tmp_path)
    taken = tuned(again, tokens, tmp_path, on_progress=lambda step, loss: pytest.fail("a step was done again"))
    assert taken.losses == report.losses
    assert taken.seconds == report.seconds
    assert_same(weights(again), weights(first))
    assert not any(name.startswith("optimizer") for name in runs.load_tensors(tmp_path / runs.CHECKPOINT))


def test_a_checkpoint_killed_in_the_middle_of_its_writing_is_not_taken_for_whole(
    tokens: Tensor, tmp_path: Path
) -> None:
    interrupted(tiny(), tokens, tmp_path)
    path = tmp_path / runs.CHECKPOINT
    data = path.read_bytes()
    partial = tmp_path / f".{runs.CHECKPOINT}.4711.partial"  # what a kill leaves
    partial.write_bytes(data[: len(data) // 2])
    tuned(tiny(), tokens, tmp_path)
    assert not partial.exists()
    path.write_bytes(data[: len(data) // 2])  # what a broken disk leaves
    with pytest.raises(RunError, match="the file is damaged"):
        tuned(tiny(), tokens, tmp_path)


def test_another_tuning_is_not_gone_on_with(tokens: Tensor, tmp_path: Path) -> None:
    tuned(tiny(), tokens, tmp_path, steps=2)
    with pytest.raises(RunError, match="with seed 0, not 1; name another folder"):
        tuned(tiny(), tokens, tmp_path, steps=2, seed=1)
    with pytest.raises(RunError, match=r"with text .*, not"):
        tuned(tiny(), tokens[:-1], tmp_path, steps=2)
    with pytest.raises(RunError, match=r"with model .*, not"):
        tuned(tiny(seed=1), tokens, tmp_path, steps=2)


# LoRA


@needs_peft
def test_merged_matrices_give_the_same_logits(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint, seen = tiny(), []
    read = tokens[None, :50]

    def look(step: int, loss: float) -> None:
        checkpoint.model.eval()
        with torch.no_grad():
            seen.append(checkpoint.model(read).logits)
        checkpoint.model.train()

    with torch.no_grad():
        before = checkpoint.model(read).logits
    tuned(checkpoint, tokens, tmp_path, method="lora", learning_rate=1e-2, on_progress=look)
    with torch.no_grad():
        after = checkpoint.model(read).logits
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, seen[-1], atol=2e-6, rtol=1e-5)
    checkpoint.model.save_pretrained(tmp_path / "plain")
    plain = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        assert torch.equal(plain(read).logits, after)


@needs_peft
def test_models_with_other_names_are_known_to_peft_or_refused(tokens: Tensor, tmp_path: Path) -> None:
    neox = transformers.GPTNeoXConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    checkpoint = SimpleNamespace(model=transformers.GPTNeoXForCausalLM(neox).eval())
    before = weights(checkpoint)
    tuned(checkpoint, tokens, tmp_path / "neox", method="lora", steps=2)
    changed = [name for name, value in weights(checkpoint).items() if not torch.equal(value, before[name])]
    assert changed == ["gpt_neox.layers.0.attention.query_key_value.weight"]
    with pytest.raises(RunError, match="name some of down_proj, gate_proj, k_proj"):
        tuned(tiny(), tokens, tmp_path / "none", method="lora", targets=("c_attn",))


@needs_peft
def test_a_learned_table_stretched_by_the_rule_is_not_trained(tokens: Tensor, tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1
    )
    for method in ("lora", "full"):
        checkpoint = SimpleNamespace(model=transformers.GPT2LMHeadModel(config).eval())
        before = weights(checkpoint)
        tuned(checkpoint, tokens, tmp_path / method, method=method, rule="interpolate", steps=2)
        after = weights(checkpoint)
        assert torch.equal(after["transformer.wpe.weight"], before["transformer.wpe.weight"])
        assert not torch.equal(
            after["transformer.h.0.attn.c_attn.weight"], before["transformer.h.0.attn.c_attn.weight"]
        )


def test_without_peft_lora_is_refused(tokens: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RunError, match="pip install peft"):
        tuned(tiny(), tokens, tmp_path, method="lora")


# Bad settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qlora"}, "got method 'qlora', expected lora or full"),
        ({"positions": "random"}, "got positions 'random', expected skipwise or whole"),
        ({"steps": 0}, "got steps 0, expected at least 1"),
        ({"window": 4000, "length": 8000}, "the text has 2001 tokens, expected more than one window, 4000"),
        ({"window": 300}, "expected at least 2, one for each chunk, and at most the length, 128"),
        ({"positions": "whole"}, "shorter windows contain no new positions"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tokens: Tensor, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        tuned(tiny(), tokens, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_float16_is_refused(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint = tiny()
    checkpoint.model.half()
    with pytest.raises(RunError, match="bfloat16 or float32"):
        tuned(checkpoint, tokens, tmp_path)


def test_a_loss_that_is_no_number_ends_it(tokens: Tensor, tmp_path: Path) -> None:
    checkpoint = tiny()
    with torch.no_grad():
        checkpoint.model.lm_head.weight[3] = float("nan")
    with pytest.raises(RunError, match="the loss is nan at step 1, expected a finite number; train in another dtype"):
        tuned(checkpoint, tokens, tmp_path)


# Several processes, and kill -9

SCRIPT = """
    import sys, torch
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from test_tune import tiny, tuned, weights
    from safetensors.torch import save_file
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    tokens = torch.load(folder / "tokens.pt")
    checkpoint = tiny(attention_dropout=0.0)
    slow = float(sys.argv[2])
    import time
    report = tuned(checkpoint, tokens, folder / "run", batch=4, steps=int(sys.argv[3]), checkpoint_every=1,
                   on_progress=lambda step, loss: time.sleep(slow))
    import os
    rank = os.environ.get("RANK", "0")
    save_file(weights(checkpoint), folder / f"weights-{{rank}}.safetensors")
    (folder / f"losses-{{rank}}.txt").write_text(repr((report.processes, report.losses)))
"""


def script(folder: Path, tokens: Tensor) -> Path:
    folder.mkdir()
    torch.save(tokens, folder / "tokens.pt")
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(here=str(Path(__file__).parent))))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_come_to_what_one_comes_to(tokens: Tensor, tmp_path: Path, launcher: str) -> None:
    if launcher == "accelerate":
        pytest.importorskip("accelerate", reason="accelerate is not installed")
        # --multi_gpu is how it starts several processes; on a CPU alone it would start one, or ask for MPI
        start = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        start += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "29631"]
    else:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, options in (("one", []), ("two", start)):
        path = script(tmp_path / name, tokens)
        command = [sys.executable, *options, str(path), str(path.parent), "0", "5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, (first, second) = (
        runs.load_tensors(tmp_path / "one/weights-0.safetensors"),
        [runs.load_tensors(tmp_path / f"two/weights-{rank}.safetensors") for rank in (0, 1)],
    )
    assert_same(first, second)
    (alone, losses), (together, shared) = (
        eval((tmp_path / name / "losses-0.txt").read_text()) for name in ("one", "two")
    )
    assert (alone, together) == (1, 2)
    np.testing.assert_allclose(losses, shared, rtol=1e-5)
    for name, value in one.items():
        torch.testing.assert_close(first[name], value, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_killed_at_any_moment_it_comes_to_the_same(tokens: Tensor, tmp_path: Path) -> None:
    whole, killed = script(tmp_path / "whole", tokens), script(tmp_path / "killed", tokens)
    subprocess.run([sys.executable, str(whole), str(whole.parent), "0", "12"], check=True, timeout=120)
    rng = np.random.default_rng(0)
    kills = 0
    while not (killed.parent / "losses-0.txt").exists():
        process = subprocess.Popen([sys.executable, str(killed), str(killed.parent), "0.05", "12"])
        limit = time.monotonic() + 120
        while not (killed.parent / "run" / runs.CHECKPOINT).exists() and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5) if kills else 0)
        if kills < 3 and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(timeout=120)
    assert kills == 3
    assert (killed.parent / "losses-0.txt").read_text() == (whole.parent / "losses-0.txt").read_text()
    assert_same(*(runs.load_tensors(path.parent / "weights-0.safetensors") for path in (whole, killed)))
