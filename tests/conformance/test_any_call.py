"""Calls drawn at random over the public API, each against a dense float64 evaluation, and wrong ones among them.

A draw is made from its number alone: ``draw(4711)`` runs that one again.
"""

import copy
import math
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc.frequencies import Linear, Llama3
from posenc.oracle.queries_keys import rope as rope_oracle

HEADS = (1, 2, 4)
EMBEDDINGS = ("integer", "normalized", "binary", "sinusoidal", "learned", None, None)
SCORES = ("alibi", "t5", "kerple", "fire", "sandwich", "shaw", "cope", "transformer_xl", "deberta", "forgetting", None)
IMPLEMENTATIONS = ("auto", "auto", "dense", "blocks", "channels", "sdpa")
TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}


@dataclass
class Call:
    """What was drawn: an encoding, tensors, and the options of attention."""

    encoding: posenc.Encoding
    q: Tensor
    k: Tensor
    v: Tensor
    x: Tensor
    options: dict[str, Any] = field(default_factory=dict)


def chance(draw: random.Random, share: float) -> bool:
    return draw.random() < share


def drawn_encoding(draw: random.Random, heads: int, head_dim: int, length: int) -> posenc.Encoding:
    dim = heads * head_dim
    options: dict[str, dict[str, Any]] = {
        "normalized": {"length": 64}, "learned": {"length": length},
        "t5": {"direction": draw.choice(("causal", "both"))},
        "kerple": {"kernel": draw.choice(("log", "power"))}, "fire": {"width": 4, "threshold": 9.0},
        "sandwich": {"code_dim": 8}, "cope": {"length": draw.choice((1, 4, 64))}, "deberta": {"span": 4},
        "shaw": {"reach": 3, "values": draw.choice(("learned", "none")), "beyond": draw.choice(("last", "nothing"))},
    }  # fmt: skip
    parts: list[posenc.Encoding] = []
    for name in (draw.choice(EMBEDDINGS), draw.choice(SCORES)):
        if name is not None and not (name in ("sinusoidal", "transformer_xl") and dim % 2):
            parts.append(posenc.make(name, dim=dim, num_heads=heads, **options.get(name, {})))
    if chance(draw, 0.6):
        yarn = posenc.YaRN(4.0, trained_length=64, mscale_all_dim=draw.choice((0.0, 1.0)))
        rules = (None, posenc.Geometric(base=100.0), Linear(2.0), yarn, Llama3(2, trained_length=64, base=1e4))
        slices: dict[str, int] = draw.choice(({}, {"rotary_dim": 2}, {"rotary_dim": 2, "rotary_start": head_dim - 2}))
        pairing = draw.choice(("half", "interleaved"))
        parts.append(posenc.RoPE(head_dim, frequencies=draw.choice(rules), pairing=pairing, **slices))
    if chance(draw, 0.3):
        multiplies = draw.choice(("products", "scores"))
        parts.append(
            posenc.SSMax(heads, multiplies=multiplies)
            if chance(draw, 0.3)
            else posenc.Temperature(draw.choice(("llama4", "inkling", "log")), length=3, multiplies=multiplies)
        )
    draw.shuffle(parts)
    encoding = {0: posenc.NoPE, 1: lambda: parts[0]}.get(len(parts), lambda: posenc.Compose(*parts))()
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    for parameter in encoding.parameters():
        nn.init.uniform_(parameter, 0.05, 0.4, generator=generator)
    return encoding


def drawn_positions(draw: random.Random, batch: int, length: int) -> Any:
    """Positions in any accepted form; for a table of ``length`` rows none is past it."""
    ids = torch.arange(length)
    rows = torch.stack([ids.roll(draw.randrange(length)) if chance(draw, 0.2) else ids for _ in range(batch)])
    return draw.choice((None, 0, ids, ids.int(), ids.float(), ids.double(), ids.to(torch.uint8), rows, ids[None]))


