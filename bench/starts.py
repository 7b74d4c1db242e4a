"""Starts: how often each kind reaches the best-known maximum of the likelihood, once and at equal time.

    python -m bench.starts                       # 20 seeds, some minutes
    python -m bench.starts --seeds 5 --json FILE
    python -m bench.starts --quick               # few rows, three seeds: does it work? No figure to quote

Every start is finished by the same EM, `emfuse.em` with acceleration "emqn" up to `stopping.AT_MAXIMUM`, so that only starts are
compared. emfuse's own are asked for by `emfuse.fit`, which does that, and mends or begins again where a start collapses;
scikit-learn, as it is by default, is also scored where it stops by itself. One thread. Methods take turns, seed by seed, and each
run's log-likelihood and wall-clock seconds are kept. After 8 seconds on one data set a method gets no further seed there.

**Best-known** is the highest log-likelihood of all runs that end with this EM, those from known labels included, which are no
method. **Reached** is within 1e-3 nats of it, or 1e-6 nats a row where that is more.

**Spurious** maxima do not count: where a component holds fewer than D + 1 rows, which a full covariance needs to have a density
at all, or is 50 times narrower than all rows in some direction (an eigenvalue below 4e-4, where the covariance of all rows is the
identity). Such a component sits on a few rows that happen to lie near each other; the likelihood has no bound there, such maxima
are many, and who looks longer finds higher ones (McLachlan & Peel 2000, section 3.10). 4e-4 is midway between the narrowest
component that was put into the data here, 1.6e-3, and two near galaxies of 82, 9e-5, that data's well-known spurious maximum. No
line is sharp: with few rows some best-known maxima still have a component of seven rows on nearly one value.

**At equal time**: each method begins again for as long as scikit-learn's n_init=10 takes on that data (its median, 20 ms at
least). With p the share of single runs that reached the maximum, and t their mean seconds, one of them does with probability
1 - (1 - p)^m, m = time / t, a part of a run counting as that part. That is what runs give to who passes over spurious maxima.
**Kept** is the chance that the highest log-likelihood of all m runs is the maximum, as who looks at nothing else keeps it:
(1 - q)^m - (1 - p - q)^m, where q is the share of runs that end at a spurious maximum above the best-known. A start that is the
same every time gains nothing by more time; scikit-learn's n_init=10 is run, not computed.
"""

import argparse
import csv
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import mean, median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import sklearn
import sklearn.datasets
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import emfuse
from bench import machine
from emfuse.hierarchical import hc, hclass, quantile_classes
from emfuse.structures import structure_named

SEED = 20_240_602
DATA = machine.HERE.parent / "tests" / "reference" / "data"
LEAST_BUDGET = 0.02  # seconds
NARROW = 4e-4  # what is spurious: a variance as a share of all rows'
TIE = 0.5  # nats: too little for the data to tell two maxima apart
MOST_SECONDS = 8.0  # no further run of a method on a data set begins after so many
QUICK_ROWS = 1_000
MOST_ROWS = 500  # that are clustered hierarchically, since all pairs are held; mclust draws 2,000

INITS = ("kmeans", "kmeans++", "random_rows", "random", "short_runs", "quantiles")
HIERARCHICAL, BINS, KNOWN = "hierarchical", "mixtools", "known labels"
SKLEARN, SKLEARN_EM, TEN, TEN_EM = "sklearn", "sklearn, EM", "sklearn x10", "sklearn x10, EM"
COLUMNS = (*INITS, HIERARCHICAL, BINS, SKLEARN_EM, TEN_EM, SKLEARN, TEN)


class DataSet(NamedTuple):
    """Rows to fit; `make` gives X (N, D), and labels (N,) from 0, or None where none are known."""

    name: str
    K: int
    structure: str
    make: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    why: str


class Given(NamedTuple):
    """A data set with its rows."""

    data: DataSet
    X: np.ndarray
    labels: np.ndarray | None


