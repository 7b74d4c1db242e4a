/* The loop of EM over few rows and features, where Python takes longer than the sweeps: what `emfuse.em` does, which is the
   definition. What is not plain arithmetic (`_maximise.h`) and what is an error is left to it: it goes on from where this stops. */
#ifndef EMFUSE_CLIMB_H
#define EMFUSE_CLIMB_H

#include <algorithm>
#include <chrono>
#include <memory>
#include "_accelerate.h"

enum Ending { STOPPED = 0, LEFT_ALONE = 1, NO_MEMORY = 2, INTERRUPTED = 3 };

struct Rows {
    Data data;
    const double* v;         /* row weights, or none */
    double weight;           /* their sum */
    ptrdiff_t group;         /* rows whose sums are added to the others' at once */
};

struct Stop {                /* `emfuse.stopping`; what is 0 is not asked, but for steps, which is then -1 */
    double within, gain, gain_a_row, relative_gain;
    ptrdiff_t most_sweeps, steps;
    double noise;            /* nats a row */
    double gain_before, before;   /* nats a row: of the sweep before the last one; and the log-likelihood before the start */
};

struct Mix {                 /* a mixture with its factors */
    std::vector<double> w, mu, C, P, c;
    Mix(ptrdiff_t K, ptrdiff_t D, ptrdiff_t numbers) : w(K), mu(K * D), C(numbers), P(numbers), c(K) {}
};

struct Sums {
    std::vector<double> mass, first, second;
    double log_likelihood = 0;
    Sums(ptrdiff_t K, ptrdiff_t D, ptrdiff_t numbers) : mass(K), first(K * D), second(numbers) {}
};

class Climb {
public:
    /* floor_constant: log det V + D of the floor's variances */
    Climb(const Rows& rows, int form, int structure, ptrdiff_t K, const Rules& rules, double floor_constant, const Stop& stop)
        : rows(rows), form(form), K(K), D(rows.data.D), numbers(form == FULL ? K * D * D : form == TIED ? D * D : form == DIAG ? K * D : K),
          rules(rules), floor_constant(floor_constant), stop(stop), here(K, D, numbers), sums(K, D, numbers), image(K, D, numbers),
          trial(K, D, numbers), image_of_trial(K, D, numbers), trial_sums(K, D, numbers),
          kind(structure == OF_FORM ? nullptr : new Decomposed(structure, form, K, D, rules.least_left)) {}

    /* EM from `here`, with its factors; `emqn` may be none. `interrupted` is asked now and then. Where it is LEFT_ALONE, that
       begins with a sweep under `here`, which is not in the trace. */
    Ending run(Emqn* emqn, bool (*interrupted)()) {
        const Ending ending = go(emqn, interrupted);
        if (ending == LEFT_ALONE && in_trace) trace.pop_back();
        if (keeps) history.resize(trace.size() * of_entry()), when.resize(trace.size());
        return ending;
    }

    /* The start made to have the structure. */
    bool shape_start() { return !kind || shape(&here); }

    /* Weights, means and covariances: numbers for each entry of the trace. */
    ptrdiff_t of_entry() const { return K + K * D + numbers; }

    const Rows rows;
    const int form;
    const ptrdiff_t K, D, numbers;
    const Rules rules;
    const double floor_constant;
    const Stop stop;
    Mix here;
    Sums sums;                       /* under `here` */
    std::vector<double> trace;
    ptrdiff_t sweeps = 0;
    double promised = INFINITY, remaining = INFINITY, rounding = 0;
    bool settled = false, at_limit = false;
    bool keeps = false;              /* the mixture of each entry of the trace, and when it was swept, seconds */
    std::vector<double> history, when;

private:
    Mix image, trial, image_of_trial;
    Sums trial_sums;
    const std::unique_ptr<Decomposed> kind;
    const std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
    bool in_trace = false;

