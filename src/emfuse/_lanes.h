/* Lanes: the only place that knows what a vector register is.

   A `vec<T>` is one register of T, float or double. With GCC and Clang it is a GNU vector, so that the same text becomes
   SSE, AVX2, AVX-512 or NEON by the compiler's flags alone; elsewhere (MSVC) it is a struct of plain loops with the same
   operators. Flags that matter: -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math. Never -ffast-math.

   Everything has internal linkage: each instruction set's extension must keep its own copy. */
#ifndef EMFUSE_LANES_H
#define EMFUSE_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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

template <class T> static constexpr int W = EMFUSE_BYTES / sizeof(T);   /* lanes: numbers in one register */

#ifndef EMFUSE_PLAIN

template <class T> struct Lanes;
template <> struct Lanes<double> {
    typedef double vec __attribute__((vector_size(EMFUSE_BYTES)));
    typedef double unaligned __attribute__((vector_size(EMFUSE_BYTES), aligned(8), may_alias));
    typedef uint64_t bits __attribute__((vector_size(EMFUSE_BYTES)));
};
template <> struct Lanes<float> {
    typedef float vec __attribute__((vector_size(EMFUSE_BYTES)));
    typedef float unaligned __attribute__((vector_size(EMFUSE_BYTES), aligned(4), may_alias));
    typedef uint32_t bits __attribute__((vector_size(EMFUSE_BYTES)));
};
template <class T> using vec = typename Lanes<T>::vec;
template <class T> using bits = typename Lanes<T>::bits;

template <class T> INLINE vec<T> load(const T* p) { return *(const typename Lanes<T>::unaligned*)p; }
INLINE void store(double* p, vec<double> a) { *(Lanes<double>::unaligned*)p = a; }
INLINE void store(float* p, vec<float> a) { *(Lanes<float>::unaligned*)p = a; }
template <class T> INLINE vec<T> all(T s) { return s - vec<T>{}; }               /* s - 0 is s for every s: one broadcast */
INLINE bits<double> to_bits(vec<double> a) { return (bits<double>)a; }
INLINE bits<float> to_bits(vec<float> a) { return (bits<float>)a; }
INLINE vec<double> from_bits(bits<double> a) { return (vec<double>)a; }
INLINE vec<float> from_bits(bits<float> a) { return (vec<float>)a; }
INLINE bits<double> all_bits(uint64_t s) { return s - bits<double>{}; }
template <class V> INLINE V where_greater(V a, V b, V yes, V no) { return a > b ? yes : no; }   /* NaN compares as "no" */

/* The numbers at p as doubles, one register of them. */
INLINE vec<double> load_wide(const double* p) { return load(p); }
INLINE vec<double> load_wide(const float* p) {
    typedef float half __attribute__((vector_size(EMFUSE_BYTES / 2), aligned(4), may_alias));
    return __builtin_convertvector(*(const half*)p, vec<double>);
}

/* Doubles, rounded to the numbers at p. */
INLINE void store_narrow(double* p, vec<double> a) { store(p, a); }
INLINE void store_narrow(float* p, vec<double> a) {
    typedef float half __attribute__((vector_size(EMFUSE_BYTES / 2), aligned(4), may_alias));
    typedef float aligned_half __attribute__((vector_size(EMFUSE_BYTES / 2)));
    *(half*)p = __builtin_convertvector(a, aligned_half);
}

#else

template <class T, class N> struct alignas(EMFUSE_BYTES) lanes_of {
    N v[W<T>];
    N operator[](int i) const { return v[i]; }
};
template <class T> struct Bits;
template <> struct Bits<double> { typedef uint64_t type; };
template <> struct Bits<float> { typedef uint32_t type; };
template <class T> using vec = lanes_of<T, T>;
template <class T> using bits = lanes_of<T, typename Bits<T>::type>;

#define EMFUSE_OPERATOR(op)                                                                                        \
    template <class T, class N> INLINE lanes_of<T, N> operator op(lanes_of<T, N> a, lanes_of<T, N> b) {            \
        for (int i = 0; i < W<T>; i++) a.v[i] = a.v[i] op b.v[i];                                                  \
        return a;                                                                                                  \
    }                                                                                                              \
    template <class T, class N> INLINE lanes_of<T, N>& operator op##=(lanes_of<T, N>& a, lanes_of<T, N> b) { return a = a op b; }
EMFUSE_OPERATOR(+)
EMFUSE_OPERATOR(-)
EMFUSE_OPERATOR(*)
EMFUSE_OPERATOR(/)
#undef EMFUSE_OPERATOR
template <class T, class N> INLINE lanes_of<T, N> operator<<(lanes_of<T, N> a, int s) { for (int i = 0; i < W<T>; i++) a.v[i] <<= s; return a; }
template <class T, class N> INLINE lanes_of<T, N> operator>>(lanes_of<T, N> a, int s) { for (int i = 0; i < W<T>; i++) a.v[i] >>= s; return a; }

