"""Lint, format and types: part of the tests, so that one command says all."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "ty", "check", "hfvae", "train.py", "app.py"],
    ],
    ids=["lint", "format", "types"],
)
def test_the_code_is_clean(command):
    pytest.importorskip(command[1])
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