def drawn(seed: int) -> Call:
    draw = random.Random(seed)
    heads, head_dim = draw.choice(HEADS), draw.choice((2, 4, 8))
    kv_heads = draw.choice([n for n in HEADS if heads % n == 0])
    batch, k_len = draw.randint(1, 3), draw.choice((1, 2, 3, 5, 8, 13, 21, 40))
    q_len = draw.randint(1, k_len) if chance(draw, 0.4) else k_len
    value_dim = head_dim if chance(draw, 0.8) else draw.randint(1, 9)
    dtype = draw.choice((torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float16))
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape: int) -> Tensor:
        made: Tensor = torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)
        return made.transpose(1, 2).contiguous().transpose(1, 2) if chance(draw, 0.2) and len(shape) == 4 else made

    call = Call(
        drawn_encoding(draw, heads, head_dim, k_len),
        tensor(batch, heads, k_len, head_dim),
        tensor(batch, kv_heads, k_len, head_dim),
        tensor(batch, kv_heads, k_len, value_dim),
        tensor(batch, k_len, heads * head_dim),
    )
    options = call.options
    options["positions"] = drawn_positions(draw, batch, k_len)
    options["q_len"] = q_len
    options["causal"] = chance(draw, 0.6)
    options["implementation"] = draw.choice(IMPLEMENTATIONS)
    if chance(draw, 0.25):
        options["window"] = draw.randint(1, k_len + 2)
    if chance(draw, 0.25):
        options["documents"] = torch.randint(0, 3, (batch, k_len), generator=generator).sort(-1).values
    if chance(draw, 0.25):
        shape = draw.choice(((q_len, k_len), (batch, 1, 1, k_len), (batch, heads, q_len, k_len), (k_len,)))
        mask = torch.randn(shape, generator=generator)
        options["mask"] = mask > -0.7 if chance(draw, 0.6) else mask.to(dtype)
    if chance(draw, 0.15):
        options["sinks"] = torch.randn(heads, generator=generator).to(dtype)
    if chance(draw, 0.15):
        options["scale"] = draw.choice((0.0, 1.0, -0.5, 0.3))
    return call


def ours(call: Call) -> Tensor:
    options = dict(call.options)
    positions, q_len, encoding = options.pop("positions"), options.pop("q_len"), call.encoding
    x = encoding.on_embeddings(call.x, positions)
    q, k = encoding.on_queries_keys(call.q, call.k, positions)
    q = q[:, :, q.shape[2] - q_len :]
    where = positions
    if isinstance(positions, Tensor):
        where = positions[..., positions.shape[-1] - q_len :]
    elif type(positions) is int:
        where = positions + k.shape[2] - q_len
    state = encoding.carry(x)
    y = posenc.attention(q, k, call.v, encoding, q_positions=where, k_positions=positions, state=state, **options)
    return torch.cat((y.flatten(), x.flatten()))


def by_hand(call: Call) -> Tensor:
    """All of it dense and in float64: the rotation by the oracle, the scores by the formula, masks as a matrix."""
    options, encoding = call.options, copy.deepcopy(call.encoding).double()
    batch, heads, k_len, head_dim = call.q.shape
    q_len = options["q_len"]
    positions = options["positions"]
    j = torch.arange(k_len) if not isinstance(positions, Tensor) else positions.double()
    i = j[..., k_len - q_len :]
    x = call.x.double()
    part = encoding.at("embeddings")
    x = x if part is None else x + part.codes(j).double()
    # carry reads what the layer was given, rounded to its dtype
    state = encoding.carry(x.to(call.x.dtype).double())
    q, k, v = (t.double() for t in (call.q, call.k, call.v))
    rope = encoding.at("queries_keys")
    if rope is not None:
        q, k = (rotated(rope, t, j) for t in (q, k))
    q, k = q.to(call.q.dtype).double(), k.to(call.k.dtype).double()  # rotated tensors are rounded once
    q = q[:, :, k_len - q_len :]
    k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    t, u = torch.arange(k_len - q_len, k_len)[:, None], torch.arange(k_len)[None]
    seen = torch.ones(batch, 1, q_len, k_len, dtype=torch.bool)
    if options["causal"]:
        seen = seen & (u <= t)
    if "window" in options:
        seen = seen & ((t - u).abs() < options["window"])
    if "documents" in options:
        documents = options["documents"]
        seen = seen & (documents[:, None, k_len - q_len :, None] == documents[:, None, None, :])
    mask = options.get("mask")
    added = 0.0
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & mask
    elif mask is not None:
        added = mask.double()
    scale = options.get("scale", encoding.softmax_scale(head_dim))
    scores = (scale * q @ k.mT).masked_fill(~seen, -math.inf)
    products, whole, bias = torch.ones(()), torch.ones(()), 0.0
    for each in encoding.parts:
        if each.scales_scores and each.multiplies == "products":
            products = products * each.temperature(i)
        elif each.scales_scores:
            whole = whole * each.temperature(i)
    place = encoding.at("scores")
    if isinstance(place, posenc.ContextualEncoding):
        q_state = None if state is None else state[..., k_len - q_len :]
        content = posenc.scores.Content(q, k, scores, i, j, scale, q_state, state, k_len - q_len)
        bias = place.contextual_bias(content)
    elif place is not None:
        bias = place.bias(i, j).double()
    finite = scores.masked_fill(~seen, 0.0)
    z = (whole * (products * finite + bias) + added).masked_fill(~seen, -math.inf)
    if "sinks" in options:
        z = torch.cat((z, options["sinks"].double()[:, None, None].expand(batch, heads, q_len, 1)), dim=-1)
    weights = z.softmax(-1)[..., :k_len].nan_to_num(0.0)
    y = weights @ v
    more = place.on_values(weights, i, j) if isinstance(place, posenc.ContextualEncoding) else None
    return torch.cat(((y if more is None else y + more).flatten(), x.flatten()))


