"""Positions: the number that each token gets.

The functions have no side effects. Those that take an array return the same kind, torch or NumPy; the others have
an argument ``like``.
"""

from posenc.positions._resolve import Positions as Positions
from posenc.positions._resolve import resolve as resolve
from posenc.positions._resolve import resolve_coordinates as resolve_coordinates
from posenc.positions._resolve import sequence_lengths as sequence_lengths
from posenc.positions.abacus import digits as digits
from posenc.positions.dual_chunks import dual_chunk as dual_chunk
from posenc.positions.grids import augmented as augmented
from posenc.positions.grids import grid as grid
from posenc.positions.modalities import hunyuan_vl as hunyuan_vl
from posenc.positions.modalities import multimodal as multimodal
from posenc.positions.packed import from_documents as from_documents
from posenc.positions.packed import from_lengths as from_lengths
from posenc.positions.padded import from_mask as from_mask
from posenc.positions.pose import skipwise as skipwise
from posenc.positions.random_positions import randomized as randomized
from posenc.positions.self_extend import grouped as grouped
from posenc.positions.sequences import sequential as sequential
from posenc.positions.shape import shifted as shifted
from posenc.positions.sharded import Scheme as Scheme
from posenc.positions.sharded import shard as shard
from posenc.positions.sharded import unshard as unshard
