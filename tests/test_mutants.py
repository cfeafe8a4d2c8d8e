"""The suite must notice: faults of one character, planted one at a time in a copy of the library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MUTANTS = [
    # file, as it is, as it is not, the tests that must fail
    ("kernels/rotate/eager.py", "a * cos - b * sin", "a * cos + b * sin", "kernels"),
    ("kernels/rotate/rows.h", "a * cosine - b * sine", "a * cosine + b * sine", "kernels"),
    ("kernels/rotate/cpu.cpp", "row >= 0 && row < rows", "row >= 0 && row <= rows", "kernels"),
    ("kernels/rotate/op.py", "inverse=not inverse", "inverse=inverse", "kernels"),
    ("kernels/rotate/tables.py", "torch.arange(have, rows", "torch.arange(0, rows - have", "queries_keys"),
    (
        "kernels/rotate/eager.py",
        'if pairing == "half":\n        a, b',
        'if pairing != "half":\n        a, b',
        "kernels",
    ),
    ("kernels/precision.py", "exact = as_float64(positions)", "exact = positions.float()", "queries_keys"),
    ("frequencies/geometric.py", "/ rotary_dim)", "/ (rotary_dim - 2))", "frequencies"),
    ("embeddings/sinusoidal.py", "(angle.sin(), angle.cos())", "(angle.cos(), angle.sin())", "embeddings"),
    ("embeddings/learned_grid.py", "(new + how.offset) / old", "new / old", "embeddings/test_learned_grid.py"),
    (
        "embeddings/sinusoidal_grid.py",
        '"mae": _Plan("concatenated", (1, 0))',
        '"mae": _Plan("concatenated", (0, 1))',
        "embeddings/test_sinusoidal_grid.py",
    ),
    ("embeddings/timesteps.py", "(pairs - shift)", "(pairs + shift)", "embeddings/test_timesteps.py"),
    ("embeddings/fourier.py", "2 * torch.pi * turns", "torch.pi * turns", "embeddings/test_fourier.py"),
    ("scores/levit.py", "dy.abs() * self.window[1]", "dy.abs() * self.window[0]", "scores/test_levit.py"),
    ("scores/decomposed.py", "rows = distance.to", "rows = -distance.to", "scores/test_decomposed.py"),
    ("scores/swin.py", "2 * to_token.long()", "to_token.long()", "scores/test_swin.py"),
    ("embeddings/binary.py", "2.0 ** torch.arange(self.dim", "2.0 ** torch.arange(1, 1 + self.dim", "embeddings"),
    ("scores/alibi.py", "_ladder(lower) + finer[::2]", "_ladder(lower) + finer[1::2]", "scores"),
    ("scores/alibi.py", "return -slopes", "return slopes", "scores"),
    ("kernels/biased_attention/problem.py", "hidden = u > t", "hidden = u >= t", "test_dot_product_attention.py"),
    ("kernels/biased_attention/problem.py", ">= self.window) |", "> self.window) |", "kernels/biased_attention"),
    ("kernels/biased_attention/toeplitz.py", "back >= window", "back > window", "kernels/biased_attention"),
    (
        "kernels/biased_attention/toeplitz.py",
        "start = rows.start + keys.start",
        "start = rows.start",
        "kernels/biased_attention",
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
        "scores/cope.py",
        "clamp(max=self.length - 1)\n        lower",
        "clamp(max=self.length)\n        lower",
        "scores/test_cope.py",
    ),
    ("scores/forgetting.py", "state[..., -1:] + faded", "faded", "scores/test_forgetting.py"),
    ("dot_product_attention.py", "k_len - q_len :]", ":q_len]", "test_dot_product_attention.py"),
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
    (
        "queries_keys/_rotation.py",
        "of_k = self._explain_turn(k, where",
        "of_k = self._explain_turn(k, None",
        "conformance/test_every_encoding.py",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "right", "wrong", "tests"), MUTANTS, ids=[f"{m[0]}: {m[2]}" for m in MUTANTS])
def test_a_planted_fault_is_found(tmp_path: Path, file: str, right: str, wrong: str, tests: str) -> None:
    copy = tmp_path / "src" / "posenc"
    shutil.copytree(ROOT / "src" / "posenc", copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    source = (copy / file).read_text()
    assert source.count(right) == 1, "the line that the mutant changes is no longer there, or is there twice"
    (copy / file).write_text(source.replace(right, wrong))
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / tests)]
    where = subprocess.run(
        [sys.executable, "-c", "import posenc; print(posenc.__file__)"], env=environment, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(tmp_path)), "the tests would have run on another copy"
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout[-2000:]
