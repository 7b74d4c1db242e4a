"""How many instructions the AVX2 sweep takes for each row and component: its speed, as far as that can be told without a clock.

A clock on a busy machine is off by more than a careless change costs; a count is the same every time. callgrind counts what a
sweep of N rows and one of 2 N execute inside `_sweep_avx2` and in what it calls; their difference is free of fixed costs. Counts
belong to a compiler, so tests/instructions.json holds them by its name and major version; elsewhere these tests skip, as they do
without valgrind (`apt-get install valgrind`). A count says nothing of caches, or of how long an instruction takes: see bench/.

    python tests/test_instructions.py              # measured beside recorded, half a minute
    python tests/test_instructions.py --record     # and recorded, for the compiler that built the installed emfuse
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from emfuse import kernels

BUILD = "avx2"  # valgrind knows no AVX-512
MARGIN = 0.10  # how far a count may rise; repeated counts differ by less than 0.1%
RECORDED = Path(__file__).with_name("instructions.json")
RECORD = "python tests/test_instructions.py --record"


class Case(NamedTuple):
    """K components of D features: one of each way through the kernel."""

    D: int
    K: int
    structure: str
    dtype: str = "float64"

    @property
    def N(self):
        """Rows: a power of two, to fill whole blocks; more of them where a row is so little work that malloc's would be seen."""
        return (1 << 17) >> self.D.bit_length()

    def __str__(self):
        return f"D={self.D} K={self.K} {self.structure} {self.dtype}"


CASES = (
    Case(1, 2, "full"),
    Case(2, 4, "full"),
    Case(10, 10, "full"),
    Case(32, 8, "full"),
    Case(16, 16, "diag"),
    Case(16, 8, "tied"),
    Case(16, 16, "spherical"),
    Case(4, 8, "full", "float32"),
)

# A function of the C library that nobody else calls: callgrind ends a dump and begins another where it is called. It is exported,
# so a stripped library has it too.
MARK = "getloadavg"
# Clusters overlap, so that no kernel gains by leaving out what weighs nothing.
CHILD = f"""
import json, os, sys
import numpy as np
import emfuse

for N, D, K, structure, dtype in json.loads(sys.argv[1]):
    random = np.random.default_rng([D, K])
    labels = random.permutation(np.arange(2 * N) % K)
    means = 3.0 / np.sqrt(2 * D) * random.standard_normal((K, D))
    X = (means[labels] + random.standard_normal((2 * N, D))).astype(dtype)
    factors = emfuse.from_labels(X, labels, structure).factors
    half, whole = (emfuse.InMemory(rows, n_threads=1) for rows in (X[:N], X))
    for engine in (half, whole):
        engine.sweep(factors)  # the first also makes what is kept for the rest
    os.{MARK}()
    half.sweep(factors)
    os.{MARK}()
    whole.sweep(factors)
    os.{MARK}()
"""
ENVIRONMENT = {
    "EMFUSE_KERNEL": BUILD,
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS",  # long memsets in vectors: `rep stosb` would count as one instruction a byte
}


