"""Numbers that a caller gives for each head, in place of a rule that computes them."""

from collections.abc import Sequence

from posenc.frequencies.arguments import check_number


def given_for_heads(cls: str, what: str, given: Sequence[float], num_heads: int) -> tuple[float, ...]:
    """The slopes or strengths, checked. A tensor or an array of one dimension is taken too.

    Raises:
        ValueError: another number of them than ``num_heads``; one below 0, or not finite.
        TypeError: one that is no number.
    """
    found = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(found, (list, tuple)) or len(found) != num_heads:
        got = f"{len(found)} {what}s" if isinstance(found, (list, tuple)) else f"{found!r}"
        raise ValueError(
            f"{cls}: got {got} as rule, expected {num_heads}, one for each head; num_heads counts only the heads of "
            "this object."
        )
    for each in found:
        check_number(cls, what, each)
        if each < 0:
            raise ValueError(f"{cls}: got {what} {each}, expected 0 or above, because scores fall with the distance.")
    return tuple(float(each) for each in found)
