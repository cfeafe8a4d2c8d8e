"""The oracle of temperatures, against numbers computed from the models' configurations."""

import numpy as np
import pytest

from posenc.oracle.temperature import temperature


def test_llama4_rises_in_steps_of_8192() -> None:
    tau = temperature([8190, 8191, 131071, 1048575, 10485759], form="llama4", length=8192)
    np.testing.assert_allclose(tau, [1.0, 1.06931, 1.28332, 1.48598, 1.71554], atol=5e-6)


@pytest.mark.parametrize(
    ("form", "position", "expected"),
    [
        ("mistral", 99, 1.0),
        ("mistral", 100, 1 + 0.1 * np.log(2)),
        ("inkling", 98, 1.0),
        ("inkling", 199, 1 + 0.1 * np.log(2)),
        ("power", 99, 2**0.1),
        ("log", 98, 1.0),
        ("log", 9999, 2.0),
    ],
)
def test_by_hand(form: str, position: int, expected: float) -> None:
    assert temperature(position, form=form, length=100) == pytest.approx(expected, rel=1e-15)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form is 'warm'"):
        temperature(0, form="warm", length=2)
