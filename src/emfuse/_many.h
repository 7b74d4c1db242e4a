/* Many small data sets: a start and a climb for each, without Python in between. `emfuse.many` says what, and takes care of those
   that are left alone. */
#ifndef EMFUSE_MANY_H
#define EMFUSE_MANY_H

#include <stdint.h>
#include "_climb.h"

/* splitmix64 (Steele, Lea & Flood 2014): a stream of its own for each data set, from a seed and its number. */
struct Random {
    uint64_t state;
    Random(uint64_t seed, uint64_t number) : state(seed + 0x9E3779B97F4A7C15ull * (number + 1)) { next(); }
    uint64_t next() {
        uint64_t z = state += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    double uniform() { return (double)(next() >> 11) * 0x1p-53; }
};

/* A start for rows of float64, (N, D) without gaps: k-means, from K parts of equal size where there is one feature, else from
   k-means++ (Arthur & Vassilvitskii 2007) with 2 + log K candidates. Into `climb->here`; false where the rows have no spread. */
class Starter {
public:
    Starter(Climb* climb, const double* mean, const double* variance, bool by_parts)
        : climb(climb), K(climb->K), D(climb->D), N(climb->rows.data.N), x((const double*)climb->rows.data.start), variance(variance),
          centre(mean[0]), by_parts(by_parts), centres(K * D), scale(D), P(K * D), zero(K), mass(K), first(K * D), second(K * D) {
        for (ptrdiff_t d = 0; d < D; d++) scale[d] = variance[d] > 0 ? 1 / sqrt(variance[d]) : 0;
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t d = 0; d < D; d++) P[k * D + d] = scale[d], centres[k * D + d] = mean[d];
    }

    bool start(Random random) {
        const bool on_a_line = by_parts && D == 1;
        if (on_a_line) parts();
        else plus_plus(random);
        for (int round = 0; round < 10; round++) {      /* Lloyd's iteration */
            if (on_a_line) between_boundaries();
            else if (!nearest()) return false;
            bool moved = false;
            for (ptrdiff_t k = 0; k < K; k++)
                for (ptrdiff_t d = 0; d < D && mass[k] > 0; d++) {
                    const double by = first[k * D + d] / mass[k];
                    moved = moved || fabs(by) * scale[d] > 1e-3;
                    centres[k * D + d] += by;
                }
            if (!moved) break;
        }
        return to_mixture();
    }

private:
    Climb* climb;
    const ptrdiff_t K, D, N;
    const double* x;
    const double* variance;
    const double centre;     /* the mean of the first feature */
    const bool by_parts;
    std::vector<double> centres, scale, P, zero, mass, first, second;

    void parts() {
        std::vector<double> row(x, x + N);
        for (ptrdiff_t k = 0; k < K; k++) {
            const ptrdiff_t from = k * N / K, to = (k + 1) * N / K;
            if (to < N) std::nth_element(row.begin() + from, row.begin() + to, row.end());
            double sum = 0;
            for (ptrdiff_t i = from; i < to; i++) sum += row[i];
            if (to > from) centres[k] = sum / (double)(to - from);
        }
    }

    /* As `nearest`, without second, for rows on a line whose centres stand in order: a row belongs between two of the boundaries
       half way from centre to centre. */
    void between_boundaries() {
        double rows_above = (double)N, sum_above = 0;            /* of the rows less the mean of all: 0, but for rounding */
        for (ptrdiff_t k = 0; k < K; k++) {
            double rows = 0, sum = 0;
            if (k + 1 < K) {
                const double boundary = 0.5 * (centres[k] + centres[k + 1]);
                vec<double> count = all(0.0), total = all(0.0);
                ptrdiff_t i = 0;
                for (; i + W<double> <= N; i += W<double>) {
                    const vec<double> at = load(x + i);
                    count += where_greater(at, all(boundary), all(1.0), all(0.0));
                    total += where_greater(at, all(boundary), at - all(centre), all(0.0));
                }
                rows = sum_of<double>(count), sum = sum_of<double>(total);
                for (; i < N; i++)
                    if (x[i] > boundary) rows += 1, sum += x[i] - centre;
            }
            mass[k] = rows_above - rows;
            first[k] = mass[k] > 0 ? sum_above - sum - mass[k] * (centres[k] - centre) : 0;
            rows_above = rows, sum_above = sum;
        }
    }

    double distance(ptrdiff_t a, ptrdiff_t b) const {
        double sum = 0;
        for (ptrdiff_t d = 0; d < D; d++) {
            const double z = (x[a * D + d] - x[b * D + d]) * scale[d];
            sum += z * z;
        }
        return sum;
    }

