"""Many small data sets: `emfuse.fit_many` beside loops over one fit after the other, and beside EM in batches.

    python -m bench.many
    python -m bench.many --quick      # a tenth of the data sets, and no figure to quote

10,000 data sets of 300 values, of two components whose distance, weights and widths differ from one data set to the next. Who
fits one data set at a time (scikit-learn, pomegranate, gmmx) is timed on a hundred of them. Nobody offers EM over many data
sets at once, so the batches are written here, each as its library likes it best: arrays (data sets, 2, 300) in chunks that stay
in the cache, as many threads as emfuse has, data sets that have converged taken out, and a start that costs next to nothing.
Libraries that are not installed are skipped with a line.

One iteration: everybody makes SHORT and LONG iterations of plain EM from the same start; what is between them, by value,
component and iteration. After LONG of them the log-likelihoods must agree. Whole fits begin with nothing but the data. First
they go on until an iteration gains less than 1e-3 nats a row, scikit-learn's default; then to the maximum: emfuse within 1e-6
nats of it by its own estimate, and batches, which have none, until an iteration gains less than 1e-9 nats a row, on a thousand
data sets, once. "left" is how far below the highest of all ends the ends lie on average, nats a data set: some are other
maxima. In turns, A B A B; figures are medians.
"""

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

import emfuse
from bench import machine
from emfuse import stopping

SETS, VALUES, K = 10_000, 300, 2
SHORT, LONG = 5, 45
LOOPED, SLOW = 100, 1_000  # data sets that the loops fit, and of which batches look for the maximum, once
ROUGH, TIGHT = 1e-3, 1e-9  # nats a row
MOST = 10_000  # iterations
STRIDE = {ROUGH: 2, TIGHT: 20}  # iterations of a batch between two looks at who has converged
AGREE = 1e-9  # nats a row
LOG_2_PI = float(np.log(2.0 * np.pi))


def data_sets(count, seed=0):
    """Values (count, VALUES): N(0, 1), and N(distance, width^2), distance 2 to 5."""
    random = np.random.default_rng(seed)
    share, distance, width = (random.uniform(a, b, (count, 1)) for a, b in ((0.25, 0.75), (2.0, 5.0), (0.7, 1.4)))
    z = random.standard_normal((count, VALUES))
    return np.where(random.random((count, VALUES)) < share, z, distance + width * z)


# ------------------------------------------------------------------ EM in batches


def with_numpy(X, w, mu, v, iterations):
    """Weights, means and variances (sets, K) after so many iterations, and what the last of them gained, nats a row."""
    before = after = np.zeros(len(X))
    for _ in range(iterations):
        c = np.log(w) - 0.5 * np.log(v) - 0.5 * LOG_2_PI
        r = np.square(X[:, None] - mu[:, :, None])
        r *= (-0.5 / v)[:, :, None]
        r += c[:, :, None]
        top = r.max(axis=1, keepdims=True)
        np.exp(np.subtract(r, top, out=r), out=r)
        total = r.sum(axis=1, keepdims=True)
        r /= total
        before, after = after, (top + np.log(total)).mean(axis=(1, 2))
        mass = r.sum(axis=2)
        w, mu = mass / X.shape[1], np.matmul(r, X[:, :, None])[:, :, 0] / mass
        v = np.einsum("mkn,mkn->mk", r, np.square(X[:, None] - mu[:, :, None])) / mass
    return w, mu, v, after - before


def numpy_batches():
    return with_numpy, 100, np.__version__


def torch_batches():
    import torch

    torch.set_num_threads(1)

    def run(X, w, mu, v, iterations):
        X, w, mu, v = (torch.from_numpy(np.ascontiguousarray(array)) for array in (X, w, mu, v))
        x = X[:, None]
        before = after = torch.zeros(len(X), dtype=X.dtype)
        with torch.inference_mode():
            for _ in range(iterations):
                c = torch.log(w) - 0.5 * torch.log(v) - 0.5 * LOG_2_PI
                r = torch.addcmul(c[:, :, None], torch.square(x - mu[:, :, None]), (-0.5 / v)[:, :, None])
                total = torch.logsumexp(r, 1)
                before, after = after, total.mean(1)
                r = torch.exp(r - total[:, None])
                mass = r.sum(2)
                w, mu = mass / X.shape[1], torch.bmm(r, X[:, :, None])[:, :, 0] / mass
                v = (r * torch.square(x - mu[:, :, None])).sum(2) / mass
        return *(array.numpy() for array in (w, mu, v)), (after - before).numpy()

    return run, 250, torch.__version__


