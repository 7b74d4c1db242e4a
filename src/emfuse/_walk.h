/* The walk over the rows, block by block: densities, responsibilities, sums. Nothing of size rows x components exists.

   What a walk computes in is T. Rows of float64 are always walked in double. Rows of float32 are walked in float where the
   caller allows it, and then only as long as no row lies so far from every component that float would lose its density.
   Functions here hold no lock, and keep nothing between calls. */
#ifndef EMFUSE_WALK_H
#define EMFUSE_WALK_H

#include <math.h>
#include <stdlib.h>
#include "_sums.h"

enum Form { FULL, TIED, DIAG, SPHERICAL };   /* of P, and of second: (K, D, D), (1, D, D), (K, D), (K, 1) */

struct Data {
    const char* start;       /* the first element of X */
    int single;              /* float32, or float64 */
    ptrdiff_t N, D, row_step, column_step;   /* steps in elements */
};

struct Mixture {
    ptrdiff_t K;
    int form;
    const double *mu, *P, *c;
};

static constexpr ptrdiff_t FEW_TRIANGLE = EMFUSE_REGISTERS == 32 ? 5 : 3;   /* features whose sums all fit the registers */
static constexpr ptrdiff_t FEW_DIAGONAL = EMFUSE_REGISTERS == 32 ? 7 : 4;
static constexpr ptrdiff_t BY_FEATURES_FROM = 20;        /* features from which a scatter's padding to whole registers costs less than it saves */
static constexpr double MOST_SEPARATED = 256.0;          /* standard deviations: beyond, whitening rows once would lose three digits */
static constexpr double MODERATE = 1e10;                 /* standard deviations beyond 1 / this and this: unscaled squares might overflow */
static constexpr float FAR = -1000.0f;                   /* log2: a float density below this is right to 1e-4 at best */

INLINE ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }

