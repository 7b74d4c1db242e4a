/* One block of rows, walked by vector registers: the steps of the fused pass.

   A block of B rows is laid on its side, x[d * B + i], so that lane i of a register is data row i: registers are
   full at any D, even 1. The letters are those of the equations in reference.py, whose numbers stand beside the steps:
   rows i < B, features d < D, components k < K. `_sweep.pxi` calls the steps in order.

   Log densities are kept in units of log2 (P and c are scaled once, when a sweep begins), because 2^x is cheaper than e^x
   and its argument splits exactly. */
#ifndef EMFUSE_BLOCK_H
#define EMFUSE_BLOCK_H

#include <math.h>
#include <stdlib.h>
#include "_lanes.h"

static const double LOG2_E = 1.4426950408889634074;
static const double LN_2 = 0.69314718055994530942;
static const double ROOT_HALF_LOG2_E = 0.84932180028801904272;   /* P times this: then l_nk in log2 is c_k - |y|^2 */

/* The least log2 density there is. An overflowing distance, or the NaN of two of them subtracted, ends here, so that
   differences of log densities stay finite; the caller tells by the sum that a row lay too far away. */
static const double LEAST = -1e300;

static constexpr int TILE_VECTORS = EMFUSE_REGISTERS == 32 ? 4 : 2;   /* registers of rows, or columns of a scatter tile, side by side */
static constexpr ptrdiff_t FEW = EMFUSE_REGISTERS == 32 ? 5 : 3;         /* features whose sums all fit the registers */
static constexpr int TILE_FEATURES = 4;                               /* features of y, or rows of a scatter tile */
static constexpr int PANEL = TILE_VECTORS * W;                        /* rows that the E step takes together */
static constexpr ptrdiff_t BLOCK_UNIT = 32;                           /* B is a multiple of this, and this of PANEL */
static constexpr int LOG_GROUP = 16;                                  /* row sums multiplied before one log: K^16 < 1e300 */

/* Rows per block: as many as keep the block's scratch in a part of the second-level cache (of the first, where rows are
   short), and the blocks of one call about equal. */
INLINE ptrdiff_t rows_per_block(ptrdiff_t N, ptrdiff_t D, ptrdiff_t K) {
    const ptrdiff_t cache = 192 * 1024 / sizeof(double), most = D <= FEW ? 256 : 1024;
    ptrdiff_t B = cache / (3 * D + K + 4) / BLOCK_UNIT * BLOCK_UNIT;
    if (B > most) B = most;
    if (B < BLOCK_UNIT) B = BLOCK_UNIT;
    const ptrdiff_t blocks = (N + B - 1) / B, even = blocks ? (N + blocks - 1) / blocks : 1;
    return (even + BLOCK_UNIT - 1) / BLOCK_UNIT * BLOCK_UNIT;
}

/* Scratch for one call, carved out of one piece of memory on a cache line. */
struct Scratch {
    double* x;           /* (D, B)  the block on its side */
    double* l;           /* (K, B)  log2 densities, then exp of them about the largest */
    double* top;         /* (B,)    the largest of l over k */
    double* total;       /* (B,)    sum over k of 2^(l - top), in [1, K] */
    double* weight;      /* (B,)    v_n; 0 for the rows that fill up the last block */
    double* share;       /* (B,)    v_n / total: times 2^(l - top) it is r_nk */
    double* residual;    /* (D, PANEL)  x - mu of one panel */
    double* moved;       /* (D, B)  x - origin of one component, only for the full form */
    double* weighted;    /* (D, B)  r times that */
    double* P;           /* packed, scaled by ROOT_HALF_LOG2_E */
    double* c;           /* (K,)    log2 units */
    double* partial;     /* (K, sums, W)  sums of few features */
    void* memory;
};

INLINE int few(ptrdiff_t D, int full) { return D == 1 || (full && D <= FEW); }
INLINE ptrdiff_t sums_of_few(ptrdiff_t D) { return 1 + D + D * (D + 1) / 2; }

