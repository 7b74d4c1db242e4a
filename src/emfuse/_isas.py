"""One table of instruction sets: what setup.py builds, and what kernels.py may import.

A row is a build of `_sweep.pxi`, fastest first. `level` is what `cpu()` of the baseline build (`_cpu.h`) must answer, at
least, before this build may be imported. setup.py reads this file by its path, so it imports nothing but the standard library.

Layer 0.
"""

import platform
from typing import NamedTuple


class Isa(NamedTuple):
    """An instruction set that the pass is built for."""

    name: str
    machines: tuple[str, ...]  # platform.machine(), lower case; empty: any machine
    level: int  # what cpu() answers at least
    gnu_flags: tuple[str, ...]  # GCC and Clang
    msvc_flags: tuple[str, ...]
    needs: str  # in words

    @property
    def module(self) -> str:
        """Full name of the extension module."""
        return f"emfuse._sweep_{self.name}"


X86_64 = ("x86_64", "amd64")
ISAS = (
    Isa("avx512", X86_64, 2, ("-march=x86-64-v4", "-mprefer-vector-width=512"), ("/arch:AVX512",), "AVX-512 F, BW, CD, DQ, VL"),
    Isa("avx2", X86_64, 1, ("-march=x86-64-v3",), ("/arch:AVX2",), "AVX2, FMA and BMI2"),
    Isa("baseline", (), 0, (), (), "any CPU of this architecture"),
)
BASELINE = ISAS[-1]
BASELINE_GNU_FLAGS = dict.fromkeys(X86_64, ("-march=x86-64-v2",))
GNU_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden")
MSVC_FLAGS = ("/std:c++17", "/O2", "/fp:contract")


def isas_of(machine: str | None = None) -> list[Isa]:
    """The rows that can be built for a machine (default: this one), fastest first."""
    machine = (machine or platform.machine()).lower()
    return [isa for isa in ISAS if not isa.machines or machine in isa.machines]


def compiler_flags(isa: Isa, *, msvc: bool, machine: str | None = None) -> list[str]:
    """What the compiler is told for this row."""
    if msvc:
        return [*MSVC_FLAGS, *isa.msvc_flags]
    machine = (machine or platform.machine()).lower()
    own = BASELINE_GNU_FLAGS.get(machine, ()) if isa is BASELINE else isa.gnu_flags
    return [*GNU_FLAGS, *own]
