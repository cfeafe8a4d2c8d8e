"""The pictures of one encoding: its codes, dot products by distance, and pictures special to its place."""

import copy
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import posenc
from posenc.lab.drawing.plots import GRID, HUES, MUTED, Picture, heatmap, note, spread
from posenc.lab.encodings.grid_pictures import grid_pictures
from posenc.lab.encodings.properties import codes_of

FloatArray = NDArray[np.float64]

GREEN, BLUE, PURPLE, VERMILION = (HUES[name][0] for name in ("green", "blue", "purple", "vermilion"))


def pictures_of(
    encoding: posenc.Encoding, *, dim: int, num_heads: int, length: int, trained_length: int | None = None
) -> list[Picture]:
    """The pictures of an encoding over the first ``length`` positions; none for an encoding that does nothing."""
    if not encoding.places:
        return []
    if (maps := grid_pictures(visible(encoding), dim=dim, num_heads=num_heads)) is not None:
        return maps
    if encoding.max_positions is not None:
        length = min(length, encoding.max_positions)
    if isinstance(encoding.at("scores"), posenc.ContextualEncoding):
        encoding = visible(encoding)
        return [_score_heatmap(_bias_of_words(encoding, dim=dim, num_heads=num_heads, length=length))]
    codes = codes_of(encoding, torch.arange(length), dim=dim, num_heads=num_heads).numpy()
    found: list[Picture] = []
    if encoding.places == ("scores",):
        bias = encoding.on_scores(torch.zeros(1, num_heads, length, length, dtype=torch.float64), 0, 0)[0]
        found += [_biases(codes), _score_heatmap(bias.detach().numpy())]
    else:
        found.append(_codes(codes, waves=wavelengths(encoding) is not None))
        if "queries_keys" in encoding.places:
            if (inv_freq := rates(encoding)) is not None:
                found.append(_rotation(inv_freq))
            found.append(_products(codes, "R(i) 1 · R(j) 1"))
        else:
            found.append(_products(codes, "code(i) · code(j)"))
    if (waves := wavelengths(encoding)) is not None:
        unit = "channel" if isinstance(encoding, posenc.Binary) else "pair"
        found.append(_wavelengths(waves, trained_length or length, unit, trained=trained_length is not None))
    if "queries_keys" in encoding.places:
        found.append(_decay(encoding, dim=dim, num_heads=num_heads))
    return found


def visible(encoding: posenc.Encoding) -> posenc.Encoding:
    """The encoding, or a copy with random parameters if all parameters are zero, as in CoPE before training, because
    it then adds nothing to the scores. PoPE with phases of 0 is drawn as it is, because it rotates queries."""
    parameters = [p for part in encoding.parts if "queries_keys" not in part.places for p in part.parameters()]
    if not parameters or any(bool(parameter.any()) for parameter in parameters):
        return encoding
    drawn = copy.deepcopy(encoding)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in drawn.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return drawn


def rates(encoding: posenc.Encoding) -> FloatArray | None:
    """Radians per token of each pair of channels, for an encoding with a frequency rule."""
    frequencies = getattr(encoding, "frequencies", None)
    width = getattr(encoding, "rotary_dim", getattr(encoding, "dim", None))
    if frequencies is None or width is None or isinstance(encoding, posenc.FoPE):  # whose pairs have many rates each
        return None
    axes = getattr(encoding, "axes", 1)  # each coordinate of a grid rotates a share of the pairs, with the same rates
    width = width // axes if isinstance(axes, int) else axes[0]
    inv_freq: FloatArray = frequencies.inv_freq(width)
    return inv_freq


def wavelengths(encoding: posenc.Encoding) -> FloatArray | None:
    """Tokens per turn, fastest pair first; None for an encoding without wavelengths."""
    if isinstance(encoding, posenc.Binary):
        return np.exp2(np.arange(1, encoding.dim + 1, dtype=np.float64))
    inv_freq = rates(encoding)
    return None if inv_freq is None else 2 * np.pi / inv_freq


