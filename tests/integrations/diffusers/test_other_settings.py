"""Settings of a config that nobody released: what describe reads of them is what the modules compute."""

import inspect
from typing import Any

import pytest
from tests.integrations.diffusers.models import Small
from tests.integrations.diffusers.more_models import ALL

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc.integrations.diffusers import check  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of layers without rows

#: Parts of the names of settings that may reach the tables.
_REACH = ("rope", "theta", "base", "scale", "interpolation", "max_", "sample_size", "temporal", "fps")


def changed(small: Small) -> list[dict[str, Any]]:
    """The options of a small model, with one number doubled."""
    defaults = inspect.signature(getattr(diffusers, small.cls).__init__).parameters
    options = {name: parameter.default for name, parameter in defaults.items()} | small.options
    return [
        {**small.options, name: 2 * value}
        for name, value in options.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and any(part in name for part in _REACH)
    ]


@pytest.mark.parametrize("family", ALL)
def test_a_setting_is_read_or_the_config_is_refused(family: str) -> None:
    """MiniMax-H3's base was not read: all tables were said to be of 10 000."""
    for options in changed(ALL[family]):
        try:
            model = getattr(diffusers, ALL[family].cls)(**options)
        except (ValueError, RuntimeError, AssertionError):
            continue  # it goes with others
        try:
            findings = check(model).findings
        except ValueError:
            continue  # more channels than the heads have
        assert not findings, options