template <class T> struct Walk {
    const Data& data;
    const Mixture& mixture;
    const double* origin;    /* null: nothing is summed */
    ptrdiff_t K, D, N;
    ptrdiff_t padded_K, padded_D;
    bool triangle, few, summing;
    enum { FEW, EACH, SHARED, SCALED, UNIT } density;
    enum { FEW_SUMS, BY_ROWS, BY_FEATURES, THEMSELVES, FIRST } kind;
    bool pooled;             /* one second for all components */
    ptrdiff_t B, sums_size, second_size;

    T *x, *rows, *l, *squares, *top, *total, *share, *whitened, *r, *weighted, *P, *c, *scale;
    double *c_rest;          /* what rounding c to T left over: its share of the log-likelihood is added at the end */
    double shift = 0;        /* where T is float, c is kept less the largest of them, so that it is small */
    double *weight, *sums, *second;
    Points<T> mu, about, centre;
    ptrdiff_t P_step;
    void* memory = nullptr;

    Walk(const Data& data_, const Mixture& mixture_, const double* origin_, bool second_wanted)
        : data(data_), mixture(mixture_), origin(origin_), K(mixture_.K), D(data_.D), N(data_.N) {
        const int form = mixture.form;
        triangle = form == FULL || form == TIED;
        few = D <= (triangle ? FEW_TRIANGLE : FEW_DIAGONAL);
        summing = origin != nullptr;
        padded_K = round_up(K, TILE_COMPONENTS);
        padded_D = few ? D : round_up(D, W<T>);
        pooled = form == TIED;
        density = few ? FEW : form == FULL ? EACH : form == DIAG ? SCALED : form == TIED ? (separated() ? EACH : SHARED) : moderate() ? UNIT : SCALED;
        if (few) kind = FEW_SUMS;
        else if (triangle) kind = pooled && !second_wanted ? FIRST : D < BY_FEATURES_FROM ? BY_ROWS : BY_FEATURES;
        else kind = density == UNIT && summing && memcmp(origin, mixture.mu, K * D * sizeof(double)) == 0 ? FIRST : THEMSELVES;
        B = rows_per_block();
    }
    ~Walk() { free(memory); }
    Walk(const Walk&) = delete;

    ptrdiff_t seconds() const { return triangle ? D * (D + 1) / 2 : D; }

    /* As many rows as keep a block's scratch in a part of the second-level cache, and the blocks of one call about equal. */
    ptrdiff_t rows_per_block() const {
        const ptrdiff_t numbers = (few ? D : 2 * padded_D + (triangle ? padded_D : 0)) + padded_K + 2;
        const bool by_rows = few || kind == BY_ROWS;   /* whose float sums cost more to add to the double ones */
        const ptrdiff_t most = sizeof(T) == 8 ? (few ? 256 : 128) : (by_rows ? 512 : 256);
        ptrdiff_t fits = 384 * 1024 / (ptrdiff_t)sizeof(T) / numbers / PANEL<T> * PANEL<T>;
        if (fits > most) fits = most;
        if (fits < PANEL<T>) fits = PANEL<T>;
        const ptrdiff_t blocks = (N + fits - 1) / fits;
        return round_up(blocks ? (N + blocks - 1) / blocks : 1, PANEL<T>);
    }

    /* Whether two means lie so far apart that rows whitened about one centre lose digits. */
    bool separated() const {
        for (ptrdiff_t k = 1; k < K; k++)
            for (ptrdiff_t s = 0; s < D; s++) {
                double y = 0;
                for (ptrdiff_t t = 0; t <= s; t++) y += mixture.P[s * D + t] * (mixture.mu[k * D + t] - mixture.mu[t]);
                if (!(fabs(y) <= MOST_SEPARATED)) return true;
            }
        return false;
    }

    bool moderate() const {
        for (ptrdiff_t k = 0; k < K; k++) if (!(mixture.P[k] >= 1 / MODERATE && mixture.P[k] <= MODERATE)) return false;
        return true;
    }

    /* All scratch in one piece of memory, each part on a cache line and zero. */
    bool allocate() {
        const ptrdiff_t Kx = padded_K, Dx = padded_D, lanes = W<T>;
        const bool scatter = kind == BY_ROWS || kind == BY_FEATURES;
        sums_size = kind == FEW_SUMS ? (1 + D + seconds()) * lanes : kind == BY_ROWS ? (1 + D) * lanes : lanes + Dx;
        second_size = kind == BY_ROWS ? seconds() * lanes : kind == BY_FEATURES ? Dx * Dx : kind == THEMSELVES ? Dx : kind == FIRST ? lanes : 0;
        const ptrdiff_t packed = density == FEW ? seconds() : tiles_size(D);
        const ptrdiff_t P_size = density == SCALED ? PACKED<T, true> * Kx * D : density == UNIT ? PACKED<T, false> * Kx * D
                               : density == SHARED ? packed + PACKED<T, false> * Kx * D : density == EACH && mixture.form == TIED ? packed : K * packed;
        struct Part { T** at; ptrdiff_t size; } parts[] = {
            {&x, Dx * B}, {&rows, few ? 0 : Dx * B}, {&l, Kx * B}, {&squares, density == UNIT && kind == FIRST ? Kx * B : 0},
            {&top, PANEL<T>}, {&total, PANEL<T>}, {&share, B}, {&whitened, density == SHARED ? D * PANEL<T> : 0},
            {&r, kind == BY_ROWS ? B : 0}, {&weighted, scatter ? Dx * B : 0}, {&P, P_size}, {&c, Kx}, {&scale, Kx},
            {&mu.near, K * Dx}, {&mu.rest, K * Dx}, {&about.near, summing ? K * Dx : 0}, {&about.rest, summing ? K * Dx : 0}, {&centre.near, Dx}, {&centre.rest, Dx}};
        struct DoublePart { double** at; ptrdiff_t size; } doubles[] = {
            {&c_rest, K}, {&weight, B}, {&sums, summing ? K * sums_size : 0}, {&second, summing ? (pooled && scatter ? 1 : K) * second_size : 0}};
        ptrdiff_t need = 64;
        for (const Part& part : parts) need += round_up(part.size * sizeof(T), 64);
        for (const DoublePart& part : doubles) need += round_up(part.size * sizeof(double), 64);
        memory = calloc(need, 1);
        if (!memory) return false;
        char* at = (char*)memory + 64 - (uintptr_t)memory % 64;
        for (const Part& part : parts) { *part.at = (T*)at; at += round_up(part.size * sizeof(T), 64); }
        for (const DoublePart& part : doubles) { *part.at = (double*)at; at += round_up(part.size * sizeof(double), 64); }
        mu.step = about.step = padded_D;
        return true;
    }

    void set_point(Points<T> p, ptrdiff_t k, const double* value) const {
        for (ptrdiff_t d = 0; d < D; d++) {
            p.near[k * p.step + d] = (T)value[d];
            p.rest[k * p.step + d] = (T)(value[d] - (double)(T)value[d]);
        }
    }

    /* The mixture in the units and the order that the steps read. */
    void prepare() {
        centre.step = 0;
        set_point(centre, 0, mixture.mu);
        for (ptrdiff_t k = 0; k < K; k++) {
            set_point(mu, k, mixture.mu + k * D);
            if (summing) set_point(about, k, origin + k * D);
        }
        if (sizeof(T) != 8) {
            shift = (double)LEAST<T>;
            for (ptrdiff_t k = 0; k < K; k++) if (mixture.c[k] > shift) shift = mixture.c[k];
            shift *= LOG2_E;
        }
        for (ptrdiff_t k = 0; k < padded_K; k++) {
            const double p = density == UNIT && k < K ? ROOT_HALF_LOG2_E * mixture.P[k] : 1.0;
            scale[k] = (T)(p * p);
            const double exact = k < K ? LOG2_E * mixture.c[k] - shift + (sizeof(T) == 8 ? 0.0 : log2_det_of_rounding(k)) : (double)LEAST<T>;
            c[k] = (T)exact;
            if (k < K) c_rest[k] = sizeof(T) == 8 || !(exact > (double)LEAST<T>) ? 0.0 : exact - (double)c[k];
        }
        P_step = mixture.form == TIED ? 0 : density == FEW ? seconds() : tiles_size(D);
        if (density == FEW) prepare_few();
        else if (density == EACH) for (ptrdiff_t k = 0; k < (P_step ? K : 1); k++) pack_tiles(mixture.P + k * D * D, D, P + k * P_step);
        else prepare_side_by_side();
    }

    /* log2 det of P as rounded, less that of P. With it in c, what is computed is the likelihood of a mixture next to the one meant,
       and where that is at its maximum the two differ in second order only. */
    double log2_det_of_rounding(ptrdiff_t k) const {
        double sum = 0;
        for (ptrdiff_t d = 0; d < D; d++) {
            const double p = ROOT_HALF_LOG2_E * (triangle ? mixture.P[(mixture.form == TIED ? 0 : k * D * D) + d * (D + 1)] : scale_of(k, d));
            if (p > 0) sum += density == UNIT ? 0.5 * log2((double)scale[k] / (p * p)) : log2((double)(T)p / p);
        }
        return sum;
    }

    void prepare_few() {
        const ptrdiff_t size = seconds();
        for (ptrdiff_t k = 0; k < K; k++) {
            if (triangle) pack_triangle(mixture.P + (mixture.form == TIED ? 0 : k * D * D), D, P + k * size);
            else for (ptrdiff_t d = 0; d < D; d++) P[k * size + d] = (T)(ROOT_HALF_LOG2_E * scale_of(k, d));
        }
    }

    double scale_of(ptrdiff_t k, ptrdiff_t d) const { return mixture.form == SPHERICAL ? mixture.P[k] : mixture.P[k * D + d]; }

    void prepare_side_by_side() {
        constexpr int C = TILE_COMPONENTS;
        T* packed = P;
        if (density == SHARED) { pack_tiles(mixture.P, D, P); packed += tiles_size(D); }
        const int width = (density == SCALED ? 2 : 1) + (sizeof(T) == 8 ? 0 : 1);
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t d = 0; d < D; d++) {
                T* at = packed + k / C * D * width * C + d * width * C + k % C;
                double mean = mixture.mu[k * D + d];
                if (density == SHARED) {
                    mean = 0;
                    for (ptrdiff_t t = 0; t <= d; t++) mean += mixture.P[d * D + t] * (mixture.mu[k * D + t] - mixture.mu[t]);
                    mean *= ROOT_HALF_LOG2_E;
                }
                at[0] = (T)mean;
                if (density == SCALED) at[C] = (T)(ROOT_HALF_LOG2_E * scale_of(k, d));
                if (sizeof(T) != 8) at[(width - 1) * C] = (T)(mean - (double)(T)mean);
            }
    }

    /* ---------------------------------------------------------------- one block */

    template <class S, int FEATURES> void load_few(const S* X, ptrdiff_t panels) {
        for (ptrdiff_t p = 0; p < panels; p++)
            for (int i = 0; i < PANEL<T>; i++)
                UNROLL for (int d = 0; d < FEATURES; d++) x[(p * FEATURES + d) * PANEL<T> + i] = (T)X[(p * PANEL<T> + i) * FEATURES + d];
    }

    /* Lay `count` rows from `start` on their side, and row by row where features are many. The last panel is filled up with
       copies of the block's first row, which weigh nothing. */
    template <class S> void load_block(ptrdiff_t start, ptrdiff_t count, Block<T>* b) {
        const S* X = (const S*)data.start + start * data.row_step;
        b->panels = (count + PANEL<T> - 1) / PANEL<T>;
        const ptrdiff_t filled = b->panels * PANEL<T>;
        if (few) {
            if (D == 1 && data.row_step == 1 && sizeof(S) == sizeof(T) && count == filled) { b->x = (const T*)X; return; }
            b->x = x;
            const ptrdiff_t whole = data.row_step == D && data.column_step == 1 ? count / PANEL<T> : 0;
            switch (D) {   /* rows one after the other: a shuffle known when compiled */
                case 1: load_few<S, 1>(X, whole); break;
                case 2: load_few<S, 2>(X, whole); break;
                case 3: load_few<S, 3>(X, whole); break;
                case 4: load_few<S, 4>(X, whole); break;
                case 5: load_few<S, 5>(X, whole); break;
                case 6: load_few<S, 6>(X, whole); break;
                case 7: load_few<S, 7>(X, whole); break;
            }
            for (ptrdiff_t i = whole * PANEL<T>; i < filled; i++) {
                const S* in = X + (i < count ? i * data.row_step : 0);
                for (ptrdiff_t d = 0; d < D; d++) x[(i / PANEL<T> * D + d) * PANEL<T> + i % PANEL<T>] = (T)in[d * data.column_step];
            }
            return;
        }
        b->x = x;
        if (data.column_step == 1)
            for (ptrdiff_t i = 0; i < filled; i++) {
                const S* in = X + (i < count ? i * data.row_step : 0);
                for (ptrdiff_t d = 0; d < D; d++) rows[i * padded_D + d] = (T)in[d];
            }
        else
            for (ptrdiff_t d = 0; d < D; d++)
                for (ptrdiff_t i = 0; i < filled; i++) rows[i * padded_D + d] = (T)X[(i < count ? i * data.row_step : 0) + d * data.column_step];
        for (ptrdiff_t i = 0; i < filled; i += W<T>)
            for (ptrdiff_t d = 0; d < padded_D; d += W<T>)
                transpose_tile(rows + i * padded_D + d, padded_D, x + (i / PANEL<T> * padded_D + d) * PANEL<T> + i % PANEL<T>, (ptrdiff_t)PANEL<T>);
    }

    void load(ptrdiff_t start, ptrdiff_t count, Block<T>* b) {
        b->x_step = padded_D; b->l_step = padded_K; b->rows = rows; b->row_step = padded_D; b->l = l; b->share = share;
        if (data.single) load_block<float>(start, count, b);
        else load_block<double>(start, count, b);
    }

    template <bool TRIANGLE> void density_of_few(const T* at, T* out) {
        switch (D) {
            case 1: density_few<T, 1, false>(at, K, mu, P, c, out, top); break;   /* a triangle of one is a diagonal */
            case 2: density_few<T, 2, TRIANGLE>(at, K, mu, P, c, out, top); break;
            case 3: density_few<T, 3, TRIANGLE>(at, K, mu, P, c, out, top); break;
            case 4: density_few<T, 4, TRIANGLE>(at, K, mu, P, c, out, top); break;
            case 5: density_few<T, 5, TRIANGLE>(at, K, mu, P, c, out, top); break;
            case 6: density_few<T, 6, false>(at, K, mu, P, c, out, top); break;
            case 7: density_few<T, 7, false>(at, K, mu, P, c, out, top); break;
        }
    }

    /* l and top of panel p. */
    void log_density(const Block<T>& b, ptrdiff_t p) {
        const T* at = b.x + p * padded_D * PANEL<T>;
        T *out = l + p * padded_K * PANEL<T>, *kept = density == UNIT && kind == FIRST ? squares + p * padded_K * PANEL<T> : nullptr;
        switch (density) {
            case FEW: if (triangle) density_of_few<true>(at, out); else density_of_few<false>(at, out); break;
            case EACH: density_full(at, D, K, mu, P, P_step, c, out, top); break;
            case SHARED:
                whiten_rows(at, D, centre, P, whitened);
                density_diag<T, false>(whitened, D, K, P + tiles_size(D), scale, c, (T*)nullptr, out, top);
                break;
            case SCALED: density_diag<T, true>(at, D, K, P, scale, c, (T*)nullptr, out, top); break;
            case UNIT: density_diag<T, false>(at, D, K, P, scale, c, kept, out, top); break;
        }
    }

    template <bool TRIANGLE> void sums_of_few(const Block<T>& b, ptrdiff_t k) {
        const Points<T> o = origin_of(k);
        double* out = sums + k * sums_size;
        switch (D) {
            case 1: sums_few<T, 1, false>(b, k, o, out); break;
            case 2: sums_few<T, 2, TRIANGLE>(b, k, o, out); break;
            case 3: sums_few<T, 3, TRIANGLE>(b, k, o, out); break;
            case 4: sums_few<T, 4, TRIANGLE>(b, k, o, out); break;
            case 5: sums_few<T, 5, TRIANGLE>(b, k, o, out); break;
            case 6: sums_few<T, 6, false>(b, k, o, out); break;
            case 7: sums_few<T, 7, false>(b, k, o, out); break;
        }
    }

    Points<T> origin_of(ptrdiff_t k) const { return {about.near + k * about.step, about.rest + k * about.step, 0}; }
    double* first_of(ptrdiff_t k) const { return sums + K * W<T> + k * padded_D; }   /* by features: K masses come first */
    double* second_of(ptrdiff_t k) const { return second + (pooled ? 0 : k * second_size); }

    void add_sums(const Block<T>& b) {
        switch (kind) {
            case FEW_SUMS:
                for (ptrdiff_t k = 0; k < K; k++) { if (triangle) sums_of_few<true>(b, k); else sums_of_few<false>(b, k); }
                break;
            case BY_ROWS:
                for (ptrdiff_t k = 0; k < K; k++) {
                    weigh_by_rows(b, k, D, origin_of(k), r, weighted, sums + k * sums_size);
                    scatter_by_rows(b, D, origin_of(k), weighted, second_of(k));
                }
                break;
            case BY_FEATURES:
                take_shares<T>(b, K, nullptr, sums, nullptr);
                for (ptrdiff_t k = 0; k < K; k++) {
                    weigh_by_features(b, k, origin_of(k), weighted, first_of(k));
                    scatter_by_features(b, origin_of(k), weighted, second_of(k));
                }
                break;
            case THEMSELVES:
                take_shares<T>(b, K, nullptr, sums, nullptr);
                features_by_themselves<T, true>(b, K, about, first_of(0), second);
                break;
            case FIRST:
                take_shares<T>(b, K, density == UNIT ? squares : nullptr, sums, second);
                features_by_themselves<T, false>(b, K, about, first_of(0), nullptr);
                break;
        }
    }

    /* ---------------------------------------------------------------- the end: from partial sums to sums */

    static double across(const double* partial) {
        double sum = 0;
        for (int i = 0; i < W<T>; i += W<double>) sum += sum_of<double>(::load(partial + i));
        return sum;
    }

    /* Returns what rounding c took from the log-likelihood, to first order, in nats. */
    double finish(double* mass, double* first, double* second_out) const {
        double taken = 0;
        const ptrdiff_t lanes = W<T>;
        const bool by_rows = kind == FEW_SUMS || kind == BY_ROWS;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double* own = sums + k * sums_size;
            const double own_mass = across(by_rows ? own : sums + k * lanes);
            mass[k] += own_mass;
            taken += LN_2 * own_mass * c_rest[k];
            for (ptrdiff_t d = 0; d < D; d++) first[k * D + d] += by_rows ? across(own + (1 + d) * lanes) : first_of(k)[d];
            if (!second_out) continue;
            if (triangle) {
                if (pooled && k > 0) continue;
                double* out = second_out + (pooled ? 0 : k * D * D);
                const double* from = kind == FEW_SUMS ? own + (1 + D) * lanes : second_of(k);
                const ptrdiff_t summands = pooled && kind == FEW_SUMS ? K : 1;   /* elsewhere they are summed up already */
                for (ptrdiff_t s = 0; s < D; s++)
                    for (ptrdiff_t t = 0; t <= s; t++) {
                        double value = 0;
                        for (ptrdiff_t j = 0; j < summands; j++)
                            value += by_rows ? across(from + j * sums_size + (s * (s + 1) / 2 + t) * lanes) : from[s * padded_D + t];
                        out[s * D + t] += value;
                        if (s != t) out[t * D + s] += value;
                    }
            } else if (kind == FIRST) {
                second_out[k] += across(second + k * lanes) / (double)D;
            } else {
                double of_all = 0;
                for (ptrdiff_t d = 0; d < D; d++) {
                    const double value = kind == FEW_SUMS ? across(own + (1 + D + d) * lanes) : second[k * padded_D + d];
                    if (mixture.form == DIAG) second_out[k * D + d] += value;
                    else of_all += value;
                }
                if (mixture.form != DIAG) second_out[k] += of_all / (double)D;   /* the mean over features */
            }
        }
        return taken;
    }

    /* ---------------------------------------------------------------- the walk */

    /* Whether it was walked to the end: a walk in float gives up, with nothing added, at a row that lies far from every component. */
    bool sweep(const double* v, bool hard, double* mass, double* first, double* second_out, double* log_likelihood) {
        LogLikelihood sum;
        double total_weight = 0;
        begin(&sum);
        for (ptrdiff_t start = 0; start < N; start += B) {
            const ptrdiff_t count = N - start < B ? N - start : B;
            Block<T> b;
            load(start, count, &b);
            const ptrdiff_t weigh_from = v ? 0 : count / PANEL<T>;   /* panel: without weights the last alone, where it is not full */
            for (ptrdiff_t i = weigh_from * PANEL<T>; i < b.panels * PANEL<T>; i++) weight[i] = i >= count ? 0.0 : v ? v[start + i] : 1.0;
            if (!v) total_weight += (double)count;
            else if (shift != 0) for (ptrdiff_t i = 0; i < count; i++) total_weight += v[start + i];
            vec<T> lowest = all((T)0);
            for (ptrdiff_t p = 0; p < b.panels; p++) {
                log_density(b, p);
                if (sizeof(T) != 8) for (int i = 0; i < PANEL<T>; i += W<T>) lowest = where_greater(lowest, ::load(top + i), ::load(top + i), lowest);
                if (hard) harden(l + p * padded_K * PANEL<T>, K, top, total);
                else normalise(l + p * padded_K * PANEL<T>, K, top, total);
                share_rows(top, total, p >= weigh_from ? weight + p * PANEL<T> : nullptr, share + p * PANEL<T>, &sum);
            }
            if (sizeof(T) != 8) for (int i = 0; i < W<T>; i++) if (!(lowest[i] > FAR)) return false;
            add_sums(b);
        }
        const double taken = finish(mass, first, second_out);
        *log_likelihood = nats(&sum) + taken + LN_2 * shift * total_weight;
        return true;
    }
};

