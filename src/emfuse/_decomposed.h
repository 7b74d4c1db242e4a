/* The best covariances of ten structures, by what their components have in common, for few features: `emfuse.decomposed` is the
   definition, and says why. What is not plain arithmetic (a scatter that is singular, volumes that run apart, axes on a saddle) is
   left to it, by returning false.

   A loop that adds up stores nothing: or a compiler looks where the arrays lie before it takes vectors, and what it then rounds
   would depend on that. */
#ifndef EMFUSE_DECOMPOSED_H
#define EMFUSE_DECOMPOSED_H

#include <math.h>
#include <algorithm>
#include <numeric>
#include <vector>
#include "_factor.h"

enum Structure { OF_FORM = 0, EII, EEI, VEI, EVI, EEV, VEV, EVV, VEE, EVE, VVE };   /* OF_FORM: one of scikit-learn's four */

class Decomposed {
public:
    Decomposed(int structure, int form, ptrdiff_t K, ptrdiff_t D, double least_left)
        : structure(structure), K(K), D(D), size(form == FULL ? D * D : form == DIAG ? D : 1), least_left(least_left), share(K), x(K), t(K), next(K),
          W(K * size), scatters(K * size), w(K * D), v(K * D), within(K * size), parted(K * size), gradient(K), step(K), order(D), rank(D), sizes(D) {
        if (own_volumes() && K <= MOST_VOLUMES) H.resize(K * K);
        const bool matrices = form == FULL, in_common = structure == EVE || structure == VVE;
        for (auto* matrix : {&L, &Q, &product}) matrix->resize(matrices ? D * D : 0);
        for (auto* matrix : {&turned, &slope, &pooled, &curvature, &unit, &E, &way, &left, &bent}) matrix->resize(in_common ? D * D : 0);
        for (auto* each : {&axes, &M}) each->resize(matrices ? K * D * D : 0);
        for (auto* each : {&own, &there}) each->resize(in_common ? K * D * D : 0);
    }

    /* What minimises F for these scatters of so many rows, and as many more, each; a search starts from `before`, which may be none. */
    bool estimate(const double* scatter, const double* rows, double more, const double* before, double* made) {
        if (D == 1) return false;
        double total = 0;
        for (ptrdiff_t k = 0; k < K; k++) total += rows[k] + more;
        for (ptrdiff_t k = 0; k < K; k++) share[k] = (rows[k] + more) / total;
        for (ptrdiff_t i = 0; i < K * size; i++) W[i] = scatter[i] / total;
        if ((own_volumes() && K > MOST_VOLUMES) || (!before && (own_volumes() || structure == EVE || structure == VVE))) return false;
        switch (structure) {
            case EII: case EEI: return pool(W.data(), size, made);
            case EVI: return one_volume(W.data(), made);
            case VEI: return volumes_of(before) && one_shape(W.data(), made);
            case EVV: return one_volume_of_matrices(made);
            case EEV: return own_axes() && pool(w.data(), D, v.data()) && along(axes.data(), D * D, made);
            case VEV: return volumes_of(before) && own_axes() && one_shape(w.data(), v.data()) && along(axes.data(), D * D, made);
            case VEE: return volumes_of(before) && one_matrix(made);
            case EVE: case VVE: return common_axes(before) && variances_along() && along(Q.data(), 0, made);
        }
        return false;
    }

    /* What best explains rows that have these covariances, in shares of these weights. */
    bool nearest(const double* weights, const double* C, double* made) {
        for (ptrdiff_t i = 0; i < K * size; i++) scatters[i] = weights[i / size] * C[i];
        return estimate(scatters.data(), weights, 0, C, made);
    }

private:
    static constexpr double LAST_STEP = 1e-13, LAST_TURN = 1e-8, LONGEST_STEP = 4, MOST_APART = 600, LEAST_CURVATURE = 0.05, FLAT = 1e-9,
                            GOLDEN = 0.6180339887498949, EPS = 2.220446049250313e-16;
    static constexpr int MOST_STEPS = 200, MOST_HALVINGS = 30,
                         MOST_VOLUMES = 64;   /* beyond that LAPACK is faster */

