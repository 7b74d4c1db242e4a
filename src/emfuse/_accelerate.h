/* EM-preconditioned limited-memory BFGS for few features, where calls of a library cost more than the numbers: what
   `emfuse.accelerate.Emqn` does, which is the definition and says why. */
#ifndef EMFUSE_ACCELERATE_H
#define EMFUSE_ACCELERATE_H

#include <math.h>
#include <vector>
#include "_maximise.h"

struct Limits {              /* the constants of `emfuse.accelerate` */
    ptrdiff_t pairs, rebase;
    double radius, curvature, least_weight, look_below, most_log, least_left;
};

/* A mixture: weights (K), means (K, D) and P, one after the other. */
struct Point {
    const double *w, *mu, *P;
};

enum { NO_TRIAL = 0, TRIAL = 1, TRIAL_UNFACTORED = 2 };

struct Advice {
    int trial;               /* whether there is one, and whether its factors are plain arithmetic */
    double promised;         /* what EM's own step gains to second order, nats */
    double remaining;        /* the gain that is left up to the maximum, estimated, nats; inf where nothing is known */
    bool settled;
};

class Emqn {
public:
    Emqn(int form, ptrdiff_t K, ptrdiff_t D, double weight, ptrdiff_t warm_up, const Limits& limits)
        : form(form), K(K), D(D), triangle(form == FULL || form == TIED), blocks(form == TIED ? 1 : K),
          size(triangle ? D * D : form == DIAG ? D : 1), free_of_block(triangle ? D * (D + 1) / 2 : size),
          p(K + K * D + blocks * free_of_block), of_point(K + K * D + blocks * size), weight(weight), left(warm_up), limits(limits),
          base(of_point), L0(blocks * size), log_w(K), root_w(K), root_g(blocks * free_of_block), trial(of_point), log_constant(K), d(p),
          scratch(3 * D * D), heres((limits.pairs + 1) * of_point), images((limits.pairs + 1) * of_point), xs((limits.pairs + 1) * p),
          fs((limits.pairs + 1) * p), moves(limits.pairs * p), bends(limits.pairs * p), products(limits.pairs), shares(limits.pairs) {}

    /* What to do at `here`, of which EM makes `image`; the trial is in `tried`, its covariances in `covariances`. */
    Advice step(const Point& here, const Point& image, double gained, double* covariances) {
        Advice advice = {NO_TRIAL, gained, INFINITY, false};
        if (left > 0) {
            left--;
            if (!(gained > limits.look_below)) advice.promised = promised_gain(here, image);
            return advice;
        }
        advice.promised = promised_gain(here, image);
        remember(here, image);
        const double *x = &xs[(count - 1) * p], *f = &fs[(count - 1) * p];
        ptrdiff_t n = 0;     /* pairs kept */
        bool all_curved = true;
        double product = 0, length = 0, bent = 0;
        for (ptrdiff_t i = 0; i + 1 < count; i++) {
            double *s = &moves[n * p], *y = &bends[n * p];
            product = length = bent = 0;
            for (ptrdiff_t j = 0; j < p; j++) {
                s[j] = xs[(i + 1) * p + j] - xs[i * p + j];
                y[j] = fs[i * p + j] - fs[(i + 1) * p + j];
                product += s[j] * y[j];
                length += s[j] * s[j];
                bent += y[j] * y[j];
            }
            if (product > limits.curvature * sqrt(length * bent)) products[n++] = product;
            else all_curved = false;
        }
        had_pairs = n > 0;
        if (count > 1 && product < 0 && length > bent && bent > 0) {   /* of the newest pair: a saddle is being left */
            const double stretch = sqrt(length / bent);
            for (ptrdiff_t j = 0; j < p; j++) d[j] = f[j] * stretch;
            within_radius(1 / stretch);
            advice.trial = unpack(x, covariances);
            return advice;
        }
        if (n == 0) return advice;
        two_loop(f, n);
        const double gain = dot(f, d.data());
        advice.remaining = 0.5 * weight * gain;
        within_radius(fmin(1.0, sqrt(dot(f, f) / dot(d.data(), d.data()))));
        if (advice.remaining > 0) advice.trial = unpack(x, covariances);
        advice.settled = count > 3 && all_curved;
        return advice;
    }

