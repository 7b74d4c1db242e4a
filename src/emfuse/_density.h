/* The E step for one panel of rows: log densities (1-3), their normalisation (4), responsibilities (5).

   A panel is TILE_VECTORS registers of rows, laid on its side: x[d * PANEL + i], so that lane i of a register is data row i and
   registers are full at any D, even 1. The letters are those of the equations in reference.py, whose numbers stand beside the
   steps: rows i < PANEL, features d < D, components k < K. Each `density_...` fills l[k * PANEL + i] and top[i], the largest
   of a row's l.

   Log densities are kept in units of log2 (P and c are scaled once, when a sweep begins), because 2^x is cheaper than e^x
   and its argument splits exactly. */
#ifndef EMFUSE_DENSITY_H
#define EMFUSE_DENSITY_H

#include "_lanes.h"

static const double LOG2_E = 1.4426950408889634074;
static const double LN_2 = 0.69314718055994530942;
static const double ROOT_HALF_LOG2_E = 0.84932180028801904272;   /* P times this: then l_nk in log2 is c_k - |y|^2 */

/* The least log2 density there is. An overflowing distance, or the NaN of two of them subtracted, ends here, so that
   differences of log densities stay finite; the caller tells by the sum that a row lay too far away. */
template <class T> static constexpr T LEAST = sizeof(T) == 8 ? (T)-1e300 : (T)-1e37;

static constexpr int TILE_VECTORS = EMFUSE_REGISTERS == 32 ? 4 : 2;   /* registers of rows side by side */
static constexpr int TILE_FEATURES = 4;                               /* features of y together */
static constexpr int TILE_COMPONENTS = EMFUSE_REGISTERS == 32 ? 4 : 2;
template <class T> static constexpr int PANEL = TILE_VECTORS * W<T>;
static constexpr int LOG_GROUP = 16;                                  /* row sums multiplied before one log: K^16 < 1e300 */

/* K points in D dimensions (means, origins), each number as a T and, where T is float, what rounding left over: x minus the
   one, minus the other, is right to float's last bits even where points lie far from zero. */
template <class T> struct Points {
    T* near;
    T* rest;
    ptrdiff_t step;   /* from point to point */
};

template <class T> INLINE vec<T> less(vec<T> x, Points<T> p, ptrdiff_t at) {                   /* (1), one number of a point for all lanes */
    if constexpr (sizeof(T) == 8) return x - all(p.near[at]);
    else return (x - all(p.near[at])) - all(p.rest[at]);
}
template <class T> INLINE vec<T> less_features(vec<T> x, Points<T> p, ptrdiff_t at) {          /* (1), W features of a point in W lanes */
    if constexpr (sizeof(T) == 8) return x - load(p.near + at);
    else return (x - load(p.near + at)) - load(p.rest + at);
}

/* ------------------------------------------------------------------ P of one component, scaled, in the order that it is read */

template <class T> INLINE void pack_triangle(const double* P, ptrdiff_t D, T* packed) {
    for (ptrdiff_t s = 0; s < D; s++) for (ptrdiff_t t = 0; t <= s; t++) *packed++ = (T)(ROOT_HALF_LOG2_E * P[s * D + t]);
}

/* Rows in groups of TILE_FEATURES, each group stored feature by feature; above the diagonal of a group stands 0. */
template <class T> INLINE void pack_tiles(const double* P, ptrdiff_t D, T* packed) {
    for (ptrdiff_t d0 = 0; d0 < D; d0 += TILE_FEATURES) {
        const ptrdiff_t R = D - d0 < TILE_FEATURES ? D - d0 : TILE_FEATURES;
        for (ptrdiff_t t = 0; t < d0 + R; t++)
            for (ptrdiff_t s = 0; s < R; s++) *packed++ = t <= d0 + s ? (T)(ROOT_HALF_LOG2_E * P[(d0 + s) * D + t]) : (T)0;
    }
}

INLINE ptrdiff_t tiles_size(ptrdiff_t D) {
    ptrdiff_t size = 0;
    for (ptrdiff_t d = 0; d < D; d += TILE_FEATURES) {
        const ptrdiff_t R = D - d < TILE_FEATURES ? D - d : TILE_FEATURES;
        size += R * (d + R);
    }
    return size;
}

/* ------------------------------------------------------------------ few features, D known when compiled: residuals stay in registers */

