/* Lanes: the only place that knows what a vector register is.

   A `vec` is one register of doubles. With GCC and Clang it is a GNU vector, so that the same text becomes
   SSE, AVX2, AVX-512 or NEON by the compiler's flags alone; elsewhere (MSVC) it is a struct of plain loops with the same
   operators. Flags that matter: -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math. Never -ffast-math.

   Everything has internal linkage: each instruction set's extension must keep its own copy. */
#ifndef EMFUSE_LANES_H
#define EMFUSE_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define EMFUSE_BYTES 64
#elif defined(__AVX__)
#define EMFUSE_BYTES 32
#else
#define EMFUSE_BYTES 16
#endif

#if EMFUSE_BYTES == 64 || defined(__aarch64__) || defined(_M_ARM64)
#define EMFUSE_REGISTERS 32
#else
#define EMFUSE_REGISTERS 16
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define EMFUSE_PLAIN 1
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

static constexpr int W = EMFUSE_BYTES / 8;   /* lanes: doubles in one register */

#ifndef EMFUSE_PLAIN

typedef double vec __attribute__((vector_size(EMFUSE_BYTES)));
typedef uint64_t bits __attribute__((vector_size(EMFUSE_BYTES)));
typedef double unaligned_vec __attribute__((vector_size(EMFUSE_BYTES), aligned(8), may_alias));

INLINE vec load(const double* p) { return *(const unaligned_vec*)p; }
INLINE void store(double* p, vec a) { *(unaligned_vec*)p = a; }
INLINE vec all(double s) { return s - vec{}; }               /* s - 0 is s for every s: one broadcast */
INLINE bits to_bits(vec a) { return (bits)a; }
INLINE vec from_bits(bits a) { return (vec)a; }
INLINE bits all_bits(uint64_t s) { return s - bits{}; }
INLINE vec where_greater(vec a, vec b, vec yes, vec no) { return a > b ? yes : no; }   /* NaN compares as "no" */

#else

template <class T> struct lanes_of {
    T v[W];
    T operator[](int i) const { return v[i]; }
};
typedef lanes_of<double> vec;
typedef lanes_of<uint64_t> bits;

#define EMFUSE_OPERATOR(T, op)                                                                                       \
    INLINE lanes_of<T> operator op(lanes_of<T> a, lanes_of<T> b) { for (int i = 0; i < W; i++) a.v[i] = a.v[i] op b.v[i]; return a; } \
    INLINE lanes_of<T>& operator op##=(lanes_of<T>& a, lanes_of<T> b) { a = a op b; return a; }
EMFUSE_OPERATOR(double, +)
EMFUSE_OPERATOR(double, -)
EMFUSE_OPERATOR(double, *)
EMFUSE_OPERATOR(double, /)
EMFUSE_OPERATOR(uint64_t, +)
EMFUSE_OPERATOR(uint64_t, -)
EMFUSE_OPERATOR(uint64_t, &)
EMFUSE_OPERATOR(uint64_t, |)
#undef EMFUSE_OPERATOR
INLINE bits operator<<(bits a, int s) { for (int i = 0; i < W; i++) a.v[i] <<= s; return a; }
INLINE bits operator>>(bits a, int s) { for (int i = 0; i < W; i++) a.v[i] >>= s; return a; }

INLINE vec load(const double* p) { vec a; memcpy(&a, p, sizeof a); return a; }
INLINE void store(double* p, vec a) { memcpy(p, &a, sizeof a); }
INLINE vec all(double s) { vec a; for (int i = 0; i < W; i++) a.v[i] = s; return a; }
INLINE bits to_bits(vec a) { bits b; memcpy(&b, &a, sizeof b); return b; }
INLINE vec from_bits(bits b) { vec a; memcpy(&a, &b, sizeof a); return a; }
INLINE bits all_bits(uint64_t s) { bits a; for (int i = 0; i < W; i++) a.v[i] = s; return a; }
INLINE vec where_greater(vec a, vec b, vec yes, vec no) { for (int i = 0; i < W; i++) no.v[i] = a.v[i] > b.v[i] ? yes.v[i] : no.v[i]; return no; }

#endif

INLINE vec zeros(void) { return all(0.0); }
INLINE vec larger(vec a, vec b) { return where_greater(a, b, a, b); }    /* of NaN and b: b */

INLINE double sum_of(vec a) {
    double lanes[W];
    store(lanes, a);
    UNROLL for (int half = W / 2; half > 0; half /= 2)
        UNROLL for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* 2^x for x <= 0; x = n + f with f in [-1/2, 1/2], exactly, then a polynomial of degree 11 (minimax, 3.2e-18 relative).
   Below -1022 the answer is 0: what is left there is a denormal, which no sum can see. */
INLINE vec exp2_of(vec x) {
    const vec to_integer = all(6755399441055744.0);   /* 1.5 2^52: adding it leaves the nearest integer in the low bits */
    const vec cut = all(-1022.0);
    const vec inside = larger(x, cut);
    const vec shifted = inside + to_integer;
    const vec f = inside - (shifted - to_integer);
    vec p = all(4.455817908336064493e-10);
    p = p * f + all(7.0741942972885210056e-9);
    p = p * f + all(1.0178057087733941105e-7);
    p = p * f + all(1.3215432535912376166e-6);
    p = p * f + all(1.5252733841556772589e-5);
    p = p * f + all(1.5403530463724354209e-4);
    p = p * f + all(1.3333558146406470697e-3);
    p = p * f + all(9.6181291075872566681e-3);
    p = p * f + all(5.5504108664821627039e-2);
    p = p * f + all(2.4022650695910159567e-1);
    p = p * f + all(6.9314718055994530925e-1);
    p = p * f + all(1.0);
    const vec power = from_bits(to_bits(p) + (to_bits(shifted) << 52));
    return where_greater(cut, x, zeros(), power);
}

/* Natural logarithm for x >= 1, finite: x = 2^e m with m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1),
   log m = 2 s + s z G(z), z = s^2 (minimax, 9.1e-18 relative to s). */
INLINE vec log_of(vec x) {
    const bits root_half = all_bits(0x3fe6a09e667f3bcdULL);
    const bits e = (to_bits(x) - root_half) >> 52;
    const vec exponent = from_bits(e + all_bits(0x4330000000000000ULL)) - all(4503599627370496.0);   /* e as a double */
    const vec m = from_bits(to_bits(x) - (e << 52));
    const vec f = m - all(1.0);
    const vec s = f / (m + all(1.0));
    const vec z = s * s;
    vec g = all(0.1461644968504340586);
    g = g * z + all(0.15331721600556041269);
    g = g * z + all(0.1818288912526172208);
    g = g * z + all(0.22222211134795079855);
    g = g * z + all(0.28571428625975484921);
    g = g * z + all(0.3999999999989950449);
    g = g * z + all(0.66666666666666696862);
    /* 2 s = f - s f, so that the leading term is exact: log m = f - s (f - z g). ln 2 in two parts, the first with 32 bits. */
    const vec tail = s * (f - z * g);
    return exponent * all(6.93147180369123816490e-01) + (f - (tail - exponent * all(1.90821492927058770002e-10)));
}

#endif
