"""Place 1: a code is added to each embedding, once."""

from posenc.embeddings.binary import Binary
from posenc.embeddings.integer import Integer
from posenc.embeddings.learned import Learned
from posenc.embeddings.learned_grid import LearnedGrid
from posenc.embeddings.normalized import Normalized
from posenc.embeddings.sinusoidal import Sinusoidal

__all__ = ["Binary", "Integer", "Learned", "LearnedGrid", "Normalized", "Sinusoidal"]
