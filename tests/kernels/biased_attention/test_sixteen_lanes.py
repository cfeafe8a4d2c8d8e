"""The body for AVX-512, with each of its vectors in two registers of AVX2: all tests of this folder, where there is no
AVX-512 as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernels.biased_attention.test_counting import LIBRARY

from posenc.kernels.biased_attention import fused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason),
    pytest.mark.skipif(fused.level() != "AVX2", reason=f"this machine has {fused.level()}"),
]
WIDE = os.environ | {"POSENC_CXXFLAGS": "-DPOSENC_EMULATE_AVX512"}


def test_sixteen_lanes_pass_what_eight_pass() -> None:
    asked = "from posenc.kernels.biased_attention import fused; print(fused.level())"
    level = subprocess.run([sys.executable, "-c", asked], env=WIDE, capture_output=True, text=True, check=True).stdout
    assert level.strip() == "AVX-512"
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", str(Path(__file__).parent)]
    done = subprocess.run(tests, env=WIDE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
