"""How a function of a model rotates queries and keys."""

from dataclasses import dataclass
from typing import Literal

from posenc.kernels.rotate.eager import Pairing

Arguments = Literal[
    "q k cos sin axis", "x cos sin axis", "x cos sin positions axis", "x sin cos", "q k complex", "q k cos sin"
]

Reading = Literal["halves", "neighbours", "pairs", "complex"]


@dataclass(frozen=True)
class Form:
    """How a function of a model rotates.

    Attributes:
        arguments: what it takes.
        reading: how a table holds one number for each pair: twice, by halves or as neighbours; once; or complex.
        pairing: which channels make a pair.
        inverse: True if it turns by -angle.
        sorted_out: True if the result has first channels of pairs first, whatever the pairing.
        trailing: True if the slice that turns is the last one of a head.
        token_dim: the axis of tokens, where no argument tells it.
        shared: True if all rows of a batch have the same tables.
        promotes: True if the result has the wider of the dtypes of head and table.
        prefixed: True if tokens before those of the table stay as they are.
        contiguous: True if the result is laid out anew, not as the heads were; matrix products round by the layout.
        alone: what it returns for queries without keys.
    """

    arguments: Arguments
    reading: Reading
    pairing: Pairing
    inverse: bool = False
    sorted_out: bool = False
    trailing: bool = False
    token_dim: int = 2
    shared: bool = False
    promotes: bool = False
    prefixed: bool = False
    contiguous: bool = False
    alone: Literal["no", "tensor", "pair"] = "no"
