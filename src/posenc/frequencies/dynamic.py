"""Dynamic NTK: the base grows with the sequence."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_factor, check_trained_length
from posenc.frequencies.ntk import stretched


@dataclass(frozen=True)
class DynamicNTK(Frequencies):
    r"""NTK-aware scaling whose factor grows with the sequence; the rates are unchanged within the trained length.

    .. math::
        s(l) = f\,\frac{\max(l, L)}{L} - (f - 1), \qquad \omega_i = b^{-2i/d}\, s(l)^{-2i/(d-2)}

    Here :math:`l` is ``length``, the tokens of the sequence; :math:`L` is ``trained_length`` in tokens; :math:`f` is
    ``factor``, a pure number; :math:`b` is ``base``, :math:`d` is ``rotary_dim``, rates are in radians per token.

    The rates change with each token beyond :math:`L`, so keys must be cached before rotation: an encoding built on
    this rule has ``keys_cacheable = False``.

    Args:
        factor: :math:`f`, 1 or more. 1 is the paper's rule, s = l / L; Hugging Face configs have 2 and more.
        trained_length: :math:`L`. Required.
        base: :math:`b`, above 1.

    Raises:
        TypeError: no trained_length.
        ValueError: a factor below 1; a trained_length of 1 or below; base of 1 or below; an odd ``rotary_dim``, or one
            below 4.

    Example:
        >>> from posenc.frequencies import NTK
        >>> rule = DynamicNTK(1, trained_length=1024)
        >>> bool((rule.inv_freq(64, length=4096) == NTK(4).inv_freq(64)).all())
        True

    Differs from the paper: the paper has s = max(1, l / L), which is ``factor=1`` here; the code that most people run
    (Hugging Face, vLLM, TGI) has the form above.

    References:
        emozilla. Dynamically Scaled RoPE. 2023, reddit.com/r/LocalLLaMA. Peng et al. YaRN. 2023. arXiv:2309.00071,
        section 3.3. transformers, modeling_rope_utils.py, _compute_dynamic_ntk_parameters.
    """

    factor: float
    _: KW_ONLY
    trained_length: int
    base: float = 10_000.0

    depends_on_length = True

    def __post_init__(self) -> None:
        check_factor("DynamicNTK", self.factor)
        check_trained_length("DynamicNTK", self.trained_length)
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        present = np.maximum(np.asarray(0 if length is None else length, dtype=np.float64), self.trained_length)
        return stretched("DynamicNTK", self.base, self.stretch(present), rotary_dim)

    def stretch(self, present: Any) -> Any:
        """:math:`s(l)` of lengths that are at least the trained one: an array or tensor of any library."""
        return self.factor * present / self.trained_length - (self.factor - 1)