class Outcome(NamedTuple):
    """Where a run ended: parameters and total log-likelihood (nats), or why there are none; and its wall-clock seconds."""

    seconds: float
    parameters: emfuse.Parameters | None = None
    log_likelihood: float = -np.inf
    failed: str = ""
    warned: tuple[str, ...] = ()


# -- data sets


def real(name, *columns):
    """A file of tests/reference/data."""
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[column]) for column in columns] for row in rows]), None


def flowers():
    columns = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    return real("iris", *columns)[0], real("iris", "species")[0][:, 0].astype(int) - 1


def components(name, count, *, standardised=True):
    """The first principal components of a data set of scikit-learn, with its classes."""
    X, classes = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    X = X - X.mean(axis=0)
    if standardised:
        X = X / X.std(axis=0)
    return X @ np.linalg.svd(X, full_matrices=False)[2][:count].T, classes


def drawn(random, rows, means, roots, weights=None):
    """Rows of a mixture in random order, and their components; `roots` are (K, D, D), or whatever broadcasts to them."""
    means = np.asarray(means, dtype=float)
    K, D = means.shape
    roots = np.broadcast_to(roots, (K, D, D))
    labels = random.choice(K, rows, p=weights)
    return means[labels] + np.einsum("nij,nj->ni", roots[labels], random.standard_normal((rows, D))), labels


def made(number, draw):
    """A `make` that draws from a seed of its own."""
    return lambda: draw(np.random.default_rng([SEED, number]))


def turned(angle, long, short):
    """A square root of the covariance of an ellipse whose long axis lies at this angle."""
    axis = np.array([np.cos(angle), np.sin(angle)])
    return np.stack([long * axis, short * np.array([-axis[1], axis[0]])], axis=1)


def separate(random):
    return drawn(random, 1_000, [[0, 0], [8, 1], [1, 8], [9, 9], [4, 16]], np.eye(2))


def grid(random):
    return drawn(random, 2_000, [[4.0 * column, 4.0 * row] for row in range(2) for column in range(5)], np.eye(2))


def twenty(random):
    roots = np.tril(random.uniform(-0.5, 0.5, (20, 2, 2)), -1) + random.uniform(0.5, 1.5, (20, 2, 1)) * np.eye(2)
    return drawn(random, 4_000, random.uniform(0.0, 30.0, (20, 2)), roots)


def rounds(random):
    means = random.uniform(0.0, 18.0, (1, 2))
    while len(means) < 15:
        further = random.uniform(0.0, 18.0, 2)
        if np.linalg.norm(means - further, axis=1).min() > 3.5:
            means = np.vstack([means, further])
    return drawn(random, 3_000, means, np.eye(2))


def ten_features(random):
    roots = np.tril(random.uniform(-0.3, 0.3, (5, 10, 10)), -1) + random.uniform(0.6, 1.4, (5, 10, 1)) * np.eye(10)
    return drawn(random, 2_000, 1.2 * random.standard_normal((5, 10)), roots)


def rare(random):
    return drawn(random, 3_000, [[0, 0], [4, 0], [1.5, 1.5]], [np.eye(2), np.eye(2), 0.1 * np.eye(2)], [0.6, 0.39, 0.01])


def units(random):
    X, labels = drawn(random, 1_000, [[0, 0, 0], [0, 0, 5], [4, 0, 5], [4, 4, 0]], np.eye(3))
    return X * [1.0, 1e3, 1e-3], labels


def ring(random):
    angles = np.linspace(0.0, 2 * np.pi, 8, endpoint=False)
    means = 6.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return drawn(random, 2_000, means, [turned(angle + np.pi / 2, 1.8, 0.3) for angle in angles])


def spokes(random):
    angles = np.linspace(0.0, 2 * np.pi, 7, endpoint=False)
    means = 4.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return drawn(random, 2_000, means, [turned(angle, 2.0, 0.3) for angle in angles])


def nested(random):
    return drawn(random, 1_500, np.zeros((3, 2)), np.array([0.3, 1.0, 4.0])[:, None, None] * np.eye(2))


