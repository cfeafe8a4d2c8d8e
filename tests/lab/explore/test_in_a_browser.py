"""The explorer in a real browser: its formulas against the library and the oracle, and what a reader does with it.

Needs the package playwright and a Chromium that is installed (``apt-get install chromium``).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import posenc
from posenc import Geometric, RoPE, YaRN
from posenc.frequencies import NTK, Linear, Llama3
from posenc.lab.explore.job import explore
from posenc.oracle.queries_keys import rope as oracle

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explore("rope", tmp_path_factory.mktemp("explore") / "page.html")


def open_page(browser: Any, file: Path, **options: Any) -> Any:
    """A page whose errors and requests fail the test that opened it."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | options)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or page.faults.append(request.url))
    page.goto(file.as_uri())
    return page


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    opened = open_page(browser, file)
    yield opened
    assert opened.faults == []
    opened.close()


def call(page: Any, function: str, *arguments: Any) -> Any:
    return page.evaluate(
        f"(a) => {{ const r = maths.{function}(...a); return r.length ? Array.from(r) : r; }}", arguments
    )


RULES = {
    "none": lambda s: Geometric(s["base"]),
    "linear": lambda s: Linear(s["factor"], base=s["base"]),
    "ntk": lambda s: NTK(s["factor"], base=s["base"]),
    "yarn": lambda s: YaRN(s["factor"], base=s["base"], trained_length=s["trained"]),
    "llama3": lambda s: Llama3(s["factor"], base=s["base"], trained_length=s["trained"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_pages_rates_are_the_librarys(page: Any, rule: str) -> None:
    for base in (100.0, 10_000.0, 5e5, 1e7):
        for dim in (16, 80, 128):
            for trained in (128, 4096, 131_072):
                for factor in (1.0, 1.5, 8.0, 64.0):
                    s = {"rule": rule, "base": base, "dim": dim, "trained": trained, "factor": factor}
                    expected = RULES[rule](s)
                    np.testing.assert_allclose(call(page, "rates", s), expected.inv_freq(dim), rtol=1e-6)
                    assert call(page, "attentionFactor", s) == pytest.approx(expected.attention_factor, rel=1e-6)


def test_the_pages_scores_are_the_oracles(page: Any) -> None:
    draw = np.random.default_rng(0)
    for dim, head_dim in ((64, 64), (16, 64)):
        rates = Geometric(5e5).inv_freq(dim)
        q, k = draw.standard_normal((2, 1, head_dim))
        for i, j in ((0, 0), (3, 10), (500, 20), (100_000, 4)):
            turned = [oracle.rotate(x, np.array([p]), inv_freq=rates) for x, p in ((q, i), (k, j))]
            expected = float((turned[0] * turned[1]).sum()) / np.sqrt(head_dim)
            got = call(page, "score", rates.tolist(), q[0].tolist(), k[0].tolist(), i - j)
            assert got == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_band_is_that_of_random_vectors(page: Any) -> None:
    """By another way: the trace and the norm of the rotation's matrix, and 40 000 draws."""
    rope, distance, gain = RoPE(64, rotary_dim=32), 37, 1.1
    turn = rope.matrix(torch.tensor([distance]))[0].double().numpy().copy()
    turn[:32] *= gain * gain
    for same in (True, False):
        got = call(page, "moments", rope.frequencies.inv_freq(32).tolist(), 64, distance, same, gain)
        symmetric = (turn + turn.T) / 2
        mean = np.trace(turn) / 8 if same else 0.0
        deviation = np.sqrt(2 * (symmetric**2).sum()) / 8 if same else np.sqrt((turn**2).sum()) / 8
        assert (got["mean"], got["deviation"]) == pytest.approx((mean, deviation), abs=1e-6)
        q = np.random.default_rng(1).standard_normal((40_000, 64))
        k = q if same else np.random.default_rng(2).standard_normal(q.shape)
        drawn = ((q @ turn) * k).sum(-1) / 8
        assert (drawn.mean(), drawn.std()) == pytest.approx((got["mean"], got["deviation"]), abs=0.03)


def test_rounding_is_numpys_and_torchs(page: Any) -> None:
    rates = Geometric().inv_freq(64)
    for position in (1, 255, 257, 99_999, 999_999):
        exact = position * rates
        single = np.float32(position) * rates.astype(np.float32)
        brain = (torch.tensor(float(position)).bfloat16() * torch.from_numpy(rates).float().bfloat16()).double().numpy()
        for dtype, rounded in (("float32", single.astype(np.float64)), ("bfloat16", brain)):
            expected = np.abs(rounded - exact).max()
            assert call(page, "angleError", rates.tolist(), position, dtype) == pytest.approx(expected, rel=1e-6)


def test_axial_patches_are_the_librarys(page: Any) -> None:
    directions = np.array(call(page, "axial", 100, 64))
    rates = Geometric(100.0).inv_freq(32)
    np.testing.assert_allclose(directions, [*((r, 0) for r in rates), *((0, r) for r in rates)], rtol=1e-6)
    rope = posenc.AxialRoPE(64, frequencies=Geometric(100.0))
    x = torch.ones(1, 1, 1, 64, dtype=torch.float64)
    here, there = (rope.rotate(x, torch.tensor([[place]])) for place in ((7, 7), (4, 9)))
    got = call(page, "alike", directions.tolist(), 3, -2)
    assert got == pytest.approx(float((here * there).sum()) / 64, abs=1e-6)


def test_turning_both_hands_leaves_the_angle_between_them(page: Any) -> None:
    before = page.inner_text("#hands .reading")
    page.check("#together")
    page.locator("#query").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("[data-of=query]") == "45"
    assert page.inner_text("[data-of=key]") == "13"
    assert page.inner_text("#hands .reading") == before
    page.uncheck("#together")
    page.keyboard.press("Tab")
    page.locator("#key").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#hands .reading") != before


def test_the_hands_turn_and_stop(page: Any) -> None:
    page.click("#play")
    page.wait_for_function("Number(document.querySelector('[data-of=query]').textContent) > 42")
    page.click("#play")
    stopped = page.inner_text("[data-of=query]")
    page.wait_for_timeout(300)
    assert page.inner_text("[data-of=query]") == stopped
    page.click("#reset")
    assert page.inner_text("[data-of=query]") == "40"


def test_a_rule_brings_unseen_angles_back(page: Any) -> None:
    row = "#unseen tbody tr.current td"
    assert page.inner_text(row).split(" of ")[0] == "18"  # 64 pairs, base 10 000, 4096 read at 16 384
    page.select_option("#rule", "linear")
    page.locator("#factor").fill("4")
    assert page.inner_text(row) == "0 of 64"
    assert "0 of 64 pairs" in page.inner_text("#unseen figcaption")


def test_a_question_is_answered_by_the_controls(page: Any) -> None:
    box = page.locator("[data-question=turns]")
    right = str(sum(4096 * rate / (2 * np.pi) >= 1 for rate in Geometric().inv_freq(128)))
    choices = box.locator("button").all_inner_texts()
    assert right in choices
    box.get_by_role("button", name=next(c for c in choices if c != right), exact=True).click()
    assert box.locator(".answer").inner_text().startswith(f"No: {right}.")
    box.get_by_role("button", name=right, exact=True).click()
    assert box.locator(".answer").inner_text().startswith("Right.")
    page.select_option("#dim", "64")  # another question now, and no answer yet
    assert "32 pairs" in box.inner_text()
    assert box.locator(".answer").inner_text() == ""


def test_a_patch_is_chosen_by_click_drag_and_keys(page: Any) -> None:
    chosen = page.locator("#patches .reading")
    page.locator("#axial").scroll_into_view_if_needed()
    box = page.locator("#axial").bounding_box()
    cell = box["width"] / 15
    page.mouse.click(box["x"] + 2.5 * cell, box["y"] + 4.5 * cell)
    assert chosen.inner_text().startswith("Patch 4, 2 ")
    page.mouse.move(box["x"] + 2.5 * cell, box["y"] + 4.5 * cell)
    page.mouse.down()
    page.mouse.move(box["x"] + 9.5 * cell, box["y"] + 11.5 * cell, steps=4)
    page.mouse.up()
    assert chosen.inner_text().startswith("Patch 11, 9 ")
    page.locator("#mixed").focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert chosen.inner_text().startswith("Patch 10, 7 ")


def test_every_view_draws_at_the_ends_of_every_control(page: Any) -> None:
    for id in ("base", "trained", "tokens", "factor", "query", "key", "base2d"):
        for end in ("min", "max"):
            page.locator(f"#{id}").fill(page.get_attribute(f"#{id}", end))
            page.select_option("#rule", "yarn")
            assert "NaN" not in page.content()
            assert "Infinity" not in page.inner_text("main")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_nothing_is_cut_or_unreadable(browser: Any, file: Path, width: int, scheme: str) -> None:
    page = open_page(browser, file, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    luminance = [sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) for colour in (ink, ground)]
    assert (luminance[0] < luminance[1]) == (scheme == "light")
    sizes = page.evaluate(
        "[...document.querySelectorAll('.plot svg')].map((s) => s.clientWidth / s.viewBox.baseVal.width)"
    )
    assert min(sizes) > 0.85  # text in a figure keeps its size on a phone
    assert page.faults == []
    page.close()


def test_one_section_stands_alone_in_another_page(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri() + "?view=unseen")
    assert page.locator("main section:visible").count() == 1
    assert page.is_visible("#unseen")
    assert page.is_visible("#rule")
    page.close()


def test_rates_of_a_file_rest_the_controls_that_would_change_them(browser: Any, tmp_path: Path) -> None:
    factors = np.linspace(1, 4, 32).tolist()
    scaling = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "factor": 4.0}
    config = {
        "model_type": "phi3",
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 16_384,
        "rope_theta": 10_000.0,
        "rope_scaling": scaling | {"original_max_position_embeddings": 4096},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    page = open_page(browser, explore(str(tmp_path), tmp_path / "page.html"))
    assert page.is_disabled("#base")
    assert page.inner_text("#unseen tbody tr.current th") == f"as in {tmp_path.name}, phi3 (LongRoPE)"
    page.select_option("#rule", "none")
    assert page.is_enabled("#base")
    assert page.faults == []
    page.close()
