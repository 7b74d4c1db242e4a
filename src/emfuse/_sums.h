/* The M step's sums (6) over the panels of one block: mass, first, second, each component about its own origin.

   "By rows", for few features: lane i is data row i, as in _density.h; a sum stays a register of W partial sums from block to
   block, so that none is added up across lanes before the sweep ends. "By features": lane j is feature j of one data row,
   from a row-major copy of the block; sums of W features need no adding up at all.

   All sums are kept in double; where T is float, those of one block are float. A sum over a block is begun at zero. */
#ifndef EMFUSE_SUMS_H
#define EMFUSE_SUMS_H

#include "_density.h"

static constexpr int ROW_GROUP(int lanes) { return EMFUSE_REGISTERS == 32 ? (lanes < 8 ? lanes : 8) : (lanes < 4 ? lanes : 4); }
static constexpr int MOST_COLUMNS = EMFUSE_REGISTERS == 32 ? 3 : 2;     /* registers of features across a tile of the scatter */

/* One block: `panels` panels of rows. Of panel p and feature d, x begins at x[(p * x_step + d) * PANEL]; of component k, e (and
   later r) at l[(p * l_step + k) * PANEL]. */
template <class T> struct Block {
    ptrdiff_t panels, x_step, l_step;
    const T* x;        /* on its side */
    const T* rows;     /* row-major, `row_step` apart; features beyond D are 0 */
    ptrdiff_t row_step;
    T* l;
    const T* share;
};

/* ------------------------------------------------------------------ by rows, D known when compiled */

/* sums: mass, D firsts, then D (D + 1) / 2 seconds of a triangle, or D of them; W each. */
template <class T, int D, bool TRIANGLE>
INLINE void sums_few(const Block<T>& b, ptrdiff_t k, Points<T> origin, double* sums) {
    constexpr int SUMS = 1 + D + (TRIANGLE ? D * (D + 1) / 2 : D);
    vec<T> sum[SUMS];
    UNROLL for (int j = 0; j < SUMS; j++) sum[j] = all((T)0);
    for (ptrdiff_t p = 0; p < b.panels; p++) {
        const T *x = b.x + p * b.x_step * PANEL<T>, *e = b.l + (p * b.l_step + k) * PANEL<T>, *share = b.share + p * PANEL<T>;
        UNROLL for (int i = 0; i < PANEL<T>; i += W<T>) {
            const vec<T> r = load(e + i) * load(share + i);                                  /* (5) */
            vec<T> d[D];
            sum[0] += r;
            UNROLL for (int s = 0; s < D; s++) {
                d[s] = less(load(x + s * PANEL<T> + i), origin, s);
                const vec<T> rd = r * d[s];
                sum[1 + s] += rd;
                if constexpr (TRIANGLE) { UNROLL for (int t = 0; t <= s; t++) sum[1 + D + s * (s + 1) / 2 + t] += rd * d[t]; }
                else sum[1 + D + s] += rd * d[s];
            }
        }
    }
    UNROLL for (int j = 0; j < SUMS; j++) add_to(sums + j * W<T>, sum[j]);
}

/* ------------------------------------------------------------------ by rows, any D: tiles of the scatter */

/* r = share e, one after the other in `r`, and r times residual in `weighted`; adds mass and first. */
template <class T>
INLINE void weigh_by_rows(const Block<T>& b, ptrdiff_t k, ptrdiff_t D, Points<T> origin, T* r, T* weighted, double* sums) {
    vec<T> mass = all((T)0);
    for (ptrdiff_t p = 0; p < b.panels; p++)
        UNROLL for (int i = 0; i < PANEL<T>; i += W<T>) {
            const vec<T> value = load(b.l + (p * b.l_step + k) * PANEL<T> + i) * load(b.share + p * PANEL<T> + i);   /* (5) */
            store(r + p * PANEL<T> + i, value);
            mass += value;
        }
    add_to(sums, mass);
    for (ptrdiff_t d = 0; d < D; d++) {
        vec<T> first[TILE_VECTORS];
        UNROLL for (int u = 0; u < TILE_VECTORS; u++) first[u] = all((T)0);
        for (ptrdiff_t p = 0; p < b.panels; p++)
            UNROLL for (int u = 0; u < TILE_VECTORS; u++) {
                const vec<T> rd = load(r + p * PANEL<T> + u * W<T>) * less(load(b.x + (p * b.x_step + d) * PANEL<T> + u * W<T>), origin, d);
                store(weighted + (p * D + d) * PANEL<T> + u * W<T>, rd);
                first[u] += rd;
            }
        UNROLL for (int u = 1; u < TILE_VECTORS; u++) first[0] += first[u];
        add_to(sums + (1 + d) * W<T>, first[0]);
    }
}