    /* Forget the older half of the memory: what it says led astray. */
    void refuse() {
        if (!had_pairs) return;
        const ptrdiff_t kept = count / 2 > 1 ? count / 2 : 1;
        drop(count - kept);
    }

    /* What EM's step gains to second order: (n / 2) |image - here|^2 in the complete-data information at `here`. */
    double promised_gain(const Point& here, const Point& image) {
        double of_weights = 0, of_means = 0, of_covariances = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *P = here.P + (blocks < K ? 0 : k) * size, change = image.w[k] - here.w[k];
            of_weights += change * change / fmax(here.w[k], 1e-290);
            double square = 0;
            for (ptrdiff_t i = 0; i < D; i++) {
                double y = 0;
                if (triangle) for (ptrdiff_t j = 0; j <= i; j++) y += P[i * D + j] * (image.mu[k * D + j] - here.mu[k * D + j]);
                else y = P[form == DIAG ? i : 0] * (image.mu[k * D + i] - here.mu[k * D + i]);
                square += y * y;
            }
            of_means += here.w[k] * square;
        }
        for (ptrdiff_t k = 0; k < blocks; k++) {
            const double *P = here.P + k * size, *P1 = image.P + k * size;
            double square = 0;
            if (triangle) {                     /* T = P C1 P' = A A' with A = P P1^-1 */
                double *L1 = &scratch[0], *A = &scratch[D * D];
                invert_lower(P1, L1);
                multiply_lower(P, L1, A);
                for (ptrdiff_t i = 0; i < D; i++)
                    for (ptrdiff_t j = 0; j <= i; j++) {
                        double t = i == j ? -1.0 : 0.0;
                        for (ptrdiff_t u = 0; u <= j; u++) t += A[i * D + u] * A[j * D + u];
                        square += (i == j ? 1.0 : 2.0) * t * t;
                    }
            } else {
                for (ptrdiff_t i = 0; i < size; i++) {
                    const double ratio = P[i] / P1[i], t = ratio * ratio - 1;
                    square += t * t;
                }
                if (form == SPHERICAL) square *= (double)D;
            }
            of_covariances += (blocks < K ? 1.0 : here.w[k]) * square;
        }
        return 0.5 * weight * (of_weights + of_means + 0.5 * of_covariances);
    }

    const int form;
    const ptrdiff_t K, D;
    const bool triangle;
    const ptrdiff_t blocks, size, free_of_block, p, of_point;
    const double weight;
    ptrdiff_t left;
    Point tried() const { return point(&trial[0]); }
    const double* constant_of_tried() const { return &log_constant[0]; }

