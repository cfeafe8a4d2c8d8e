"""The examples run, and the tutorial program does what its library does, where the popular form of it does not."""

import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import posenc
from posenc.oracle.queries_keys import rope as oracle

EXAMPLES = Path(__file__).parent.parent / "examples"
DIM, TOKENS = 64, 10
Array = NDArray[np.float64]
Defect = Callable[[ModuleType, str, Array], float]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tutorial() -> ModuleType:
    return load("rotate_embeddings")


@pytest.fixture
def embeddings() -> Array:
    return np.random.default_rng(7).standard_normal((TOKENS, DIM))


def at(tutorial: ModuleType, form: str, vector: Array, position: float) -> Array:
    """One vector at one position, by one of the two forms."""
    turned: Array = getattr(tutorial, form)(vector[None], tutorial.get_rotary_embedding([position], DIM))[0]
    return turned


def test_the_program_equals_the_oracle(tutorial: ModuleType, embeddings: Array) -> None:
    positions = np.arange(TOKENS)
    ours = tutorial.apply_rope(embeddings, tutorial.get_rotary_embedding(positions, DIM))
    inv_freq = 10_000.0 ** (-2 * np.arange(DIM // 2) / DIM)
    np.testing.assert_allclose(
        ours, oracle.rotate(embeddings, positions, inv_freq=inv_freq, pairing="interleaved"), atol=1e-14
    )


def test_the_program_equals_the_library(tutorial: ModuleType, embeddings: Array) -> None:
    ours = tutorial.apply_rope(embeddings, tutorial.get_rotary_embedding(np.arange(TOKENS), DIM))
    theirs = posenc.RoPE(head_dim=DIM, pairing="interleaved").rotate(torch.from_numpy(embeddings))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-14)


def test_the_angles_fit_the_channels_that_they_turn(tutorial: ModuleType) -> None:
    assert tutorial.get_rotary_embedding(np.arange(TOKENS), DIM).shape == (TOKENS, DIM // 2)


# The identities of a rotation: what a form must satisfy, and how far from it each is


def norm_defect(tutorial: ModuleType, form: str, x: Array) -> float:
    rotated = getattr(tutorial, form)(x, tutorial.get_rotary_embedding(np.arange(TOKENS), DIM))
    return float(np.abs(np.linalg.norm(rotated, axis=1) - np.linalg.norm(x, axis=1)).max())


def partial_norm_defect(tutorial: ModuleType, form: str, x: Array) -> float:
    """Each pair keeps its own norm too, since it turns alone."""
    rotated = getattr(tutorial, form)(x, tutorial.get_rotary_embedding(np.arange(TOKENS), DIM))
    pairs = [np.linalg.norm(each.reshape(TOKENS, -1, 2), axis=2) for each in (rotated, x)]
    return float(np.abs(pairs[0] - pairs[1]).max())


def relative_scores_defect(tutorial: ModuleType, form: str, x: Array) -> float:
    """A score at distance 3 is the same wherever the two tokens stand."""
    scores = [at(tutorial, form, x[0], p) @ at(tutorial, form, x[1], p + 3) for p in range(20)]
    return float(np.ptp(scores))


def group_law_defect(tutorial: ModuleType, form: str, x: Array) -> float:
    """Turning by 2 and then by 5 is turning by 7."""
    twice = at(tutorial, form, at(tutorial, form, x[0], 2), 5)
    return float(np.abs(twice - at(tutorial, form, x[0], 7)).max())


def inverse_defect(tutorial: ModuleType, form: str, x: Array) -> float:
    """Turning forth and back is doing nothing."""
    return float(np.abs(at(tutorial, form, at(tutorial, form, x[0], 4), -4) - x[0]).max())


IDENTITIES = (norm_defect, partial_norm_defect, relative_scores_defect, group_law_defect, inverse_defect)


@pytest.mark.parametrize("defect", IDENTITIES, ids=lambda f: f.__name__)
def test_the_turned_form_has_every_identity_of_a_rotation(
    defect: Defect, tutorial: ModuleType, embeddings: Array
) -> None:
    assert defect(tutorial, "apply_rope", embeddings) < 1e-12


@pytest.mark.parametrize("defect", IDENTITIES, ids=lambda f: f.__name__)
def test_the_rolled_form_has_none_of_them(defect: Defect, tutorial: ModuleType, embeddings: Array) -> None:
    assert defect(tutorial, "apply_rolled", embeddings) > 0.05


def test_both_forms_leave_position_0_alone(tutorial: ModuleType, embeddings: Array) -> None:
    for form in ("apply_rope", "apply_rolled"):
        np.testing.assert_array_equal(at(tutorial, form, embeddings[0], 0), embeddings[0])


def test_the_program_prints_shapes_values_and_its_check(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "rotate_embeddings.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "(10, 64)" in printed
    assert "(10, 32)" in printed
    assert "turned: norms change" in printed
    assert "rolled: norms change" in printed


# Programs on posenc.nn

PROGRAMS = ("gpt", "vit", "encoder_decoder", "diffusion_transformer")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_short_and_uses_nothing_of_the_lab(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert "posenc.nn" in text
    assert "posenc.lab" not in text


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_in_few_steps(name: str) -> None:
    load(name).main(steps=2)


@pytest.mark.slow
def test_the_gpt_learns() -> None:
    assert load("gpt").main() < 1.8  # nats a byte; 5.5 is knowing nothing, 2.6 is knowing how often each byte comes


@pytest.mark.slow
def test_the_vision_transformer_learns_and_fitted_positions_carry_it_to_larger_images() -> None:
    accuracy = load("vit").main()
    assert accuracy["counted", 10] > 0.8
    assert accuracy["fitted", 20] > accuracy["counted", 20] + 0.1


@pytest.mark.slow
def test_the_encoder_decoder_spells_numbers_that_it_never_saw() -> None:
    assert load("encoder_decoder").main() > 0.6


@pytest.mark.slow
def test_the_diffusion_transformer_draws_what_it_is_asked_for() -> None:
    assert load("diffusion_transformer").main() > 0.8