def changing(codes: FloatArray) -> FloatArray:
    """The codes without the constant channels at the end, if these are more than half, as in most binary codes."""
    moving = np.flatnonzero(np.ptp(codes, axis=0) > 0)
    columns = int(moving[-1]) + 1 if len(moving) else codes.shape[1]
    return codes[:, :columns] if columns < codes.shape[1] / 2 else codes


def _codes(codes: FloatArray, *, waves: bool) -> Picture:
    shown = changing(codes)
    cut = shown.shape[1] < codes.shape[1]

    def draw(axes: Axes) -> None:
        heatmap(axes, shown)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel=f"channel (of {codes.shape[1]}: the others do not change here)" if cut else "channel",
            ylabel="position",
        )

    if bool((codes == codes[:, :1]).all()):
        title = "Codes: all channels have the same value"
    elif len(np.unique(codes)) == 2:
        title = "Codes: each channel switches between two values, each slower than the one before"
    elif waves:
        title = "Codes: the channels run from fast to slow"
    else:
        title = "Codes: each position has its own row"
    return Picture("codes", title, "A row for each position. Blue is above zero, orange below.", draw)


def _products(codes: FloatArray, what: str) -> Picture:
    gram = codes @ codes.T
    size = len(gram)
    distances = np.arange(size)
    diagonals = [np.diagonal(gram, d) for d in distances]
    mean, low, high = (np.array([pick(diagonal) for diagonal in diagonals]) for pick in (np.mean, np.min, np.max))
    fixed = float((high - low).max()) <= 1e-6 * float(np.abs(gram).max())

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=GRID, linewidth=0.8)
        if not fixed:
            axes.fill_between(distances, low, high, color=BLUE, alpha=0.2, linewidth=0, label="smallest to largest")
        axes.plot(distances, mean, color=BLUE, label="mean over all i")
        axes.set(xlabel="distance i - j in tokens", ylabel=what)
        axes.grid(axis="y")
        if not fixed:
            axes.legend()

    if fixed:
        title = "Dot products: they depend on the distance of two tokens alone"
    else:
        title = "Dot products: one distance gives many values, so they also depend on the positions"
    caption = f"{what} against the distance, over all pairs of the first {size} positions."
    return Picture("products", title, caption, draw)