def nested_line(random):
    return drawn(random, 500, np.zeros((2, 1)), np.array([1.0, 4.0])[:, None, None] * np.eye(1))


def overlapping(random):
    return drawn(random, 1_000, [[0.0], [1.5]], np.eye(1))


def crossed(random):
    return drawn(random, 600, np.zeros((2, 2)), [turned(0.4, 3.0, 0.4), turned(-0.4, 3.0, 0.4)])


def heavy(random):
    X, labels = drawn(random, 2_000, [[0, 0], [6, 0], [0, 6], [6, 6]], np.eye(2))
    noise = random.random(len(X)) < 0.1
    X[noise] = 3.0 + 4.0 * random.standard_t(2, (noise.sum(), 2))
    return X, np.where(noise, 4, labels)


def eight_features(random):
    roots = random.uniform(0.4, 1.6, (10, 8, 1)) * np.eye(8)
    return drawn(random, 3_000, 0.8 * random.standard_normal((10, 8)), roots)


def slanted(random):
    root = np.linalg.cholesky(0.95 + 0.05 * np.eye(4)) * np.array([3.0, 1.0, 1.0, 1.0])[:, None]
    return drawn(random, 2_000, 1.5 * random.standard_normal((6, 4)), root)


def skew(random):
    return random.lognormal(0.0, 0.8, (5_000, 1)), None


def large(random):
    roots = np.tril(random.uniform(-0.3, 0.3, (6, 4, 4)), -1) + random.uniform(0.6, 1.4, (6, 4, 1)) * np.eye(4)
    return drawn(random, 20_000, 1.7 * random.standard_normal((6, 4)), roots, np.arange(1, 7) / 21)


GEYSER, AIR, TREES = ("eruptions", "waiting"), ("Ozone", "Wind", "Temp"), ("Girth", "Height", "Volume")
DATA_SETS = (
    DataSet("waiting_k2", 2, "full", partial(real, "faithful", "waiting"), "the textbook's mixture"),
    DataSet("waiting_k3", 3, "full", partial(real, "faithful", "waiting"), "a component too many"),
    *(DataSet(f"galaxies_k{K}", K, "full", partial(real, "galaxies", "velocity"), "82 rows; many maxima") for K in (3, 4, 5, 6)),
    *(DataSet(f"acidity_k{K}", K, "full", partial(real, "acidity", "acidity"), "155 rows, skew") for K in (2, 3, 4)),
    *(DataSet(f"dax_k{K}", K, "full", partial(real, "dax_logret", "x"), "one mean, heavy tails; sd 0.01") for K in (2, 3)),
    DataSet("faithful_k2", 2, "full", partial(real, "faithful", *GEYSER), "easy"),
    DataSet("faithful_k3", 3, "full", partial(real, "faithful", *GEYSER), "a component too many"),
    DataSet("faithful_k3_tied", 3, "tied", partial(real, "faithful", *GEYSER), "what mclust chooses"),
    DataSet("airquality_k2", 2, "full", partial(real, "airquality", *AIR), "skew, three units"),
    DataSet("airquality_k4_diag", 4, "diag", partial(real, "airquality", *AIR), "116 rows, 27 parameters"),
    DataSet("trees_k2_tied", 2, "tied", partial(real, "trees", *TREES), "31 rows, strongly correlated"),
    DataSet("iris_k3", 3, "full", flowers, "two of three overlap"),
    DataSet("iris_k3_tied", 3, "tied", flowers, "one covariance"),
    DataSet("iris_k4_diag", 4, "diag", flowers, "a component too many"),
    DataSet("wine_k3", 3, "full", partial(components, "wine", 4), "four principal components"),
    DataSet("cancer_k2", 2, "full", partial(components, "breast_cancer", 5), "five principal components; very different spreads"),
    DataSet("cancer_k4_diag", 4, "diag", partial(components, "breast_cancer", 5), "the same, diagonal"),
    DataSet("digits_k10", 10, "full", partial(components, "digits", 8, standardised=False), "eight principal components"),
    DataSet("digits_k10_tied", 10, "tied", partial(components, "digits", 8, standardised=False), "the same, tied"),
    DataSet("separate", 5, "full", made(0, separate), "nothing overlaps"),
    DataSet("grid", 10, "full", made(1, grid), "ten clusters in two rows, 4 sd apart"),
    DataSet("twenty", 20, "full", made(2, twenty), "twenty clusters, some overlapping"),
    DataSet("rounds_diag", 15, "diag", made(3, rounds), "fifteen round clusters, 3.5 sd apart or more"),
    DataSet("ten_features", 5, "full", made(4, ten_features), "ten features, overlapping"),
    DataSet("rare", 3, "full", made(5, rare), "a tight 1% of the rows at the flank of the largest"),
    DataSet("units", 4, "full", made(6, units), "features in units of 1, 1,000 and 0.001"),
    DataSet("ring", 8, "full", made(7, ring), "elongated clusters around a ring"),
    DataSet("spokes", 7, "full", made(17, spokes), "elongated clusters that meet in the middle"),
    DataSet("nested", 3, "full", made(8, nested), "one mean, three sizes"),
    DataSet("nested_line", 2, "full", made(9, nested_line), "the same in one dimension"),
    DataSet("overlapping", 2, "full", made(10, overlapping), "1.5 standard deviations apart: one mode"),
    DataSet("crossed", 2, "full", made(11, crossed), "two long clusters that cross"),
    DataSet("heavy", 5, "full", made(12, heavy), "four clusters in heavy-tailed noise"),
    DataSet("eight_features_diag", 10, "diag", made(13, eight_features), "eight features, overlapping, diagonal"),
    DataSet("slanted_tied", 6, "tied", made(14, slanted), "means apart where all clusters are narrow"),
    DataSet("skew_line", 3, "full", made(15, skew), "log-normal rows: no mixture at all"),
    DataSet("large", 6, "full", made(16, large), "20,000 rows"),
)


