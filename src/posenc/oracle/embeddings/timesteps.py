"""The time of a diffusion process as a sinusoidal code."""

import numpy as np
import numpy.typing as npt


def codes(
    timesteps: npt.ArrayLike,
    *,
    dim: int,
    order: str = "cos_sin",
    shift: float = 0.0,
    scale: float = 1.0,
    max_period: float = 10_000.0,
) -> npt.NDArray[np.float64]:
    """Cosines and sines of the time.

        w(c) = max_period^(-c / (n - shift))                c = 0 .. n - 1, n = floor(dim / 2)
        angle(t, c) = scale t w(c)                          t in `timesteps`
        code(t)[c] = cos angle, code(t)[c + n] = sin angle  `order` "cos_sin"; "sin_cos" has the sines first

    An odd `dim` has a last channel of 0.

    Reference: Ho et al., Denoising diffusion probabilistic models, arXiv 2006.11239, appendix B, whose code has the
    sines first and `shift` 1; diffusers calls the three numbers flip_sin_to_cos, downscale_freq_shift and scale.
    """
    t = np.asarray(timesteps, dtype=np.float64)
    n = dim // 2
    code = np.zeros((*t.shape, dim))
    for c in range(n):
        angle = scale * (t * max_period ** (-c / (n - shift)))
        first, second = {"cos_sin": (np.cos, np.sin), "sin_cos": (np.sin, np.cos)}[order]
        code[..., c] = first(angle)
        code[..., c + n] = second(angle)
    return code