    Ending go(Emqn* emqn, bool (*interrupted)()) {
        bool have_image = false;
        if (!sweep(here, here.mu, &sums)) return NO_MEMORY;
        for (;;) {
            in_trace = false;
            if (!(sums.log_likelihood / rows.weight > -1e280)) return LEFT_ALONE;
            trace.push_back(value(here, sums));
            in_trace = true;
            if (keeps) keep();
            if (trace.size() % 256 == 0 && interrupted()) return INTERRUPTED;
            const double now = trace.back(), gained = trace.size() > 1 ? now - trace[trace.size() - 2] : INFINITY;
            rounding = 1e-13 * fabs(now) + (stop.noise + 4 * 2.22e-16 * amplified(here)) * rows.weight;
            Advice advice = {NO_TRIAL, INFINITY, INFINITY, false};
            if (emqn) {
                if (!have_image && !maximise(&sums, here, &image)) return LEFT_ALONE;
                have_image = true;
                advice = emqn->step(point(here), point(image), gained, &trial.C[0]);
                promised = advice.promised, remaining = advice.remaining, settled = advice.settled;
            }
            if (stops()) return STOPPED;
            if (!have_image && !maximise(&sums, here, &image)) return LEFT_ALONE;
            have_image = true;
            if (advice.trial == TRIAL_UNFACTORED) return LEFT_ALONE;
            if (advice.trial == TRIAL) {
                const Point tried = emqn->tried();
                memcpy(&trial.w[0], tried.w, K * sizeof(double));
                memcpy(&trial.mu[0], tried.mu, K * D * sizeof(double));
                memcpy(&trial.P[0], tried.P, numbers * sizeof(double));
                memcpy(&trial.c[0], emqn->constant_of_tried(), K * sizeof(double));
                if (kind && !shape(&trial)) return LEFT_ALONE;
                if (!sweep(trial, trial.mu, &trial_sums)) return NO_MEMORY;
                if (value(trial, trial_sums) >= now + advice.promised - rounding &&
                    maximise(&trial_sums, trial, &image_of_trial)) {
                    std::swap(here, trial);
                    std::swap(sums, trial_sums);
                    std::swap(image, image_of_trial);
                    continue;
                }
                emqn->refuse();
            }
            std::swap(here, image);
            have_image = false;
            if (!sweep(here, here.mu, &sums)) return NO_MEMORY;
        }
    }

    void keep() {
        for (const std::vector<double>* part : {&here.w, &here.mu, &here.C}) history.insert(history.end(), part->begin(), part->end());
        when.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }

    /* A mixture made to have the structure; a trial does to first order. */
    bool shape(Mix* m) {
        return kind->nearest(&m->w[0], &m->C[0], &m->C[0]) &&
               factor_plainly(form, K, D, &m->w[0], &m->C[0], rules.least_left, &m->P[0], &m->c[0]);
    }

    static Point point(const Mix& m) { return Point{&m.w[0], &m.mu[0], &m.P[0]}; }

    bool sweep(const Mix& m, const std::vector<double>& origin, Sums* s) {
        sweeps++;
        std::fill(s->mass.begin(), s->mass.end(), 0.0);
        std::fill(s->first.begin(), s->first.end(), 0.0);
        std::fill(s->second.begin(), s->second.end(), 0.0);
        s->log_likelihood = 0;
        Mixture mixture;
        mixture.K = K, mixture.form = form, mixture.mu = &m.mu[0], mixture.P = &m.P[0], mixture.c = &m.c[0];
        const ptrdiff_t bytes = rows.data.single ? sizeof(float) : sizeof(double);
        for (ptrdiff_t start = 0; start < rows.data.N; start += rows.group) {
            Data part = rows.data;
            part.start += start * part.row_step * bytes;
            part.N = rows.data.N - start < rows.group ? rows.data.N - start : rows.group;
            double log_likelihood = 0;
            if (!sweep_rows(part, mixture, rows.v ? rows.v + start : nullptr, &origin[0], false, false, &s->mass[0], &s->first[0],
                            &s->second[0], &log_likelihood))
                return false;
            s->log_likelihood += log_likelihood;
        }
        return true;
    }

