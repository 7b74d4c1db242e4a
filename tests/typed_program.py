"""A small program as a user writes it, in which every answer is asked for its type: `test_types.py` checks it, and runs it.

`assert_type` fails for `Any`: a place where the library stops saying what it returns is found here, before a user's editor does.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import assert_type

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

import emfuse
from emfuse.parameters import Factors
from emfuse.statistics import SufficientStatistics

Doubles = NDArray[np.float64]
Floats = NDArray[np.float64] | NDArray[np.float32]


class Halves:
    """A source of data of one's own: two arrays, each swept by the library's."""

    def __init__(self, first: Doubles, second: Doubles) -> None:
        self.parts = [emfuse.InMemory(first), emfuse.InMemory(second)]

    @property
    def n_features(self) -> int:
        return self.parts[0].n_features

    @property
    def weight(self) -> float:
        return sum(part.weight for part in self.parts)

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        first, second = (part.sweep(factors, origin=origin, hard=hard) for part in self.parts)
        return first + second


def ten_sweeps(trace: emfuse.stopping.Trace) -> str | None:
    """A rule of one's own."""
    return "ten sweeps were enough" if len(trace) >= 10 else None


def said(progress: emfuse.Progress) -> None:
    assert_type(progress.log_likelihood, float)
    assert_type(progress.parameters, emfuse.Parameters)


def the_fit(x: Doubles) -> emfuse.Fit:
    fit = emfuse.fit(x, 2, structure="full", n_init=2, random_state=0, history=True, callback=said)
    assert_type(fit, emfuse.Fit)
    assert_type(fit.parameters, emfuse.Parameters)
    assert_type(fit.parameters.means, Doubles)
    assert_type(fit.parameters.sds, Doubles)
    assert_type(fit.parameters.structure, str)
    assert_type(fit.statistics, SufficientStatistics)
    assert_type(fit.log_likelihood, float)
    assert_type(fit.bic, float)
    assert_type(fit.trace, Doubles)
    assert_type(fit.converged, bool)
    assert_type(fit.reason, str)
    assert_type(fit.history, emfuse.History | None)
    assert_type(fit.predict(x), NDArray[np.int64])
    assert_type(fit.sample(3, random_state=0), tuple[Doubles, NDArray[np.int64]])
    assert_type(fit.summary(), str)
    if fit.history:
        assert_type(fit.history[0], emfuse.Progress)
    return fit


def the_loop(x: Doubles) -> None:
    start = emfuse.Parameters.univariate([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0])
    assert_type(start, emfuse.Parameters)
    assert_type(emfuse.from_labels(x, (x > 0).astype(np.int64)), emfuse.Parameters)
    assert_type(emfuse.em(x, start, stop=20), emfuse.Fit)
    assert_type(emfuse.em(x, start, stop=ten_sweeps, acceleration="squarem"), emfuse.Fit)
    assert_type(emfuse.em(Halves(x[:40], x[40:]), start, stop=emfuse.stopping.GainBelow(1e-9)), emfuse.Fit)
    linked = emfuse.Constraints(means=["a", "-a"], sds=[1.0, None])
    assert_type(emfuse.em(x, start, constraints=linked), emfuse.Fit)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", x[:, None])
        assert_type(emfuse.fit(Path(folder) / "rows.npy", 2), emfuse.Fit)
        assert_type(emfuse.fit(emfuse.Blocks.of(Path(folder) / "rows.npy"), 2), emfuse.Fit)
    assert_type(emfuse.fit(emfuse.InMemory(x), 2), emfuse.Fit)
    assert_type(emfuse.kernels.active(), str)
    assert_type(emfuse.kernels.runnable(), list[str])
    with tempfile.TemporaryDirectory() as folder:
        start.save(Path(folder) / "start.json")
        assert_type(emfuse.Parameters.load(Path(folder) / "start.json"), emfuse.Parameters)


def the_distribution(fit: emfuse.Fit, x: Doubles) -> None:
    assert_type(fit.mixture, emfuse.Mixture)
    assert_type(fit.mixture.cdf(x), Doubles)
    assert_type(fit.mixture.ppf([0.025, 0.975]), Doubles)
    assert_type(fit.mixture.entropy(1000, random_state=0).value, float)
    assert_type(fit.mixture.match(emfuse.Mixture(fit.parameters)), NDArray[np.int64])


def how_sure(fit: emfuse.Fit, x: Doubles) -> None:
    assert_type(emfuse.standard_errors(fit, x), emfuse.Uncertainty)
    assert_type(fit.standard_errors(x), emfuse.Uncertainty)
    intervals = fit.standard_errors(x).confidence_intervals(0.9)
    assert_type([interval.lower for interval in intervals], list[float])
    assert_type(intervals["mean[0]"].upper, float)
    test = emfuse.bootstrap_lrt(x, 1, n_resamples=9, random_state=0)
    assert_type(test.p_value, float)


def which_model(x: Doubles) -> None:
    found = emfuse.select(x, range(1, 4), structures=("full", "tied"))
    assert_type(found, emfuse.Selection)
    assert_type(found.best, emfuse.Fit)
    assert_type(found.K, int)
    assert_type(found.plot(), Axes)
    assert_type([row.bic for row in found.table], list[float])


def many(x: Doubles) -> None:
    fits = emfuse.fit_many([x, x[::2]], 2)
    assert_type(fits, emfuse.Fits)
    assert_type(fits.means, Doubles)
    assert_type(fits.failures, dict[int, str])
    assert_type(fits.converged, NDArray[np.bool_])
    assert_type(fits[0], emfuse.Parameters)
    for parameters in fits:
        assert_type(parameters, emfuse.Parameters)


def in_place_of_scikit_learns(x: Doubles) -> None:
    model = emfuse.GaussianMixture(n_components=2, random_state=0).fit(x[:, None])
    assert_type(model, emfuse.GaussianMixture)
    assert_type(model.means_, Floats)
    assert_type(model.converged_, bool)
    assert_type(model.fit_, emfuse.Fit)
    assert_type(model.predict(x[:, None]), NDArray[np.int64])
    assert_type(model.bic(x[:, None]), float)


def pictures(fit: emfuse.Fit, x: Doubles) -> None:
    assert_type(emfuse.plots.density(fit, x), Axes)
    assert_type(emfuse.plots.trace(fit), Axes)
    assert_type(fit.plot(x), Axes)


def main(draw: Callable[[emfuse.Fit, Doubles], None] = pictures) -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-2.0, 1.0, 40), random.normal(2.0, 1.0, 40)])
    fit = the_fit(x)
    the_loop(x)
    the_distribution(fit, x)
    how_sure(fit, x)
    which_model(x)
    many(x)
    in_place_of_scikit_learns(x)
    draw(fit, x)


if __name__ == "__main__":
    main()