# -- methods


class Method(NamedTuple):
    """Who is asked: `run(given, seed)` gives outcomes by name, of which scikit-learn's has two.

    takes : whether it takes this data          varies : whether another seed may end elsewhere
    """

    run: Callable[[Given, int], dict[str, Outcome]]
    takes: Callable[[Given], bool] = lambda given: True
    varies: Callable[[Given], bool] = lambda given: True


def find_methods():
    """Every method that is here, and a line for each start that this emfuse does not have."""
    x = np.concatenate([np.linspace(0.0, 1.0, 20), np.linspace(3.0, 5.0, 20)])
    found, skipped = [], []
    for init in INITS:
        try:
            emfuse.fit(x, 2, init=init, n_threads=1)
        except ValueError as error:
            skipped.append(f"{init} is skipped: {error}")
        else:
            found.append(Method(partial(ours, init), takes=on_a_line if init == "quantiles" else always))
    found += [
        Method(partial(scikit_learn, 1, (SKLEARN, SKLEARN_EM))),
        Method(partial(scikit_learn, 10, (TEN, TEN_EM))),
        Method(from_hierarchical, varies=lambda given: not on_a_line(given) and len(given.X) > MOST_ROWS),
        Method(from_bins),
        Method(from_known, takes=has_known, varies=lambda given: False),
    ]
    return found, skipped


def always(given):
    return True


def on_a_line(given):
    return given.X.shape[1] == 1


def has_known(given):
    return given.labels is not None and given.labels.max() + 1 == given.data.K


def ours(init, given, seed):
    data = given.data
    return {init: clocked(emfuse.fit, given.X, data.K, structure=data.structure, init=init, random_state=seed, n_threads=1)}