/* Rows a .. a + R of the scatter, columns c .. c + C; of those above the diagonal, none: SHIFT is c - a, or less where all lie below. */
template <class T, int R, int C, int SHIFT>
INLINE void tile_by_rows(const Block<T>& b, ptrdiff_t D, Points<T> origin, const T* weighted, ptrdiff_t a, ptrdiff_t c, double* second) {
    vec<T> sum[R][C];
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int t = 0; t < C; t++) sum[s][t] = all((T)0);
    for (ptrdiff_t p = 0; p < b.panels; p++) {
        const T *x = b.x + (p * b.x_step + c) * PANEL<T>, *w = weighted + (p * D + a) * PANEL<T>;
        for (int i = 0; i < PANEL<T>; i += W<T>) {
            vec<T> d[C];
            UNROLL for (int t = 0; t < C; t++) d[t] = less(load(x + t * PANEL<T> + i), origin, c + t);
            UNROLL for (int s = 0; s < R; s++) {
                const vec<T> rd = load(w + s * PANEL<T> + i);
                UNROLL for (int t = 0; t < C; t++) if (t + SHIFT <= s) sum[s][t] += rd * d[t];
            }
        }
    }
    UNROLL for (int s = 0; s < R; s++)
        UNROLL for (int t = 0; t < C; t++) if (t + SHIFT <= s) add_to(second + ((a + s) * (a + s + 1) / 2 + c + t) * W<T>, sum[s][t]);
}

template <class T, int R> INLINE void tiles_by_rows(const Block<T>& b, ptrdiff_t D, Points<T> origin, const T* weighted, ptrdiff_t a, double* second) {
    constexpr int C = TILE_VECTORS, BELOW = -TILE_FEATURES;
    static_assert(C == TILE_FEATURES || 2 * C == TILE_FEATURES, "the diagonal is one tile, or two");
    for (ptrdiff_t c = 0; c < a; c += C) tile_by_rows<T, R, C, BELOW>(b, D, origin, weighted, a, c, second);
    tile_by_rows<T, R, R < C ? R : C, 0>(b, D, origin, weighted, a, a, second);
    if constexpr (R > C) tile_by_rows<T, R, R - C, C>(b, D, origin, weighted, a, a + C, second);
}

template <class T> INLINE void scatter_by_rows(const Block<T>& b, ptrdiff_t D, Points<T> origin, const T* weighted, double* second) {
    ptrdiff_t a = 0;
    for (; a + TILE_FEATURES <= D; a += TILE_FEATURES) tiles_by_rows<T, TILE_FEATURES>(b, D, origin, weighted, a, second);
    switch (D - a) {
        case 3: tiles_by_rows<T, 3>(b, D, origin, weighted, a, second); break;
        case 2: tiles_by_rows<T, 2>(b, D, origin, weighted, a, second); break;
        case 1: tiles_by_rows<T, 1>(b, D, origin, weighted, a, second); break;
    }
}

/* ------------------------------------------------------------------ by features */

/* r = share e, in place of e; adds mass, W partial sums each, and with `squares` the sum of r times those. */
template <class T>
INLINE void take_shares(const Block<T>& b, ptrdiff_t K, const T* squares, double* mass, double* second) {
    for (ptrdiff_t p = 0; p < b.panels; p++)
        for (ptrdiff_t k = 0; k < K; k++) {
            const ptrdiff_t at = (p * b.l_step + k) * PANEL<T>;
            vec<T> sum = all((T)0), of_squares = all((T)0);
            UNROLL for (int i = 0; i < PANEL<T>; i += W<T>) {
                const vec<T> r = load(b.l + at + i) * load(b.share + p * PANEL<T> + i);      /* (5) */
                store(b.l + at + i, r);
                sum += r;
                if (squares) of_squares += r * load(squares + at + i);
            }
            add_to(mass + k * W<T>, sum);
            if (squares) add_to(second + k * W<T>, of_squares);
        }
}

/* C components from k on, F registers of features from f on: first, and with SECOND second, of each feature by itself.
   `first` and `second` are (K, row_step). */
template <class T, int C, int F, bool SECOND>
INLINE void features_tile(const Block<T>& b, ptrdiff_t k, ptrdiff_t f, Points<T> origin, double* first, double* second) {
    vec<T> one[C][F], two[C][F];
    UNROLL for (int j = 0; j < C; j++) UNROLL for (int u = 0; u < F; u++) one[j][u] = two[j][u] = all((T)0);
    for (ptrdiff_t p = 0; p < b.panels; p++) {
        const T *row = b.rows + p * PANEL<T> * b.row_step + f, *r = b.l + (p * b.l_step + k) * PANEL<T>;
        for (int i = 0; i < PANEL<T>; i++, row += b.row_step) {
            vec<T> x[F];
            UNROLL for (int u = 0; u < F; u++) x[u] = load(row + u * W<T>);
            UNROLL for (int j = 0; j < C; j++) {
                const vec<T> share = all(r[j * PANEL<T> + i]);
                UNROLL for (int u = 0; u < F; u++) {
                    const vec<T> d = less_features(x[u], origin, (k + j) * origin.step + f + u * W<T>);
                    if constexpr (SECOND) {
                        const vec<T> rd = share * d;
                        one[j][u] += rd;
                        two[j][u] += rd * d;
                    } else one[j][u] += share * d;
                }
            }
        }
    }
    UNROLL for (int j = 0; j < C; j++) UNROLL for (int u = 0; u < F; u++) {
        const ptrdiff_t at = (k + j) * b.row_step + f + u * W<T>;
        add_to(first + at, one[j][u]);
        if constexpr (SECOND) add_to(second + at, two[j][u]);
    }
}

