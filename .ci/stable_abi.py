"""What Python's stable ABI costs: the same calls with two wheels, in turn; the least of several processes counts.

    EMFUSE_BUILD=require pip wheel --no-deps -w plain . && EMFUSE_BUILD=wheel pip wheel --no-deps -w stable .
    python .ci/stable_abi.py plain/*.whl stable/*.whl

NumPy, SciPy and scikit-learn are those of this Python; emfuse is each wheel's.
"""

import os
import subprocess
import sys
import tempfile
import zipfile

ROUNDS = 8
CHILD = """
import time, timeit
import numpy as np, scipy.linalg.lapack
began = time.perf_counter()
import emfuse
imported = time.perf_counter() - began
assert emfuse.__file__.startswith(%r), emfuse.__file__
x = np.loadtxt(emfuse.__path__[0] + "/faithful.csv", delimiter=",", skiprows=1)[:, :1].copy()
start = emfuse.from_labels(x, x[:, 0] > 3)
f, build = start.factors, emfuse.kernels.load()
s = emfuse.InMemory(x).sweep(f)
def sweep():  # by keywords, as an engine calls it: they are what differs
    return build.sweep(
        X=x, weights=None, means=f.means, P=f.P, log_constant=f.log_constant, origin=f.means, hard=False, mass=s.mass,
        first=s.first, second=s.second,
    )
least = lambda call, number: min(timeit.repeat(call, number=number, repeat=20)) / number
print(least(sweep, 5000), least(lambda: emfuse.em(x, start, stop=6), 300),
      least(lambda: emfuse.fit(x, 2), 5), imported)
"""

with tempfile.TemporaryDirectory() as folder:
    least = {}
    for wheel in sys.argv[1:]:
        zipfile.ZipFile(wheel).extractall(os.path.join(folder, wheel))
    for wheel in sys.argv[1:] * ROUNDS:
        path = os.path.join(folder, wheel)
        child = [sys.executable, "-c", CHILD % path]
        told = subprocess.run(child, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}).stdout
        now = [1e6 * float(seconds) for seconds in told.split()]
        least[wheel] = [min(pair) for pair in zip(now, least.get(wheel, now), strict=True)]
for wheel, figures in least.items():
    named = zip(("a call of sweep", "em, 6 steps", "fit", "import emfuse"), figures, strict=True)
    print(f"{wheel}: {os.path.getsize(wheel):,} bytes;", ", ".join(f"{name} {figure:.2f} us" for name, figure in named))
