/* The M step (7, 8) and the factors that the next sweep needs, where that is plain arithmetic: for few features the calls of a
   library cost more than the numbers. `maximise.py` and `parameters.py` are the definition. What is not plain (no mass, a covariance
   that has collapsed or is near to it, numbers near the ends of the range) is left to them, by returning false or 0. */
#ifndef EMFUSE_MAXIMISE_H
#define EMFUSE_MAXIMISE_H

#include "_decomposed.h"

enum { NOT_PLAIN = 0, DONE = 1, DONE_BUT_FAR = 2 };

struct Rules {
    double reg_covar, spare_mass;
    double far;              /* a mean that moved by more than this many variances, squared, has moved far */
    double least_left;       /* the least share of a variance that may be left over by the features before */
    double most_rounding;    /* the most that (sum_j |P_ij| sd_j)^2 may be */
    double least_sd;         /* the least standard deviation beside the mean's size */
    const double* floor;     /* a scatter added to the diagonal of each component's, (D,); or none */
    double floor_rows;       /* and how many rows it is the scatter of */
    double most_floor;       /* the most of a component's variance that may be the floor's */
};

/* Whether rounding of a scatter, brought to y (2), stays small. */
static bool keeps_digits(const double* C, const double* P, ptrdiff_t D, double most_rounding) {
    for (ptrdiff_t i = 0; i < D; i++) {
        double amplified = 0;
        for (ptrdiff_t j = 0; j <= i; j++) amplified += fabs(P[i * D + j]) * sqrt(C[j * D + j]);
        if (!(amplified * amplified < most_rounding)) return false;
    }
    return true;
}

/* Whether a component that holds so many rows stands clear of the floor. */
static bool clear_of_floor(int form, ptrdiff_t D, const double* P, const Rules& rules, double rows) {
    double share = 0;
    if (form == FULL || form == TIED) {
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j <= i; j++) share += P[i * D + j] * P[i * D + j] * rules.floor[j];
    } else {
        for (ptrdiff_t d = 0; d < D; d++) share += P[form == DIAG ? d : 0] * P[form == DIAG ? d : 0] * rules.floor[d];
    }
    return share <= rules.most_floor * rows;
}

/* `second`, covariances and P have the form of the mixture; `kind` is none for scikit-learn's four, else it shapes the scatters, and
   may search from the covariances `before`. Writes weights, means, covariances, P and log_constant. */
static int maximise_plainly(int form, ptrdiff_t K, ptrdiff_t D, const double* origin, const double* mass, const double* first, const double* second,
                            const Rules& rules, Decomposed* kind, const double* before, double* weights, double* means, double* covariances, double* P, double* log_constant) {
    const bool triangle = form == FULL || form == TIED, pooled = form == TIED;
    const ptrdiff_t size = triangle ? D * D : form == DIAG ? D : 1;
    double total = 0;
    bool far = false;
    for (ptrdiff_t k = 0; k < K; k++) {
        if (!(mass[k] > 0) || (rules.spare_mass > 0 && (kind || form != FULL) && mass[k] <= 1)) return NOT_PLAIN;
        total += mass[k] + rules.spare_mass;
    }
    if (!(total < 1e300)) return NOT_PLAIN;
    memcpy(covariances, second, (pooled ? 1 : K) * size * sizeof(double));
    for (ptrdiff_t k = 0; k < K; k++) {
        const double own = mass[k] + rules.spare_mass, half_mass = 0.5 * mass[k];
        const double *o = origin + k * D, *f = first + k * D;
        double *S = covariances + (pooled ? 0 : k * size), *mean = means + k * D;
        weights[k] = own / total;                                                            /* (7) */
        for (ptrdiff_t d = 0; d < D; d++) mean[d] = (f[d] - rules.spare_mass * o[d]) / own;  /* t, for now */
        double of_all = 0;
        for (ptrdiff_t a = 0; a < D; a++) {                                                  /* (8), times mass */
            const double half = f[a] - half_mass * mean[a];
            if (triangle) for (ptrdiff_t b = 0; b < D; b++) S[a * D + b] -= half * mean[b] + (f[b] - half_mass * mean[b]) * mean[a];
            else if (form == DIAG) S[a] -= 2 * mean[a] * half;
            else of_all += 2 * mean[a] * half;
        }
        if (form == SPHERICAL) *S -= of_all / (double)D;
    }
    double spread = 0;                        /* the floor's mean over features, for spheres */
    for (ptrdiff_t d = 0; rules.floor && d < D; d++) spread += rules.floor[d] / (double)D;
    for (ptrdiff_t k = 0; k < (pooled ? 1 : K); k++) {
        double* C = covariances + k * size;
        for (ptrdiff_t d = 0; rules.floor && d < D; d++) {
            if (triangle) C[d * (D + 1)] += (pooled ? (double)K : 1.0) * rules.floor[d];
            else if (form == DIAG) C[d] += rules.floor[d];
            else if (d == 0) C[0] += spread;
        }
        if (kind) continue;
        const double divisor = pooled ? total + (double)K * rules.floor_rows : mass[k] + rules.spare_mass + rules.floor_rows;
        for (ptrdiff_t i = 0; i < size; i++) C[i] /= divisor;
    }
    if (kind && !kind->estimate(covariances, mass, rules.spare_mass + rules.floor_rows, before, covariances)) return NOT_PLAIN;
    for (ptrdiff_t i = 0; i < (pooled ? 1 : K) * size; i++)
        if (!triangle || i % size % (D + 1) == 0) covariances[i] += rules.reg_covar;
    for (ptrdiff_t k = 0; k < K; k++) {
        const double* C = covariances + (pooled ? 0 : k * size);
        for (ptrdiff_t d = 0; d < D; d++) {
            const double variance = C[triangle ? d * (D + 1) : form == DIAG ? d : 0], move = means[k * D + d];
            far = far || move * move > rules.far * variance;
            means[k * D + d] += origin[k * D + d];                                           /* (7) */
            const double least = rules.least_sd * means[k * D + d];
            if (!(variance > least * least)) return NOT_PLAIN;
        }
    }
    if (!factor_plainly(form, K, D, weights, covariances, rules.least_left, P, log_constant)) return NOT_PLAIN;
    for (ptrdiff_t k = 0; triangle && k < (pooled ? 1 : K); k++)
        if (!keeps_digits(covariances + k * size, P + k * size, D, rules.most_rounding)) return NOT_PLAIN;
    for (ptrdiff_t k = 0; rules.floor && k < (pooled ? 1 : K); k++)
        if (!clear_of_floor(form, D, P + k * size, rules, (pooled ? total / (double)K : mass[k]) + rules.floor_rows)) return NOT_PLAIN;
    return far ? DONE_BUT_FAR : DONE;
}

#endif