private:
    const Limits limits;
    std::vector<double> base, L0, log_w, root_w, root_g, trial, log_constant, d, scratch, heres, images, xs, fs, moves, bends, products, shares;
    ptrdiff_t count = 0, age = 0;
    bool based = false, had_pairs = false;

    Point point(const double* numbers) const { return Point{numbers, numbers + K, numbers + K + K * D}; }

    double dot(const double* a, const double* b) const {
        double sum = 0;
        for (ptrdiff_t j = 0; j < p; j++) sum += a[j] * b[j];
        return sum;
    }

    void copy(const Point& from, double* to) const {
        memcpy(to, from.w, K * sizeof(double));
        memcpy(to + K, from.mu, K * D * sizeof(double));
        memcpy(to + K + K * D, from.P, blocks * size * sizeof(double));
    }

    void invert_lower(const double* T, double* inverse) const {
        for (ptrdiff_t i = 0; i < D; i++) {
            const double diagonal = 1 / T[i * D + i];
            for (ptrdiff_t j = 0; j < D; j++) {
                double value = 0;
                for (ptrdiff_t t = j; t < i; t++) value += T[i * D + t] * inverse[t * D + j];
                inverse[i * D + j] = j < i ? -diagonal * value : j == i ? diagonal : 0;
            }
        }
    }

    void multiply_lower(const double* A, const double* B, double* C) const {
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                double value = 0;
                for (ptrdiff_t t = j; t <= i; t++) value += A[i * D + t] * B[t * D + j];
                C[i * D + j] = value;
            }
    }

    void rebase(const Point& here) {
        copy(here, &base[0]);
        for (ptrdiff_t k = 0; k < K; k++) {
            log_w[k] = log(fmax(here.w[k], 1e-300));
            root_w[k] = sqrt(fmax(here.w[k], limits.least_weight));
        }
        for (ptrdiff_t k = 0, at = 0; k < blocks; k++) {
            const double root = blocks < K ? 1.0 : root_w[k];
            if (triangle) {
                invert_lower(here.P + k * size, &L0[k * size]);
                for (ptrdiff_t i = 0; i < D; i++)
                    for (ptrdiff_t j = 0; j <= i; j++) root_g[at++] = i == j ? sqrt(2.0) * root : root;
            } else {
                for (ptrdiff_t i = 0; i < size; i++) root_g[at++] = root * sqrt(form == SPHERICAL ? 2.0 * (double)D : 2.0);
            }
        }
    }

    void pack(const Point& q, double* x) {
        const Point b = point(&base[0]);
        double *m = x + K, *c = x + K + K * D;
        for (ptrdiff_t k = 0; k < K; k++) {
            x[k] = root_w[k] * (log(fmax(q.w[k], 1e-300)) - log_w[k]);
            const double *P = b.P + (blocks < K ? 0 : k) * size, *mu = q.mu + k * D, *mu0 = b.mu + k * D;
            for (ptrdiff_t i = 0; i < D; i++) {
                double y = 0;
                if (triangle) for (ptrdiff_t j = 0; j <= i; j++) y += P[i * D + j] * (mu[j] - mu0[j]);
                else y = P[form == DIAG ? i : 0] * (mu[i] - mu0[i]);
                *m++ = root_w[k] * y;
            }
        }
        const double* g = &root_g[0];
        for (ptrdiff_t k = 0; k < blocks; k++) {
            const double* P = q.P + k * size;
            if (triangle) {
                double* Q = &scratch[0];
                multiply_lower(P, &L0[k * size], Q);
                for (ptrdiff_t i = 0; i < D; i++)
                    for (ptrdiff_t j = 0; j <= i; j++) *c++ = *g++ * (i == j ? -log(Q[i * D + i]) : -Q[i * D + j]);
            } else {
                for (ptrdiff_t i = 0; i < size; i++) *c++ = *g++ * log(b.P[k * size + i] / P[i]);
            }
        }
    }

    /* The mixture at x + d into `trial`, and its covariances. */
    int unpack(const double* x, double* covariances) {
        const Point b = point(&base[0]);
        double *w = &trial[0], *mu = w + K, *P = mu + K * D, top = -INFINITY, total = 0;
        for (ptrdiff_t j = 0; j < p; j++)
            if (!isfinite(x[j] + d[j])) return NO_TRIAL;
        for (ptrdiff_t k = 0; k < K; k++) {
            w[k] = log_w[k] + (x[k] + d[k]) / root_w[k];
            top = fmax(top, w[k]);
        }
        if (!isfinite(top)) return NO_TRIAL;
        for (ptrdiff_t k = 0; k < K; k++) total += w[k] = exp(w[k] - top);
        for (ptrdiff_t k = 0; k < K; k++) w[k] /= total;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double* L = &L0[(blocks < K ? 0 : k) * size];
            const ptrdiff_t at = K + k * D;
            for (ptrdiff_t i = 0; i < D; i++) {
                double move = 0;
                if (triangle) for (ptrdiff_t j = 0; j <= i; j++) move += L[i * D + j] * (x[at + j] + d[at + j]);
                else move = (x[at + i] + d[at + i]) / b.P[k * size + (form == DIAG ? i : 0)];
                mu[k * D + i] = b.mu[k * D + i] + move / root_w[k];
                if (!isfinite(mu[k * D + i])) return NO_TRIAL;
            }
        }
        for (ptrdiff_t k = 0, at = K + K * D, g = 0; k < blocks; k++) {
            double* C = covariances + k * size;
            if (!triangle) {
                for (ptrdiff_t i = 0; i < size; i++, at++, g++) {
                    const double c = (x[at] + d[at]) / root_g[g];
                    if (fabs(c) >= limits.most_log) return NO_TRIAL;
                    const double sd = exp(c) / b.P[k * size + i];
                    C[i] = sd * sd;
                }
                continue;
            }
            double *Q = &scratch[0], *R = &scratch[D * D], *L = &scratch[2 * D * D];
            for (ptrdiff_t i = 0; i < D; i++)
                for (ptrdiff_t j = 0; j <= i; j++, at++, g++) {
                    const double c = (x[at] + d[at]) / root_g[g];
                    if (fabs(c) >= limits.most_log) return NO_TRIAL;
                    Q[i * D + j] = i == j ? exp(-c) : -c;
                }
            invert_lower(Q, R);
            multiply_lower(&L0[k * size], R, L);
            for (ptrdiff_t i = 0; i < D; i++)
                for (ptrdiff_t j = 0; j <= i; j++) {
                    double value = 0;
                    for (ptrdiff_t t = 0; t <= j; t++) value += L[i * D + t] * L[j * D + t];
                    C[i * D + j] = C[j * D + i] = value;
                }
        }
        return factor_plainly(form, K, D, w, covariances, limits.least_left, P, &log_constant[0]) ? TRIAL : TRIAL_UNFACTORED;
    }

    void within_radius(double least) {
        double most = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            most = fmax(most, 0.5 * fabs(d[k]) / root_w[k]);
            double square = 0;
            for (ptrdiff_t i = 0; i < D; i++) square += d[K + k * D + i] * d[K + k * D + i];
            most = fmax(most, sqrt(square) / root_w[k]);
        }
        for (ptrdiff_t j = K + K * D; j < p; j++) most = fmax(most, 2 * fabs(d[j]) / root_g[j - K - K * D]);
        if (!(most > limits.radius)) return;
        const double factor = fmax(limits.radius / most, least);
        for (ptrdiff_t j = 0; j < p; j++) d[j] *= factor;
    }

    void two_loop(const double* f, ptrdiff_t n) {
        memcpy(&d[0], f, p * sizeof(double));
        for (ptrdiff_t i = n - 1; i >= 0; i--) {
            shares[i] = dot(&moves[i * p], &d[0]) / products[i];
            for (ptrdiff_t j = 0; j < p; j++) d[j] -= shares[i] * bends[i * p + j];
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            const double share = shares[i] - dot(&bends[i * p], &d[0]) / products[i];
            for (ptrdiff_t j = 0; j < p; j++) d[j] += share * moves[i * p + j];
        }
    }

    void drop(ptrdiff_t oldest) {
        for (ptrdiff_t i = oldest; i < count; i++) {
            memcpy(&heres[(i - oldest) * of_point], &heres[i * of_point], of_point * sizeof(double));
            memcpy(&images[(i - oldest) * of_point], &images[i * of_point], of_point * sizeof(double));
            memcpy(&xs[(i - oldest) * p], &xs[i * p], p * sizeof(double));
            memcpy(&fs[(i - oldest) * p], &fs[i * p], p * sizeof(double));
        }
        count -= oldest;
    }

    void remember(const Point& here, const Point& image) {
        if (count == limits.pairs + 1) drop(1);
        copy(here, &heres[count * of_point]);
        copy(image, &images[count * of_point]);
        count++;
        ptrdiff_t from = count - 1;
        if (!based || age == limits.rebase) {
            rebase(here);
            based = true, age = 0, from = 0;
        }
        for (ptrdiff_t i = from; i < count; i++) {
            double *x = &xs[i * p], *f = &fs[i * p];
            pack(point(&heres[i * of_point]), x);
            pack(point(&images[i * of_point]), f);
            for (ptrdiff_t j = 0; j < p; j++) f[j] -= x[j];
        }
        age++;
    }
};

#endif