def rotated(rope: posenc.Encoding, x: Tensor, positions: Tensor) -> Tensor:
    """The oracle's rotation of the slice, times the rule's factor."""
    start, dim, rule = rope.rotary_start, rope.rotary_dim, rope.frequencies
    before, inside, after = x.split((start, dim, x.shape[-1] - start - dim), dim=-1)
    where = positions.expand(x.shape[0], -1) if positions.ndim == 2 else positions
    turned = rope_oracle.rotate(inside.numpy(), where.numpy(), inv_freq=rule.inv_freq(dim), pairing=rope.pairing)
    return torch.cat((before, rule.attention_factor * torch.from_numpy(turned), after), dim=-1)


def spoiled(call: Call, draw: random.Random) -> str:
    """One thing made wrong in a call; what."""
    k_len, options = call.k.shape[2], call.options
    wrong: dict[str, tuple[str, Any]] = {
        "positions in bfloat16": ("positions", torch.arange(k_len).bfloat16()),
        "unsigned positions": ("positions", torch.arange(k_len).to(torch.uint64)),
        "boolean positions": ("positions", True),
        "a list of positions": ("positions", list(range(k_len))),
        "positions of another length": ("positions", torch.arange(k_len + 1)),
        "negative positions": ("positions", torch.arange(k_len) - 1),
        "far positions": ("positions", 2**63 - 1),
        "NaN positions": ("positions", torch.full((k_len,), math.nan)),
        "a window of 0": ("window", 0),
        "a fraction of a window": ("window", 1.5),
        "a scale of NaN": ("scale", math.nan),
        "a mask of integers": ("mask", torch.ones(k_len, dtype=torch.int64)),
        "a mask of another shape": ("mask", torch.ones(k_len + 2, dtype=torch.bool)),
        "documents of floats": ("documents", torch.zeros(k_len)),
        "documents of another length": ("documents", torch.zeros(k_len + 1, dtype=torch.int64)),
        "sinks of another length": ("sinks", torch.zeros(call.q.shape[1] + 1)),
        "an unknown implementation": ("implementation", "fast"),
        "a dropout of 2": ("dropout_p", 2.0),
    }
    what = draw.choice([*wrong, "keys of another width", "values of another length", "no four dimensions"])
    if what in wrong:
        options[wrong[what][0]] = wrong[what][1]
    elif what == "keys of another width":
        call.k = torch.cat((call.k, call.k[..., :1]), dim=-1)
    elif what == "values of another length":
        call.v = torch.cat((call.v, call.v[:, :, :1]), dim=2)
    else:
        call.q = call.q[0]
    return what


def draw(seed: int) -> str:
    """One call: its result against the dense one, or, for a wrong one, the refusal. What came of it."""
    call = drawn(seed)
    dice = random.Random(seed + 2**32)
    spoil = spoiled(call, dice) if chance(dice, 0.15) else None
    try:
        got = ours(call).detach().double()
    except (TypeError, ValueError) as error:
        text = str(error)
        assert ("got" in text and "expected" in text) or "cannot take this call" in text or "was built for" in text or (
            ", and neither causal" in text or "one position for" in text or "must be a finite" in text
            or "give one row for each" in text
        ), f"draw {seed}: the refusal does not say what it got and expected: {text}"  # fmt: skip
        reasons = (
            "cannot take this call",
            "whose bias separates",
            "for keys at or before their query",
            "which Shaw adds to",
        )
        assert spoil is not None or any(reason in text for reason in reasons), f"draw {seed}: {text}"
        return "refused"
    assert spoil is None, f"draw {seed}: {spoil} was taken"
    expected = by_hand(call).detach()
    assert got.shape == expected.shape, f"draw {seed}: {tuple(got.shape)} for {tuple(expected.shape)}"
    unit = max(1.0, float(expected.abs().max()))
    error = float((got - expected).abs().max()) / unit
    assert error <= TOLERANCE[call.q.dtype], f"draw {seed}: error {error:.2e} for {call.encoding}, {call.options}"
    return "right"


def test_calls_drawn_at_random_are_right_or_refused() -> None:
    """300 of them; the refusals must not be most of what is tested."""
    outcomes = [draw(seed) for seed in range(300)]
    assert outcomes.count("right") > 180


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_more_calls_drawn_at_random_are_right_or_refused(block: int) -> None:
    """20 000 in all."""
    for seed in range(1000 * (block + 1), 1000 * (block + 2)):
        draw(seed)
