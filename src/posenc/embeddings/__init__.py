"""Place 1: a code is added to each embedding, once."""

from posenc.embeddings.binary import Binary
from posenc.embeddings.fourier import FourierFeatures
from posenc.embeddings.integer import Integer
from posenc.embeddings.learned import Learned
from posenc.embeddings.learned_grid import LearnedGrid
from posenc.embeddings.normalized import Normalized
from posenc.embeddings.sinusoidal import Sinusoidal
from posenc.embeddings.sinusoidal_grid import SinusoidalGrid
from posenc.embeddings.timesteps import Timesteps

__all__ = [
    "Binary",
    "FourierFeatures",
    "Integer",
    "Learned",
    "LearnedGrid",
    "Normalized",
    "Sinusoidal",
    "SinusoidalGrid",
    "Timesteps",
]