    void plus_plus(Random& random) {
        std::vector<double> least(N, INFINITY), tried(N), best(N);
        ptrdiff_t row = (ptrdiff_t)(random.uniform() * (double)N);
        const int candidates = 2 + (int)log((double)K);
        for (ptrdiff_t k = 0; k < K; k++) {
            if (k > 0) {
                double total = 0, lowest = INFINITY;
                for (ptrdiff_t i = 0; i < N; i++) total += least[i];
                for (int c = 0; c < candidates; c++) {
                    double at = random.uniform() * total;
                    ptrdiff_t i = 0;
                    while (i + 1 < N && (at -= least[i]) > 0) i++;
                    double sum = 0;
                    for (ptrdiff_t j = 0; j < N; j++) sum += tried[j] = fmin(least[j], distance(j, i));
                    if (sum < lowest) lowest = sum, row = i, best.swap(tried);
                }
                least.swap(best);
            } else {
                for (ptrdiff_t j = 0; j < N; j++) least[j] = distance(j, row);
            }
            for (ptrdiff_t d = 0; d < D; d++) centres[k * D + d] = x[row * D + d];
        }
    }

    /* The sums of the rows that are nearest to each centre, about it. */
    bool nearest() {
        std::fill(mass.begin(), mass.end(), 0.0);
        std::fill(first.begin(), first.end(), 0.0);
        std::fill(second.begin(), second.end(), 0.0);
        Mixture mixture;
        mixture.K = K, mixture.form = DIAG, mixture.mu = &centres[0], mixture.P = &P[0], mixture.c = &zero[0];
        double log_likelihood = 0;
        return sweep_rows(climb->rows.data, mixture, climb->rows.v, &centres[0], true, false, &mass[0], &first[0], &second[0], &log_likelihood);
    }

    /* One M step of the partition, with diagonal covariances to begin with: each its own, or where one has none all the same. */
    bool to_mixture() {
        if (!nearest()) return false;
        Mix& m = climb->here;
        double total = 0;
        bool own = true;
        std::vector<double> within(D, 0.0), variances(K * D);
        for (ptrdiff_t k = 0; k < K; k++) {
            const double rows = mass[k] > 0 ? mass[k] : climb->rows.weight / (double)K;
            m.w[k] = rows;
            total += rows;
            for (ptrdiff_t d = 0; d < D; d++) {
                const double t = mass[k] > 0 ? first[k * D + d] / mass[k] : 0, scatter = second[k * D + d] - first[k * D + d] * t;
                m.mu[k * D + d] = centres[k * D + d] + t;
                within[d] += scatter / climb->rows.weight;
                variances[k * D + d] = mass[k] > 0 ? scatter / mass[k] : 0;
                own = own && variances[k * D + d] > 1e-6 * variance[d];
            }
        }
        for (ptrdiff_t d = 0; d < D; d++)
            if (!(within[d] > 1e-6 * variance[d])) within[d] = 1e-3 * variance[d];
        const int form = climb->form;
        std::fill(m.C.begin(), m.C.end(), 0.0);
        for (ptrdiff_t k = 0; k < K; k++) {
            m.w[k] /= total;
            double sphere = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                const double value = own && form != TIED ? variances[k * D + d] : within[d];
                if (form == FULL) m.C[(k * D + d) * D + d] = value;
                else if (form == TIED) m.C[d * D + d] = value;
                else if (form == DIAG) m.C[k * D + d] = value;
                sphere += value / (double)D;
            }
            if (form == SPHERICAL) m.C[k] = sphere;
        }
        return factor_plainly(form, K, D, &m.w[0], &m.C[0], 0.0, &m.P[0], &m.c[0]);
    }
};

/* Mean and variance of each feature, weighed. */
static void moments(const double* x, const double* v, ptrdiff_t N, ptrdiff_t D, double weight, double* mean, double* variance) {
    for (ptrdiff_t d = 0; d < D; d++) {
        double sum = 0, square = 0;
        for (ptrdiff_t i = 0; i < N; i++) sum += (v ? v[i] : 1.0) * (x[i * D + d] - x[d]);
        mean[d] = x[d] + sum / weight;
        for (ptrdiff_t i = 0; i < N; i++) {
            const double z = x[i * D + d] - mean[d];
            square += (v ? v[i] : 1.0) * z * z;
        }
        variance[d] = square / weight;
    }
}