def jax_batches():
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def iteration(x, w, mu, v):
        r = (jnp.log(w) - 0.5 * jnp.log(v) - 0.5 * LOG_2_PI)[:, None] - 0.5 * jnp.square(x - mu[:, None]) / v[:, None]
        total = jax.nn.logsumexp(r, axis=0)
        r = jnp.exp(r - total)
        mass = r.sum(axis=1)
        mean = r @ x / mass
        return mass / x.shape[0], mean, (r * jnp.square(x - mean[:, None])).sum(axis=1) / mass, total.mean()

    @jax.jit
    def compiled(X, w, mu, v, iterations):
        def once(_, state):
            *p, _, before = state
            return *jax.vmap(iteration)(X, *p), before

        def shifted(i, state):
            w, mu, v, after, _ = state
            return once(i, (w, mu, v, None, after))

        nothing = jnp.zeros(len(X))
        w, mu, v, after, before = jax.lax.fori_loop(0, iterations, shifted, (w, mu, v, nothing, nothing))
        return w, mu, v, after - before

    def run(*arguments):
        return tuple(np.asarray(array) for array in compiled(*arguments))

    return run, 50, jax.__version__


def in_chunks(run, chunk, X, start, iterations, pool):
    """Weights, means, variances and gains of all data sets; chunks have one size, so that what is compiled is compiled once."""
    count = len(X)
    rows = np.arange(-(-count // chunk) * chunk) % count
    parts = pool.map(lambda at: run(X[at], *(array[at] for array in start), iterations), np.split(rows, len(rows) // chunk))
    return tuple(np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))


def to_the_end(run, chunk, X, start, gain, pool):
    """Weights, means and variances where an iteration gains less than so many nats a row."""
    ends, left = [array.copy() for array in start], np.arange(len(X))
    for _ in range(0, MOST, STRIDE[gain]):
        *made, gains = in_chunks(run, chunk, X[left], [array[left] for array in ends], STRIDE[gain], pool)
        for array, new in zip(ends, made, strict=True):
            array[left] = new
        left = left[np.abs(gains) >= gain]
        if not left.size:
            break
    return ends


def halves(X):
    """A start in NumPy: each data set cut into halves by the median."""
    parts = np.sort(X, axis=1).reshape(len(X), K, -1)
    return [np.full((len(X), K), 1.0 / K), parts.mean(axis=2), parts.var(axis=2)]


BATCHES = {"NumPy": numpy_batches, "PyTorch": torch_batches, "JAX": jax_batches}


# ------------------------------------------------------------------ one after the other


def scikit_learn_loop():
    import sklearn
    from sklearn.mixture import GaussianMixture

    def fit(x):
        model = GaussianMixture(K, random_state=0).fit(x[:, None])
        return model.weights_, model.means_[:, 0], model.covariances_[:, 0, 0]

    return fit, sklearn.__version__


def pomegranate_loop():
    import pomegranate
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    def fit(x):
        model = GeneralMixtureModel([Normal() for _ in range(K)], tol=ROUGH * len(x), random_state=0)
        model.fit(torch.from_numpy(x[:, None].astype(np.float32)))
        normals = model.distributions
        means, covariances = ([float(getattr(d, of).ravel()[0]) for d in normals] for of in ("means", "covs"))
        return model.priors.numpy().astype(np.float64), np.array(means), np.array(covariances)

    return fit, pomegranate.__version__


def gmmx_loop():
    from importlib.metadata import version

    import jax
    from gmmx import EMFitter, GaussianMixtureModelJax

    def fit(x):
        with jax.enable_x64(False):  # it takes float32 and nothing else
            rows = x[:, None].astype(np.float32)
            model = EMFitter(tol=ROUGH).fit(x=rows, gmm=GaussianMixtureModelJax.from_k_means(rows, n_components=K)).gmm
        return tuple(np.asarray(array).ravel() for array in (model.weights, model.means, model.covariances.values))

    return fit, version("gmmx")


LOOPS = {"scikit-learn": scikit_learn_loop, "pomegranate": pomegranate_loop, "gmmx": gmmx_loop}


# ------------------------------------------------------------------ the bench


def log_likelihoods(X, w, mu, v):
    """Of each data set, nats a row: by none of those that are compared."""
    square = np.square(X[:, None] - mu[:, :, None]) / v[:, :, None]
    return np.logaddexp.reduce(np.log(w / np.sqrt(v))[:, :, None] - 0.5 * (LOG_2_PI + square), axis=1).mean(axis=1)


def of_fits(fits):
    return fits.weights, fits.means[:, :, 0], fits.covariances[:, :, 0, 0]


def installed(makers):
    """What can be had, by name, and a line for what cannot."""
    found, skipped = {}, []
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            skipped.append(f"{name} is skipped: {error}")
    return found, skipped


def in_turns(calls, repeats):
    """Seconds of each call in each turn, after one that is not clocked, and what the last one returned."""
    seconds, answers = {name: [] for name in calls}, {name: call() for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            began = perf_counter()
            answers[name] = call()
            seconds[name].append(perf_counter() - began)
    return seconds, answers


def iterations(X, batches, pool, repeats):
    """Nanoseconds of an iteration by data set, value and component, and the log-likelihood a row after LONG of them."""
    start = of_fits(emfuse.fit_many(X, K, stop=0))
    sides = {"emfuse": lambda steps: of_fits(emfuse.fit_many(X, K, stop=steps, acceleration=None))}
    for name, (run, chunk, _) in batches.items():
        sides[name] = lambda steps, run=run, chunk=chunk: in_chunks(run, chunk, X, start, steps, pool)[:3]
    calls = {(name, steps): partial(side, steps) for name, side in sides.items() for steps in (SHORT, LONG)}
    seconds, answers = in_turns(calls, repeats)
    made = {}
    for name in sides:
        ends = log_likelihoods(X, *answers[name, LONG])
        if np.abs(ends - made.get("emfuse", {"ends": ends})["ends"]).max() > AGREE:
            raise SystemExit(f"{name} and emfuse disagree after {LONG} iterations")
        each = [(b - a) / (LONG - SHORT) for a, b in zip(seconds[name, SHORT], seconds[name, LONG], strict=True)]
        made[name] = {"ns": [1e9 * one / (X.size * K) for one in each], "ends": ends}
    return {name: {"ns": of["ns"], "log_likelihood": float(of["ends"].mean())} for name, of in made.items()}


def whole_fits(X, batches, loops, pool, repeats, gain):
    """Seconds of all data sets from nothing but the data, and how far below the highest end each ends, nats a data set."""
    rule = stopping.first_of(stopping.GainBelow(gain, per_row=True), stopping.SweepLimit(MOST))
    calls = {"emfuse": lambda: of_fits(emfuse.fit_many(X, K) if gain == TIGHT else emfuse.fit_many(X, K, stop=rule))}
    once = {}  # by name, how many data sets, and who fits them
    for name, (run, chunk, _) in batches.items():
        whole = lambda X, run=run, chunk=chunk: to_the_end(run, chunk, X, halves(X), gain, pool)  # noqa: E731
        if gain == ROUGH:
            calls[name] = partial(whole, X)
        else:
            once[name] = (SLOW, whole)
    for name, (fit, _) in loops.items() if gain == ROUGH else ():
        once[name] = (LOOPED, lambda X, fit=fit: [np.array(arrays) for arrays in zip(*map(fit, X), strict=True)])
    seconds, answers = in_turns(calls, repeats)
    for name, (count, call) in once.items():
        began = perf_counter()
        answers[name] = call(X[:count])
        seconds[name] = [(perf_counter() - began) * len(X) / len(answers[name][0])]
    ends = {name: VALUES * log_likelihoods(X[: len(answer[0])], *answer) for name, answer in answers.items()}
    most = np.full(len(X), -np.inf)
    for end in ends.values():
        most[: len(end)] = np.maximum(most[: len(end)], end)
    return {
        name: {"seconds": seconds[name], "data sets": len(ends[name]), "left": float((most[: len(end)] - end).mean())}
        for name, end in ends.items()
    }


def table(title, count, results, of, column):
    print(f"\n| {title} | {column[0]} | beside emfuse | {column[1]} |\n| --- | --- | --- | --- |")
    ours = median(results["emfuse"][of])
    for name, result in results.items():
        value = median(result[of])
        few = f" (from {result['data sets']:,})" if result.get("data sets", count) < count else ""
        print(f"| {name} | {value:.3g}{few} | {value / ours:.3g} x | {result[column[1]]:.6g} |", flush=True)


def main(arguments=None):
    options = parse(arguments)
    count, repeats = (SETS // 10, 2) if options.quick else (SETS, options.repeats)
    X = data_sets(count)
    batches, skipped = installed(BATCHES)
    loops, more = installed(LOOPS)
    described = machine.describe([])
    described["versions"] |= {name: made[-1] for name, made in (batches | loops).items()}
    n_threads = emfuse.threads.thread_count()
    results = {}
    with warnings.catch_warnings(), threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        warnings.simplefilter("ignore")  # that scikit-learn has not converged
        results["iteration"] = iterations(X, batches, pool, repeats)
        columns = ("ns by value, component and iteration", "log_likelihood")
        table(f"one iteration of {count:,} data sets", count, results["iteration"], "ns", columns)
        for name, gain in (("to 1e-3 nats a row", ROUGH), ("to the maximum", TIGHT)):
            results[name] = whole_fits(X, batches, loops, pool, repeats, gain)
            table(f"{count:,} fits {name}", count, results[name], "seconds", ("seconds", "left"))
    print("\n" + "\n".join([*skipped, *more, f"{machine.sentence(described)}; all have {n_threads} threads here"]))
    if options.json:
        machine.write(options.json, {"machine": described, "quick": options.quick, "results": results})
    return 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.many", description="Many small data sets.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data sets, and no figure to quote")
    parser.add_argument("--repeats", type=int, default=5, help="turns (5)")
    machine.add_json(parser, "many")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
