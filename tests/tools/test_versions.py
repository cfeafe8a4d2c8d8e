"""The floors that are promised are the versions that are tested, and the page shows them."""

import re
import tomllib

import pytest

from tools import versions

PROJECT = tomllib.loads((versions.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def floors() -> dict[str, set[str]]:
    """The floors of every requirement of the package and its extras, and of Python."""
    found: dict[str, set[str]] = {"python": {PROJECT["requires-python"].removeprefix(">=")}}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in (*PROJECT["dependencies"], *(each for extra in extras for each in extra)):
        name, _, floor = requirement.partition(";")[0].partition(">=")
        found.setdefault(name.strip(), set()).add(floor.strip())
    return found


def as_numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    return tuple(numbers[: max([i + 1 for i, number in enumerate(numbers) if number], default=0)])


def test_the_floors_are_the_oldest_that_are_tested() -> None:
    promised = floors()
    oldest = versions.versions()["oldest"]
    for name in versions.TITLES:
        assert {as_numbers(floor) for floor in promised[name]} == {as_numbers(oldest[name])}, name


def test_what_is_pinned_is_between_the_two() -> None:
    sets = versions.versions()
    for name in sets["pinned"]:
        oldest, pinned, newest = (as_numbers(each[name]) for each in sets.values())
        assert oldest <= pinned <= newest, name


def test_the_page_has_the_table() -> None:
    assert versions.markdown() in versions.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", [("oldest", []), ("newest", [])]),
        ("newest", [("newest", [])]),
        ("oldest tests/kernels -k rope", [("oldest", ["tests/kernels", "-k", "rope"])]),
        ("tests/nn -x", [("oldest", ["tests/nn", "-x"]), ("newest", ["tests/nn", "-x"])]),
    ],
)
def test_a_set_and_some_of_the_tests(
    words: str, expected: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(versions, "test", lambda name, options: asked.append((name, options)) or 0)
    assert versions.main(words.split()) == 0
    assert asked == expected


def test_a_python_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"python9\.99 is neither on the PATH nor among pyenv's; install it"):
        versions.interpreter("9.99")
