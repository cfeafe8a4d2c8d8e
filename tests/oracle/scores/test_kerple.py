"""Both kernels against the authors' classes."""

import json
from pathlib import Path

import numpy as np
import pytest

from posenc.oracle.scores.kerple import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "kerple_bias.json").read_text())["values"]


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_the_bias_is_the_authors(kernel: str) -> None:
    golden = GOLDEN[kernel]
    b = bias([golden["row"]], np.arange(golden["row"] + 1), r1=golden["r1"], r2=golden["r2"], kernel=kernel)
    np.testing.assert_allclose(b[:, 0].ravel(), golden["bias"], rtol=1e-8, atol=1e-12)


def test_the_power_one_is_alibi() -> None:
    b = bias([5], np.arange(6), r1=[0.5], r2=[1.0], kernel="power")
    np.testing.assert_array_equal(b[0, 0], [-2.5, -2.0, -1.5, -1.0, -0.5, 0.0])