enum Outcome { CONVERGED = 0, AT_LIMIT = 1, NOT_PLAINLY = 2, TOO_FEW_ROWS = 3, NOT_FINITE = 4, OUT_OF_MEMORY = 5 };

struct Wish {                /* what is asked of each data set */
    int form, structure;
    ptrdiff_t K, D;
    Rules rules;             /* but for the floor, which depends on the data */
    double variance_floor;
    Stop stop;
    bool accelerate, by_parts;
    bool from_result;        /* one start, which stands in the result; else `starts` are made */
    ptrdiff_t warm_up, starts;
    Limits limits;
    uint64_t seed;
};

struct Result {
    double *weights, *means, *covariances;
    double log_likelihood, distance;
    ptrdiff_t sweeps;
};

static bool never() { return false; }

/* The mixture of a result, with its factors, as the start of a climb. */
static bool start_at(const Result& result, double least_left, Climb* climb) {
    Mix& m = climb->here;
    memcpy(&m.w[0], result.weights, m.w.size() * sizeof(double));
    memcpy(&m.mu[0], result.means, m.mu.size() * sizeof(double));
    memcpy(&m.C[0], result.covariances, m.C.size() * sizeof(double));
    return factor_plainly(climb->form, climb->K, climb->D, &m.w[0], &m.C[0], least_left, &m.P[0], &m.c[0]);
}

/* The best of the starts for one data set, rows of float64 without gaps. */
static Outcome fit_one(const Wish& wish, uint64_t number, const double* x, const double* v, ptrdiff_t N, Result* result) {
    const ptrdiff_t K = wish.K, D = wish.D;
    Rows rows;
    rows.data.start = (const char*)x, rows.data.single = 0, rows.data.N = N, rows.data.D = D, rows.data.row_step = D, rows.data.column_step = 1;
    rows.v = v, rows.group = N > 0 ? N : 1, rows.weight = 0;
    ptrdiff_t used = 0;
    for (ptrdiff_t i = 0; i < N; i++) {
        const double weight = v ? v[i] : 1.0;
        if (!(weight >= 0) || !isfinite(weight)) return NOT_FINITE;
        rows.weight += weight;
        used += weight > 0;
    }
    for (ptrdiff_t i = 0; i < N * D; i++)
        if (!isfinite(x[i])) return NOT_FINITE;
    if (used < K) return TOO_FEW_ROWS;
    std::vector<double> mean(D), variance(D), floor(D);
    moments(x, v, N, D, rows.weight, &mean[0], &variance[0]);
    Rules rules = wish.rules;
    rules.floor_rows = wish.variance_floor * rows.weight;
    double constant = (double)D;
    for (ptrdiff_t d = 0; d < D; d++) {
        if (!isfinite(variance[d])) return NOT_FINITE;
        floor[d] = rules.floor_rows * variance[d];
        if (variance[d] > 0) constant += log(variance[d]);
    }
    rules.floor = wish.variance_floor > 0 ? &floor[0] : nullptr;
    double best = -INFINITY;
    Outcome outcome = NOT_PLAINLY;
    ptrdiff_t sweeps = 0;
    for (ptrdiff_t start = 0; start < wish.starts; start++) {
        Climb climb(rows, wish.form, wish.structure, K, rules, constant, wish.stop);
        if (wish.from_result) {
            if (!start_at(*result, rules.least_left, &climb)) continue;
        } else {
            if (!Starter(&climb, &mean[0], &variance[0], wish.by_parts && start == 0).start(Random(wish.seed + (uint64_t)start, number))) continue;
            if (!climb.shape_start()) continue;
        }
        Emqn emqn(wish.form, K, D, rows.weight, wish.warm_up, wish.limits);
        const Ending ending = climb.run(wish.accelerate ? &emqn : nullptr, never);
        sweeps += climb.sweeps;
        if (ending == NO_MEMORY) return OUT_OF_MEMORY;
        if (ending != STOPPED || !(climb.trace.back() > best)) continue;
        best = climb.trace.back();
        outcome = climb.at_limit ? AT_LIMIT : CONVERGED;
        memcpy(result->weights, &climb.here.w[0], K * sizeof(double));
        memcpy(result->means, &climb.here.mu[0], K * D * sizeof(double));
        memcpy(result->covariances, &climb.here.C[0], climb.numbers * sizeof(double));
        result->log_likelihood = climb.sums.log_likelihood;
        result->distance = climb.remaining > 0 ? climb.remaining : 0;
    }
    result->sweeps = sweeps;
    return outcome;
}

#endif
