"""Fail unless the installed emfuse has every build for this machine, runs the fastest that the CPU can, and all of them agree.

    python .ci/check_build.py          # from anywhere: it looks at what `import emfuse` finds
    python .ci/check_build.py avx2     # the fastest is this one: for a CPU that is pretended

What the CPU can is asked of NumPy, whose way of finding out is not ours.
"""

import os
import sys

import numpy as np
from numpy._core._multiarray_umath import __cpu_features__ as CAN

import emfuse
from emfuse import _isas, kernels

NEEDS = {"avx512": ("AVX512_SKX",), "avx2": ("AVX2", "FMA3"), "baseline": ()}
expected = [isa.name for isa in _isas.isas_of() if all(CAN.get(feature) for feature in NEEDS[isa.name])]
found = [name for name in kernels.runnable() if name != kernels.REFERENCE]
wanted = os.environ.get(kernels.VARIABLE) or expected[0]
print(f"Python {sys.version.split()[0]}, {os.path.dirname(emfuse.__file__)}: '{kernels.active()}' of {', '.join(found)}")

if "site-packages" not in emfuse.__file__:
    sys.exit("that is not an installed emfuse")
if found != expected:
    sys.exit(f"this CPU can run {expected}; of the others: {kernels.not_runnable()}")
if kernels.active() != wanted or sys.argv[1:] not in ([], [wanted]):
    sys.exit(f"the build in use should be {' '.join(sys.argv[1:]) or wanted}")

X = np.concatenate([np.random.default_rng(0).normal(size=(500, 3)), np.random.default_rng(1).normal(4.0, 2.0, size=(500, 3))])
start = emfuse.from_labels(X, np.repeat([0, 1], 500))
ends = {}
for name in kernels.runnable():
    with kernels.use(name):
        ends[name] = emfuse.em(X, start, stop=10).log_likelihood
        print(f"{name:10} {ends[name]:.9f} nats after 10 steps")
if not np.ptp(list(ends.values())) < 1e-13 * len(X) * abs(ends[kernels.REFERENCE]):  # rounding of each of N terms
    sys.exit("the builds do not agree")
