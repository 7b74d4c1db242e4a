"""The summary: the numbers of the fit, in 80 columns."""

from dataclasses import replace

import numpy as np
import pytest

import emfuse
from emfuse.summary import summary

ONE = emfuse.Parameters.univariate([0.25, 0.75], [0.0, 10.0], [1.0, 2.0])


def fit_of(K, D, scale=1.0):
    """A fit of no sweeps to speak of, of any size; means and standard deviations of many digits."""
    random = np.random.default_rng([K, D])
    means = scale * random.standard_normal((K, D)) * 10.0 ** random.integers(-3, 4, (K, D))
    p = emfuse.Parameters(np.full(K, 1.0 / K), means, np.square(scale * random.uniform(0.5, 2.0, (K, D))), "diag")
    return emfuse.em(means, p, stop=lambda trace: "it was enough")


def test_a_summary_has_the_numbers_of_the_fit():
    """Literally: components by row, criteria to four decimals, the reason in whole."""
    fit = replace(emfuse.em(ONE.sample(100, 0)[0], ONE, stop=lambda trace: "that will do"), seconds=0.5)
    mass = [f"{mass:.6g}" for mass in fit.statistics.mass]
    width = max(map(len, mass))
    assert summary(fit).splitlines() == [
        "Gaussian mixture: 2 components, 1 feature, structure 'full'; mean ± sd",
        "",
        f"component  weight  {'rows':>{width}}  mean ± sd",
        f"0          0.2500  {mass[0]:>{width}}      0 ± 1",
        f"1          0.7500  {mass[1]:>{width}}     10 ± 2",
        "",
        f"log-likelihood   {fit.log_likelihood:.6f} nats, {fit.log_likelihood / 100:.6f} a row",
        "rows             100",
        "free parameters  5",
        f"AIC              {fit.aic:.4f}",
        f"BIC              {fit.bic:.4f}",
        "converged after 1 sweep, 0.5 s: that will do",
    ]


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("D", [1, 2, 3, 7, 20, 50])
@pytest.mark.parametrize("K", [1, 2, 3, 9, 20])
def test_a_summary_fits_80_columns(K, D, scale):
    """Whatever the size and the units, also with long names; no line ends with a space."""
    fit = fit_of(K, D, scale)
    for names in (None, [f"a long name of a feature, number {d} (millimetres)" for d in range(D)]):
        lines = summary(fit, names=names).splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(("K", "D"), [(20, 3), (3, 20), (20, 20)])
def test_no_number_of_up_to_twenty_is_lost(K, D):
    """Every mean with its standard deviation is there, though the table may be in several parts."""
    fit = fit_of(K, D)
    text = summary(fit)
    p = fit.parameters
    for mean, sd in zip(p.means.ravel(), p.sds.ravel(), strict=True):
        assert f"{mean:.6g} ± {sd:.4g}" in text


def test_what_is_not_shown_is_counted():
    """Of 30 components and 50 features 20 each are shown."""
    text = summary(fit_of(30, 50))
    assert "and 10 more components and 30 more features" in text
    assert "feature 19" in text and "feature 20" not in text


def test_long_reasons_and_repairs_are_wrapped_and_whole():
    """Not a word is lost."""
    fit = replace(fit_of(2, 1), reason="because " * 30 + "of this", repairs=("component 1 was dropped " * 5 + "again",))
    text = " ".join(summary(fit).split())
    assert "because " * 30 + "of this" in text
    assert "component 1 was dropped " * 5 + "again" in text


def test_starts_are_counted():
    """Where there was more than one."""
    assert "starts           3, of which this is the best" in summary(replace(fit_of(2, 1), scores=np.zeros(3)))


def test_a_small_weight_is_not_shown_as_zero():
    """One in a hundred thousand is not nothing."""
    p = emfuse.Parameters.univariate([1e-5, 1.0 - 1e-5], [0.0, 1.0], [1.0, 1.0])
    assert "1.0e-05" in summary(emfuse.em([0.0, 1.0], p, stop=lambda trace: "enough"))


def test_a_name_cannot_break_the_table():
    """Line ends, control characters and escapes of terminals are none in the text."""
    lines = summary(fit_of(1, 2), names=["a\nb\tc", "\x1b[31mred"]).splitlines()
    assert any("a b c" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_names_must_be_as_many_as_features():
    """One a feature."""
    with pytest.raises(ValueError, match="names must have 2 entries, one a feature, got 1"):
        summary(fit_of(1, 2), names=["a"])
