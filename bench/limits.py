"""What the machine can do, and so the least time that an iteration can take.

    python -m bench.limits

A small C program, compiled here and now for this CPU, reads two numbers on one core: multiply-adds a second with every operand in
a register, and bytes a second summed from an array that no cache holds.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.cases import CASES

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__AVX512F__)
enum { BYTES = 64, SUMS = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, SUMS = 12 };
#elif defined(__aarch64__)
enum { BYTES = 16, SUMS = 24 };
#else
enum { BYTES = 16, SUMS = 12 };
#endif
typedef double vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / sizeof(double) };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double total(const vec* sums, int count) {
    double all = 0;
    for (int j = 0; j < count; j++) for (int i = 0; i < LANES; i++) all += sums[j][i];
    return all;
}

int main(int argc, char** argv) {
    const double near_one = 1 - 1e-9 * argc;
    const long rounds = 1000000, size = 256L << 20;
    double best = 1e9, seen = 0;
    vec factor, term;
    for (int i = 0; i < LANES; i++) { factor[i] = near_one; term[i] = 1e-9 * argc; }
    for (int repeat = 0; repeat < 30; repeat++) {
        vec sums[SUMS];
        for (int j = 0; j < SUMS; j++) sums[j] = term * (double)j;
        const double start = now();
        for (long r = 0; r < rounds; r++) {
            #pragma GCC unroll 24
            for (int j = 0; j < SUMS; j++) sums[j] = sums[j] * factor + term;
        }
        const double seconds = now() - start;
        if (seconds < best) best = seconds;
        seen += total(sums, SUMS);
    }
    printf("%.3f ", 2e-9 * rounds * SUMS * LANES / best);

    vec* data = aligned_alloc(64, size);
    if (!data) return 1;
    const long count = size / sizeof(vec);
    for (long i = 0; i < count; i++) data[i] = term;
    best = 1e9;
    for (int repeat = 0; repeat < 10; repeat++) {
        vec sums[8] = {0};
        const double start = now();
        for (long i = 0; i < count; i += 8) {
            #pragma GCC unroll 8
            for (int j = 0; j < 8; j++) sums[j] += data[i + j];
        }
        const double seconds = now() - start;
        if (seconds < best) best = seconds;
        seen += total(sums, 8);
    }
    printf("%.3f\n", 1e-9 * size / best);
    fprintf(stderr, "%g\n", seen);
    return 0;
}
"""


def measure():
    """Return {"gflops", "read_gb_per_s"} of one core, or {"why_not": a sentence}."""
    compiler = next(
        (path for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
    )
    if compiler is None:
        return {"why_not": "no C compiler (cc, gcc or clang) was found"}
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "limits.c"), Path(folder, "limits")
        source.write_text(SOURCE)
        try:
            for target in (["-march=native"], ["-mcpu=native"], []):
                command = [compiler, "-O3", "-ffp-contract=fast", *target, str(source), "-o", str(program)]
                built = subprocess.run(command, capture_output=True, text=True)
                if built.returncode == 0:
                    break
            else:
                return {"why_not": f"{compiler} could not compile the program: {built.stderr.strip()[:200]}"}
            gflops, read = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            return {"why_not": f"the program could not run: {error}"}
    return {"gflops": float(gflops), "read_gb_per_s": float(read)}


def operations(case):
    """Vector operations of one iteration, in lanes (a multiply-add is one), for each row and component.

    exp and its share of the log-sum-exp take 36. "full" whitens with D (D + 1) / 2 multiply-adds and adds up the scatter with as
    many. "diag" takes 6 a feature: subtract, scale, square and add; subtract, weigh, add twice. "spherical" scales no feature by
    itself and needs no second moment of each: 4. "tied" whitens a row once for all components and its scatter within them is that
    of all rows less that between means, so that a component costs 2 a feature: one for the distance, one for the first sums.
    """
    K, D = case.K, case.D
    if case.form == "1-D":
        return 36
    return 36 + {"full": D * (D + 1), "diag": 6 * D, "spherical": 4 * D, "tied": 2 * D + D * (D + 1) / 2 / K}[case.structure]


def floor(case, limits):
    """The least time of one iteration, ns for each row and component, float64; None where the limits are not known."""
    if "why_not" in limits:
        return None
    return max(operations(case) / (limits["gflops"] / 2), 8 * case.D / case.K / limits["read_gb_per_s"])


def sentence(limits):
    if "why_not" in limits:
        return f"limits not measured: {limits['why_not']}"
    return f"one core: {limits['gflops']:.0f} GFLOP/s of multiply-adds, {limits['read_gb_per_s']:.1f} GB/s read"


def main():
    limits = measure()
    print(sentence(limits))
    if "why_not" not in limits:
        print("least time of one iteration, ns for each row and component (an estimate from counted operations), float64:")
        for case in CASES:
            print(f"  {case.name:16} {floor(case, limits):8.2f}")


if __name__ == "__main__":
    main()