template <class T> INLINE vec<T> load(const T* p) { vec<T> a; memcpy(&a, p, sizeof a); return a; }
template <class T> INLINE void store(T* p, vec<T> a) { memcpy(p, &a, sizeof a); }
template <class T> INLINE vec<T> all(T s) { vec<T> a; for (int i = 0; i < W<T>; i++) a.v[i] = s; return a; }
template <class T> INLINE bits<T> to_bits(vec<T> a) { bits<T> b; memcpy(&b, &a, sizeof b); return b; }
template <class T, class N> INLINE vec<T> from_bits(lanes_of<T, N> b) { vec<T> a; memcpy(&a, &b, sizeof a); return a; }
INLINE bits<double> all_bits(uint64_t s) { bits<double> a; for (int i = 0; i < W<double>; i++) a.v[i] = s; return a; }
template <class T> INLINE vec<T> where_greater(vec<T> a, vec<T> b, vec<T> yes, vec<T> no) { for (int i = 0; i < W<T>; i++) no.v[i] = a.v[i] > b.v[i] ? yes.v[i] : no.v[i]; return no; }
template <class T> INLINE vec<double> load_wide(const T* p) { vec<double> a; for (int i = 0; i < W<double>; i++) a.v[i] = (double)p[i]; return a; }
template <class T> INLINE void store_narrow(T* p, vec<double> a) { for (int i = 0; i < W<double>; i++) p[i] = (T)a.v[i]; }

#endif

template <class V> INLINE V larger(V a, V b) { return where_greater(a, b, a, b); }    /* of NaN and b: b */

template <class T> INLINE double sum_of(vec<T> a) {
    T lanes[W<T>];
    store(lanes, a);
    UNROLL for (int half = W<T> / 2; half > 0; half /= 2)
        UNROLL for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return (double)lanes[0];
}

/* p[i] += a[i], in double. */
INLINE void add_to(double* p, vec<double> a) { store(p, load(p) + a); }
INLINE void add_to(double* p, vec<float> a) {
    float lanes[W<float>];
    store(lanes, a);
    UNROLL for (int h = 0; h < 2; h++) add_to(p + h * W<double>, load_wide(lanes + h * W<double>));
}

/* W rows by W features -> W features by W rows. With shuffles of two registers: log2(W) rounds, each exchanging halves of a
   size twice that of the round before. */
#if !defined(EMFUSE_PLAIN) && (defined(__clang__) || __GNUC__ >= 12)
template <class T, int STEP, int FROM, int... J> INLINE vec<T> exchange(vec<T> a, vec<T> b, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, b, ((J & STEP) ? W<T> + J - (FROM ? 0 : STEP) : J + (FROM ? STEP : 0))...);
}
template <class T, int STEP> INLINE void exchange_round(vec<T> (&r)[W<T>]) {
    if constexpr (STEP < W<T>) {
        typedef std::make_integer_sequence<int, W<T>> Lane;
        UNROLL for (int i = 0; i < W<T>; i++) if (!(i & STEP)) {
            const vec<T> a = r[i], b = r[i + STEP];
            r[i] = exchange<T, STEP, 0>(a, b, Lane());
            r[i + STEP] = exchange<T, STEP, 1>(a, b, Lane());
        }
        exchange_round<T, STEP * 2>(r);
    }
}
template <class T> INLINE void transpose_tile(const T* in, ptrdiff_t in_step, T* out, ptrdiff_t out_step) {
    vec<T> r[W<T>];
    UNROLL for (int i = 0; i < W<T>; i++) r[i] = load(in + i * in_step);
    exchange_round<T, 1>(r);
    UNROLL for (int i = 0; i < W<T>; i++) store(out + i * out_step, r[i]);
}
#else
template <class T> INLINE void transpose_tile(const T* in, ptrdiff_t in_step, T* out, ptrdiff_t out_step) {
    for (int i = 0; i < W<T>; i++) for (int j = 0; j < W<T>; j++) out[j * out_step + i] = in[i * in_step + j];
}
#endif

/* 2^x for x <= 0; x = n + f, exactly, with n a whole number and f in [-1/2, 1/2]; then a polynomial in f, minimax in relative
   error, of constant term 1. Below the cut the answer is 0: what is left there is a denormal, which no sum can see.

   In double it is right to 1.1 eps, where AVX-512 has a look-up of 16 doubles in two registers: then n is a multiple of 1/16, f in
   [-1/32, 1/32], and half the terms do (7.0e-18; it buys 12% of a sweep in one dimension). Elsewhere degree 11 (3.2e-18). */
