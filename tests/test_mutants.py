"""The suite must notice: faults of one character, planted one at a time in a copy of the library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import posenc
from posenc import testing

ROOT = Path(__file__).parent.parent

MUTANTS = [
    # file, as it is, as it is not, the tests that must fail
    ("kernels/rotate/eager.py", "a * cos - b * sin", "a * cos + b * sin", "kernels"),
    ("kernels/rotate/rows.h", "a * cosine - b * sine", "a * cosine + b * sine", "kernels"),
    ("kernels/rotate/cpu.cpp", "REQUIRE(row < rows", "REQUIRE(row <= rows", "kernels"),
    ("kernels/rotate/cpu.cpp", "REQUIRE(row >= 0", "REQUIRE(row >= -9", "kernels"),
    ("kernels/rotate/op.py", "inverse=not inverse", "inverse=inverse", "kernels"),
    ("kernels/rotate/tables.py", "torch.arange(have, rows", "torch.arange(0, rows - have", "queries_keys"),
    (
        "kernels/rotate/eager.py",
        'if pairing == "half":\n        a, b',
        'if pairing != "half":\n        a, b',
        "kernels",
    ),
    ("kernels/precision.py", "exact = exact_positions(positions)", "exact = positions.float()", "queries_keys"),
    ("frequencies/geometric.py", "/ rotary_dim)", "/ (rotary_dim - 2))", "frequencies"),
    ("embeddings/sinusoidal.py", "(angle.sin(), angle.cos())", "(angle.cos(), angle.sin())", "embeddings"),
    ("kernels/resample.py", "(new + how.offset) / old", "new / old", "embeddings/test_learned_grid.py"),
    (
        "embeddings/sinusoidal_grid.py",
        '"mae": _Plan("concatenated", (1, 0))',
        '"mae": _Plan("concatenated", (0, 1))',
        "embeddings/test_sinusoidal_grid.py",
    ),
    ("embeddings/timesteps.py", "(pairs - shift)", "(pairs + shift)", "embeddings/test_timesteps.py"),
    ("embeddings/fourier.py", "tensor(2 * torch.pi", "tensor(torch.pi", "embeddings/test_fourier.py"),
    ("scores/levit.py", "dy.abs() * self.window[1]", "dy.abs() * self.window[0]", "scores/test_levit.py"),
    ("scores/decomposed.py", "rows = distance.to", "rows = -distance.to", "scores/test_decomposed.py"),
    ("scores/swin.py", "2 * to_token.long()", "to_token.long()", "scores/test_swin.py"),
    ("embeddings/binary.py", "2.0 ** torch.arange(self.dim", "2.0 ** torch.arange(1, 1 + self.dim", "embeddings"),
    ("scores/alibi.py", "self._ladder(lower) + finer[::2]", "self._ladder(lower) + finer[1::2]", "scores"),
    ("scores/alibi.py", "self.strength * 2", "1 / self.strength * 2", "scores"),
    ("scores/alibi.py", "return -slopes", "return slopes", "scores"),
    ("kernels/biased_attention/problem.py", "hidden = u > t", "hidden = u >= t", "test_dot_product_attention.py"),
    ("kernels/biased_attention/problem.py", ">= window) |", "> window) |", "kernels/biased_attention"),
    ("kernels/biased_attention/toeplitz.py", "back >= window", "back > window", "kernels/biased_attention"),
    (
        "kernels/biased_attention/toeplitz.py",
        "start = rows.start + keys.start",
        "start = rows.start",
        "kernels/biased_attention",
    ),
    (
        "kernels/biased_attention/keeping.py",
        "or not hold(tensors, kept.values)",
        "",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/row_of_distances.py",
        "if k_len > encoding.relative_below():",
        "if False:",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/again.py",
        "(q.requires_grad or k.requires_grad or v.requires_grad)",
        "(q.requires_grad or k.requires_grad)",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/again.py",
        "factors[k.shape[2] - q.shape[2] : k.shape[2]]",
        "factors[: q.shape[2]]",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/shares.py",
        "k_len <= kept.made[3]",
        "False",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/row_of_distances.py",
        "and k_len > encoding.relative_below()",
        "and False",
        "kernels/biased_attention/test_again.py",
    ),
    ("kernels/biased_attention/blocks.py", "seed + rows.start", "seed + id(rows)", "kernels/biased_attention"),
    ("scores/t5.py", "right=True", "right=False", "scores/test_t5.py"),
    ("scores/kerple.py", "return -r1 * (r2 * far).log1p()", "return -r1 * (r2 * far).log()", "scores/test_kerple.py"),
    ("scores/deberta.py", "(3 * head_dim)", "(2 * head_dim)", "scores/test_deberta.py"),
    ("scores/shaw.py", "ahead = -distance", "ahead = distance", "scores/test_shaw.py"),
    (
        "scores/transformer_xl.py",
        "against_cos * sin_i - against_sin",
        "against_cos * sin_i + against_sin",
        "scores/test_transformer_xl.py",
    ),
    (
        "kernels/biased_attention/counting.py",
        "clamp(max=rows.shape[-1] - 1)",
        "clamp(max=rows.shape[-1])",
        "scores/test_cope.py",
    ),
    (
        "kernels/biased_attention/counts.h",
        "all &= totals[t] >= last;",
        "all &= totals[t] > last - 1;",
        "kernels/biased_attention/test_counting.py",
    ),
    (
        "kernels/biased_attention/counts.h",
        "slope + (before + sum) *",
        "slope + sum *",
        "kernels/biased_attention/test_counting.py",
    ),
    (
        "kernels/biased_attention/problem.h",
        "std::max<int64_t>(0, key - shift)",
        "std::max<int64_t>(0, key - shift + 1)",
        "kernels/biased_attention/test_fused.py",
    ),
    (
        "kernels/biased_attention/cpu.cpp",
        "set_shares(p, factors, units, p.offset);",
        "set_shares(p, factors, units, 0);",
        "kernels/biased_attention/test_again.py",
    ),
    (
        "kernels/biased_attention/counting.py",
        'home(cls, "count_table") > home(cls, "by_count")',
        "False",
        "kernels/biased_attention/test_count_table.py",
    ),
    (
        "kernels/biased_attention/scores.h",
        "weight != 0.0f && n < columns",
        "n < columns",
        "kernels/biased_attention/test_hidden.py",
    ),
    ("scores/forgetting.py", "state[..., -1:] + faded", "faded", "scores/test_forgetting.py"),
    (
        "kernels/biased_attention/fading.py",
        'min(home(cls, "contextual_bias"), home(cls, "on_values"))',
        'home(cls, "contextual_bias")',
        "kernels/biased_attention/test_fading.py",
    ),
    (
        "kernels/biased_attention/problem.h",
        "float(most - least)",
        "float(least - most)",
        "kernels/biased_attention/test_fading.py",
    ),
    (
        "kernels/biased_attention/cpu.cpp",
        "tile = tiles - 1 - at / heads",
        "tile = tiles - 1 - at / few",
        "kernels/biased_attention/test_fused.py",
    ),
    (
        "kernels/biased_attention/shares.h",
        "(first > 0.0f) & (last > 0.0f)",
        "(first > 0.0f) | (last > 0.0f)",
        "kernels/biased_attention/test_shares.py",
    ),
    (
        "kernels/biased_attention/shares.h",
        "by_query += gradient * slope * counts",
        "by_query += gradient * slope",
        "kernels/biased_attention/test_shares.py",
    ),
    (
        "kernels/biased_attention/shares.py",
        "first + problem.q_len <= len(kept)",
        "True",
        "kernels/biased_attention/test_shares.py",
    ),
    ("scores/forgetting.py", "return state\n", "return state.float()\n", "kernels/biased_attention/test_fading.py"),
    ("dot_product_attention.py", "k_len - q_len :]", ":q_len]", "test_temperature.py"),
    (
        *("scores/cope.py", "queries + content.offset", "queries"),
        "conformance/test_every_encoding.py::test_the_exam[cope-gives_attention_what_it_gives_the_scores]",
    ),
    (
        "positions/_resolve.py",
        "torch.arange(offset, offset + length,",
        "torch.arange(offset, offset + length + 1,",
        "positions",
    ),
    (
        "kernels/biased_attention/temperature.py",
        "return self.products * self.scores",
        "return self.products",
        "conformance/test_pairs.py",
    ),
    (
        "kernels/biased_attention/temperature.py",
        "scaled(bias.to(products.dtype), temperatures.scores)",
        "scaled(bias.to(products.dtype), 1.0)",
        "conformance/test_pairs.py",
    ),
    (
        "kernels/kept.py",
        "type(kept) is type(positions) and kept == positions",
        "kept == positions",
        "test_refusals.py",
    ),
    (
        "compose.py",
        "for part in self.parts:\n            q, k",
        "for part in self.parts[:1]:\n            q, k",
        "conformance/test_pairs.py",
    ),
    ("scores/cope.py", "queries + content.offset", "queries", "conformance/test_any_call.py"),
]

#: For each test of the encoding test suite (the exam), a fault that it finds: file, right line, wrong line, encoding.
EXAM = {
    "matches_its_oracle_in_every_dtype": ("frequencies/geometric.py", "/ rotary_dim)", "/ (rotary_dim - 2))", "rope"),
    "has_the_gradient_of_its_oracle": ("kernels/rotate/op.py", "inverse=not inverse", "inverse=inverse", "rope"),
    "passes_gradcheck": (
        "scores/kerple.py",
        "value = working(parameter)",
        "value = working(parameter.detach() + 0 * parameter)",
        "kerple",
    ),
    "depends_on_differences_alone_if_it_says_that_it_is_relative": (
        "scores/_distance.py",
        "exact_positions(q_positions)",
        "q_positions.bfloat16().double()",
        "shaw",
    ),
    "gives_one_bias_in_every_form": (
        "kernels/biased_attention/score_mod.py",
        "relative and whole and",
        "True and",
        "swin",
    ),
    "gives_a_prefix_what_it_gives_the_shorter_run": (
        "embeddings/normalized.py",
        "/ self.length)",
        "/ positions.shape[-1])",
        "normalized",
    ),
    "decodes_step_by_step_as_in_a_full_forward": (
        *("queries_keys/_rotation.py", "first: object = 0 if positions is None else positions", "first: object = 0"),
        "rope",
    ),
    "gives_packed_documents_what_it_gives_separate_ones": (
        "encoding.py",
        "resolve(positions, x.shape[-2], device",
        "resolve(None, x.shape[-2], device",
        "sinusoidal",
    ),
    "is_not_touched_by_left_padding_or_batch_mates": (
        "encoding.py",
        "codes = self.codes(resolved)",
        "codes = self.codes(resolved if resolved.ndim == 1 else resolved[0])",
        "sinusoidal",
    ),
    "takes_all_forms_of_positions": (
        "queries_keys/_rotation.py",
        "None, first, self.rotary_start",
        "None, 0, self.rotary_start",
        "rope",
    ),
    "stays_finite_at_two_to_the_twenty": (
        "kernels/precision.py",
        "return x.to(float64_device(x.device)).to(torch.float64)",
        "return x.half().double()",
        "sinusoidal",
    ),
    "serves_grouped_heads": (
        "queries_keys/_rotation.py",
        "table.repeat_interleave(groups, dim=1)",
        "table.repeat(1, groups, 1, 1)",
        "mixed",
    ),
    "leaves_its_inputs_alone": ("encoding.py", "return (x + codes).to(x.dtype)", "return x.add_(codes)", "sinusoidal"),
    "keeps_shapes_and_dtypes_and_takes_views": (
        "encoding.py",
        "return (x + codes).to(x.dtype)",
        "return x + codes",
        "sinusoidal",
    ),
    "is_not_spoiled_by_casts_or_autocast": (
        "kernels/precision.py",
        "exact[..., None] * torch.tensor(inv_freq, dtype=torch.float64, device=exact.device)",
        "exact[..., None].float() @ torch.tensor([inv_freq], dtype=torch.float32, device=exact.device)",
        "sinusoidal",
    ),
    "survives_every_round_trip": (
        "encoding.py",
        'arguments["frequencies"] = Frequencies.from_dict(rules)',
        'del arguments["frequencies"]',
        "rope with another base",
    ),
    "refuses_bad_positions": ("positions/_resolve.py", "lowest < 0 and", "lowest < -1 and", "sinusoidal"),
    "decodes_in_layers_as_without_a_cache": ("nn/tokens.py", "None, None, now + seq)", "None, None, now + 1)", "rope"),
    "decodes_in_a_window_as_without_a_cache": (
        "nn/cache.py",
        "max(1, self.window - 1)",
        "max(1, self.window - 2)",
        "rope",
    ),
    "decodes_a_padded_batch_as_each_row_alone": (
        "nn/tokens.py",
        "real.any(1, keepdim=True), far + 1,",
        "real.any(1, keepdim=True), far[:1] + 1,",
        "rope",
    ),
    "packs_in_layers_as_separate_documents": (
        "nn/tokens.py",
        "torch.where(begins, count - real, 0)",
        "torch.where(begins, count, 0)",
        "rope",
    ),
    "gives_attention_what_it_gives_the_scores": (
        "dot_product_attention.py",
        "q = scaled(q, factor)",
        "pass",
        "temperature as in llama4",
    ),
    "gives_the_same_answer_whatever_was_called_before": (
        "kernels/kept.py",
        "type(kept) is type(positions) and kept == positions",
        "kept == positions",
        "rope with dynamic rates",
    ),
    "explains_what_its_calls_do": (
        "queries_keys/_rotation.py",
        "            return self._explain_rows(q, k, rows)\n        self._check(q, k, positions, k_positions)\n",
        "            return self._explain_rows(q, k, rows)\n",
        "rope",
    ),
    "compiles_to_one_graph_for_all_lengths": (
        "kernels/precision.py",
        "        and not torch.compiler.is_compiling()\n        and torch",
        "        and torch",
        "alibi",
    ),
    "decodes_with_two_graphs": (
        "positions/_resolve.py",
        "if offset < 0:",
        "if offset % 3 == 2 and offset < 0:",
        "rope",
    ),
    "is_exported_with_an_open_length": (
        "positions/_resolve.py",
        "return torch.arange(offset, offset + length, device=device)",
        "return torch.tensor(list(range(offset, offset + length)), device=device)",
        "rope",
    ),
}


def test_every_question_of_the_exam_has_a_fault_that_it_finds() -> None:
    assert list(EXAM) == [name for name, _ in testing.checks(posenc.NoPE())]


@pytest.mark.parametrize(("file", "right"), sorted({fault[:2] for fault in (*MUTANTS, *EXAM.values())}))
def test_the_line_that_a_fault_changes_is_there_once(file: str, right: str) -> None:
    assert (ROOT / "src" / "posenc" / file).read_text().count(right) == 1


@pytest.mark.slow
@pytest.mark.parametrize("question", EXAM)
def test_the_question_finds_its_fault(tmp_path: Path, question: str) -> None:
    file, right, wrong, name = EXAM[question]
    tests = f"conformance/test_every_encoding.py::test_the_exam[{name}-{question}]"
    test_a_planted_fault_is_found(tmp_path, file, right, wrong, tests)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "right", "wrong", "tests"), MUTANTS, ids=[f"{m[0]}: {m[2]}" for m in MUTANTS])
def test_a_planted_fault_is_found(tmp_path: Path, file: str, right: str, wrong: str, tests: str) -> None:
    copy = tmp_path / "src" / "posenc"
    shutil.copytree(ROOT / "src" / "posenc", copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    source = (copy / file).read_text()
    (copy / file).write_text(source.replace(right, wrong))
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / tests)]
    where = subprocess.run(
        [sys.executable, "-c", "import posenc; print(posenc.__file__)"], env=environment, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(tmp_path)), "the tests would have run on another copy"
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout[-2000:]
