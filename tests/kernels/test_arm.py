"""What int8 kernels ask of 64-bit ARM, compiled by a cross compiler and run in an emulator where both are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = ["-O3", "-static", "-ffp-contract=off", "-fno-strict-aliasing", "-DFASTRNN_ISA=1", f"-I{ROOT / 'src/kernel'}"]


@pytest.mark.parametrize("march", ["armv8-a", "armv8.2-a+dotprod"])
def test_sums_of_products_on_arm(march, tmp_path):
    """armv8-a has sdot written out, the other by the compiler's own function."""
    if not shutil.which(COMPILER) or not shutil.which(EMULATOR):
        pytest.skip(f"needs {COMPILER} and {EMULATOR}")
    program = tmp_path / "dot_check"
    subprocess.run([COMPILER, *FLAGS, f"-march={march}", str(ROOT / "tests/support/dot_check.c"), "-lm", "-o",
                    str(program)], check=True)
    result = subprocess.run([EMULATOR, "-cpu", "max", str(program)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