    bool own_volumes() const { return structure == VEI || structure == VEV || structure == VEE; }   /* found by a search */

    const int structure;
    const ptrdiff_t K, D, size;
    const double least_left;
    std::vector<double> share, x, t, next;      /* (K): of the rows; -log volumes, or weights; scratch; the x that is tried */
    std::vector<double> W, scatters;            /* (K, form): scatters over all rows; those that `nearest` makes up */
    std::vector<double> w, v;                   /* (K, D): scatters along axes, and the variances found there */
    std::vector<double> within, parted;         /* (K, form): scatters whitened by their sum, at x and at `next` */
    std::vector<double> H, gradient, step;      /* (K, K), (K), (K): of the search for volumes */
    std::vector<double> axes, L, product;       /* (K, D, D): each component's own; (D, D): a Cholesky factor; scratch */
    std::vector<ptrdiff_t> order, rank;         /* (D): of features by variance, of axes by size */
    std::vector<double> sizes;                  /* (D): eigenvalues */
    /* of axes in common: Q, in columns, and M = Q' W Q; those that are tried; the model of the value about M (`describe`); and the
       step E that is found in it by conjugate gradients */
    std::vector<double> Q, M, turned, there;
    std::vector<double> slope, pooled, curvature, unit, own;
    std::vector<double> E, way, left, bent;

    /* ------------------------------------------------ along known axes */

    bool pool(const double* each, ptrdiff_t numbers, double* made) const {
        for (ptrdiff_t i = 0; i < numbers; i++) {
            double sum = 0;
            for (ptrdiff_t k = 0; k < K; k++) sum += each[k * numbers + i];
            for (ptrdiff_t k = 0; k < K; k++) made[k * numbers + i] = sum;
        }
        return true;
    }

