"""Change the positions of cached keys."""

from jaxtyping import Float
from torch import Tensor

from posenc.encoding import Encoding
from posenc.positions import Positions
from posenc.queries_keys._rotation import Length, Rotation


def rerotate(
    k: Float[Tensor, "*heads seq head_dim"],
    old_positions: Positions,
    new_positions: Positions,
    *,
    encoding: Encoding,
    new_encoding: Encoding | None = None,
    old_length: Length = None,
    new_length: Length = None,
) -> Float[Tensor, "*heads seq head_dim"]:
    r"""Rotate cached keys from their old positions to new ones, or from one frequency rule to another.

    .. math::  k' = R'(p')\,R(p)^{-1}\,k

    Here :math:`R` is the rotation of ``encoding`` and :math:`p` are ``old_positions``, in tokens; :math:`R'` is that of
    ``new_encoding`` and :math:`p'` are ``new_positions``. The two angles are subtracted before anything is rounded, so
    that the result equals a rotation of the original key, up to one rounding.

    Uses:

    - shift a cache, because its beginning was cut off: ``rerotate(k, 512, 0, encoding=rope)``;
    - prune it: drop keys, then ``rerotate(k, kept_positions, None, encoding=rope)`` closes the gaps;
    - concatenate caches that were filled separately, each from 0: ``rerotate(k2, 0, len1, encoding=rope)``;
    - change the rule: ``rerotate(k, None, None, encoding=old, new_encoding=new)`` with other frequencies;
    - let a sequence grow under a rule that depends on its length: the same encoding, with ``old_length`` and
      ``new_length``.

    Args:
        k: keys as :meth:`~posenc.Encoding.on_queries_keys` returned them.
        old_positions: the positions that they were rotated for, in any of the forms that encodings take.
        new_positions: the positions that they shall be rotated for.
        encoding: the encoding that rotated the keys: a rotation, or a composition with one.
        new_encoding: the encoding that the result shall match; the same by default. It may differ in its rates and
            factors only.
        old_length: tokens of the sequence then, for rules that depend on it.
        new_length: tokens of the sequence now.

    Precision: angles in float64, the rotation in float32, rounded once to the dtype of k; float64 throughout for
    float64. A key in bfloat16 has then been rounded twice in all.

    Raises:
        TypeError: an encoding without a rotation.
        ValueError: two encodings that do not pair the same channels; bad positions.

    Example:
        >>> import torch, posenc
        >>> rope, k = posenc.RoPE(head_dim=8), torch.randn(1, 2, 5, 8)
        >>> cached = rope.rotate(k, 100)
        >>> torch.allclose(rerotate(cached, 100, 0, encoding=rope), rope.rotate(k, 0), atol=1e-6)
        True
    """
    old = _rotation(encoding)
    new = old if new_encoding is None else _rotation(new_encoding)
    same = ("head_dim", "pairing", "rotary_dim", "rotary_start", "seq_dim", "blocks", "coordinates")
    if different := [name for name in same if getattr(old, name) != getattr(new, name)]:
        raise ValueError(
            f"rerotate: got encodings that differ in {different}, expected two encodings that rotate the same "
            "channels in the same pairs; undo the rotation with inverse of the first encoding, then rotate the keys "
            "with the second."
        )
    before, factor_before = old.phases(
        old.resolve(old_positions, k, name="old_positions"), role="key", length=old_length
    )
    after, factor_after = new.phases(new.resolve(new_positions, k, name="new_positions"), role="key", length=new_length)
    return new.rotate_by(k, after.double() - before.double(), factor_after / factor_before)


def _rotation(encoding: Encoding) -> Rotation:
    found = encoding.at("queries_keys") if isinstance(encoding, Encoding) else None
    if isinstance(found, Rotation):
        return found
    if found is not None:
        raise TypeError(
            f"rerotate: got {type(found).__name__}, which does more to a key than rotate it, expected a rotation such "
            "as RoPE, or a composition that contains one; for the keys of a PoPE, use a RoPE with twice its head_dim "
            "and the same frequency rule."
        )
    raise TypeError(
        f"rerotate: got {type(encoding).__name__}, which rotates no keys, expected a rotation such as RoPE, or a "
        "composition that contains one; the keys of this encoding do not depend on positions, so there is nothing to "
        "do."
    )
