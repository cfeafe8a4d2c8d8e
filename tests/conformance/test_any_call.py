"""Calls drawn at random over the public API, each against a dense float64 evaluation, and wrong ones among them.

A draw is made from its number alone: ``draw(4711)`` runs that one again.
"""

import copy
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc.frequencies import DynamicNTK, Frequencies, Linear, Llama3, LongRoPE, NTKMixed, Proportional
from posenc.oracle.queries_keys import axial, fope, mixed, mrope, xpos
from posenc.oracle.queries_keys import rope as rope_oracle
from posenc.queries_keys.axial import Layout

HEADS = (1, 2, 4)
EMBEDDINGS = ("integer", "normalized", "binary", "sinusoidal", "learned", None, None)
SCORES = (
    *("alibi", "t5", "kerple", "fire", "sandwich", "shaw", "cope", "transformer_xl", "deberta", "forgetting"),
    *("swin", "swin_v2", "tupe", None),
)
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


def drawn_encoding(draw: random.Random, heads: int, kv_heads: int, head_dim: int, length: int) -> posenc.Encoding:
    dim = heads * head_dim
    options: dict[str, dict[str, Any]] = {
        "normalized": {"length": 64}, "learned": {"length": length},
        "t5": {"direction": draw.choice(("causal", "both"))},
        "kerple": {"kernel": draw.choice(("log", "power"))}, "fire": {"width": 4, "threshold": 9.0},
        "sandwich": {"code_dim": 8}, "cope": {"length": draw.choice((1, 4, 64))}, "deberta": {"span": 4},
        "swin": {"window": (2, -(-length // 2))}, "swin_v2": {"window": (-(-length // 3), 3), "width": 4},
        "tupe": {"length": length},
        "shaw": {"reach": 3, "values": draw.choice(("learned", "none")), "beyond": draw.choice(("last", "nothing"))},
    }  # fmt: skip
    parts: list[posenc.Encoding] = []
    for name in (draw.choice(EMBEDDINGS), draw.choice(SCORES)):
        if name is not None and not (name in ("sinusoidal", "transformer_xl") and dim % 2):
            parts.append(posenc.make(name, dim=dim, num_heads=heads, **options.get(name, {})))
    if chance(draw, 0.7):
        parts.append(drawn_rotation(draw, heads, kv_heads, head_dim))
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


def drawn_rotation(draw: random.Random, heads: int, kv_heads: int, head_dim: int) -> posenc.Encoding:
    pairing = draw.choice(("half", "interleaved"))
    pairs = head_dim // 2
    kind = draw.choice(("rope", "rope", "rope", "xpos", "axial", "mrope", "mixed", "fope"))
    if kind == "xpos":
        return posenc.XPos(head_dim, scale_base=draw.choice((64.0, 512.0)), centre=draw.choice((0, 7)), pairing=pairing)
    if kind == "axial" and pairs % 2 == 0:
        return posenc.AxialRoPE(
            head_dim, layout=draw.choice([name for name in get_args(Layout) if "heads" not in name])
        )
    if kind == "mrope":
        sections, layout = draw.choice(
            (((pairs, 0, 0), "chunked"), ((pairs - pairs // 2, pairs // 2, 0), "chunked"))
            if pairs < 4
            else (((2, 1, 1), "chunked"), ((2, 1, 1), "interleaved"), ((2, 1, 1), "time_last"))
        )
        return posenc.MRoPE(head_dim, sections=sections, layout=layout, pairing=pairing)
    if kind == "fope":
        length, dropped = draw.choice((7, 100)), draw.choice(("turned", "still"))
        return posenc.FoPE(
            head_dim, num_heads=heads, num_kv_heads=kv_heads, trained_length=length, dropped=dropped, pairing=pairing
        )
    if kind == "mixed" and pairs % 2 == 0:
        return posenc.MixedRoPE(head_dim, num_heads=heads, num_kv_heads=kv_heads, pairing=pairing)
    whole: tuple[Frequencies, ...] = (
        Proportional(0.5),
        LongRoPE([1.5] * pairs, [1.0 + n for n in range(pairs)], trained_length=8, factor=4),
        *([DynamicNTK(2.0, trained_length=8)] if pairs > 1 else []),
    )
    if chance(draw, 0.4):
        return posenc.RoPE(head_dim, frequencies=draw.choice(whole), pairing=pairing)
    yarn = posenc.YaRN(4.0, trained_length=64, mscale_all_dim=draw.choice((0.0, 1.0)))
    llama3 = Llama3(2, trained_length=64, base=1e4)
    rules = (None, posenc.Geometric(base=100.0), Linear(2.0), yarn, llama3, NTKMixed(4.0, 0.75))
    slices: dict[str, int] = draw.choice(({}, {"rotary_dim": 2}, {"rotary_dim": 2, "rotary_start": head_dim - 2}))
    return posenc.RoPE(head_dim, frequencies=draw.choice(rules), pairing=pairing, **slices)


def drawn_coordinates(draw: random.Random, coordinates: int, batch: int, length: int, seed: int) -> Tensor:
    """Whole numbers or floats, the same in all rows or not, some below zero."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(-3, 30, (draw.choice((1, batch)), length, coordinates), generator=generator)
    return draw.choice((made, made.int(), made.double() + 0.25))


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
        drawn_encoding(draw, heads, kv_heads, head_dim, k_len),
        tensor(batch, heads, k_len, head_dim),
        tensor(batch, kv_heads, k_len, head_dim),
        tensor(batch, kv_heads, k_len, value_dim),
        tensor(batch, k_len, heads * head_dim),
    )
    options = call.options
    options["positions"] = drawn_positions(draw, batch, k_len)
    options["q_len"] = q_len
    rotation = call.encoding.at("queries_keys")
    coordinates = getattr(rotation, "coordinates", None)
    if coordinates is not None and chance(draw, 0.7):
        options["coordinates"] = drawn_coordinates(draw, coordinates, batch, k_len, seed)
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
    q, k = encoding.on_queries_keys(call.q, call.k, options.pop("coordinates", positions))
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
        where = options.get("coordinates", j)
        q, k = (rotated(rope, t, where, role) for t, role in ((q, "query"), (k, "key")))
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
    products, whole, bias = torch.ones(()), torch.ones(()), torch.zeros(())
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


def rotated(rope: posenc.Encoding, x: Tensor, positions: Tensor, role: str) -> Tensor:
    """The oracle's rotation of each row, times the rule's factor."""
    if isinstance(rope, posenc.MixedRoPE | posenc.AxialRoPE | posenc.MRoPE):
        if positions.ndim < 3:  # a text
            positions = positions[..., None].expand(*positions.shape, rope.coordinates or 1)
            positions = positions if positions.ndim == 3 else positions[None]
    elif positions.ndim == 1:
        positions = positions[None]
    rows = zip(x.numpy(), positions.expand(x.shape[0], *positions.shape[1:]).numpy(), strict=True)
    return torch.stack([torch.from_numpy(_row(rope, row, where, role)) for row, where in rows])


def _row(rope: Any, x: Any, where: Any, role: str) -> Any:
    """One row of the batch, ``(heads, seq, head_dim)``, all channels of which are rotated, or a slice."""
    if isinstance(rope, posenc.XPos):
        rule = {"gamma": rope.gamma, "scale_base": rope.scale_base, "centre": rope.centre, "pairing": rope.pairing}
        return xpos.rotate(x, where, inv_freq=rope.frequencies.inv_freq(rope.rotary_dim), role=role, **rule)
    if isinstance(rope, posenc.AxialRoPE):
        return axial.rotate(x, where, base=rope.frequencies.base, layout=rope.layout)
    if isinstance(rope, posenc.MRoPE):
        inv_freq = rope.frequencies.inv_freq(rope.rotary_dim)
        options = {"sections": rope.sections, "layout": rope.layout, "pairing": rope.pairing}
        return mrope.rotate(x, where, inv_freq=inv_freq, **options)
    if isinstance(rope, posenc.MixedRoPE):
        rates = rope.rates.detach().double()
        of_x = rates if role == "query" or rates.shape[1] == x.shape[0] else rates[:, : x.shape[0]]
        return mixed.rotate(x[None], where, rates=of_x.numpy(), pairing=rope.pairing)[0]
    if isinstance(rope, posenc.FoPE):
        found = {name: rope.get_parameter(name).detach().double().numpy() for name in ("cos_coef", "sin_coef")}
        inv_freq = rope.frequencies.inv_freq(rope.rotary_dim)[: found["cos_coef"].shape[1]]
        return fope.rotate(x[None], where, inv_freq=inv_freq, dropped=rope.dropped, pairing=rope.pairing, **found)[0]
    start, dim, rule = rope.rotary_start, rope.rotary_dim, rope.frequencies
    turned = x.copy()
    for length in set(sequence_lengths(where)) if rule.depends_on_length else {None}:
        at = [length is None or each == length for each in sequence_lengths(where)]
        inv_freq, factor = rule.inv_freq(dim, length=length), float(rule.attention_factor_at(length))
        part = rope_oracle.rotate(x[..., start : start + dim], where, inv_freq=inv_freq, pairing=rope.pairing)
        turned[:, at, start : start + dim] = factor * part[:, at]
    return turned


def sequence_lengths(positions: Any) -> list[int]:
    """For each token how long the sequence is in which it stands: one begins where positions fall."""
    starts = [0] + [t for t in range(1, len(positions)) if positions[t] < positions[t - 1]] + [len(positions)]
    lengths: list[int] = []
    for start, stop in itertools.pairwise(starts):
        lengths += [int(max(positions[start:stop])) + 1] * (stop - start)
    return lengths


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
            "because Shaw adds to the values",
        )
        assert spoil is not None or any(reason in text for reason in reasons), f"draw {seed}: {text}"
        return "refused"
    assert spoil is None, f"draw {seed}: {spoil} was taken"
    expected = by_hand(call).detach()
    assert got.shape == expected.shape, f"draw {seed}: {tuple(got.shape)} for {tuple(expected.shape)}"
    unit = max(1.0, float(expected.abs().max()))
    off = float((got - expected).abs().max()) / unit
    assert off <= TOLERANCE[call.q.dtype], f"draw {seed}: error {off:.2e} for {call.encoding}, {call.options}"
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