INLINE ptrdiff_t packed_size(ptrdiff_t D, int full) {
    ptrdiff_t size = 0;
    if (!full) return D;
    if (D <= FEW) return D * (D + 1) / 2;
    for (ptrdiff_t d = 0; d < D; d += TILE_FEATURES) {
        const ptrdiff_t R = D - d < TILE_FEATURES ? D - d : TILE_FEATURES;
        size += R * (d + R);
    }
    return size;
}

INLINE int allocate(Scratch* s, ptrdiff_t B, ptrdiff_t D, ptrdiff_t K, int full) {
    const ptrdiff_t sizes[] = {D * B, K * B, B, B, B, B, D * PANEL, full ? D * B : 0, full ? D * B : 0, K * packed_size(D, full), K, few(D, full) ? K * sums_of_few(D) * W : 0};
    double** parts[] = {&s->x, &s->l, &s->top, &s->total, &s->weight, &s->share, &s->residual, &s->moved, &s->weighted, &s->P, &s->c, &s->partial};
    constexpr int PARTS = sizeof sizes / sizeof sizes[0], LINE = 8;
    ptrdiff_t need = LINE;
    for (int j = 0; j < PARTS; j++) need += (sizes[j] + LINE - 1) / LINE * LINE;
    s->memory = malloc(need * sizeof(double));
    if (!s->memory) return 0;
    double* at = (double*)(((uintptr_t)s->memory + 63) / 64 * 64);
    for (int j = 0; j < PARTS; j++) { *parts[j] = at; at += (sizes[j] + LINE - 1) / LINE * LINE; }
    return 1;
}

/* P of one component: rows in groups of TILE_FEATURES, each group stored feature by feature, so that `log_density_full`
   reads it from front to back. Above the diagonal of a group stands 0. */
INLINE void pack_full(const double* P, ptrdiff_t D, double* packed) {
    if (D <= FEW) {
        for (ptrdiff_t s = 0; s < D; s++) for (ptrdiff_t t = 0; t <= s; t++) *packed++ = ROOT_HALF_LOG2_E * P[s * D + t];
        return;
    }
    for (ptrdiff_t d0 = 0; d0 < D; d0 += TILE_FEATURES) {
        const ptrdiff_t R = D - d0 < TILE_FEATURES ? D - d0 : TILE_FEATURES;
        for (ptrdiff_t t = 0; t < d0 + R; t++)
            for (ptrdiff_t s = 0; s < R; s++) *packed++ = t <= d0 + s ? ROOT_HALF_LOG2_E * P[(d0 + s) * D + t] : 0.0;
    }
}

INLINE void pack_diag(const double* P, ptrdiff_t D, double* packed) {
    for (ptrdiff_t d = 0; d < D; d++) packed[d] = ROOT_HALF_LOG2_E * P[d];
}

/* Lay `rows` rows of X on their side. The last block is filled up with copies of its first row, which weigh nothing. */
template <class T>
INLINE void load_block(const T* X, ptrdiff_t row_step, ptrdiff_t column_step, ptrdiff_t rows, ptrdiff_t D, ptrdiff_t B, double* x) {
    for (ptrdiff_t d = 0; d < D; d++) {
        const T* column = X + d * column_step;
        double* out = x + d * B;
        if (row_step == 1) for (ptrdiff_t i = 0; i < rows; i++) out[i] = (double)column[i];
        else for (ptrdiff_t i = 0; i < rows; i++) out[i] = (double)column[i * row_step];
        for (ptrdiff_t i = rows; i < B; i++) out[i] = out[0];
    }
}

INLINE void load_weights(const double* v, ptrdiff_t rows, ptrdiff_t B, double* weight) {
    for (ptrdiff_t i = 0; i < rows; i++) weight[i] = v ? v[i] : 1.0;
    for (ptrdiff_t i = rows; i < B; i++) weight[i] = 0.0;
}

