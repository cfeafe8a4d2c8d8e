"""Every family of diffusers that is built small: described, compared, accelerated, extended as the census says."""

from pathlib import Path

import pytest
from tests.integrations.diffusers.models import FAMILIES, Small

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tests.integrations.diffusers.census import as_markdown, row_of  # noqa: E402
from tests.integrations.diffusers.more_models import ALL  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "census_diffusers.md"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.skipif(diffusers.__version__ != "0.42.1", reason="the page is of another version")
@pytest.mark.parametrize("family", [pytest.param(f, marks=() if f == "wan" else pytest.mark.slow) for f in ALL])
def test_the_page_says_what_comes_of_a_family(family: str) -> None:
    small: Small = ALL[family]
    row = row_of(small.cls, small)
    assert "differ" not in row.tables
    if family in FAMILIES:
        assert row.accelerated.startswith(("same bits", "within"))
        assert row.extended == "yes" or family == "mochi"
    line = as_markdown([row]).splitlines()[-1]
    assert line.split("within")[0] in PAGE.read_text(encoding="utf-8")
