"""An encoder-decoder that learns to spell numbers: "407" becomes "four hundred seven".

The encoder reads digits in both directions; the decoder writes letters, sees what it wrote, and looks at the digits by
cross-attention. While writing, the cache keeps keys and values of the letters, and those of the digits once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.nn import Transformer

DIM, HEADS, START, END = 64, 4, 1, 0
# fmt: off
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
# fmt: on
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def spell(number: int) -> str:
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {spell(number % 10)}" if number % 10 else "")
    if number < 1000:
        return f"{ONES[number // 100]} hundred" + (f" {spell(number % 100)}" if number % 100 else "")
    return f"{spell(number // 1000)} thousand" + (f" {spell(number % 1000)}" if number % 1000 else "")


def padded(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Bytes padded on the right, and where there are some."""
    longest = max(map(len, texts))
    tokens = torch.tensor([[*text.encode(), *[END] * (longest - len(text))] for text in texts])
    return tokens, torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, DIM)
        nn.init.normal_(self.embedding.weight, std=DIM**-0.5)
        rope = posenc.RoPE(head_dim=DIM // HEADS)
        self.encoder = Transformer(DIM, HEADS, 2, rope)
        self.decoder = Transformer(DIM, HEADS, 2, rope, causal=True, cross="attention")

    def encode(self, source: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(self.embedding(source), attention_mask=mask)

    def decode(self, target: Tensor, context: Tensor, mask: Tensor, cache: list | None = None) -> Tensor:
        features = self.decoder(self.embedding(target), context, context_mask=mask, cache=cache)
        return F.linear(features, self.embedding.weight)

    @torch.no_grad()
    def write(self, source: Tensor, mask: Tensor, longest: int = 64) -> list[str]:
        """The likeliest letter at each step, for all rows at once."""
        context, cache = self.encode(source, mask), self.decoder.new_cache()
        letters = [torch.full((len(source), 1), START)]
        for _ in range(longest):
            letters.append(self.decode(letters[-1], context, mask, cache)[:, -1:].argmax(-1))
        rows = torch.cat(letters[1:], dim=1).tolist()
        return [bytes(row).split(bytes([END]))[0].decode() for row in rows]


def main(steps: int = 500) -> float:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = EncoderDecoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 20) * (1 - 0.9 * t / steps))
    held_out = range(7, 10_000, 97)
    for step in range(steps):
        numbers = [n for n in torch.randint(10_000, (32,), generator=generator).tolist() if n not in held_out]
        source, mask = padded([str(n) for n in numbers])
        target, _ = padded([spell(n) + "\0" for n in numbers])
        shifted = torch.cat((torch.full((len(target), 1), START), target[:, :-1]), dim=1)
        logits = model.decode(shifted, model.encode(source, mask), mask)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.4f} nats a letter")
    model.eval()
    written = model.write(*padded([str(n) for n in held_out]))
    right = sum(text == spell(n) for text, n in zip(written, held_out, strict=True)) / len(held_out)
    for n, text in list(zip(held_out, written, strict=True))[::20]:
        print(f"{n:>5}  {text}")
    print(f"{right:.0%} of {len(held_out)} numbers that it never saw are spelled right")
    return right


if __name__ == "__main__":
    main()