def _wavelengths(waves: FloatArray, length: int, unit: str, *, trained: bool) -> Picture:
    shown = waves[waves < max(1e6, 100.0 * length)]
    beyond = int((waves > length).sum())
    name = "trained length" if trained else "length"

    def draw(axes: Axes) -> None:
        axes.set_yscale("log")
        axes.axhline(length, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "top"}
        note(axes, f"{name}, {length} tokens", (1.0, length), (-2, -3), **beside)
        index = np.arange(len(shown))
        never = shown > length
        axes.plot(index[~never], shown[~never], "o", color=GREEN, markersize=3.5)
        axes.plot(index[never], shown[never], "o", color=VERMILION, markersize=3.5, markerfacecolor="none")
        axes.set(
            xlabel=unit if len(shown) == len(waves) else f"{unit} (the first {len(shown)} of {len(waves)})",
            ylabel="wavelength in tokens (log)",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")

    title = f"Wavelengths: {beyond} of {len(waves)} {unit}s are longer than the {name}"
    caption = f"Filled: the pair completes a turn within {length} tokens. Open: it does not."
    return Picture("wavelengths", title, caption, draw)


def _rotation(inv_freq: FloatArray, steps: int = 9) -> Picture:
    count = len(inv_freq)
    pairs = sorted({0, count // 6, count // 3, count - 1})

    def draw(axes: Axes) -> None:
        for at, pair in enumerate(pairs):
            centre = 2.7 * at
            axes.add_patch(Circle((centre, 0), 1.0, fill=False, color=GRID, linewidth=0.9))
            for position in range(steps - 1, -1, -1):
                angle = position * inv_freq[pair]
                x, y = centre + np.cos(angle), np.sin(angle)
                strength = 1.0 - 0.85 * position / (steps - 1)
                axes.plot([centre, x], [0, y], color=GREEN, linewidth=1.3, alpha=0.75 * strength)
                axes.plot([x], [y], "o", color=GREEN, markersize=4.5, alpha=strength, markeredgewidth=0)
            turn = np.degrees(inv_freq[pair])
            said = f"{turn:.3g}° a token" if turn >= 1 else f"{turn:.2g}° a token"
            axes.text(centre, -1.28, f"pair {pair}", ha="center", va="top", fontsize=8.5, fontweight="bold")
            axes.text(centre, -1.66, said, ha="center", va="top", fontsize=8)
        axes.set(xlim=(-1.3, 2.7 * (len(pairs) - 1) + 1.3), ylim=(-2.1, 1.2), aspect="equal")
        axes.axis("off")

    first, last = np.degrees(inv_freq[0]), np.degrees(inv_freq[-1])
    title = f"Rotation: the first pair turns {first:.3g}° a token, the last {last:.2g}°"
    caption = f"One pair of channels at positions 0 (dark) to {steps - 1} (pale)."
    return Picture("rotation", title, caption, draw, height=1.9)


def _biases(codes: FloatArray) -> Picture:
    heads = codes.shape[1]

    def draw(axes: Axes) -> None:
        distances = np.arange(len(codes))
        low = float(codes.min())
        at = spread([1 - float(value) / low if low else 1.0 for value in codes[-1]], 0.055)
        for head in range(heads):
            axes.plot(distances, codes[:, head], color=PURPLE, alpha=1.0 - 0.6 * head / max(heads, 2))
            if heads <= 16:
                end = (distances[-1], low * (1 - at[head]))
                note(axes, f"head {head}", end, (4, 0), va="center", color=PURPLE)
        axes.set(xlabel="distance in tokens", ylabel="added to the score")
        axes.grid(axis="y")

    straight = bool(np.allclose(np.diff(codes, axis=0), codes[1] - codes[0], rtol=1e-4, atol=1e-6))
    if straight:
        title = "Biases: a straight penalty on distance, each head with a slope of its own"
    elif bool((np.diff(codes, axis=0) <= 0).all()):
        title = "Biases: lower with the distance, each head at its own rate"
    else:
        title = "Biases by distance, one line for each head"
    caption = "The bias on the score of a key, by the number of tokens between key and query."
    return Picture("biases", title, caption, draw)


def _bias_of_words(encoding: posenc.Encoding, *, dim: int, num_heads: int, length: int) -> FloatArray:
    """The bias on the scores of random words, for an encoding that reads queries and keys."""
    words = torch.randn(1, length, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = words.unflatten(-1, (num_heads, dim // num_heads)).transpose(1, 2)
    scores = torch.zeros(1, num_heads, length, length, dtype=torch.float64)
    bias = encoding.on_scores(scores, 0, 0, q=q, k=q, state=encoding.carry(words))[0]
    drawn: FloatArray = bias.detach().numpy()
    return drawn


def _score_heatmap(bias: FloatArray) -> Picture:
    def draw(axes: Axes) -> None:
        heatmap(axes, bias[0])
        axes.set(xlabel="key j", ylabel="query i")

    diagonals = [np.ptp(np.diagonal(bias[0], d)) for d in range(bias.shape[-1])]
    fixed = max(diagonals) <= 1e-6 * float(np.abs(bias[0]).max() + 1e-12)
    title = "Scores of head 0: " + ("the same along every diagonal" if fixed else "they change along a diagonal")
    return Picture("scores", title, "The bias between query i and key j; an encoder uses both halves.", draw)


def decay_curves(
    encoding: posenc.Encoding, *, dim: int, num_heads: int, reach: int = 512, samples: int = 256
) -> dict[str, FloatArray]:
    """Three curves that are all called RoPE's decay, by distance 0 .. reach, each 1 at distance 0 if it is aligned.

    - ``aligned``: the score of q = k = 1 on every channel, over its value at distance 0.
    - ``gaussian_mean``, ``gaussian_std``: mean and standard deviation of the score of independent Gaussian q and k,
      over the standard deviation sqrt(head_dim) that it has at distance 0. Barbero et al. (arXiv:2410.06205,
      propositions 3.1 and 3.2): no decay. PoPE's magnitudes have a mean: over the root mean square at distance 0.
    - ``bound`` (if there are frequencies): the mean of \\|S_j\\| that RoFormer's figure 2 shows, over its value at 0.
    """
    head_dim = dim // num_heads
    distances = torch.arange(reach + 1)

    def scores(q: torch.Tensor, k: torch.Tensor) -> FloatArray:
        wide = q.expand(len(q), num_heads, reach + 1, head_dim)
        turned, still = encoding.on_queries_keys(
            wide, k.expand(len(k), num_heads, 1, head_dim), distances, k_positions=0
        )
        result: FloatArray = (turned * still).sum(dim=-1)[:, 0].detach().numpy()
        return result

    ones = torch.ones(1, 1, 1, head_dim, dtype=torch.float64)
    aligned = scores(ones, ones)[0]
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, samples, 1, 1, head_dim, dtype=torch.float64, generator=generator)
    gaussian = scores(q, k)
    gaussian /= head_dim**0.5 if encoding.widening == 1 else np.sqrt((gaussian[:, 0] ** 2).mean())
    curves = {"aligned": aligned / aligned[0], "gaussian_mean": gaussian.mean(0), "gaussian_std": gaussian.std(0)}
    inv_freq = rates(encoding)
    if inv_freq is not None:
        partial = np.exp(1j * np.outer(np.arange(reach + 1), inv_freq)).cumsum(axis=1)
        bound = np.abs(partial).mean(axis=1)
        curves["bound"] = bound / bound[0]
    return curves


def _decay(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> Picture:
    curves = decay_curves(encoding, dim=dim, num_heads=num_heads)

    def draw(axes: Axes) -> None:
        distances = np.arange(len(curves["aligned"]))
        mean, std = curves["gaussian_mean"], curves["gaussian_std"]
        axes.fill_between(distances, mean - std, mean + std, color=VERMILION, alpha=0.15, linewidth=0)
        axes.plot(distances, mean + std, color=VERMILION, linewidth=1.0, label="Gaussian q, k: ± one deviation")
        axes.plot(distances, mean - std, color=VERMILION, linewidth=1.0)
        axes.plot(distances, curves["aligned"], color=GREEN, label="q = k = 1 on every channel")
        if "bound" in curves:
            dashed: Any = {"color": MUTED, "linestyle": (0, (3, 2))}
            axes.plot(distances, curves["bound"], label="RoFormer figure 2: a bound", **dashed)
        axes.set_ylim(-1.6, 2.25)
        axes.set(xlabel="distance in tokens", ylabel="score over its size at 0")
        axes.grid(axis="y")
        axes.legend(loc="upper right")

    quarter = len(curves["aligned"]) // 4
    aligned, gaussian = (float(np.abs(curves[name][-quarter:]).mean()) for name in ("aligned", "gaussian_std"))
    reach = len(curves["aligned"]) - 1
    title = (
        f"Decay: near {reach} tokens, aligned q and k keep {aligned:.2f} of their score, Gaussian ones {gaussian:.2f}"
    )
    caption = "RoPE has no decay of its own (Barbero et al. 2024, propositions 3.1 and 3.2); it depends on q and k."
    return Picture("decay", title, caption, draw)