/* P is a triangle of D (D + 1) / 2 numbers for each component, or D of them where it is diagonal. */
template <class T, int D, bool TRIANGLE>
INLINE void density_few(const T* x, ptrdiff_t K, Points<T> mu, const T* P, const T* c, T* l, T* top) {
    constexpr int V = D <= 2 ? TILE_VECTORS : TILE_VECTORS / 2;
    for (ptrdiff_t i = 0; i < PANEL<T>; i += V * W<T>) {
        vec<T> row[D][V], largest[V];
        UNROLL for (int t = 0; t < D; t++) UNROLL for (int u = 0; u < V; u++) row[t][u] = load(x + t * PANEL<T> + i + u * W<T>);
        UNROLL for (int u = 0; u < V; u++) largest[u] = all(LEAST<T>);
        const T* p = P;
        for (ptrdiff_t k = 0; k < K; k++, p += TRIANGLE ? D * (D + 1) / 2 : D) {
            vec<T> d[D][V], log_density[V];
            UNROLL for (int u = 0; u < V; u++) log_density[u] = all(c[k]);
            UNROLL for (int t = 0; t < D; t++) UNROLL for (int u = 0; u < V; u++) d[t][u] = less(row[t][u], mu, k * mu.step + t);   /* (1) */
            UNROLL for (int s = 0; s < D; s++) {
                vec<T> y[V];
                if constexpr (TRIANGLE) {
                    UNROLL for (int u = 0; u < V; u++) y[u] = all(p[s * (s + 1) / 2]) * d[0][u];
                    UNROLL for (int t = 1; t <= s; t++) UNROLL for (int u = 0; u < V; u++) y[u] += all(p[s * (s + 1) / 2 + t]) * d[t][u];
                } else {
                    UNROLL for (int u = 0; u < V; u++) y[u] = all(p[s]) * d[s][u];                               /* (2) */
                }
                UNROLL for (int u = 0; u < V; u++) log_density[u] -= y[u] * y[u];                                 /* (3) */
            }
            UNROLL for (int u = 0; u < V; u++) {
                store(l + k * PANEL<T> + i + u * W<T>, larger(log_density[u], all(LEAST<T>)));
                largest[u] = larger(log_density[u], largest[u]);
            }
        }
        UNROLL for (int u = 0; u < V; u++) store(top + i + u * W<T>, largest[u]);
    }
}

/* ------------------------------------------------------------------ any D */

template <class T> INLINE void keep(const vec<T> (&log_density)[TILE_VECTORS], T* l, T* top) {
    UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
        const vec<T> value = larger(log_density[u], all(LEAST<T>));
        store(l + u * W<T>, value);
        store(top + u * W<T>, larger(value, load(top + u * W<T>)));
    }
}

template <class T> INLINE void begin(T* top) {
    UNROLL for (int u = 0; u < TILE_VECTORS; u++) store(top + u * W<T>, all(LEAST<T>));
}

/* R features of y, from d0 on. Residuals are formed again for each tile: a subtraction costs less than a store. */
template <class T, int R>
INLINE const T* whiten(const T* P, ptrdiff_t d0, const T* x, Points<T> mu, vec<T> (&y)[R][TILE_VECTORS]) {
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] = all((T)0);
    for (ptrdiff_t t = 0; t < d0; t++, P += R) {
        vec<T> d[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) d[u] = less(load(x + t * PANEL<T> + u * W<T>), mu, t);            /* (1) */
        UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] += all(P[s]) * d[u];   /* (2) */
    }
    UNROLL for (int t = 0; t < R; t++, P += R) {
        vec<T> d[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) d[u] = less(load(x + (d0 + t) * PANEL<T> + u * W<T>), mu, d0 + t);
        UNROLL for (int s = 0; s < R; s++) if (s >= t) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] += all(P[s]) * d[u];
    }
    return P;
}

template <class T, int R>
INLINE const T* whiten_squares(const T* P, ptrdiff_t d0, const T* x, Points<T> mu, vec<T> (&l)[TILE_VECTORS]) {
    vec<T> y[R][TILE_VECTORS];
    P = whiten<T, R>(P, d0, x, mu, y);
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) l[u] -= y[s][u] * y[s][u];         /* (3) */
    return P;
}