/* ------------------------------------------------------------------ E step: l = c - |P (x - mu)|^2, component by component */

INLINE void finish_panel(const vec (&l)[TILE_VECTORS], double* out) {
    UNROLL for (int u = 0; u < TILE_VECTORS; u++) store(out + u * W, larger(l[u], all(LEAST)));
}

/* Few features, D known when compiled: the residuals of a row stay in registers, and D = 1 is only the first of these loops. */
template <int D>
INLINE void log_density_of(const double* x, ptrdiff_t B, const double* mu, const double* P, double c, double* l) {
    constexpr int V = D <= 2 ? TILE_VECTORS : TILE_VECTORS / 2;
    for (ptrdiff_t i = 0; i < B; i += V * W) {
        vec d[D][V], log_density[V];
        UNROLL for (int u = 0; u < V; u++) log_density[u] = all(c);
        UNROLL for (int t = 0; t < D; t++) UNROLL for (int u = 0; u < V; u++) d[t][u] = load(x + t * B + i + u * W) - all(mu[t]);   /* (1) */
        UNROLL for (int s = 0; s < D; s++) {
            vec y[V];
            UNROLL for (int u = 0; u < V; u++) y[u] = all(P[s * (s + 1) / 2]) * d[0][u];
            UNROLL for (int t = 1; t <= s; t++) UNROLL for (int u = 0; u < V; u++) y[u] += all(P[s * (s + 1) / 2 + t]) * d[t][u];   /* (2) */
            UNROLL for (int u = 0; u < V; u++) log_density[u] -= y[u] * y[u];                /* (3) */
        }
        UNROLL for (int u = 0; u < V; u++) store(l + i + u * W, larger(log_density[u], all(LEAST)));
    }
}

INLINE void log_density_few(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* l) {
    switch (D) {
        case 1: log_density_of<1>(x, B, mu, P, c, l); break;
        case 2: log_density_of<2>(x, B, mu, P, c, l); break;
        case 3: log_density_of<3>(x, B, mu, P, c, l); break;
        case 4: log_density_of<4>(x, B, mu, P, c, l); break;
        case 5: log_density_of<5>(x, B, mu, P, c, l); break;
    }
}

INLINE void log_density_diag(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* l) {
    for (ptrdiff_t i = 0; i < B; i += PANEL) {
        vec log_density[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) log_density[u] = all(c);
        for (ptrdiff_t d = 0; d < D; d++) {
            const vec mean = all(mu[d]), scale = all(P[d]);
            UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
                const vec y = (load(x + d * B + i + u * W) - mean) * scale;                  /* (1) (2) */
                log_density[u] -= y * y;                                                     /* (3) */
            }
        }
        finish_panel(log_density, l + i);
    }
}

/* R features of y, from d0 on, for one panel. The residuals before d0 are in scratch; these R are added to it. */
template <int R>
INLINE const double* whiten(const double* P, ptrdiff_t d0, const double* x, ptrdiff_t B, const double* mu, double* residual, vec (&l)[TILE_VECTORS]) {
    vec y[R][TILE_VECTORS];
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] = zeros();
    for (ptrdiff_t t = 0; t < d0; t++, P += R) {
        vec d[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) d[u] = load(residual + t * PANEL + u * W);
        UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] += all(P[s]) * d[u];   /* (2) */
    }
    UNROLL for (int t = 0; t < R; t++, P += R) {
        vec d[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
            d[u] = load(x + (d0 + t) * B + u * W) - all(mu[d0 + t]);                         /* (1) */
            store(residual + (d0 + t) * PANEL + u * W, d[u]);
        }
        UNROLL for (int s = 0; s < R; s++) if (s >= t) UNROLL for (int u = 0; u < TILE_VECTORS; u++) y[s][u] += all(P[s]) * d[u];
    }
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < TILE_VECTORS; u++) l[u] -= y[s][u] * y[s][u];         /* (3) */
    return P;
}