    /* The M step after `m`, with sums taken again about the new means where these are far; false where it is not plain. */
    bool maximise(Sums* s, const Mix& m, Mix* made) {
        int done = maximise_plainly(form, K, D, &m.mu[0], &s->mass[0], &s->first[0], &s->second[0], rules, kind.get(), &m.C[0], &made->w[0],
                                    &made->mu[0], &made->C[0], &made->P[0], &made->c[0]);
        if (done == DONE_BUT_FAR) {
            const std::vector<double> origin = made->mu;
            Sums again(K, D, numbers);
            if (!sweep(m, origin, &again)) return false;
            done = maximise_plainly(form, K, D, &origin[0], &again.mass[0], &again.first[0], &again.second[0], rules, kind.get(), &m.C[0],
                                    &made->w[0], &made->mu[0], &made->C[0], &made->P[0], &made->c[0]);
        }
        return done == DONE;
    }

    /* What is maximised: the log-likelihood, less the floor's penalty. */
    double value(const Mix& m, const Sums& s) const {
        if (!rules.floor) return s.log_likelihood;
        const ptrdiff_t blocks = form == TIED ? 1 : K;
        double trace = 0, log_det = 0;
        const double* P = &m.P[0];
        for (ptrdiff_t k = 0; k < blocks; k++) {
            if (form == FULL || form == TIED) {
                for (ptrdiff_t i = 0; i < D; i++, P += D) {
                    for (ptrdiff_t j = 0; j <= i; j++) trace += P[j] * P[j] * rules.floor[j];
                    log_det += log(P[i]);
                }
            } else {
                for (ptrdiff_t d = 0; d < D; d++) {
                    const double p = P[form == DIAG ? d : 0];
                    trace += p * p * rules.floor[d];
                    log_det += log(p);
                }
                P += form == DIAG ? D : 1;
            }
        }
        const double share = (double)K / (double)blocks;
        return s.log_likelihood - 0.5 * share * (trace - rules.floor_rows * (2 * log_det + (double)blocks * floor_constant));
    }

    /* sum_j |P_ij| sd_j, the largest: what near-collinear features make of rounding. */
    double amplified(const Mix& m) const {
        if (!(form == FULL || form == TIED) || D == 1) return 0;
        double most = 0;
        for (ptrdiff_t k = 0; k < (form == TIED ? 1 : K); k++)
            for (ptrdiff_t i = 0; i < D; i++) {
                double sum = 0;
                for (ptrdiff_t j = 0; j <= i; j++) sum += fabs(m.P[(k * D + i) * D + j]) * sqrt(m.C[(k * D + j) * D + j]);
                most = fmax(most, sum);
            }
        return most;
    }

    double aitken(ptrdiff_t back) const {
        const ptrdiff_t n = (ptrdiff_t)trace.size() - back;
        if (n < 3) return INFINITY;
        const double before = trace[n - 2] - trace[n - 3], last = trace[n - 1] - trace[n - 2];
        if (last <= 0) return before <= 0 ? 0.0 : INFINITY;
        return last < before ? last * last / (before - last) : INFINITY;
    }

    bool stops() {
        const ptrdiff_t n = (ptrdiff_t)trace.size();
        if (stop.within > 0) {
            if (isfinite(promised)) {
                const double most = fmax(stop.within, 2 * rounding);
                if (promised <= 1e-3 * rounding) return true;
                if (n > 5 && settled && 10 * remaining < most && trace[n - 1] - trace[n - 6] < most) return true;
            } else if (fmax(aitken(0), aitken(1)) < fmax(stop.within * fmax(1.0, rows.weight / 1000), 2 * rounding)) {
                return true;
            }
        }
        if (n > 1) {
            const double change = fabs(trace[n - 1] - trace[n - 2]);
            if (change < stop.gain || change / rows.weight < stop.gain_a_row || change / (1 + fabs(trace[n - 1])) < stop.relative_gain)
                return true;
            const double gained = trace[n - 2] / rows.weight - (n > 2 ? trace[n - 3] / rows.weight : stop.before);
            if (fabs(gained) < stop.gain_before) return true;
        }
        at_limit = (stop.steps >= 0 && n - 1 >= stop.steps) || (stop.most_sweeps > 0 && (n > sweeps ? n : sweeps) >= stop.most_sweeps);
        return at_limit;
    }
};

#endif