def scikit_learn(n_init, names, given, seed):
    """As users run it: scored where it stops, and with EM from there on, to tell a wrong maximum from stopping short."""
    data, X = given.data, given.X
    model = GaussianMixture(data.K, covariance_type=data.structure, n_init=n_init, random_state=seed)
    stopped = clocked(model.fit, X)
    if stopped.failed:
        return dict.fromkeys(names, stopped)
    parameters = emfuse.Parameters(model.weights_, model.means_, model.covariances_, data.structure)
    scored = emfuse.em(X, parameters, stop=0, n_threads=1)  # its own bound is that of the parameters before the last M step
    further = clocked(climb, given, lambda: parameters)
    outcomes = (
        stopped._replace(parameters=parameters, log_likelihood=scored.log_likelihood),
        further._replace(seconds=stopped.seconds + further.seconds),
    )
    return dict(zip(names, outcomes, strict=True))


def from_hierarchical(given, seed):
    data, random = given.data, np.random.default_rng(seed)
    return {HIERARCHICAL: clocked(climb, given, partial(hierarchical_start, given.X, data.K, data.structure, random))}


def hierarchical_start(X, K, structure, random):
    """mclust's: one M step of a model-based hierarchical clustering, or in one dimension of classes between quantiles."""
    rows = X if len(X) <= MOST_ROWS else X[np.sort(random.choice(len(X), MOST_ROWS, replace=False))]
    labels = quantile_classes(X[:, 0], K) if X.shape[1] == 1 else hclass(hc(rows), K)
    return emfuse.from_labels(X if X.shape[1] == 1 else rows, labels, structure)


def from_bins(given, seed):
    data, random = given.data, np.random.default_rng(seed)
    return {BINS: clocked(climb, given, partial(bins_start, given.X, data.K, data.structure, random))}


def from_known(given, seed):
    return {KNOWN: clocked(climb, given, partial(emfuse.from_labels, given.X, given.labels, given.data.structure))}


def bins_start(X, K, structure, random):
    """The random start that the manual of R's mixtools tells of (normalmixEM, mvnormalmixEM), as we read it.

    Rows are ordered by their sum and cut into K bins. Means are normal about the bins' means with the bins' standard deviations,
    reciprocals of variances exponential about the bins', weights uniform over all that sum to 1 (Dirichlet).
    """
    bins = np.array_split(X[np.argsort(X.sum(axis=1), kind="stable")], K)
    sds = np.maximum([rows.std(axis=0, ddof=1) for rows in bins], 1e-3 * X.std(axis=0))  # a bin may hold one value
    means = random.normal([rows.mean(axis=0) for rows in bins], sds)
    if structure == "tied":
        sds = np.sqrt(np.square(sds).mean(axis=0))
    variances = 1.0 / random.exponential(1.0 / np.square(sds))
    covariances = variances if structure == "diag" else variances[..., None] * np.eye(X.shape[1])
    return emfuse.Parameters(random.dirichlet(np.ones(K)), means, covariances, structure)


def climb(given, start):
    return emfuse.em(given.X, start(), stop=emfuse.stopping.AT_MAXIMUM, acceleration="emqn", n_threads=1)