INLINE void log_density_full(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* residual, double* l) {
    for (ptrdiff_t i = 0; i < B; i += PANEL) {
        vec log_density[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) log_density[u] = all(c);
        const double* packed = P;
        ptrdiff_t d = 0;
        for (; d + TILE_FEATURES <= D; d += TILE_FEATURES) packed = whiten<TILE_FEATURES>(packed, d, x + i, B, mu, residual, log_density);
        switch (D - d) {
            case 3: whiten<3>(packed, d, x + i, B, mu, residual, log_density); break;
            case 2: whiten<2>(packed, d, x + i, B, mu, residual, log_density); break;
            case 1: whiten<1>(packed, d, x + i, B, mu, residual, log_density); break;
        }
        finish_panel(log_density, l + i);
    }
}

/* ------------------------------------------------------------------ from log densities to responsibilities */

/* (4)  l_n = top_n + log sum_k 2^(l_nk - top_n): the largest term is 2^0, so the sum is in [1, K] and its log cannot fail.
   Leaves 2^(l_nk - top_n) in l, and top and total. */
INLINE void normalise(double* l, ptrdiff_t K, ptrdiff_t B, double* top, double* total) {
    for (ptrdiff_t i = 0; i < B; i += W) {
        vec largest = load(l + i);
        for (ptrdiff_t k = 1; k < K; k++) largest = larger(load(l + k * B + i), largest);
        store(top + i, largest);
    }
    for (ptrdiff_t i = 0; i < B; i += W) store(total + i, zeros());
    for (ptrdiff_t k = 0; k < K; k++)
        for (ptrdiff_t i = 0; i < B; i += W) {
            const vec e = exp2_of(load(l + k * B + i) - load(top + i));
            store(l + k * B + i, e);
            store(total + i, load(total + i) + e);
        }
}

/* What `evaluate` hands out, row by row. */
INLINE void log_densities(const double* top, const double* total, ptrdiff_t rows, double* out) {
    ptrdiff_t i = 0;
    for (; i + W <= rows; i += W) store(out + i, all(LN_2) * load(top + i) + log_of(load(total + i)));
    if (i < rows) {
        double last[W];
        store(last, all(LN_2) * load(top + i) + log_of(load(total + i)));
        for (int j = 0; i + j < rows; j++) out[i + j] = last[j];
    }
}

INLINE void most_likely(const double* l, ptrdiff_t K, ptrdiff_t B, ptrdiff_t rows, int64_t* out) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        ptrdiff_t winner = 0;
        for (ptrdiff_t k = 1; k < K; k++) if (l[k * B + i] > l[winner * B + i]) winner = k;
        out[i] = winner;
    }
}

INLINE void posteriors(const double* e, const double* total, ptrdiff_t K, ptrdiff_t B, ptrdiff_t rows, double* out) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const double scale = 1.0 / total[i];
        for (ptrdiff_t k = 0; k < K; k++) out[i * K + k] = e[k * B + i] * scale;
    }
}

/* As `normalise`, with all of a row's weight on its most likely component (the first of equals): the sweep of k-means. */
INLINE void harden(double* l, ptrdiff_t K, ptrdiff_t B, double* top, double* total) {
    for (ptrdiff_t i = 0; i < B; i++) {
        ptrdiff_t winner = 0;
        for (ptrdiff_t k = 1; k < K; k++) if (l[k * B + i] > l[winner * B + i]) winner = k;
        top[i] = l[winner * B + i];
        total[i] = 1.0;
        for (ptrdiff_t k = 0; k < K; k++) l[k * B + i] = k == winner ? 1.0 : 0.0;
    }
}

/* (5)  share_n = v_n / total_n, so that r_nk = share_n 2^(l_nk - top_n).   Returns sum_n v_n l_n, in nats.
   Where every row weighs 1, totals are multiplied LOG_GROUP at a time before one log. */