/* A triangle for each component, `P_step` apart (0: one for all). */
template <class T>
INLINE void density_full(const T* x, ptrdiff_t D, ptrdiff_t K, Points<T> mu, const T* P, ptrdiff_t P_step, const T* c, T* l, T* top) {
    begin(top);
    for (ptrdiff_t k = 0; k < K; k++) {
        vec<T> log_density[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) log_density[u] = all(c[k]);
        const Points<T> mean = {mu.near + k * mu.step, mu.rest + k * mu.step, 0};
        const T* p = P + k * P_step;
        ptrdiff_t d = 0;
        for (; d + TILE_FEATURES <= D; d += TILE_FEATURES) p = whiten_squares<T, TILE_FEATURES>(p, d, x, mean, log_density);
        switch (D - d) {
            case 3: whiten_squares<T, 3>(p, d, x, mean, log_density); break;
            case 2: whiten_squares<T, 2>(p, d, x, mean, log_density); break;
            case 1: whiten_squares<T, 1>(p, d, x, mean, log_density); break;
        }
        keep(log_density, l + k * PANEL<T>, top);
    }
}

template <class T, int R> INLINE const T* whiten_store(const T* P, ptrdiff_t d0, const T* x, Points<T> centre, T* out) {
    vec<T> y[R][TILE_VECTORS];
    P = whiten<T, R>(P, d0, x, centre, y);
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) store(out + (d0 + s) * PANEL<T> + u * W<T>, y[s][u]);
    return P;
}

/* (2) once a row: P (x - centre), for components that share P. */
template <class T> INLINE void whiten_rows(const T* x, ptrdiff_t D, Points<T> centre, const T* P, T* out) {
    ptrdiff_t d = 0;
    for (; d + TILE_FEATURES <= D; d += TILE_FEATURES) P = whiten_store<T, TILE_FEATURES>(P, d, x, centre, out);
    switch (D - d) {
        case 3: whiten_store<T, 3>(P, d, x, centre, out); break;
        case 2: whiten_store<T, 2>(P, d, x, centre, out); break;
        case 1: whiten_store<T, 1>(P, d, x, centre, out); break;
    }
}

/* TILE_COMPONENTS components side by side, so that one load of x serves all of them. `packed` holds, group by group and feature by
   feature, TILE_COMPONENTS means (near, and rest where T is float), and as many P where SCALED. Unscaled, the squared
   distance is also kept, in `squares`, if there is such a place, and multiplied by scale[k] to be (3). */
template <class T, bool SCALED> static constexpr int PACKED = (SCALED ? 2 : 1) + (sizeof(T) == 8 ? 0 : 1);

template <class T, bool SCALED>
INLINE void density_diag(const T* x, ptrdiff_t D, ptrdiff_t K, const T* packed, const T* scale, const T* c, T* squares, T* l, T* top) {
    constexpr int C = TILE_COMPONENTS;
    begin(top);
    for (ptrdiff_t k = 0; k < K; k += C) {
        vec<T> sum[C][TILE_VECTORS];
        UNROLL for (int j = 0; j < C; j++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) sum[j][u] = SCALED ? all(c[k + j]) : all((T)0);
        for (ptrdiff_t d = 0; d < D; d++, packed += PACKED<T, SCALED> * C) {
            vec<T> row[TILE_VECTORS];
            UNROLL for (int u = 0; u < TILE_VECTORS; u++) row[u] = load(x + d * PANEL<T> + u * W<T>);
            UNROLL for (int j = 0; j < C; j++) {
                const vec<T> mean = all(packed[j]), p = SCALED ? all(packed[C + j]) : all((T)1);
                UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
                    vec<T> y = row[u] - mean;                                                /* (1) */
                    if constexpr (sizeof(T) != 8) y -= all(packed[(PACKED<T, SCALED> - 1) * C + j]);
                    if constexpr (SCALED) { y = y * p; sum[j][u] -= y * y; }                 /* (2) (3) */
                    else sum[j][u] += y * y;
                }
            }
        }
        UNROLL for (int j = 0; j < C; j++) {
            if constexpr (!SCALED) UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
                if (squares) store(squares + (k + j) * PANEL<T> + u * W<T>, sum[j][u]);
                sum[j][u] = all(c[k + j]) - all(scale[k + j]) * sum[j][u];                   /* (3) */
            }
            keep(sum[j], l + (k + j) * PANEL<T>, top);
        }
    }
}

/* ------------------------------------------------------------------ from log densities to responsibilities */

/* (4)  l_n = top_n + log sum_k 2^(l_nk - top_n): the largest term is 2^0, so the sum is in [1, K] and its log cannot fail.
   Leaves e_nk = 2^(l_nk - top_n) in l, and their sum in total. */
