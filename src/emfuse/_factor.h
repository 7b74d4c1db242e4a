/* The factors of covariances where they are plain arithmetic; `emfuse.covariance` is the definition, and does the rest. */
#ifndef EMFUSE_FACTOR_H
#define EMFUSE_FACTOR_H

#include <math.h>
#include "_walk.h"

static const double LOG_2_PI = 1.8378770664093454836;
static const double MODERATE_VARIANCE = 1e280;   /* between 1 / this and this no product below leaves the range */

static bool moderate(double variance) { return variance > 1 / MODERATE_VARIANCE && variance < MODERATE_VARIANCE; }

/* Lower P with P' P = inverse of the covariance C. */
static bool invert_triangle(const double* C, ptrdiff_t D, double least_left, double* P) {
    for (ptrdiff_t i = 0; i < D; i++) {       /* the Cholesky factor L first, in P */
        double left = C[i * D + i];
        if (!moderate(left)) return false;
        for (ptrdiff_t j = 0; j < i; j++) {
            double value = C[i * D + j];
            for (ptrdiff_t t = 0; t < j; t++) value -= P[i * D + t] * P[j * D + t];
            value /= P[j * D + j];
            P[i * D + j] = value;
            left -= value * value;
        }
        if (!(left >= least_left * C[i * D + i])) return false;
        P[i * D + i] = sqrt(left);
        for (ptrdiff_t j = i + 1; j < D; j++) P[i * D + j] = 0;
    }
    for (ptrdiff_t i = 0; i < D; i++) {       /* then its inverse in place: row i needs L's row i, and the rows of the inverse before it */
        const double diagonal = 1 / P[i * D + i];
        for (ptrdiff_t j = 0; j < i; j++) {
            double value = 0;
            for (ptrdiff_t t = j; t < i; t++) value += P[i * D + t] * P[t * D + j];
            P[i * D + j] = -diagonal * value;   /* L's column j is not needed any more */
        }
        P[i * D + i] = diagonal;
    }
    return true;
}

/* P and log_constant (3) of covariances in the form of P. */
static bool factor_plainly(int form, ptrdiff_t K, ptrdiff_t D, const double* weights, const double* covariances, double least_left,
                           double* P, double* log_constant) {
    const bool triangle = form == FULL || form == TIED;
    const ptrdiff_t size = triangle ? D * D : form == DIAG ? D : 1;
    double log_det = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        if (form != TIED || k == 0) {
            const double* C = covariances + k * size;
            double* p = P + k * size;
            log_det = 0;
            if (triangle) {
                if (!invert_triangle(C, D, least_left, p)) return false;
                for (ptrdiff_t d = 0; d < D; d++) log_det += log(p[d * D + d]);
            } else {
                for (ptrdiff_t d = 0; d < size; d++) {
                    if (!moderate(C[d])) return false;
                    p[d] = 1 / sqrt(C[d]);
                    log_det += log(p[d]);
                }
                if (form == SPHERICAL) log_det *= (double)D;
            }
        }
        log_constant[k] = log(weights[k]) - 0.5 * (double)D * LOG_2_PI + log_det;
    }
    return true;
}

#endif