def obstacle():
    """Why nothing can be measured here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"counts are for Linux on x86_64, and this is {sys.platform} on {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if BUILD not in kernels.runnable():
        return f"the {BUILD} build does not run here: {kernels.not_runnable()[BUILD]}"
    if compiler_of(library()) is None:
        return f"{library().name} does not say which compiler built it"
    return None


def library():
    """The file of the build that is measured."""
    return Path(kernels.load(BUILD).__file__)


def compiler_of(path):
    """What built a shared library, as ("GCC 12", "12.2.0"), by the note that compilers leave in it; None without one.

    Stripping keeps the note. Clang's comes first, because the start-up files that it links bring GCC's along.
    """
    content = path.read_bytes()
    for name, note in (("Clang", rb"clang version (\d+(?:\.\d+)+)"), ("GCC", rb"GCC: \([^)]*\) (\d+(?:\.\d+)+)")):
        if versions := re.findall(note, content):
            version = max((found.decode() for found in versions), key=lambda text: [int(part) for part in text.split(".")])
            return f"{name} {version.partition('.')[0]}", version
    return None


def measure():
    """Instructions for each row and component, by the name of the case: all cases in one process, whose imports take longest."""
    with tempfile.TemporaryDirectory() as folder:
        dumps = os.path.join(folder, "dump")
        callgrind = ["valgrind", "-q", "--tool=callgrind", "--vgdb=no", f"--dump-before={MARK}", f"--callgrind-out-file={dumps}"]
        done = subprocess.run(
            [*callgrind, "--compress-strings=no", sys.executable, "-c", CHILD, json.dumps([(case.N, *case) for case in CASES])],
            env={**os.environ, **ENVIRONMENT},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        counts = [instructions(Path(f"{dumps}.{i + 1}"), library().name) for i in range(3 * len(CASES))]
    half, whole = counts[1::3], counts[2::3]  # before these comes what made the data
    return {str(case): (whole[i] - half[i]) / (case.N * case.K) for i, case in enumerate(CASES)}


def instructions(dump, name):
    """What was executed in the library of that file name, and in all that it called (a memset, or an exp that is not ours).

    By library and not by function, because names of functions vanish where it is stripped. The format is described at
    https://valgrind.org/docs/manual/cl-format.html; what matters here: `ob=` names the library of the lines that follow, `calls=`
    says that the next cost is that of a call, all included, and `cob=` before it names the library called, if another.
    """
    total, inside, call, leaves = 0, False, False, False
    with dump.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("ob="):
                inside = Path(line[3:].strip()).name == name
            elif line.startswith("cob="):
                leaves = True
            elif line.startswith("calls="):
                call = True
            elif line[0] in "0123456789+-*":  # position, cost
                if inside and (leaves or not call):
                    total += int(line.split()[1])
                call = leaves = False
    return total


def recorded():
    """The file of counts: by compiler, then by case."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def counts():
    """Counts of all cases: those recorded for this compiler, and those of now."""
    if reason := obstacle():
        pytest.skip(reason)
    compiler, _ = compiler_of(library())
    if compiler not in recorded():
        pytest.skip(f"the {BUILD} build is by {compiler}; counts are recorded for {', '.join(recorded())}. To add it: {RECORD}")
    return recorded()[compiler]["instructions"], measure()


@pytest.mark.parametrize("case", [str(case) for case in CASES])
def test_a_row_and_component_takes_no_more_instructions_than_recorded(counts, case):
    """At most a tenth more; a tenth fewer is told, so that what was won is kept."""
    before, now = counts[0].get(case), counts[1][case]
    assert now > 0, f"{case}: callgrind's dumps show nothing of {library().name}: has their format changed?"
    assert before is not None, f"{case}: no count is recorded in {RECORDED.name}. Record it: {RECORD}"
    seen = f"{case}: {now:.2f} instructions for each row and component, {now / before - 1:+.0%} beside the {before:.2f} recorded"
    assert now <= before * (1 + MARGIN), (
        f"{seen}; at most {MARGIN:+.0%} is allowed. Find what the last change costs; if the clock says that it pays all the same "
        f"(python -m bench), or only the compiler's flags differ, record it: {RECORD}"
    )
    if now < before * (1 - MARGIN):
        warnings.warn(f"{seen}. Keep what was won: {RECORD}", stacklevel=1)


def main(arguments):
    """Print measured beside recorded counts, and record them if asked to."""
    if arguments not in ([], ["--record"]):
        sys.exit(__doc__)
    if reason := obstacle():
        sys.exit(reason)
    compiler, version = compiler_of(library())
    everything = recorded() if RECORDED.exists() else {}
    before, now = everything.get(compiler, {}).get("instructions", {}), measure()
    print(f"{compiler} ({version}), instructions for each row and component: recorded, and now")
    for case, count in now.items():
        print(f"{case:<28}{before.get(case, float('nan')):10.2f}{count:10.2f}")
    if arguments:
        everything[compiler] = {"version": version, "instructions": {case: round(count, 2) for case, count in now.items()}}
        RECORDED.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