template <class T> INLINE void normalise(T* l, ptrdiff_t K, const T* top, T* total) {
    vec<T> largest[TILE_VECTORS], sum[TILE_VECTORS];
    UNROLL for (int u = 0; u < TILE_VECTORS; u++) { largest[u] = load(top + u * W<T>); sum[u] = all((T)0); }
    if (K == 2) {   /* one of the two is 2^0 */
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
            const vec<T> a = load(l + u * W<T>), b = load(l + PANEL<T> + u * W<T>), one = all((T)1);
            const vec<T> e = exp2_of(where_greater(a, b, b, a) - largest[u]);
            store(l + u * W<T>, where_greater(b, a, e, one));
            store(l + PANEL<T> + u * W<T>, where_greater(b, a, one, e));
            sum[u] = one + e;
        }
    } else {
        for (ptrdiff_t k = 0; k < K; k++, l += PANEL<T>)
            UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
                const vec<T> e = exp2_of(load(l + u * W<T>) - largest[u]);
                store(l + u * W<T>, e);
                sum[u] += e;
            }
    }
    UNROLL for (int u = 0; u < TILE_VECTORS; u++) store(total + u * W<T>, sum[u]);
}

/* As `normalise`, with all of a row's weight on its most likely component (the first of equals): the sweep of k-means. */
template <class T> INLINE void harden(T* l, ptrdiff_t K, const T* top, T* total) {
    const vec<T> one = all((T)1), none = all((T)0);
    for (int i = 0; i < PANEL<T>; i += W<T>) {
        const vec<T> largest = load(top + i);
        vec<T> left = one;
        for (ptrdiff_t k = 0; k < K; k++) {
            const vec<T> e = where_greater(largest, load(l + k * PANEL<T> + i), none, left);
            store(l + k * PANEL<T> + i, e);
            left -= e;
        }
        store(total + i, one);
    }
}

/* sum_n v_n l_n on its way: log2 of tops, and the logs of totals, of which LOG_GROUP are multiplied before one log is taken. */
struct LogLikelihood {
    vec<double> tops, logs, product;
    int factors;
};

INLINE void begin(LogLikelihood* sum) { sum->tops = sum->logs = all(0.0); sum->product = all(1.0); sum->factors = 0; }
INLINE double nats(const LogLikelihood* sum) { return LN_2 * sum_of<double>(sum->tops) + sum_of<double>(sum->logs + log_of(sum->product)); }

/* (5)  share_n = v_n / total_n, so that r_nk = share_n e_nk. Without weights every row weighs 1. */
template <class T> INLINE void share_rows(const T* top, const T* total, const double* weight, T* share, LogLikelihood* sum) {
    UNROLL for (int i = 0; i < PANEL<T>; i += W<double>) {
        const vec<double> largest = load_wide(top + i), t = load_wide(total + i);
        if (weight) {
            const vec<double> v = load(weight + i);
            store_narrow(share + i, v / t);
            sum->tops += v * largest;
            sum->logs += v * log_of(t);
        } else {
            store_narrow(share + i, all(1.0) / t);
            sum->tops += largest;
            sum->product = sum->product * t;
            if (++sum->factors == LOG_GROUP) { sum->logs += log_of(sum->product); sum->product = all(1.0); sum->factors = 0; }
        }
    }
}

/* ------------------------------------------------------------------ what `evaluate` hands out, row by row */

INLINE void log_densities(const double* top, const double* total, ptrdiff_t rows, double* out) {
    double last[W<double>];
    for (ptrdiff_t i = 0; i < rows; i += W<double>) {
        const vec<double> value = all(LN_2) * load(top + i) + log_of(load(total + i));
        if (i + W<double> <= rows) { store(out + i, value); continue; }
        store(last, value);
        for (int j = 0; i + j < rows; j++) out[i + j] = last[j];
    }
}

INLINE void most_likely(const double* l, ptrdiff_t K, ptrdiff_t rows, int64_t* out) {
    double winner[PANEL<double>];
    for (int i = 0; i < PANEL<double>; i += W<double>) {
        vec<double> best = load(l + i), which = all(0.0);
        for (ptrdiff_t k = 1; k < K; k++) {
            const vec<double> other = load(l + k * PANEL<double> + i);
            which = where_greater(other, best, all((double)k), which);
            best = larger(other, best);
        }
        store(winner + i, which);
    }
    for (ptrdiff_t i = 0; i < rows; i++) out[i] = (int64_t)winner[i];
}

INLINE void posteriors(const double* e, const double* total, ptrdiff_t K, ptrdiff_t rows, double* out) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const double scale = 1.0 / total[i];
        for (ptrdiff_t k = 0; k < K; k++) out[i * K + k] = e[k * PANEL<double> + i] * scale;
    }
}

#endif