    bool one_volume(const double* diagonals, double* made) {
        double volume = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            t[k] = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                if (!moderate(diagonals[k * D + d])) return false;
                t[k] += log(diagonals[k * D + d]) / (double)D;
            }
            volume += exp(t[k]);
        }
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t d = 0; d < D; d++) made[k * D + d] = diagonals[k * D + d] * (volume * exp(-t[k]));
        return true;
    }

    bool one_volume_of_matrices(double* made) {
        double volume = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            if (!log_volume(&W[k * size], &t[k])) return false;
            volume += exp(t[k]);
        }
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t i = 0; i < size; i++) made[k * size + i] = W[k * size + i] * (volume * exp(-t[k]));
        return true;
    }

    bool one_shape(const double* diagonals, double* made) {
        for (ptrdiff_t i = 0; i < K * D; i++)
            if (!(diagonals[i] >= 0)) return false;
        const auto parts = [&](const double* at, double* white, double* log_det) {
            *log_det = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                double pooled = 0;
                for (ptrdiff_t k = 0; k < K; k++) pooled += white[k * D + d] = diagonals[k * D + d] * exp(at[k]);
                if (!moderate(pooled)) return false;
                for (ptrdiff_t k = 0; k < K; k++) white[k * D + d] /= pooled;
                *log_det += log(pooled);
            }
            return true;
        };
        if (!find_volumes(D, parts)) return false;
        for (ptrdiff_t d = 0; d < D; d++) {
            double pooled = 0;
            for (ptrdiff_t k = 0; k < K; k++) pooled += diagonals[k * D + d] * exp(x[k]);
            for (ptrdiff_t k = 0; k < K; k++) made[k * D + d] = pooled * exp(-x[k]);
        }
        return true;
    }

    bool one_matrix(double* made) {
        const auto parts = [&](const double* at, double* white, double* log_det) {
            pool_sizes(at, product.data());
            if (!invert_triangle(product.data(), D, least_left, L.data())) return false;
            *log_det = 0;
            for (ptrdiff_t d = 0; d < D; d++) *log_det -= 2 * log(L[d * D + d]);
            for (ptrdiff_t k = 0; k < K; k++) {
                const double scale = exp(at[k]);
                multiply(L.data(), &W[k * size], false, false, product.data());
                multiply(product.data(), L.data(), false, true, &white[k * size]);
                for (ptrdiff_t i = 0; i < size; i++) white[k * size + i] *= scale;
            }
            return true;
        };
        if (!find_volumes(size, parts)) return false;
        pool_sizes(x.data(), product.data());
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t i = 0; i < size; i++) made[k * size + i] = product[i] * exp(-x[k]);
        return true;
    }

    /* sum_k exp(at_k) W_k */
    void pool_sizes(const double* at, double* sum) const {
        std::fill(sum, sum + size, 0.0);
        for (ptrdiff_t k = 0; k < K; k++) {
            const double scale = exp(at[k]);
            for (ptrdiff_t i = 0; i < size; i++) sum[i] += scale * W[k * size + i];
        }
    }

    /* x = -log lambda, up to a constant, by Newton's method from what x is. `parts` takes x to t_k W_k whitened, (K, numbers), and log
       det S; it returns false where S is singular. */
    template <class Parts> bool find_volumes(ptrdiff_t numbers, const Parts& parts) {
        double mean = 0, value, changed;
        for (ptrdiff_t k = 0; k < K; k++) mean += share[k] * x[k];
        for (ptrdiff_t k = 0; k < K; k++) x[k] -= mean;
        if (!parts(x.data(), within.data(), &value)) return false;
        for (int steps = 0; steps < MOST_STEPS; steps++) {
            for (ptrdiff_t a = 0; a < K; a++)
                for (ptrdiff_t b = 0; b <= a; b++)
                    H[a * K + b] = H[b * K + a] = std::inner_product(&within[a * numbers], &within[a * numbers] + numbers, &within[b * numbers], 0.0);
            for (ptrdiff_t a = 0; a < K; a++) t[a] = std::accumulate(&H[a * K], &H[a * K] + K, 0.0);
            for (ptrdiff_t a = 0; a < K; a++) {
                gradient[a] = t[a] - (double)D * share[a];
                for (ptrdiff_t b = 0; b < K; b++) H[a * K + b] = (a == b ? t[a] : 0) - H[a * K + b] + 1 / (double)K;
            }
            if (!solve_definite()) return false;
            double slope = std::inner_product(gradient.begin(), gradient.end(), step.begin(), 0.0), longest = 0;
            const double promised = -0.5 * slope;
            if (!isfinite(promised)) return false;
            for (ptrdiff_t k = 0; k < K; k++) longest = fmax(longest, fabs(step[k]));
            double scale = LONGEST_STEP / fmax(LONGEST_STEP, longest);
            if (promised < LAST_STEP) {
                for (ptrdiff_t k = 0; k < K; k++) x[k] += scale * step[k];
                return true;
            }
            int halvings = 0;
            for (;; halvings++, scale *= 0.5) {
                if (halvings == MOST_HALVINGS) return true;   /* nothing but rounding is left */
                double of_shares = 0;
                for (ptrdiff_t k = 0; k < K; k++) next[k] = x[k] + scale * step[k];
                for (ptrdiff_t k = 0; k < K; k++) of_shares += share[k] * scale * step[k];
                if (!parts(next.data(), parted.data(), &changed)) return false;
                if (changed - value - (double)D * of_shares <= 0.2 * scale * slope) break;
            }
            x = next, value = changed;
            within.swap(parted);
            if (!(*std::max_element(x.begin(), x.end()) - *std::min_element(x.begin(), x.end()) <= MOST_APART)) return false;
        }
        return true;
    }

    /* step = -H^-1 gradient, H positive definite, which is written over. */
    bool solve_definite() {
        for (ptrdiff_t i = 0; i < K; i++)
            for (ptrdiff_t j = 0; j <= i; j++) {
                double left = H[i * K + j];
                for (ptrdiff_t u = 0; u < j; u++) left -= H[i * K + u] * H[j * K + u];
                if (j < i) H[i * K + j] = left / H[j * K + j];
                else if (left > 0) H[i * K + i] = sqrt(left);
                else return false;
            }
        for (ptrdiff_t i = 0; i < K; i++) {
            double left_over = -gradient[i];
            for (ptrdiff_t u = 0; u < i; u++) left_over -= H[i * K + u] * step[u];
            step[i] = left_over / H[i * K + i];
        }
        for (ptrdiff_t i = K - 1; i >= 0; i--) {
            double left_over = step[i];
            for (ptrdiff_t u = i + 1; u < K; u++) left_over -= H[u * K + i] * step[u];
            step[i] = left_over / H[i * K + i];
        }
        return true;
    }

    /* x from the volumes of covariances. */
    bool volumes_of(const double* C) {
        for (ptrdiff_t k = 0; k < K; k++) {
            if (size == D * D) {
                if (!log_volume(C + k * size, &x[k])) return false;
            } else {
                x[k] = 0;
                for (ptrdiff_t d = 0; d < D; d++) x[k] += log(C[k * D + d]) / (double)D;
            }
            x[k] = -x[k];
        }
        return true;
    }

    bool log_volume(const double* C, double* made) {
        if (!cholesky(C)) return false;
        *made = 0;
        for (ptrdiff_t d = 0; d < D; d++) *made += 2 * log(L[d * D + d]) / (double)D;
        return true;
    }

    /* Lower L with L L' = C. */
    bool cholesky(const double* C) {
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                double left = j <= i ? C[i * D + j] : 0;
                for (ptrdiff_t u = 0; u < j && j <= i; u++) left -= L[i * D + u] * L[j * D + u];
                if (j == i && !(moderate(C[i * D + i]) && left >= least_left * C[i * D + i])) return false;
                L[i * D + j] = j < i ? left / L[j * D + j] : j == i ? sqrt(left) : 0;
            }
        return true;
    }

    /* ------------------------------------------------ axes */

    /* C = A B, either transposed before. */
    void multiply(const double* A, const double* B, bool of_a, bool of_b, double* C) const {
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                double sum = 0;
                for (ptrdiff_t u = 0; u < D; u++) sum += A[of_a ? u * D + i : i * D + u] * B[of_b ? j * D + u : u * D + j];
                C[i * D + j] = sum;
            }
    }

    /* Q_k diag(v_k) Q_k', axes in columns; `stride` from one component's to the next, 0 for axes in common. */
    bool along(const double* columns, ptrdiff_t stride, double* made) const {
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t i = 0; i < D; i++)
                for (ptrdiff_t j = 0; j <= i; j++) {
                    double sum = 0;
                    for (ptrdiff_t u = 0; u < D; u++) sum += columns[k * stride + i * D + u] * columns[k * stride + j * D + u] * v[k * D + u];
                    made[k * size + i * D + j] = made[k * size + j * D + i] = sum;
                }
        return true;
    }

    bool own_axes() {
        for (ptrdiff_t k = 0; k < K; k++)
            if (!eigen(&W[k * size], &w[k * D], &axes[k * size])) return false;
        return true;
    }

    /* Eigenvalues in decreasing order, and eigenvectors in columns: one-sided Jacobi rotations make the rows of a Cholesky factor
       orthogonal, of the matrix with its variances in decreasing order (Demmel & Veselic 1992). Eigenvalues are right to some eps of
       themselves, and an entry of an axis to some eps of what features of such different units leave it. */
    bool eigen(const double* C, double* values, double* columns) {
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](ptrdiff_t a, ptrdiff_t b) { return C[a * D + a] > C[b * D + b]; });
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) product[i * D + j] = C[order[i] * D + order[j]];
        if (!cholesky(product.data())) return false;
        std::vector<double>& turns = product;
        for (ptrdiff_t i = 0; i < D * D; i++) turns[i] = i % (D + 1) == 0;
        for (int round = 0;; round++) {
            bool turned_one = false;
            for (ptrdiff_t a = 0; a < D; a++)
                for (ptrdiff_t b = a + 1; b < D; b++) {
                    double of_a = 0, of_b = 0, both = 0;
                    for (ptrdiff_t i = 0; i < D; i++) {
                        of_a += L[a * D + i] * L[a * D + i];
                        of_b += L[b * D + i] * L[b * D + i];
                        both += L[a * D + i] * L[b * D + i];
                    }
                    if (fabs(both) <= 2 * EPS * sqrt(of_a) * sqrt(of_b)) continue;   /* whose product may leave the range */
                    turned_one = true;
                    const double cot = 0.5 * (of_b - of_a) / both, tan = (cot < 0 ? -1 : 1) / (fabs(cot) + sqrt(1 + cot * cot));
                    const double c = 1 / sqrt(1 + tan * tan), s = c * tan;
                    rotate(c, s, &L[a * D], &L[b * D], 1);
                    rotate(c, s, &turns[a], &turns[b], D);
                }
            if (!turned_one) break;
            if (round == 30) return false;
        }
        std::fill(sizes.begin(), sizes.end(), 0.0);
        for (ptrdiff_t i = 0; i < D * D; i++) sizes[i / D] += L[i] * L[i];
        std::iota(rank.begin(), rank.end(), 0);
        std::stable_sort(rank.begin(), rank.end(), [&](ptrdiff_t a, ptrdiff_t b) { return sizes[a] > sizes[b]; });
        for (ptrdiff_t j = 0; j < D; j++) {
            values[j] = sizes[rank[j]];
            for (ptrdiff_t i = 0; i < D; i++) columns[order[i] * D + j] = turns[i * D + rank[j]];
        }
        return true;
    }

    void rotate(double c, double s, double* a, double* b, ptrdiff_t stride) const {
        for (ptrdiff_t i = 0; i < D * stride; i += stride) {
            const double first = a[i], second = b[i];
            a[i] = c * first - s * second;
            b[i] = s * first + c * second;
        }
    }

    /* ------------------------------------------------ the search for axes in common */

    /* Q, from the axes of `before`: Newton's method in all planes at once, within a region in which its model is trusted. */
    bool common_axes(const double* before) {
        for (ptrdiff_t k = 0; k < K; k++)
            if (!cholesky(&W[k * size])) return false;
        std::fill(turned.begin(), turned.end(), 0.0);
        for (ptrdiff_t k = 0; k < K; k++) {   /* a sum in which no two axes coincide by symmetry */
            double trace = 0;
            for (ptrdiff_t d = 0; d < D; d++) trace += before[k * size + d * (D + 1)];
            const double weight = (1 + fmod((double)k * GOLDEN, 1.0)) / trace;
            for (ptrdiff_t i = 0; i < size; i++) turned[i] += weight * before[k * size + i];
        }
        if (!eigen(turned.data(), w.data(), Q.data())) return false;
        double value = diagonality(Q, M), radius = 1;
        for (int steps = 0; steps < MOST_STEPS; steps++) {
            describe(M);
            double promised, length;
            lowest(radius, &promised, &length);
            if (!isfinite(promised) || !isfinite(value)) return false;
            turn(Q, turned);
            if (promised < (length < 0.99 * radius ? LAST_TURN : LAST_STEP)) {
                Q.swap(turned);
                return *std::min_element(curvature.begin(), curvature.end()) > -FLAT;
            }
            const double changed = diagonality(turned, there), gained = value - changed;
            if (gained > 0.1 * promised) {
                Q.swap(turned);
                M.swap(there);
                value = changed;
            }
            if (!(gained > 0.25 * promised)) radius = 0.25 * length;
            else if (gained > 0.75 * promised && length > 0.99 * radius) radius = 2 * radius;
        }
        return false;
    }

    /* M_k = Q' W_k Q; returns what common axes minimise. */
    double diagonality(const std::vector<double>& at, std::vector<double>& made) {
        double sum = 0, top = -INFINITY;
        for (ptrdiff_t k = 0; k < K; k++) {
            multiply(&W[k * size], at.data(), false, false, product.data());
            multiply(at.data(), product.data(), true, false, &made[k * size]);
            t[k] = 0;
            for (ptrdiff_t d = 0; d < D; d++) t[k] += log(made[k * size + d * (D + 1)]);
            top = fmax(top, t[k]);
        }
        if (structure == VVE) return std::inner_product(t.begin(), t.end(), share.begin(), 0.0);
        for (ptrdiff_t k = 0; k < K; k++) sum += exp((t[k] - top) / (double)D);
        return top + (double)D * log(sum);
    }

    /* The same to second order about M: slope, curvature of each plane by itself, and what `times_hessian` needs. */
    void describe(const std::vector<double>& at) {
        double top = -INFINITY, sum = 0;
        for (ptrdiff_t k = 0; k < K; k++) {   /* derivatives by the log determinants: x */
            x[k] = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                w[k * D + d] = at[k * size + d * (D + 1)];
                x[k] += log(w[k * D + d]) / (double)D;
            }
            top = fmax(top, x[k]);
        }
        for (ptrdiff_t k = 0; k < K; k++) sum += x[k] = exp(x[k] - top);
        for (ptrdiff_t k = 0; k < K; k++) x[k] = structure == VVE ? share[k] : x[k] / sum;
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                double total = 0, ratio = 0;
                for (ptrdiff_t k = 0; k < K; k++) own[k * size + i * D + j] = 2 * at[k * size + i * D + j] / w[k * D + j];
                for (ptrdiff_t k = 0; k < K; k++) {
                    const double twice = own[k * size + i * D + j];
                    total += 0.5 * x[k] * twice;
                    ratio += x[k] * (w[k * D + i] / w[k * D + j] - 0.5 * twice * twice);
                }
                pooled[i * D + j] = total;
                curvature[i * D + j] = ratio;
            }
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j <= i; j++) {
                const ptrdiff_t a = i * D + j, b = j * D + i;
                double both = i == j ? 1 : 2 * (curvature[a] + curvature[b]) - 4;
                slope[a] = 2 * (pooled[a] - pooled[b]), slope[b] = -slope[a];
                if (structure == EVE && i != j) {
                    double squares = 0;
                    for (ptrdiff_t k = 0; k < K; k++) {
                        const double change = own[k * size + a] - own[k * size + b];
                        squares += x[k] * change * change;
                    }
                    both += (squares - slope[a] * slope[a]) / (double)D;
                }
                curvature[a] = curvature[b] = both;
                unit[a] = unit[b] = 1 / sqrt(fmax(fabs(both), LEAST_CURVATURE));
            }
    }

    /* bent = unit * Hessian (unit * way), for skew `way`. */
    void times_hessian() {
        double firsts = 0;
        for (ptrdiff_t i = 0; i < size; i++) turned[i] = unit[i] * way[i];
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                double sum = 0;
                for (ptrdiff_t u = 0; u < D; u++) sum -= (pooled[i * D + u] + pooled[u * D + i]) * turned[u * D + j];
                product[i * D + j] = sum;
            }
        for (ptrdiff_t k = 0; k < K; k++) {
            double* T = L.data();
            multiply(&M[k * size], turned.data(), false, false, T);
            double first = 0;   /* of an equal volume: what it changes by */
            for (ptrdiff_t j = 0; j < D; j++) first += T[j * (D + 1)] * 2 * x[k] / w[k * D + j] / (double)D;
            firsts += first;
            for (ptrdiff_t j = 0; j < D; j++) {
                const double change = T[j * (D + 1)], over = 2 * x[k] / w[k * D + j];
                for (ptrdiff_t i = 0; i < D; i++) product[i * D + j] += (T[i * D + j] - change * own[k * size + i * D + j]) * over;
            }
            for (ptrdiff_t i = 0; structure == EVE && i < size; i++) product[i] += first * own[k * size + i];
        }
        for (ptrdiff_t i = 0; structure == EVE && i < size; i++) product[i] -= 2 * firsts * pooled[i];
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) bent[i * D + j] = unit[i * D + j] * (product[i * D + j] - product[j * D + i]);
    }

    double inner(const std::vector<double>& A, const std::vector<double>& B) const {
        return 0.5 * std::inner_product(A.begin(), A.end(), B.begin(), 0.0);
    }

    /* E, the step to the least value within `radius`, by conjugate gradients (Steihaug 1983). */
    void lowest(double radius, double* promised, double* reached) {
        for (ptrdiff_t i = 0; i < size; i++) left[i] = way[i] = -unit[i] * slope[i], E[i] = 0;
        double squares = inner(left, left), length = squares, across = 0, square = 0, gain = 0;
        const double enough = squares * fmin(0.01, squares);
        for (ptrdiff_t rounds = 0; squares > 0 && rounds < size; rounds++) {
            times_hessian();
            const double bend = inner(way, bent), inside = radius * radius - square;
            double far = inside / (across + sqrt(across * across + length * inside));   /* the rim */
            const bool convex = bend > FLAT * length && squares < far * bend;
            if (convex) far = squares / bend;
            for (ptrdiff_t i = 0; i < size; i++) E[i] += far * way[i], left[i] -= far * bent[i];
            square += far * (2 * across + far * length);
            const double before = squares;
            squares = inner(left, left);
            if (!convex || squares <= enough) break;
            const double again = squares / before;
            for (ptrdiff_t i = 0; i < size; i++) way[i] = left[i] + again * way[i];
            across = again * (across + far * length), length = squares + again * again * length;
        }
        for (ptrdiff_t i = 0; i < size; i++) gain += 0.25 * (left[i] - unit[i] * slope[i]) * E[i];
        for (ptrdiff_t i = 0; i < size; i++) E[i] *= unit[i];
        *promised = gain, *reached = sqrt(square);
    }

    /* made = from, turned by the angles E: Cayley's rotation, (I - E / 2)^-1 (I + E / 2). The matrix's symmetric part is I, so that
       elimination needs no pivots. */
    void turn(const std::vector<double>& from, std::vector<double>& made) {
        std::vector<double>&A = L, &R = product;
        for (ptrdiff_t i = 0; i < D; i++)
            for (ptrdiff_t j = 0; j < D; j++) {
                A[i * D + j] = (i == j) - 0.5 * E[i * D + j];
                R[i * D + j] = (i == j) + 0.5 * E[i * D + j];
            }
        for (ptrdiff_t u = 0; u < D; u++)
            for (ptrdiff_t i = u + 1; i < D; i++) {
                const double factor = A[i * D + u] / A[u * D + u];
                for (ptrdiff_t j = u; j < D; j++) A[i * D + j] -= factor * A[u * D + j];
                for (ptrdiff_t j = 0; j < D; j++) R[i * D + j] -= factor * R[u * D + j];
            }
        for (ptrdiff_t i = D - 1; i >= 0; i--)
            for (ptrdiff_t j = 0; j < D; j++) {
                double left_over = R[i * D + j];
                for (ptrdiff_t u = i + 1; u < D; u++) left_over -= A[i * D + u] * R[u * D + j];
                R[i * D + j] = left_over / A[i * D + i];
            }
        multiply(from.data(), R.data(), false, false, made.data());
    }

    /* v, the best variances along Q. */
    bool variances_along() {
        diagonality(Q, M);
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t d = 0; d < D; d++) {
                w[k * D + d] = M[k * size + d * (D + 1)];
                v[k * D + d] = w[k * D + d] / share[k];
            }
        return structure == VVE || one_volume(w.data(), v.data());
    }
};

#endif