#if EMFUSE_BYTES == 64 && !defined(EMFUSE_PLAIN)
alignas(64) static const double SIXTEENTH_ROOTS[16] = {   /* 2^(i/16), rounded */
    0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
    0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
    0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
    0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};
INLINE vec<double> exp2_of(vec<double> x) {
    const vec<double> to_sixteenth = all(422212465065984.0);   /* 1.5 2^48: adding it leaves the nearest 16th in the low bits */
    const vec<double> cut = all(-1022.0);
    const vec<double> inside = larger(x, cut);
    const vec<double> shifted = inside + to_sixteenth;
    const vec<double> f = inside - (shifted - to_sixteenth);
    const vec<double> root = (vec<double>)_mm512_permutex2var_pd(_mm512_load_pd(SIXTEENTH_ROOTS), (__m512i)to_bits(shifted), _mm512_load_pd(SIXTEENTH_ROOTS + 8));
    vec<double> p = all(1.5403404133404898982e-4);
    p = p * f + all(1.3333818654778479527e-3);
    p = p * f + all(9.6181291113676960438e-3);
    p = p * f + all(5.5504108652115540249e-2);
    p = p * f + all(2.4022650695909935389e-1);
    p = p * f + all(6.9314718055994685642e-1);
    p = (p * f) * root + root;
    const vec<double> power = from_bits(to_bits(p) + (to_bits(shifted) >> 4 << 52));
    return where_greater(cut, x, all(0.0), power);
}
#else
INLINE vec<double> exp2_of(vec<double> x) {
    const vec<double> to_integer = all(6755399441055744.0);   /* 1.5 2^52: adding it leaves the nearest integer in the low bits */
    const vec<double> cut = all(-1022.0);
    const vec<double> inside = larger(x, cut);
    const vec<double> shifted = inside + to_integer;
    const vec<double> f = inside - (shifted - to_integer);
    vec<double> p = all(4.455817908336064493e-10);
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
    const vec<double> power = from_bits(to_bits(p) + (to_bits(shifted) << 52));
    return where_greater(cut, x, all(0.0), power);
}
#endif
INLINE vec<float> exp2_of(vec<float> x) {        /* degree 7, 4.7e-11: right to 1.1 float eps */
    const vec<float> to_integer = all(12582912.0f);           /* 1.5 2^23 */
    const vec<float> cut = all(-126.0f);
    const vec<float> inside = larger(x, cut);
    const vec<float> shifted = inside + to_integer;
    const vec<float> f = inside - (shifted - to_integer);
    vec<float> p = all(1.5196154287e-5f);
    p = p * f + all(1.5466756507e-4f);
    p = p * f + all(1.3333935065e-3f);
    p = p * f + all(9.6180381313e-3f);
    p = p * f + all(5.5504103660e-2f);
    p = p * f + all(2.4022651067e-1f);
    p = p * f + all(6.9314718070e-1f);
    p = p * f + all(1.0f);
    const vec<float> power = from_bits(to_bits(p) + (to_bits(shifted) << 23));
    return where_greater(cut, x, all(0.0f), power);
}

/* Natural logarithm for x >= 1, finite: x = 2^e m with m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1),
   log m = 2 s + s z G(z), z = s^2 (minimax, 9.1e-18 relative to s). */
INLINE vec<double> log_of(vec<double> x) {
    const bits<double> root_half = all_bits(0x3fe6a09e667f3bcdULL);
    const bits<double> e = (to_bits(x) - root_half) >> 52;
    const vec<double> exponent = from_bits(e + all_bits(0x4330000000000000ULL)) - all(4503599627370496.0);   /* e as a double */
    const vec<double> m = from_bits(to_bits(x) - (e << 52));
    const vec<double> f = m - all(1.0);
    const vec<double> s = f / (m + all(1.0));
    const vec<double> z = s * s;
    vec<double> g = all(0.1461644968504340586);
    g = g * z + all(0.15331721600556041269);
    g = g * z + all(0.1818288912526172208);
    g = g * z + all(0.22222211134795079855);
    g = g * z + all(0.28571428625975484921);
    g = g * z + all(0.3999999999989950449);
    g = g * z + all(0.66666666666666696862);
    /* 2 s = f - s f, so that the leading term is exact: log m = f - s (f - z g). ln 2 in two parts, the first with 32 bits. */
    const vec<double> tail = s * (f - z * g);
    return exponent * all(6.93147180369123816490e-01) + (f - (tail - exponent * all(1.90821492927058770002e-10)));
}

#endif
