"""What to call instead of an encoding itself, which is no layer: the hooks of its places."""

from collections.abc import Sequence
from typing import NoReturn

_HOOKS = {
    "embeddings": "x = encoding.on_embeddings(x, positions), once before the first layer (encoding.codes(positions) "
    "are the codes without x)",
    "queries_keys": "q, k = encoding.on_queries_keys(q, k, positions), in each layer before the cache",
    "scores": "posenc.attention(q, k, v, encoding), in place of the product, softmax and sum of each layer",
}


def refuse_call(name: str, places: Sequence[str]) -> NoReturn:
    """Say which hooks an encoding has.

    Raises:
        TypeError: always.
    """
    how = "; ".join(_HOOKS[place] for place in places) or "none has to be called"
    raise TypeError(f"{name}: got a call of the encoding itself, expected one of its hooks: {how}.")