/* Add the statistics of the rows to mass, first and second (null: not wanted), about `origin`. False where there is no memory. */
static bool sweep_rows(const Data& data, const Mixture& mixture, const double* v, const double* origin, bool hard, bool single,
                       double* mass, double* first, double* second, double* log_likelihood) {
    if (single && data.single) {
        Walk<float> walk(data, mixture, origin, second);
        if (!walk.allocate()) return false;
        walk.prepare();
        if (walk.sweep(v, hard, mass, first, second, log_likelihood)) return true;
    }
    Walk<double> walk(data, mixture, origin, second);
    if (!walk.allocate()) return false;
    walk.prepare();
    return walk.sweep(v, hard, mass, first, second, log_likelihood);
}

/* Fill whichever of the outputs are not null, row by row, in double. False where there is no memory. */
static bool evaluate_rows(const Data& data, const Mixture& mixture, double* log_density, int64_t* labels, double* responsibilities) {
    Walk<double> walk(data, mixture, nullptr, false);
    const ptrdiff_t K = mixture.K, step = PANEL<double>;
    if (!walk.allocate()) return false;
    walk.prepare();
    for (ptrdiff_t start = 0; start < data.N; start += walk.B) {
        const ptrdiff_t count = data.N - start < walk.B ? data.N - start : walk.B;
        Block<double> b;
        walk.load(start, count, &b);
        for (ptrdiff_t p = 0; p < b.panels; p++) {
            double* l = walk.l + p * walk.padded_K * step;
            const ptrdiff_t at = start + p * step, rows = count - p * step < step ? count - p * step : step;
            walk.log_density(b, p);
            if (labels) most_likely(l, K, rows, labels + at);
            if (log_density || responsibilities) normalise(l, K, walk.top, walk.total);
            if (log_density) log_densities(walk.top, walk.total, rows, log_density + at);
            if (responsibilities) posteriors(l, walk.total, K, rows, responsibilities + at * K);
        }
    }
    return true;
}

#endif
