/* What this CPU, and the system that runs on it, can execute: asked before a build for it is imported. */
#ifndef EMFUSE_CPU_H
#define EMFUSE_CPU_H

enum { CPU_BASELINE = 0, CPU_AVX2 = 1, CPU_AVX512 = 2 };

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

static int cpu_level(void) {
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))) return CPU_BASELINE;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))) return CPU_AVX2;
    return CPU_AVX512;
}

#elif defined(_M_X64) && defined(_MSC_VER)

#include <intrin.h>
static int cpu_level(void) {
    int one[4], seven[4];
    __cpuid(one, 0);
    if (one[0] < 7) return CPU_BASELINE;
    __cpuid(one, 1);
    __cpuidex(seven, 7, 0);
    if (!(one[2] >> 27 & 1)) return CPU_BASELINE;                                            /* the system saves wide registers */
    const unsigned long long saved = _xgetbv(0);
    if ((saved & 0x6) != 0x6 || !(one[2] >> 12 & 1) || !(seven[1] >> 5 & 1) || !(seven[1] >> 8 & 1)) return CPU_BASELINE;   /* FMA, AVX2, BMI2 */
    const int wanted = 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31;                      /* F, DQ, CD, BW, VL */
    if ((saved & 0xe6) != 0xe6 || (seven[1] & wanted) != wanted) return CPU_AVX2;
    return CPU_AVX512;
}

#else

static int cpu_level(void) { return CPU_BASELINE; }

#endif
#endif
