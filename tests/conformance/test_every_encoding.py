"""The encoding test suite (the exam) on every row of the catalogue, on variants of it, and on a user's own encoding."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc import testing
from posenc.frequencies import DynamicNTK, LearnedRates, LongRoPE, Proportional
from posenc.oracle import ssmax, temperature
from posenc.oracle.embeddings import (
    binary,
    fourier,
    integer,
    learned,
    learned_grid,
    normalized,
    sinusoidal,
    sinusoidal_grid,
    timesteps,
)
from posenc.oracle.queries_keys import axial, fope, mixed, mrope, pope, rope, xpos
from posenc.oracle.scores import (
    alibi,
    cope,
    deberta,
    decomposed,
    fire,
    forgetting,
    inkling,
    kerple,
    levit,
    sandwich,
    shaw,
    swin,
    swin_v2,
    t5,
    transformer_xl,
    tupe,
)
from posenc.queries_keys.axial import Layout


def added(codes: Callable[..., np.ndarray]) -> SimpleNamespace:
    """An oracle of place 1 from its codes."""
    return SimpleNamespace(on_embeddings=lambda x, positions: x + codes(positions))


def rotated(by: Callable[..., np.ndarray] = rope.rotate, coordinates: int = 0, **options: object) -> SimpleNamespace:
    """An oracle of place 2 from its rotation and options. The exam's positions are those of a text: one for all."""

    def on_queries_keys(q: np.ndarray, k: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        where = np.stack([positions] * coordinates, axis=-1) if coordinates else positions
        return by(q, where, **options), by(k, where, **options)

    return SimpleNamespace(on_queries_keys=on_queries_keys)


def faded(**options: object) -> SimpleNamespace:
    """An oracle of place 2 from xPos's options."""
    return SimpleNamespace(
        on_queries_keys=lambda q, k, p: (
            xpos.rotate(q, p, role="query", **options),
            xpos.rotate(k, p, role="key", **options),
        )
    )


def widened(encoding: posenc.PoPE, inv_freq: np.ndarray) -> SimpleNamespace:
    """An oracle of PoPE, whose keys have phases."""
    phase = numbers(encoding.phase)
    return SimpleNamespace(
        on_queries_keys=lambda q, k, p: (
            pope.polar(q, p, inv_freq=inv_freq),
            pope.polar(k, p, inv_freq=inv_freq, phase=phase),
        )
    )


def summed(encoding: posenc.FoPE, inv_freq: np.ndarray, **options: str) -> SimpleNamespace:
    """An oracle of FoPE from its coefficients."""
    coefficients = {name: numbers(encoding.get_parameter(name)) for name in ("cos_coef", "sin_coef")}
    return rotated(fope.rotate, inv_freq=inv_freq, **coefficients, **options)


def heated(of: Callable[[np.ndarray], np.ndarray]) -> SimpleNamespace:
    """An oracle of a temperature, (1, seq, 1) for all heads or (heads, seq, 1)."""
    return SimpleNamespace(temperature=lambda p: np.atleast_2d(of(p))[..., None])


def numbers(parameter: Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def biased(formula: Callable[..., np.ndarray], **options: object) -> SimpleNamespace:
    """An oracle of place 3 from the bias of two positions; tensors among the options are read when it is asked."""

    def bias(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return formula(i, j, **{k: numbers(o) if isinstance(o, Tensor) else o for k, o in options.items()})

    return SimpleNamespace(bias=bias)


def contextual(formula: Callable[[dict], np.ndarray]) -> SimpleNamespace:
    """An oracle of place 3 that reads tokens: a function of all that the exam offers."""
    return SimpleNamespace(contextual_bias=lambda **content: formula(content))


def projected(encoding: posenc.scores.DeBERTa, projection: nn.Linear) -> np.ndarray:
    rows = numbers(encoding.table) @ numbers(projection.weight).T + numbers(projection.bias)
    return rows.reshape(2 * encoding.span, encoding.num_heads, -1).swapaxes(0, 1)


def randomized(encoding: posenc.Encoding, std: float = 0.5) -> posenc.Encoding:
    """With learned parts away from their start, where many of them are zero or near it."""
    generator = torch.Generator().manual_seed(0)
    for parameter in encoding.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return encoding


def rates(dim: int, base: float = 10_000) -> np.ndarray:
    return base ** (-np.arange(0, dim, 2) / dim)


class Gauss(posenc.ScoreEncoding):
    """A user's own encoding: a learned width for each head."""

    relative = True

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.log_width = nn.Parameter(torch.linspace(0, 3, num_heads))

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).to(self.log_width.dtype)
        return -(distance[..., None, :, :] / self.log_width.exp()[:, None, None]).square()


T5 = randomized(posenc.T5Bias(num_heads=4))
T5_BOTH = randomized(posenc.T5Bias(num_heads=4, num_buckets=16, max_distance=64, direction="both", scale="none"))
KERPLE_LOG = posenc.KERPLE(num_heads=4)
KERPLE_POWER = posenc.KERPLE(num_heads=4, kernel="power")
FIRE = posenc.FIRE(num_heads=4, threshold=8.0)
SWIN = randomized(posenc.scores.SwinBias(num_heads=4, window=(7, 5)))
BEIT = randomized(posenc.scores.SwinBias(num_heads=4, window=(7, 5), prefix=1))
LEVIT = randomized(posenc.scores.LeViTBias(num_heads=4, window=(7, 5)))
DECOMPOSED = randomized(posenc.scores.DecomposedBias(num_heads=4, head_dim=16, window=(7, 5)))
MVIT = randomized(posenc.scores.DecomposedBias(num_heads=4, head_dim=16, window=(7, 5), prefix=1))
FOURIER = posenc.embeddings.FourierFeatures(dim=32, bandwidth=0.3)
SWIN_V2 = posenc.scores.SwinV2Bias(num_heads=4, window=(7, 5), trained_window=(4, 4), width=16)
SWIN_V2_PAPER = posenc.scores.SwinV2Bias(num_heads=4, window=(7, 5), width=16, form="paper")
TUPE = randomized(posenc.scores.TUPE(dim=32, num_heads=4, length=80), 0.2)
SHAW = posenc.scores.Shaw(num_heads=4, head_dim=16, reach=3)
SHAW_VITS = posenc.scores.Shaw(num_heads=4, head_dim=16, reach=3, values="none", beyond="nothing")
XL = randomized(posenc.scores.TransformerXL(dim=32, num_heads=4), 0.3)
DEBERTA = randomized(posenc.scores.DeBERTa(dim=32, num_heads=4, span=4), 0.3)
DEBERTA_V2 = randomized(posenc.scores.DeBERTa(dim=32, num_heads=4, span=6, max_distance=20), 0.3)
COPE = randomized(posenc.CoPE(num_heads=4, head_dim=16, length=5))
FOX = posenc.Forgetting(dim=32, num_heads=4)
INKLING = randomized(posenc.scores.InklingBias(dim=32, num_heads=4, rank=3, extent=6))
INKLING_2 = randomized(posenc.scores.InklingBias(dim=32, num_heads=4, rank=3, extent=6, clip=2.0))


def swin_v2_oracle() -> SimpleNamespace:
    return biased(
        swin_v2.bias, window=(7, 5), trained_window=(4, 4), hidden_weight=SWIN_V2.hidden.weight,
        hidden_bias=SWIN_V2.hidden.bias, out_weight=SWIN_V2.out.weight,
    )  # fmt: skip


def swin_v2_of_the_paper() -> SimpleNamespace:
    return biased(
        swin_v2.bias_of_the_paper, window=(7, 5), hidden_weight=SWIN_V2_PAPER.hidden.weight,
        hidden_bias=SWIN_V2_PAPER.hidden.bias, out_weight=SWIN_V2_PAPER.out.weight, out_bias=SWIN_V2_PAPER.out.bias,
    )  # fmt: skip


def fire_oracle() -> SimpleNamespace:
    def bias(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return fire.bias(
            i, j, c=FIRE.c.item(), threshold=8 * FIRE.threshold_multiplier.item(),
            hidden_weight=numbers(FIRE.hidden.weight)[:, 0], hidden_bias=numbers(FIRE.hidden.bias),
            out_weight=numbers(FIRE.out.weight), out_bias=numbers(FIRE.out.bias),
        )  # fmt: skip

    return SimpleNamespace(bias=bias)


def decomposed_oracle(encoding: posenc.scores.DecomposedBias) -> SimpleNamespace:
    return contextual(
        lambda c: decomposed.bias(
            c["q"],
            c["q_positions"],
            c["k_positions"],
            rows=numbers(encoding.rows),
            columns=numbers(encoding.columns),
            prefix=encoding.prefix,
        )
    )


def spread(codes: Callable[..., np.ndarray], coordinates: int, **options: object) -> SimpleNamespace:
    """An oracle of place 1 from the codes of coordinates. The exam's positions are those of a text: one for all."""
    return added(lambda p: codes(np.stack([p] * coordinates, axis=-1), **options))


def tupe_oracle() -> SimpleNamespace:
    return biased(
        tupe.bias, num_heads=4, table=TUPE.table, norm_weight=TUPE.norm.weight, norm_bias=TUPE.norm.bias,
        q_weight=TUPE.q_proj.weight, q_bias=TUPE.q_proj.bias, k_weight=TUPE.k_proj.weight, k_bias=TUPE.k_proj.bias,
    )  # fmt: skip


def shaw_oracle(encoding: posenc.scores.Shaw) -> SimpleNamespace:
    return contextual(
        lambda c: shaw.bias(
            c["q"],
            c["q_positions"],
            c["k_positions"],
            table=numbers(encoding.keys),
            scale=c["scale"],
            beyond=encoding.beyond,
        )
    )


def deberta_oracle(encoding: posenc.scores.DeBERTa) -> SimpleNamespace:
    return contextual(
        lambda c: deberta.bias(
            c["q"],
            c["k"],
            c["q_positions"],
            c["k_positions"],
            scale=c["scale"],
            max_distance=encoding.max_distance,
            q_table=projected(encoding, encoding.q_proj),
            k_table=projected(encoding, encoding.k_proj),
        )
    )


def xl_oracle() -> SimpleNamespace:
    return contextual(
        lambda c: transformer_xl.bias(
            c["q"],
            c["k"],
            c["q_positions"],
            c["k_positions"],
            scale=c["scale"],
            weight=numbers(XL.weight),
            u=numbers(XL.u),
            v=numbers(XL.v),
        )
    )


def fox_oracle() -> SimpleNamespace:
    def bias(c: dict) -> np.ndarray:
        gates = forgetting.log_gates(c["x"], weight=numbers(FOX.gate.weight), offset=numbers(FOX.gate.bias))
        return forgetting.bias(gates)

    return contextual(bias)


def inkling_oracle(encoding: posenc.scores.InklingBias) -> SimpleNamespace:
    def bias(c: dict) -> np.ndarray:
        scale = None if encoding.scale is None else numbers(encoding.scale)
        r = inkling.mixture(c["x"], weight=numbers(encoding.mix.weight), num_heads=4, scale=scale, clip=encoding.clip)
        return inkling.bias(r, c["q_positions"], c["k_positions"], profiles=numbers(encoding.profiles))

    return contextual(bias)


LEARNED = posenc.Learned(dim=32, length=80)
LEARNED_GRID = posenc.embeddings.LearnedGrid(dim=32, grid=(9, 8), prefix=1)
T2T = 10_000 ** (-np.arange(16) / 15)

MIXED = posenc.MixedRoPE(head_dim=16, num_heads=4, num_kv_heads=2)
MIXED_3 = posenc.MixedRoPE(head_dim=16, num_heads=4, num_kv_heads=2, axes=3)
FOPE = posenc.FoPE(head_dim=16, num_heads=4, num_kv_heads=2, trained_length=64, learned=True)
FOPE_OF_ALL = posenc.FoPE(16, num_heads=4, trained_length=9, dropped="still", per_head=False, pairing="interleaved")
POPE = posenc.PoPE(head_dim=16, num_heads=4, num_kv_heads=2, start="uniform")
LEARNED_RATES = posenc.RoPE(head_dim=16, frequencies=LearnedRates(parameter="rates"))
SSMAX = posenc.SSMax(num_heads=4, form="affine")
with torch.no_grad():
    SSMAX.scale.copy_(torch.linspace(0.2, 0.8, 4))
YARN = posenc.YaRN(4, trained_length=64, mscale_all_dim=1.0)
FORMS = ("llama4", "mistral", "inkling", "power", "log")

CASES: dict[str, tuple[posenc.Encoding, SimpleNamespace | None]] = {
    "none": (posenc.NoPE(), SimpleNamespace()),
    "integer": (posenc.Integer(dim=32), added(lambda p: integer.codes(p, dim=32))),
    "normalized": (posenc.Normalized(dim=32, length=64), added(lambda p: normalized.codes(p, dim=32, length=64))),
    "binary": (posenc.Binary(dim=32), added(lambda p: binary.codes(p, dim=32))),
    "sinusoidal": (posenc.Sinusoidal(dim=32), added(lambda p: sinusoidal.codes(p, inv_freq=rates(32)))),
    "sinusoidal as in tensor2tensor": (
        posenc.Sinusoidal(dim=32, frequencies=posenc.Tensor2Tensor(), order="concatenated"),
        added(lambda p: sinusoidal.codes(p, inv_freq=T2T, order="concatenated")),
    ),
    "sinusoidal_grid": (
        posenc.embeddings.SinusoidalGrid(dim=32),
        spread(sinusoidal_grid.codes, 2, inv_freq=[rates(16)] * 2),
    ),
    "sinusoidal_grid as in cogvideox": (
        posenc.embeddings.SinusoidalGrid.as_in("cogvideox", 32),
        spread(sinusoidal_grid.codes, 3, inv_freq=[rates(8), rates(12), rates(12)], order=(0, 2, 1)),
    ),
    "fourier": (FOURIER, spread(fourier.codes, 2, directions=FOURIER._b)),
    "timesteps": (posenc.embeddings.Timesteps(dim=32), added(lambda p: timesteps.codes(p, dim=32))),
    "timesteps as in ddpm, scaled": (
        posenc.embeddings.Timesteps(dim=32, order="sin_cos", shift=1.0, scale=0.3),
        added(lambda p: timesteps.codes(p, dim=32, order="sin_cos", shift=1.0, scale=0.3)),
    ),
    "learned": (LEARNED, added(lambda p: learned.codes(p, table=LEARNED.table.detach().numpy()))),
    "learned_grid": (
        LEARNED_GRID,
        added(lambda p: learned_grid.codes(p, table=LEARNED_GRID.table.detach().numpy())),
    ),
    "rope": (posenc.RoPE(head_dim=16), rotated(inv_freq=rates(16))),
    "rope interleaved": (
        posenc.RoPE(head_dim=16, pairing="interleaved"),
        rotated(inv_freq=rates(16), pairing="interleaved"),
    ),
    "rope on part of each head": (posenc.RoPE(head_dim=16, rotary_dim=6), rotated(inv_freq=rates(6))),
    "rope with another base": (
        posenc.RoPE(head_dim=16, frequencies=posenc.Geometric(base=500_000)),
        rotated(inv_freq=rates(16, base=500_000)),
    ),
    "rope on the last channels": (
        posenc.RoPE(head_dim=16, rotary_dim=6, rotary_start=10),
        SimpleNamespace(
            on_queries_keys=lambda q, k, p: tuple(
                np.concatenate((x[..., :10], rope.rotate(x[..., 10:], p, inv_freq=rates(6))), axis=-1) for x in (q, k)
            )
        ),
    ),
    "rope with learned rates": (
        LEARNED_RATES,
        rotated(inv_freq=LEARNED_RATES.rates.detach().double().numpy()),
    ),
    "rope with learned scales of its rates": (
        posenc.RoPE(head_dim=16, frequencies=LearnedRates()),
        rotated(inv_freq=rates(16)),
    ),
    "rope on the fastest pairs alone": (
        posenc.RoPE(head_dim=16, frequencies=Proportional(0.5)),
        rotated(inv_freq=np.concatenate((rates(16)[:4], np.zeros(4)))),
    ),
    "rope with dynamic rates": (posenc.RoPE(head_dim=16, frequencies=DynamicNTK(2, trained_length=32)), None),
    "rope with two lists of factors": (
        posenc.RoPE(head_dim=16, frequencies=LongRoPE([1.0] * 8, [3.0] * 8, trained_length=32, factor=4)),
        None,
    ),
    "rope with the temperatures of yarn": (
        posenc.RoPE(head_dim=16, frequencies=YARN),
        SimpleNamespace(**vars(rotated(inv_freq=YARN.inv_freq(16))), temperature=lambda p: (0.1 * np.log(4) + 1) ** 2),
    ),
    "xpos": (posenc.XPos(head_dim=16), faded(inv_freq=rates(16))),
    "xpos with another centre": (
        posenc.XPos(head_dim=16, centre=100, scale_base=64.0, gamma=0.5, pairing="interleaved"),
        faded(inv_freq=rates(16), centre=100, scale_base=64.0, gamma=0.5, pairing="interleaved"),
    ),
    "axial": (posenc.AxialRoPE(head_dim=16), rotated(axial.rotate, coordinates=2)),
    **{
        f"axial in {layout}": (
            posenc.AxialRoPE(head_dim=24, axes=3, layout=layout, frequencies=posenc.Geometric(base=100)),
            rotated(axial.rotate, coordinates=3, base=100, layout=layout),
        )
        for layout in get_args(Layout)
        if layout != "half_across_heads"
    },
    "axial in half_across_heads": (
        posenc.AxialRoPE(head_dim=16, axes=3, layout="half_across_heads", num_kv_heads=2),
        None,
    ),
    **{
        f"axial with widths and rules of each axis in {layout}": (
            posenc.AxialRoPE(
                head_dim=24, axes=(4, 12, 8), layout=layout, frequencies=[posenc.Geometric(b) for b in (9, 1000, 50)]
            ),
            rotated(axial.rotate, coordinates=3, base=(9, 1000, 50), layout=layout, widths=(4, 12, 8)),
        )
        for layout in ("half", "half_per_axis", "interleaved")
    },
    **{
        f"mrope in {layout}": (
            posenc.MRoPE(head_dim=24, sections=sections, layout=layout),
            rotated(mrope.rotate, coordinates=3, inv_freq=rates(24), sections=sections, layout=layout),
        )
        for layout, sections in {"chunked": (2, 5, 5), "interleaved": (6, 3, 3), "time_last": (2, 5, 5)}.items()
    },
    "mrope": (
        posenc.MRoPE(head_dim=16, sections=(2, 3, 3), pairing="interleaved"),
        rotated(mrope.rotate, coordinates=3, inv_freq=rates(16), sections=(2, 3, 3), pairing="interleaved"),
    ),
    "mrope in heads": (
        posenc.MRoPE(head_dim=16, sections=(1, 1, 0), layout="heads"),
        rotated(mrope.rotate, coordinates=3, inv_freq=rates(16), sections=(1, 1, 0), layout="heads"),
    ),
    "mrope by heads, one of them spare": (
        posenc.MRoPE(head_dim=16, sections=(1, 0, 0), layout="heads", num_kv_heads=2),
        rotated(mrope.rotate, coordinates=3, inv_freq=rates(16), sections=(1, 0, 0), layout="heads", kv_heads=2),
    ),
    "mixed": (MIXED, rotated(mixed.rotate, coordinates=2, rates=MIXED.rates.detach().double().numpy())),
    "mixed of three": (MIXED_3, rotated(mixed.rotate, coordinates=3, rates=MIXED_3.rates.detach().double().numpy())),
    "fope": (FOPE, summed(FOPE, rates(16)[:3])),
    "fope of all heads": (FOPE_OF_ALL, summed(FOPE_OF_ALL, rates(16)[:1], dropped="still", pairing="interleaved")),
    "pope": (POPE, widened(POPE, rates(32))),
    "pope and alibi": (posenc.Compose(POPE, posenc.ALiBi(num_heads=4)), None),
    **{
        f"temperature as in {form}": (
            posenc.Temperature(form, length=8),
            heated(lambda p, form=form: temperature.temperature(p, form=form, length=8)),  # type: ignore[misc]
        )
        for form in FORMS
    },
    "temperature": (posenc.Compose(posenc.RoPE(head_dim=16), posenc.Temperature("llama4", length=4)), None),
    "ssmax": (
        SSMAX,
        SimpleNamespace(
            temperature=lambda p: ssmax.temperature(p, scale=SSMAX.scale.detach().numpy(), offset=1.0)[..., None]
        ),
    ),
    "alibi": (
        posenc.ALiBi(num_heads=4),
        SimpleNamespace(bias=lambda i, j: alibi.bias(i, j, num_heads=4)),
    ),
    "alibi with 12 heads": (
        posenc.ALiBi(num_heads=12),
        SimpleNamespace(bias=lambda i, j: alibi.bias(i, j, num_heads=12)),
    ),
    "alibi as in mpt": (posenc.ALiBi(num_heads=12, rule="mpt"), biased(alibi.bias, num_heads=12, rule="mpt")),
    "alibi of other slopes": (
        posenc.ALiBi(num_heads=12, max_bias=16.0, strength=0.125),
        biased(alibi.bias, num_heads=12, max_bias=16.0, strength=0.125),
    ),
    "alibi of given slopes": (
        posenc.ALiBi(num_heads=3, rule=(0.5, 0.0, 0.125), strength=0.5),
        biased(alibi.bias, num_heads=3, rule=(0.5, 0.0, 0.125), strength=0.5),
    ),
    "alibi, geometric": (
        posenc.ALiBi(num_heads=12, rule="geometric"),
        biased(alibi.bias, num_heads=12, rule="geometric"),
    ),
    "t5": (T5, biased(t5.bias, table=T5.table, max_distance=128)),
    "t5 both ways": (T5_BOTH, biased(t5.bias, table=T5_BOTH.table, max_distance=64, direction="both")),
    "kerple": (KERPLE_LOG, biased(kerple.bias, r1=KERPLE_LOG.r1, r2=KERPLE_LOG.r2)),
    "kerple, power": (KERPLE_POWER, biased(kerple.bias, r1=KERPLE_POWER.r1, r2=KERPLE_POWER.r2, kernel="power")),
    "sandwich": (posenc.scores.Sandwich(num_heads=4), biased(sandwich.bias, num_heads=4, code_dim=128)),
    "fire": (FIRE, fire_oracle()),
    "swin": (SWIN, biased(swin.bias, table=SWIN.table, window=(7, 5))),
    "swin with a class token": (BEIT, biased(swin.bias, table=BEIT.table, window=(7, 5), prefix=1)),
    "levit": (LEVIT, biased(levit.bias, table=LEVIT.table, grid=(7, 5))),
    "decomposed": (DECOMPOSED, decomposed_oracle(DECOMPOSED)),
    "decomposed with a class token": (MVIT, decomposed_oracle(MVIT)),
    "swin_v2": (SWIN_V2, swin_v2_oracle()),
    "swin_v2 of the paper": (SWIN_V2_PAPER, swin_v2_of_the_paper()),
    "tupe": (TUPE, tupe_oracle()),
    "shaw": (SHAW, shaw_oracle(SHAW)),
    "shaw as in vits": (SHAW_VITS, shaw_oracle(SHAW_VITS)),
    "transformer_xl": (XL, xl_oracle()),
    "deberta": (DEBERTA, deberta_oracle(DEBERTA)),
    "deberta v2": (DEBERTA_V2, deberta_oracle(DEBERTA_V2)),
    "cope": (COPE, contextual(lambda c: cope.bias(c["q"], c["scores"], table=numbers(COPE.table), scale=c["scale"]))),
    "forgetting": (FOX, fox_oracle()),
    "inkling": (INKLING, inkling_oracle(INKLING)),
    "inkling 2": (INKLING_2, inkling_oracle(INKLING_2)),
    "rope and t5": (posenc.Compose(posenc.RoPE(head_dim=16), posenc.T5Bias(num_heads=4)), None),
    "rope and forgetting": (posenc.Compose(posenc.RoPE(head_dim=8), posenc.Forgetting(dim=32, num_heads=4)), None),
    "rope and alibi": (posenc.Compose(posenc.RoPE(head_dim=16), posenc.ALiBi(num_heads=4)), None),
    "an encoding of a user's own": (Gauss(num_heads=4), None),
    "sinusoidal and rope": (posenc.Compose(posenc.Sinusoidal(dim=32), posenc.RoPE(head_dim=16)), None),
}


#: Questions that take seconds each are quick for some of each place, and slow for all others.
LONG = ("compiles_to_one_graph_for_all_lengths", "decodes_with_two_graphs", "is_exported_with_an_open_length")
SOME = {"sinusoidal", "rope", "axial", "alibi", "t5", "shaw", "cope"}
MORE = SOME | {"learned", "mrope", "ssmax", "forgetting", "fire"}
SLOW = {(name, question) for question in LONG for name in set(CASES) - (SOME if question == LONG[2] else MORE)}
QUESTIONS = [name for name, _ in testing.checks(posenc.NoPE())]


@pytest.mark.parametrize(
    ("name", "question"),
    [
        pytest.param(name, question, marks=pytest.mark.slow if (name, question) in SLOW else ())
        for question in QUESTIONS
        for name in CASES
    ],
)
def test_the_exam(name: str, question: str) -> None:
    encoding, oracle = CASES[name]
    dict(testing.checks(encoding, oracle=oracle))[question]()


def test_every_row_of_the_catalogue_sits_the_exam() -> None:
    assert set(posenc.names()) <= set(CASES)


class Forgetful(Gauss):
    """Claims to be relative, and is not."""

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return super().bias(q_positions, k_positions) * (1 + 1e-3 * q_positions[..., None, :, None])


def test_the_exam_catches_a_false_claim_and_names_the_question() -> None:
    with pytest.raises(AssertionError, match="Forgetful fails 'depends_on_differences_alone"):
        testing.check_encoding(Forgetful(num_heads=4))


class Clumsy(posenc.RoPE):  # type: ignore[misc]
    """Right in value, but overwrites the caller's queries."""

    def on_queries_keys(self, q: Tensor, k: Tensor, positions: posenc.positions.Positions = None, **options: object):  # type: ignore[no-untyped-def, override]
        rotated = super().on_queries_keys(q, k, positions, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            q.copy_(rotated[0])
        return rotated


def test_the_exam_catches_inputs_that_are_overwritten() -> None:
    questions = dict(testing.checks(Clumsy(head_dim=16)))
    with pytest.raises(AssertionError, match="inputs after the call"):
        questions["leaves_its_inputs_alone"]()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, frequencies=posenc.Geometric(base=500_000))),
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, pairing="interleaved")),
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, rotary_dim=8)),
        (posenc.Sinusoidal(dim=16), posenc.Sinusoidal(dim=16, order="concatenated")),
        (posenc.Sinusoidal(dim=16), posenc.Sinusoidal(dim=16, frequencies=posenc.Tensor2Tensor())),
        (posenc.Normalized(dim=16, length=8), posenc.Normalized(dim=16, length=9)),
    ],
    ids=["base", "pairing", "rotary_dim", "order", "spacing", "length"],
)
def test_two_instances_that_differ_in_one_parameter_differ_in_output(
    one: posenc.Encoding, other: posenc.Encoding
) -> None:
    def output(encoding: posenc.Encoding) -> Tensor:
        x = torch.ones(1, 2, 8, 16, dtype=torch.float64)
        return encoding.on_queries_keys(x, x)[0] if "queries_keys" in encoding.places else encoding.on_embeddings(x[0])

    first, second = output(one), output(other)
    assert not torch.equal(first, second)
    assert torch.equal(output(other), second)  # in either order, so nothing is shared between instances
    assert torch.equal(output(one), first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "sinusoidal", "learned", "rope", "alibi"])
def test_the_inductor_gives_what_eager_gives(name: str) -> None:
    encoding, _ = CASES[name]
    q = torch.randn(1, 4, 12, 16)
    x = torch.randn(1, 12, 32)

    def forward(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        rotated_q, rotated_k = encoding.on_queries_keys(q, q)
        x = encoding.on_embeddings(x) if "embeddings" in encoding.places else x
        return x, posenc.attention(rotated_q, rotated_k, q, encoding, causal=True)

    torch.compiler.reset()
    for got, expected in zip(torch.compile(forward, fullgraph=True)(x, q), forward(x, q), strict=True):
        torch.testing.assert_close(got, expected)