def clocked(call, *arguments, **options):
    """The outcome of a call that returns an emfuse.Fit (or, from scikit-learn, a model). Whatever it raises is an outcome too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        began = perf_counter()
        try:
            fit, failed = call(*arguments, **options), ""
        except Exception as error:  # who fails has not reached the maximum, which is what is counted
            fit = None
            failed = "collapsed" if isinstance(error, emfuse.CollapsedComponent) else f"{type(error).__name__}: {error}"
        seconds = perf_counter() - began
    made = (fit.parameters, fit.log_likelihood) if isinstance(fit, emfuse.Fit) else (None, -np.inf)
    return Outcome(seconds, *made, failed, tuple(sorted({warning.category.__name__ for warning in caught})))


# -- the experiment


def run_all(given, methods, seeds):
    """Outcomes by name, lists of (seed, Outcome), and the names of those whose runs vary."""
    outcomes, varying, spent = {}, set(), Counter()
    for seed in range(seeds):
        for number, method in enumerate(methods):
            varies = method.varies(given)
            if not method.takes(given) or (seed and not varies) or spent[number] > MOST_SECONDS:
                continue
            began = perf_counter()
            for name, outcome in method.run(given, seed).items():
                outcomes.setdefault(name, []).append((seed, outcome))
                varying.update({name} if varies else ())
            spent[number] += perf_counter() - began
    return outcomes, varying


SPURIOUS = ("few rows", "narrow")


class Run(NamedTuple):
    """What is kept of a run; `not_counted` says why it cannot have reached the maximum: how it failed, or one of SPURIOUS.

    fewest_rows : float    sum of the responsibilities of the smallest component
    narrowest : float      the least eigenvalue of a covariance, where that of all rows is the identity
    """

    seed: int
    seconds: float
    log_likelihood: float | None
    fewest_rows: float | None
    narrowest: float | None
    not_counted: str

    @classmethod
    def of(cls, given, seed, outcome):
        p, X = outcome.parameters, given.X
        if p is None:
            return cls(seed, outcome.seconds, None, None, None, outcome.failed)
        N, D = X.shape
        inverse_root = np.linalg.inv(np.linalg.cholesky(np.cov(X, rowvar=False, bias=True).reshape(D, D)))
        matrices = structure_named(p.structure).matrices(p.covariances, len(p.weights), D)
        narrowest = float(np.linalg.eigvalsh(inverse_root @ matrices @ inverse_root.T).min())
        fewest_rows = float(N * p.weights.min())
        why = "few rows" if fewest_rows < D + 1 else "narrow" if narrowest < NARROW else ""
        return cls(seed, outcome.seconds, outcome.log_likelihood, fewest_rows, narrowest, why)


def judge(given, outcomes, varying):
    """The record of a data set: what is best, and of each method its runs and rates."""
    data, X = given.data, given.X
    all_runs = {name: [Run.of(given, seed, outcome) for seed, outcome in of] for name, of in outcomes.items()}
    tops = [
        (run.log_likelihood, name)
        for name, runs in all_runs.items()
        for run in runs
        if not run.not_counted and name not in (SKLEARN, TEN)  # where EM has not ended there need not be a maximum
    ]
    best, within = max(tops)[0], max(1e-3, 1e-6 * len(X))
    budget = max(LEAST_BUDGET, median(o.seconds for _, o in outcomes[TEN]))
    record = {"name": data.name, "rows": len(X), "D": X.shape[1], "K": data.K, "structure": data.structure, "why": data.why}
    record |= {"best": best, "within": within, "reached_by": Counter(name for top, name in tops if top >= best - within)}
    record |= {"budget_seconds": budget, "methods": {}}
    for name, runs in all_runs.items():
        ended = [run.not_counted or ("reached" if abs(run.log_likelihood - best) <= within else "elsewhere") for run in runs]
        above = [end in SPURIOUS and run.log_likelihood > best for run, end in zip(runs, ended, strict=True)]
        p, q, seconds = mean(end == "reached" for end in ended), mean(above), mean(run.seconds for run in runs)
        m = budget / seconds if name in varying - {TEN, TEN_EM} else 1.0
        short = [best - run.log_likelihood for run in runs if not run.not_counted]
        record["methods"][name] = {
            "once": p,
            "at_equal_time": 1.0 - (1.0 - p) ** m,
            "kept": (1.0 - q) ** m - max(0.0, 1.0 - p - q) ** m,
            "tied": mean(run.not_counted == "" and abs(run.log_likelihood - best) <= TIE for run in runs),
            "seconds": seconds,
            "nats_short": median(short) if short else None,
            "ended": Counter(ended),
            "warned": Counter(warning for _, o in outcomes[name] for warning in o.warned),
        }
    return record


# -- tables


def table(records, names, figure):
    """Lines of a markdown table: `figure` of every method on every data set; means, and how many are reached always and never."""
    yield "| data set | rows | D | K | form | " + " | ".join(names) + " |"
    yield "|---|--:|--:|--:|---|" + "--:|" * len(names)
    for r in records:
        cells = [f"{r['methods'][name][figure]:.2f}" if name in r["methods"] else "" for name in names]
        yield f"| {r['name']} | {r['rows']:,} | {r['D']} | {r['K']} | {r['structure']} | " + " | ".join(cells) + " |"
    for label, some in (("all", records), ("one feature", [r for r in records if r["D"] == 1])):
        rates = {name: [r["methods"][name][figure] for r in some if name in r["methods"]] for name in names}
        whole = {name: rate for name, rate in rates.items() if some and len(rate) == len(some)}
        means = [f"{mean(whole[name]):.3f}" if name in whole else "" for name in names]
        counts = [f"{sum(x > 0.995 for x in whole[n])} / {sum(x < 0.005 for x in whole[n])}" if n in whole else "" for n in names]
        yield f"| **mean, {label}** | | | | | " + " | ".join(means) + " |"
        yield f"| always / never of {len(some)} | | | | | " + " | ".join(counts) + " |"


def summary(records, names):
    """Lines of a markdown table: how the runs of each method ended, shares over all of them."""
    yield "| | once | within half a nat | at equal time | kept | wrong maximum | spurious | failed | time of a run / budget |"
    yield "|---|" + "--:|" * 8
    for name in names:
        of = [(r, r["methods"][name]) for r in records if name in r["methods"]]
        shares = Counter()
        for _, seen in of:
            for end, count in seen["ended"].items():
                kind = "spurious" if end in SPURIOUS else end if end in ("reached", "elsewhere") else "failed"
                shares[kind] += count / seen["ended"].total() / len(of)
        means = [f"{mean(seen[figure] for _, seen in of):.3f}" for figure in ("once", "tied", "at_equal_time", "kept")]
        ends = [f"{shares[end]:.1%}" for end in ("elsewhere", "spurious", "failed")]
        takes = f"{median(seen['seconds'] / r['budget_seconds'] for r, seen in of):.3f}"
        yield f"| {name} ({len(of)} data sets) | " + " | ".join([*means, *ends, takes]) + " |"


def main(arguments=None):
    options = parse(arguments)
    described = machine.describe([(argparse.Namespace(name="scikit-learn"), sklearn.__version__)])
    methods, skipped = find_methods()
    print("\n".join(skipped), end="\n\n" * bool(skipped))
    records = []
    with threadpool_limits(1):
        for data in DATA_SETS:
            X, labels = data.make()
            if options.quick and len(X) > QUICK_ROWS:
                continue
            given = Given(data, np.ascontiguousarray(X, dtype=np.float64), labels)
            if not records:
                run_all(given, methods, 1)  # imports and caches
            began = perf_counter()
            records.append(judge(given, *run_all(given, methods, options.seeds)))
            seconds = perf_counter() - began
            print(f"{data.name}: best {records[-1]['best']:.4f}, {seconds:.1f} s", file=sys.stderr, flush=True)
    names = [name for name in COLUMNS if any(name in r["methods"] for r in records)]
    print(f"Share of {options.seeds} runs that reached the best-known maximum\n")
    print("\n".join(table(records, names, "once")))
    print("\nThe same at equal time: that of scikit-learn's n_init=10\n")
    print("\n".join(table(records, names, "at_equal_time")))
    print("\nHow runs ended: means over data sets\n")
    print("\n".join(summary(records, names)))
    print(f"\n{machine.sentence(described)}")
    if options.json:
        content = {"machine": described, "quick": options.quick, "seeds": options.seeds, "skipped": skipped}
        machine.write(options.json, content | {"narrow": NARROW, "data_sets": records})
    return 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.starts", description="How often starts reach the best-known maximum.")
    parser.add_argument("--quick", action="store_true", help="few rows, three seeds: does it work? No figure to quote")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each method on each data set (20; 3 with --quick)")
    machine.add_json(parser, "starts")
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or (3 if options.quick else 20)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
