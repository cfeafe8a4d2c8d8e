"""Every pair of the catalogue that composes: together it is what its parts are one after the other."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc import testing
from posenc.catalogue import CATALOGUE
from posenc.frequencies import Linear
from posenc.kernels.rotate import eager, op
from posenc.queries_keys.rope import RoPE

DIM, HEADS = 32, 4
OPTIONS: dict[str, dict[str, object]] = {
    "normalized": {"length": 64},
    "learned": {"length": 80},
    "fope": {"trained_length": 64},
    "mrope": {"sections": (1, 1, 2)},
    "swin": {"window": (5, 5)},
    "swin_v2": {"window": (5, 5), "width": 8},
    "levit": {"window": (5, 5)},
    "decomposed": {"window": (5, 5)},
    "tupe": {"length": 80},
    "deberta": {"span": 4},
    "temperature": {"form": "inkling", "length": 3, "strength": 0.5},
    "shaw": {"reach": 3},
    "cope": {"length": 5},
    "fire": {"width": 4, "threshold": 8.0},
}


def made(name: str) -> posenc.Encoding:
    """An encoding with its learned parts away from their start, where many are zero."""
    encoding = posenc.make(name, dim=DIM, num_heads=HEADS, **OPTIONS.get(name, {}))
    generator = torch.Generator().manual_seed(len(name))
    for parameter in encoding.parameters():
        nn.init.uniform_(parameter, 0.1, 0.9, generator=generator)
    return encoding.double()


PLACES = {row.name: row.load().places for row in CATALOGUE}
#: More that have a temperature: another name for what it multiplies, and one of a frequency rule.
MORE = {
    "temperature of the products": lambda: posenc.Temperature("log", length=2),
    "rope with a temperature": lambda: posenc.RoPE(
        head_dim=8, frequencies=posenc.YaRN(4, trained_length=64, mscale_all_dim=1.0)
    ),
}
PLACES |= {name: make().places for name, make in MORE.items()}
#: Read queries, and are built for as many channels as place 2 gives: twice as many after PoPE.
READS_QUERIES = {"shaw", "transformer_xl", "deberta", "decomposed", "cope"}
PAIRS = [
    (a, b)
    for a, b in itertools.combinations(PLACES, 2)
    if not {*PLACES[a]} & {*PLACES[b]} and not ("pope" in (a, b) and READS_QUERIES & {a, b})
]
QUESTIONS = ("gives_attention_what_it_gives_the_scores", "decodes_step_by_step_as_in_a_full_forward")


def either(name: str) -> posenc.Encoding:
    return MORE[name]() if name in MORE else made(name)


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_a_pair_is_what_its_parts_are(pair: tuple[str, str]) -> None:
    one, other = map(either, pair)
    both = posenc.Compose(one, other)
    generator = torch.Generator().manual_seed(0)
    n = 11
    x = torch.randn(1, n, DIM, dtype=torch.float64, generator=generator)
    q, k, scores_q = torch.randn(3, 1, HEADS, n, DIM // HEADS, dtype=torch.float64, generator=generator)
    assert torch.equal(both.on_embeddings(x), other.on_embeddings(one.on_embeddings(x)))
    for got, expected in zip(
        both.on_queries_keys(q, k), other.on_queries_keys(*one.on_queries_keys(q, k)), strict=True
    ):
        assert torch.equal(got, expected)
    state = both.carry(x)
    content = {"q": scores_q, "k": k, "state": state}
    scores = both.softmax_scale(DIM // HEADS) * scores_q @ k.mT
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(both.on_scores(scores, None, None, **content), by_formula(both, scores, content))
    questions = dict(testing.checks(both))
    for question in QUESTIONS:
        questions[question]()
    assert posenc.from_dict(both.to_dict()).to_dict() == both.to_dict()
    assert [type(part) for part in posenc.Compose(posenc.NoPE(), both).parts] == [posenc.NoPE, type(one), type(other)]


def by_formula(both: posenc.Encoding, scores: Tensor, content: dict[str, Tensor]) -> Tensor:
    """tau_s (tau_p scores + b), each factor from the part that has it, b from the part alone on the same scores."""
    p = torch.arange(scores.shape[-1])
    products, whole, bias = torch.ones(()), torch.ones(()), torch.zeros(())
    for part in both.parts:
        if part.scales_scores and part.multiplies == "products":
            products = products * part.temperature(p)
        elif part.scales_scores:
            whole = whole * part.temperature(p)
        if "scores" in part.places:  # these have no temperature of their own
            finite = torch.where(scores.isinf(), 0.0, scores)
            bias = torch.where(scores.isinf(), 0.0, part.on_scores(scores, p, p, **content) - finite)
    return torch.where(scores.isinf(), scores, whole * (products * scores + bias))


def test_a_composition_within_a_composition_has_all_parts() -> None:
    inner = posenc.Compose(posenc.RoPE(head_dim=8), posenc.ALiBi(num_heads=HEADS))
    outer = posenc.Compose(posenc.Learned(dim=DIM, length=8), inner)
    assert [type(part) for part in outer.parts] == [posenc.Learned, RoPE, posenc.ALiBi]
    assert outer.at("queries_keys") is inner.parts[0]
    assert outer.at("scores") is inner.parts[1]
    assert posenc.NoPE().at("scores") is None
    assert posenc.from_dict(outer.to_dict()).to_dict() == outer.to_dict()


class TwoTemperatures(posenc.ScoreEncoding):
    """A user's own bias with a temperature, both kinds of it."""

    scales_scores = True

    def __init__(self, num_heads: int, multiplies: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.multiplies = multiplies  # type: ignore[assignment]

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        far = (q_positions[..., :, None] - k_positions[..., None, :]).double()
        return -0.1 * far.square()[..., None, :, :].expand(*far.shape[:-2], self.num_heads, -1, -1)

    def temperature(self, q_positions: Tensor) -> Tensor:
        return (1 + q_positions.double() / 10)[..., None, :, None]


class HotCoPE(posenc.CoPE):  # type: ignore[misc]
    """A contextual encoding with a temperature."""

    scales_scores = True
    temperature = TwoTemperatures.temperature


@pytest.mark.parametrize("within", [False, True], ids=["alone", "composed"])
@pytest.mark.parametrize(
    "make",
    [lambda: TwoTemperatures(4, "products"), lambda: TwoTemperatures(4, "scores"), lambda: HotCoPE(4, 8, length=5)],
    ids=["products", "scores", "contextual"],
)
def test_a_users_own_temperature_is_applied_once(make, within: bool) -> None:
    encoding = make()
    for parameter in encoding.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    if within:
        encoding = posenc.Compose(posenc.RoPE(head_dim=8), encoding)
    dict(testing.checks(encoding))["gives_attention_what_it_gives_the_scores"]()
    scores = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    q = torch.zeros(1, 4, 6, 8, dtype=torch.float64)  # from which CoPE makes a bias of zero
    tau = (1 + torch.arange(6).double() / 10)[:, None]
    i = torch.arange(6)
    bias = 0 if isinstance(encoding.parts[-1], posenc.CoPE) else -0.1 * (i[:, None] - i).double().square()
    whole = encoding.parts[-1].multiplies == "scores"
    expected = tau * (scores + bias) if whole else tau * scores + bias
    torch.testing.assert_close(encoding.on_scores(scores, None, None, q=q, k=q), expected)


@pytest.mark.parametrize("dtypes", list(itertools.product((torch.float32, torch.bfloat16, torch.float64), repeat=2)))
@pytest.mark.parametrize("k_heads", [4, 2])
def test_an_explanation_names_what_then_runs(
    monkeypatch: pytest.MonkeyPatch, dtypes: tuple[torch.dtype, torch.dtype], k_heads: int
) -> None:
    ran: list[str] = []
    compiled = op.compiled

    def kernel(*arguments: object) -> tuple[Tensor, Tensor]:
        ran.append("cpu")
        return compiled(*arguments)

    def plainly(*arguments: object) -> tuple[Tensor, Tensor]:
        ran.append("eager")
        return plain(*arguments)

    plain = eager.rotate_queries_keys
    monkeypatch.setattr(op, "compiled", kernel)
    monkeypatch.setattr(eager, "rotate_queries_keys", plainly)
    for implementation in ("auto", "eager"):
        rope = posenc.RoPE(head_dim=8, implementation=implementation)
        q, k = torch.randn(1, 4, 3, 8).to(dtypes[0]), torch.randn(1, k_heads, 3, 8).to(dtypes[1])
        ran.clear()
        said = posenc.explain(rope.on_queries_keys, q, k).implementation
        assert not ran
        rope.on_queries_keys(q, k)
        assert set(ran) == {said}


def test_what_attention_explains_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.kernels.biased_attention import again, plan

    ran: list[str] = []
    run, run_again = plan.run, again.run

    def short_way(*call: Any) -> Tensor | None:
        if (y := run_again(*call)) is not None:
            ran.append("cpu")
        return y

    monkeypatch.setattr(plan, "run", lambda name, problem: (ran.append(name), run(name, problem))[1])
    monkeypatch.setattr(again, "run", short_way)
    q = torch.randn(1, 4, 1100, 8)
    for encoding in (None, posenc.ALiBi(4), posenc.Compose(posenc.SSMax(4), posenc.ALiBi(4)), posenc.CoPE(4, 8)):
        for length in (4, 1100):
            for options in ({}, {"window": 3}, {"implementation": "blocks"}):
                call = (q[:, :, :length],) * 3 + (encoding,)
                said = posenc.explain(posenc.attention, *call, causal=True, **options)
                for _ in range(2):
                    posenc.attention(*call, causal=True, **options)
                assert ran == [said.implementation] * 2
                ran.clear()


def test_a_rule_within_a_composition_is_found_by_place() -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=Linear(2.0))
    for encoding in (rope, posenc.Compose(rope, posenc.NoPE()), posenc.Compose(posenc.SSMax(4), rope)):
        assert encoding.at("queries_keys") is rope
