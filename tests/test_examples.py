"""What is in examples/ runs, and shows what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_three_roads():
    """The hand-written loop fails where emfuse does not; and each part comes to its end."""
    code = [sys.executable, "-W", "error", str(EXAMPLES / "three_roads.py")]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    by_hand, ours = (line.split("weights")[1] for line in lines if line.startswith(("by hand  ", "normalmixEM  ")))
    assert by_hand == ours
    assert "with one crash, by hand:  means [nan nan]" in lines
    assert "rests on the floor of its variance" in done.stdout
    assert lines[-1].split()[0] == "8"  # the last line of the classroom's history
