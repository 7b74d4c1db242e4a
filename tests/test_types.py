"""The types that the package promises, as type checkers see them in somebody else's program."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("typed_program.py")
CHECKERS = {"mypy": ["--strict", "--config-file="], "pyright": ["--pythonpath", sys.executable]}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_program_passes(checker, tmp_path):
    """Every `assert_type` in it holds, and none of them is answered with `Any`; our own settings do not count."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed; pip install {checker}")
    if checker == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node")
    program = shutil.copy(PROGRAM, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker], program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_runs():
    """What it asserts of types is said of a program that works."""
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM)], capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg"}
    )
    assert done.returncode == 0, done.stderr
