"""The estimate of time."""

import pytest

from posenc.lab.extend.costs import Costs
from posenc.lab.extend.gaps import Gaps


def test_operations_of_a_text_are_those_of_its_parts() -> None:
    costs = Costs(token=100.0, seen=2.0)
    assert costs.operations(10) + costs.operations(30, before=10) == pytest.approx(costs.operations(40))
    assert costs.operations(1) == pytest.approx(101.0)


def test_the_share_of_time_is_below_the_share_of_tokens_until_the_end() -> None:
    share = Costs(token=100.0, seen=1.0).share(1000)
    assert share(0.0) == 0.0
    assert 0 < share(0.5) < 0.5
    assert share(1.0) == 1.0


def test_a_probe_costs_its_blocks() -> None:
    costs = Costs(token=1.0, seen=0.0, speed=10.0)
    assert costs.probe(Gaps((0, 100), block=8, scored=4, places=2)) == pytest.approx(2 * 3 * 8 / 10)
    assert costs.full(100) == pytest.approx(10.0)
    assert costs.retrieval(100, depths=(0.0, 0.5)) == pytest.approx((50 + 100 + 50) / 10)