template <class T, bool SECOND>
INLINE void features_by_themselves(const Block<T>& b, ptrdiff_t K, Points<T> origin, double* first, double* second) {
    constexpr int C = TILE_COMPONENTS, F = EMFUSE_REGISTERS == 32 ? 2 : 1;
    ptrdiff_t k = 0;
    for (; k + C <= K; k += C) {
        ptrdiff_t f = 0;
        for (; f + F * W<T> <= b.row_step; f += F * W<T>) features_tile<T, C, F, SECOND>(b, k, f, origin, first, second);
        for (; f < b.row_step; f += W<T>) features_tile<T, C, 1, SECOND>(b, k, f, origin, first, second);
    }
    for (; k < K; k++) {
        ptrdiff_t f = 0;
        for (; f + F * W<T> <= b.row_step; f += F * W<T>) features_tile<T, 1, F, SECOND>(b, k, f, origin, first, second);
        for (; f < b.row_step; f += W<T>) features_tile<T, 1, 1, SECOND>(b, k, f, origin, first, second);
    }
}

/* r times residual of component k, in `weighted`: one register of features of all rows after the other. Adds first. */
template <class T>
INLINE void weigh_by_features(const Block<T>& b, ptrdiff_t k, Points<T> origin, T* weighted, double* first) {
    for (ptrdiff_t f = 0; f < b.row_step; f += W<T>) {
        vec<T> sum[2] = {all((T)0), all((T)0)};
        for (ptrdiff_t p = 0; p < b.panels; p++) {
            const T *row = b.rows + p * PANEL<T> * b.row_step + f, *r = b.l + (p * b.l_step + k) * PANEL<T>;
            for (int i = 0; i < PANEL<T>; i += 2)
                UNROLL for (int h = 0; h < 2; h++) {
                    const vec<T> rd = all(r[i + h]) * less_features(load(row + (i + h) * b.row_step), origin, f);
                    store(weighted, rd);
                    weighted += W<T>;
                    sum[h] += rd;
                }
        }
        add_to(first + f, sum[0] + sum[1]);
    }
}

/* A tile of the scatter: R features from a on, each for all lanes, by C registers of features from c on. */
template <class T, int C>
INLINE void tile_by_features(const Block<T>& b, Points<T> origin, const T* weighted, ptrdiff_t a, ptrdiff_t c, double* second) {
    constexpr int R = ROW_GROUP(W<T>);
    const ptrdiff_t rows = b.panels * PANEL<T>;
    const T *w = weighted + a / W<T> * rows * W<T> + a % W<T>, *row = b.rows + c;
    vec<T> sum[R][C];
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < C; u++) sum[s][u] = all((T)0);
    for (ptrdiff_t i = 0; i < rows; i++, w += W<T>, row += b.row_step) {
        vec<T> d[C];
        UNROLL for (int u = 0; u < C; u++) d[u] = less_features(load(row + u * W<T>), origin, c + u * W<T>);
        UNROLL for (int s = 0; s < R; s++) {
            const vec<T> rd = all(w[s]);
            UNROLL for (int u = 0; u < C; u++) sum[s][u] += rd * d[u];
        }
    }
    UNROLL for (int s = 0; s < R; s++) UNROLL for (int u = 0; u < C; u++) add_to(second + (a + s) * b.row_step + c + u * W<T>, sum[s][u]);
}

/* The lower triangle of the scatter, in whole tiles; `second` is (row_step, row_step). */
template <class T> INLINE void scatter_by_features(const Block<T>& b, Points<T> origin, const T* weighted, double* second) {
    for (ptrdiff_t a = 0; a < b.row_step; a += ROW_GROUP(W<T>)) {
        ptrdiff_t left = a / W<T> + 1;   /* registers of features up to the diagonal */
        for (ptrdiff_t c = 0; left > 0; ) {
            const int C = left == 4 && MOST_COLUMNS == 3 ? 2 : left < MOST_COLUMNS ? (int)left : MOST_COLUMNS;   /* no tile of one column if it can be helped */
            switch (C) {
                case 3: tile_by_features<T, MOST_COLUMNS>(b, origin, weighted, a, c, second); break;
                case 2: tile_by_features<T, 2>(b, origin, weighted, a, c, second); break;
                case 1: tile_by_features<T, 1>(b, origin, weighted, a, c, second); break;
            }
            left -= C;
            c += C * W<T>;
        }
    }
}

#endif
