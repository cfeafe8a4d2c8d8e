"""Rotary position embedding in NumPy, by hand: ten tokens of 64 channels, each turned by its position.

A well-known tutorial program made right. Two things went wrong in it: angles were made for half of the channels and
multiplied with all of them, which does not fit, and the vector was rolled by one channel, which is not a rotation.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def get_rotary_embedding(positions: npt.ArrayLike, dim: int) -> Array:
    """The angle of each pair of channels at each position, in radians: shape (positions, dim / 2)."""
    inv_freq = np.power(10_000.0, -np.arange(0, dim, 2) / dim)
    return np.asarray(positions, dtype=np.float64)[:, None] * inv_freq


def apply_rope(embeddings: Array, angles: Array) -> Array:
    """Turn each pair of neighbouring channels (a, b) into (a cos - b sin, a sin + b cos)."""
    a, b = embeddings[:, 0::2], embeddings[:, 1::2]
    cos, sin = np.cos(angles), np.sin(angles)
    rotated = np.empty_like(embeddings)
    rotated[:, 0::2] = a * cos - b * sin
    rotated[:, 1::2] = a * sin + b * cos
    return rotated


def apply_rolled(embeddings: Array, angles: Array) -> Array:
    """What the program had: the whole vector rolled by one channel instead of each pair turned. Not a rotation."""
    cos, sin = np.repeat(np.cos(angles), 2, axis=1), np.repeat(np.sin(angles), 2, axis=1)
    rolled: Array = embeddings * cos + np.roll(embeddings, 1, axis=1) * sin
    return rolled


def main() -> None:
    num_tokens, dim = 10, 64
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((num_tokens, dim))
    angles = get_rotary_embedding(np.arange(num_tokens), dim)
    rotated = apply_rope(embeddings, angles)
    print("Embeddings:", embeddings.shape, "  angles:", angles.shape, "  rotated:", rotated.shape)
    for token in range(3):
        print(f"Token {token}:  {embeddings[token, :4].round(4)}  ->  {rotated[token, :4].round(4)}")

    q, k = rng.standard_normal((2, dim))
    everywhere_q, everywhere_k = np.tile(q, (num_tokens, 1)), np.tile(k, (num_tokens, 1))
    for name, apply in (("turned", apply_rope), ("rolled", apply_rolled)):
        norms = np.linalg.norm(apply(embeddings, angles), axis=1) / np.linalg.norm(embeddings, axis=1)
        scores = apply(everywhere_q, angles) @ apply(everywhere_k, angles).T
        change = max(np.ptp(np.diagonal(scores, distance)) for distance in range(-num_tokens + 1, num_tokens))
        print(f"\n{name}: norms change by up to {np.abs(norms - 1).max():.1e},")
        print(f"        scores at one distance differ by up to {change:.1e} of about {np.abs(scores).mean():.1f}")


if __name__ == "__main__":
    main()
