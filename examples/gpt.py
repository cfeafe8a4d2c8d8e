"""A small GPT on the bytes of Python code: trained for half a minute, then it goes on writing from two prompts.

The two prompts differ in length, so the shorter one is padded on the left; the cache keeps positions and padding.
Run ``python examples/gpt.py alibi`` for another encoding.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.nn import Transformer

DIM, HEADS, LAYERS, LENGTH = 96, 4, 3, 128


class GPT(nn.Module):
    def __init__(self, encoding: posenc.Encoding) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, DIM)
        nn.init.normal_(self.embedding.weight, std=DIM**-0.5)
        self.decoder = Transformer(DIM, HEADS, LAYERS, encoding, num_kv_heads=2, causal=True)

    def forward(self, tokens: Tensor, **options: object) -> Tensor:
        features = self.decoder(self.embedding(tokens) * DIM**0.25, **options)
        return F.linear(features, self.embedding.weight)

    @torch.no_grad()
    def generate(self, prompts: list[bytes], new_tokens: int, generator: torch.Generator) -> list[bytes]:
        """Go on from each prompt: all rows at once, one new byte a step, keys and values from the cache."""
        longest = max(map(len, prompts))
        tokens = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        cache = self.decoder.new_cache(max_length=longest + new_tokens)
        logits = self(tokens, attention_mask=mask, cache=cache)
        written = []
        for _ in range(new_tokens):
            likely = (logits[:, -1] / 0.7).softmax(-1)
            written.append(torch.multinomial(likely, 1, generator=generator))
            logits = self(written[-1], cache=cache)
        return [prompt + bytes(row) for prompt, row in zip(prompts, torch.cat(written, dim=1).tolist(), strict=True)]


def main(name: str = "rope", steps: int = 300) -> float:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    code = b"".join(path.read_bytes() for path in sorted(Path(posenc.__file__).parent.glob("*/*.py")))
    text = torch.frombuffer(bytearray(code), dtype=torch.uint8).long()
    options = {"length": LENGTH} if name in ("learned", "normalized", "tupe") else {}
    model = GPT(posenc.make(name, dim=DIM, num_heads=HEADS, **options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 30) * (1 - 0.9 * t / steps))
    loss = torch.tensor(0.0)
    for step in range(steps):
        starts = torch.randint(len(text) - LENGTH, (16,), generator=generator)
        windows = text[starts[:, None] + torch.arange(LENGTH + 1)]
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: {loss.item():.3f} nats a byte")
    model.eval()
    room = LENGTH - 20 if options else 100
    for written in model.generate([b"def rotate(x: Tensor, ", b"import "], min(room, 100), generator):
        print("-" * 80, written.decode(errors="replace"), sep="\n")
    return loss.item()


if __name__ == "__main__":
    main(*sys.argv[1:2])