INLINE double share_rows(const double* weight, int all_one, ptrdiff_t B, const double* top, const double* total, double* share) {
    vec sum_of_tops = zeros(), sum_of_logs = zeros();
    for (ptrdiff_t i = 0; i < B; i += W) store(share + i, load(weight + i) / load(total + i));
    if (all_one) {
        for (ptrdiff_t i = 0; i < B; ) {
            vec product = all(1.0);
            for (int g = 0; g < LOG_GROUP && i < B; g++, i += W) {
                product = product * load(total + i);
                sum_of_tops += load(top + i);
            }
            sum_of_logs += log_of(product);
        }
    } else {
        for (ptrdiff_t i = 0; i < B; i += W) {
            const vec v = load(weight + i);
            sum_of_tops += v * load(top + i);
            sum_of_logs += v * log_of(load(total + i));
        }
    }
    return LN_2 * sum_of(sum_of_tops) + sum_of(sum_of_logs);
}

/* ------------------------------------------------------------------ M step's sums (6), one component at a time, about its origin */

/* Few features: all sums of a component in registers, W rows abreast in `partial` from block to block, added up at the end. */

template <int D>
INLINE void accumulate_of(const double* x, const double* e, const double* share, ptrdiff_t B, const double* origin, double* partial) {
    constexpr int SUMS = 1 + D + D * (D + 1) / 2;
    vec sum[SUMS];
    UNROLL for (int j = 0; j < SUMS; j++) sum[j] = load(partial + j * W);
    for (ptrdiff_t i = 0; i < B; i += W) {
        const vec r = load(e + i) * load(share + i);
        vec d[D];
        sum[0] += r;
        UNROLL for (int a = 0; a < D; a++) {
            d[a] = load(x + a * B + i) - all(origin[a]);
            const vec rd = r * d[a];
            sum[1 + a] += rd;
            UNROLL for (int b = 0; b <= a; b++) sum[1 + D + a * (a + 1) / 2 + b] += rd * d[b];
        }
    }
    UNROLL for (int j = 0; j < SUMS; j++) store(partial + j * W, sum[j]);
}

INLINE void accumulate_few(const double* x, const double* e, const double* share, ptrdiff_t B, ptrdiff_t D, const double* origin, double* partial) {
    switch (D) {
        case 1: accumulate_of<1>(x, e, share, B, origin, partial); break;
        case 2: accumulate_of<2>(x, e, share, B, origin, partial); break;
        case 3: accumulate_of<3>(x, e, share, B, origin, partial); break;
        case 4: accumulate_of<4>(x, e, share, B, origin, partial); break;
        case 5: accumulate_of<5>(x, e, share, B, origin, partial); break;
    }
}

INLINE void finish_few(const double* partial, ptrdiff_t D, double* mass, double* first, double* second) {
    *mass += sum_of(load(partial));
    for (ptrdiff_t a = 0; a < D; a++) first[a] += sum_of(load(partial + (1 + a) * W));
    for (ptrdiff_t a = 0; a < D; a++)
        for (ptrdiff_t b = 0; b <= a; b++) {
            const double add = sum_of(load(partial + (1 + D + a * (a + 1) / 2 + b) * W));
            second[a * D + b] += add;
            if (b < a) second[b * D + a] += add;
        }
}

/* r_nk = share_n e_nk, in place of e; returns its sum. */
INLINE double take_shares(double* e, const double* share, ptrdiff_t B) {
    vec mass = zeros();
    for (ptrdiff_t i = 0; i < B; i += W) {
        const vec r = load(e + i) * load(share + i);
        store(e + i, r);
        mass += r;
    }
    return sum_of(mass);
}

template <int R>
INLINE void accumulate_diag_features(const double* x, const double* r, ptrdiff_t B, const double* origin, double* first, double* second) {
    vec f[R], s[R];
    UNROLL for (int a = 0; a < R; a++) f[a] = s[a] = zeros();
    for (ptrdiff_t i = 0; i < B; i += W) {
        const vec ri = load(r + i);
        UNROLL for (int a = 0; a < R; a++) {
            const vec d = load(x + a * B + i) - all(origin[a]), rd = ri * d;
            f[a] += rd;
            s[a] += rd * d;
        }
    }
    UNROLL for (int a = 0; a < R; a++) { first[a] += sum_of(f[a]); second[a] += sum_of(s[a]); }
}

INLINE void accumulate_diag(const double* x, const double* r, ptrdiff_t B, ptrdiff_t D, const double* origin, double* first, double* second) {
    ptrdiff_t d = 0;
    for (; d + 4 <= D; d += 4) accumulate_diag_features<4>(x + d * B, r, B, origin + d, first + d, second + d);
    for (; d < D; d++) accumulate_diag_features<1>(x + d * B, r, B, origin + d, first + d, second + d);
}

/* A tile of the scatter: rows a0 .. a0 + R, columns b0 .. b0 + C; what lies above the diagonal is left out. */
template <int R, int C>
INLINE void scatter_tile(const double* rd, const double* d, ptrdiff_t B, ptrdiff_t D, ptrdiff_t a0, ptrdiff_t b0, double* second) {
    vec sum[R][C];
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < C; u++) sum[s][u] = zeros();
    for (ptrdiff_t i = 0; i < B; i += W) {
        vec column[C];
        UNROLL for (int u = 0; u < C; u++) column[u] = load(d + (b0 + u) * B + i);
        UNROLL for (int s = 0; s < R; s++) {
            const vec row = load(rd + (a0 + s) * B + i);
            UNROLL for (int u = 0; u < C; u++) sum[s][u] += row * column[u];
        }
    }
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < C; u++) {
        const ptrdiff_t a = a0 + s, b = b0 + u;
        if (b > a) continue;
        const double add = sum_of(sum[s][u]);
        second[a * D + b] += add;
        if (b < a) second[b * D + a] += add;
    }
}

template <int R>
INLINE void scatter_rows(const double* rd, const double* d, ptrdiff_t B, ptrdiff_t D, ptrdiff_t a0, double* second) {
    for (ptrdiff_t b = 0; b < a0 + R; b += TILE_VECTORS) {
        const ptrdiff_t columns = a0 + R - b < TILE_VECTORS ? a0 + R - b : TILE_VECTORS;
        switch (columns) {
            case 1: scatter_tile<R, 1>(rd, d, B, D, a0, b, second); break;
            case 2: scatter_tile<R, 2>(rd, d, B, D, a0, b, second); break;
            case 3: scatter_tile<R, 3>(rd, d, B, D, a0, b, second); break;
            case 4: scatter_tile<R, 4>(rd, d, B, D, a0, b, second); break;
        }
    }
}

INLINE void accumulate_full(const double* x, const double* r, ptrdiff_t B, ptrdiff_t D, const double* origin, double* moved, double* weighted, double* first, double* second) {
    for (ptrdiff_t d = 0; d < D; d++) {
        vec f = zeros();
        for (ptrdiff_t i = 0; i < B; i += W) {
            const vec difference = load(x + d * B + i) - all(origin[d]), rd = load(r + i) * difference;
            store(moved + d * B + i, difference);
            store(weighted + d * B + i, rd);
            f += rd;
        }
        first[d] += sum_of(f);
    }
    ptrdiff_t a = 0;
    for (; a + 4 <= D; a += 4) scatter_rows<4>(weighted, moved, B, D, a, second);
    switch (D - a) {
        case 3: scatter_rows<3>(weighted, moved, B, D, a, second); break;
        case 2: scatter_rows<2>(weighted, moved, B, D, a, second); break;
        case 1: scatter_rows<1>(weighted, moved, B, D, a, second); break;
    }
}

#endif
