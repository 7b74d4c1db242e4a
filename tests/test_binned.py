"""A histogram is swept as the rows that it counted: exact beside mpmath in every tail, and EM's laws hold on it."""

import itertools

import mpmath as mp
import numpy as np
import pytest

from emfuse import CollapsedComponent, InMemory, NotConverged, Parameters, SufficientStatistics, binned, em, stopping
from emfuse.binned import Binned, fit_binned, within_bins
from emfuse.parameters import Factors
from emfuse.stopping import Limit
from emfuse.structures import STRUCTURES

EPS = np.finfo(np.float64).eps
INF = np.inf
RULE = 2e-13  # what the nodes' rounding leaves of a quadrature; measured 6e-14

TWO = Parameters.univariate([0.6, 0.4], [0.0, 3.0], [1.0, 1.5])
EDGES = np.r_[-INF, np.arange(-2.0, 8.0, 0.75), INF]


def probabilities(p, edges):
    """Probability of each bin under a mixture, (B,)."""
    return np.exp(within_bins(edges[:-1], edges[1:], p.factors).log_probability).sum(axis=1)


@pytest.fixture(scope="module")
def histogram():
    """Counts of 500 rows of TWO in EDGES."""
    return np.histogram(TWO.sample(500, random_state=0)[0][:, 0], EDGES)[0]


@pytest.fixture(scope="module")
def top(histogram):
    """The fit that 1,500 plain steps from the truth make of it."""
    return em(Binned(EDGES, histogram), TWO, stop=1500)


def assert_same_sums(ours, theirs, tolerance):
    """The same statistics, but for that share of each one's terms."""
    np.testing.assert_allclose(ours.mass, theirs.mass, rtol=tolerance)
    size = np.sqrt(theirs.second.ravel() * theirs.mass) if theirs.second.size == len(theirs.mass) else theirs.second.ravel()
    assert np.all(np.abs(ours.first - theirs.first)[:, 0] <= tolerance * size)
    np.testing.assert_allclose(ours.second, theirs.second, rtol=tolerance)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, rel=tolerance)
    assert ours.weight == pytest.approx(theirs.weight, rel=tolerance)


def assert_same_mixture(ours, theirs, tolerance):
    """Equal weights; means and standard deviations within that share of a standard deviation."""
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=0, atol=tolerance)
    assert np.all(np.abs(ours.means - theirs.means) <= tolerance * theirs.sds)
    np.testing.assert_allclose(ours.sds, theirs.sds, rtol=tolerance)


# ------------------------------------------------------------------ the oracle: tail probabilities with 120 digits


def exact_part(a, b, mean, P):
    """Log probability of a bin under one normal, and mean and mean square of x - mean in it, by tail probabilities."""
    with mp.workdps(120):
        mean, P = mp.mpf(float(mean)), mp.mpf(float(P))
        alpha, beta = ((mp.mpf(float(edge)) - mean) * P for edge in (a, b))
        if alpha + beta < 0:  # the side of the upper tail, which does not cancel
            log_probability, first, second = exact_part(-b, -a, -mean, P)
            return log_probability, -first, second
        phi = [mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi) if mp.isfinite(z) else mp.mpf(0) for z in (alpha, beta)]
        z_phi = [z * f if mp.isfinite(z) else mp.mpf(0) for z, f in zip((alpha, beta), phi, strict=True)]
        Z = (mp.erfc(alpha / mp.sqrt(2)) - mp.erfc(beta / mp.sqrt(2))) / 2
        return mp.log(Z), (phi[0] - phi[1]) / Z / P, (1 + (z_phi[0] - z_phi[1]) / Z) / P**2


def exact_sweep(edges, counts, factors, origin):
    """Log-likelihood, and mass, first and second of each component about the origin, (K,) each."""
    P = np.broadcast_to(factors.P.ravel(), len(factors.means))
    with mp.workdps(120):
        log_w = [mp.mpf(float(c)) + mp.log(2 * mp.pi) / 2 - mp.log(mp.mpf(float(s))) for c, s in zip(factors.log_constant, P)]
        sums, total = mp.zeros(3, len(P)), mp.mpf(0)
        for j, n in enumerate(counts):
            parts = [exact_part(edges[j], edges[j + 1], m, s) for m, s in zip(factors.means[:, 0], P, strict=True)]
            joint = [mp.exp(w + part[0]) for w, part in zip(log_w, parts, strict=True)]
            total += mp.mpf(float(n)) * mp.log(mp.fsum(joint))
            for k, (_, first, second) in enumerate(parts):
                r = mp.mpf(float(n)) * joint[k] / mp.fsum(joint)
                move = mp.mpf(float(factors.means[k, 0])) - mp.mpf(float(origin[k, 0]))
                for row, term in enumerate((1, first + move, second + 2 * move * first + move**2)):
                    sums[row, k] += r * term
        return float(total), *np.array(sums.tolist(), dtype=np.float64)


# ------------------------------------------------------------------ literal


def test_the_half_line_below_the_mean():
    """Probability 1/2; half a normal has mean -sd sqrt(2 / pi) and mean square sd^2."""
    s = Binned([-INF, 5.0], [6]).sweep(Parameters.univariate([1.0], [5.0], [2.0]).factors)
    assert s.log_likelihood == pytest.approx(6 * np.log(0.5), rel=RULE)
    np.testing.assert_allclose(s.mass, [6.0])
    np.testing.assert_allclose(s.first, [[-12.0 * np.sqrt(2.0 / np.pi)]], rtol=RULE)
    np.testing.assert_allclose(s.second, [[[24.0]]], rtol=RULE)
    assert s.weight == 6.0


def test_one_standard_deviation_on_either_side():
    """Probability 0.6826895, and variance 1 - 2 phi(1) / 0.6826895 = 0.2911251."""
    s = Binned([-1.0, 1.0], [10]).sweep(Parameters.univariate([1.0], [0.0], [1.0]).factors)
    assert s.log_likelihood == pytest.approx(10 * np.log(0.682689492137086), rel=1e-13)
    assert abs(s.first[0, 0]) <= 10 * EPS
    np.testing.assert_allclose(s.second, [[[10 * 0.2911250947727932]]], rtol=1e-13)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 1e6])
def test_a_bin_of_the_whole_line_says_nothing(mean):
    """Probability 1; the sums are those of the components themselves, and a step leaves the mixture where it is."""
    p = Parameters.univariate([0.3, 0.7], [mean, mean + 1.0], [2.0, 0.5])
    made = em(Binned([-INF, INF], [8]), p, stop=1)
    assert abs(made.trace[0]) <= 8 * RULE
    assert_same_mixture(made.parameters, p, RULE + 4 * EPS * abs(mean))


def test_one_bin_with_all_rows():
    """n log probability, whatever the components."""
    s = Binned([1.0, 4.0], [7]).sweep(TWO.factors)
    with mp.workdps(30):
        exact = mp.log(0.6 * (mp.ncdf(4) - mp.ncdf(1)) + 0.4 * (mp.ncdf(mp.mpf(2) / 3) - mp.ncdf(mp.mpf(-4) / 3)))
    assert s.log_likelihood == pytest.approx(7 * float(exact), rel=RULE)


# ------------------------------------------------------------------ every bin beside 120 digits

BINS = {
    "narrow": (0.3, 0.3 + 2.0**-20),
    "narrow on the mean": (-(2.0**-30), 2.0**-31),
    "a hundredth": (1.0, 1.01),
    "a standard deviation": (0.5, 1.5),
    "over the mean": (-0.5, 1.5),
    "wide over the mean": (-30.0, 9.0),
    "wide": (0.0, 1e6),
    "to infinity": (1.0, INF),
    "all but a tail": (-2.0, INF),
    "narrow, 40 away": (40.0, 40.0 + 2.0**-12),
    "wide, 40 away": (40.0, 50.0),
    "to infinity, 40 away": (40.0, INF),
    "narrow, 1000 away": (1000.0, 1000.0 + 2.0**-12),
    "wide, 1000 away": (1000.0, 2000.0),
    "to infinity, 1000 away": (1000.0, INF),
    "to infinity, a million away": (1e6, INF),
}


def assert_exact_part(a, b, mean, sd):
    """Log probability within t^2 eps and the rule's share; mean and variance within the rule's share of their own size."""
    P = 1.0 / sd
    factors = Factors(np.array([[mean]]), np.array([[P]]), np.array([np.log(P) - 0.5 * np.log(2.0 * np.pi)]))
    made = within_bins(np.array([a]), np.array([b]), factors)
    log_probability, first, second = exact_part(a, b, mean, P)
    with mp.workdps(120):
        near = mp.mpf(float(made.nearest[0, 0])) - mp.mpf(mean)
        off = float(mp.mpf(float(made.log_probability[0, 0])) - log_probability)
        square, variance = float(second - 2 * near * first + near**2), float(second - first**2)
        first = float(first - near)
    logs = 0.5 * (float(near) * P) ** 2 + abs(np.log(P)) + 1.0 + abs(float(log_probability))  # what is added up, nats
    assert abs(off) <= RULE + 4 * EPS * logs
    assert abs(made.mean[0, 0] - first) <= RULE * np.sqrt(square)
    assert abs(made.variance[0, 0] / variance - 1.0) <= 4 * RULE  # of the mean square, which is up to four times the variance


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("sd", [1.0, 0.3])
@pytest.mark.parametrize("name", BINS)
def test_a_component_within_a_bin_is_exact(name, sd, side):
    """Probability, mean and variance, in either tail, of any width."""
    a, b = (edge * sd for edge in BINS[name])
    assert_exact_part(*((a, b) if side > 0 else (-b, -a)), 0.0, sd)


def test_bins_of_any_width_at_any_distance_are_exact():
    """200 drawn: widths from 1e-6 to 100 standard deviations, from 0 to 1e4 of them away, on either side or over the mean."""
    random = np.random.default_rng(0)
    for _ in range(200):
        near, width = 10.0 ** random.uniform(-3, 4), 10.0 ** random.uniform(-6, 2)
        a = random.choice([near, -near - width, -width * random.uniform()])
        assert_exact_part(a, a + width, 0.0, 1.0)


@pytest.mark.parametrize("side", [-1, 1])
def test_far_away_a_component_is_an_exponential_at_the_near_edge(side):
    """1e100 standard deviations away, where no reference has digits: mean and standard deviation are sd / t."""
    edges = np.sort([side * 1e100, side * INF])
    made = within_bins(edges[:1], edges[1:], Parameters.univariate([1.0], [0.0], [1.0]).factors)
    np.testing.assert_allclose(made.mean, [[side * 1e-100]], rtol=RULE)
    np.testing.assert_allclose(made.variance, [[1e-200]], rtol=4 * RULE)
    np.testing.assert_allclose(made.log_probability, [[-0.5e200]], rtol=4 * EPS)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("moved", [0.0, 1.7])
def test_a_sweep_is_exact(structure, moved, histogram):
    """Log-likelihood and sums of a histogram, about the means and about another origin, whatever the form of P."""
    p = Parameters.univariate([0.3, 0.7], [-0.5, 2.0], [1.25, 1.25], structure)
    origin = p.means + moved
    s = Binned(EDGES, histogram).sweep(p.factors, origin=origin if moved else None)
    log_likelihood, mass, first, second = exact_sweep(EDGES, histogram, p.factors, origin)
    assert s.second.shape == SufficientStatistics.zeros(origin, p.factors.form).second.shape
    np.testing.assert_array_equal(s.origin, origin)
    assert s.log_likelihood == pytest.approx(log_likelihood, rel=RULE)
    np.testing.assert_allclose(s.mass, mass, rtol=RULE)
    assert np.all(np.abs(s.first[:, 0] - first) <= RULE * np.sqrt(second * mass))
    np.testing.assert_allclose(s.second.ravel(), [second.sum()] if structure == "tied" else second, rtol=RULE)


@pytest.mark.parametrize("far", [40.0, 1000.0, -40.0, -1000.0])
@pytest.mark.parametrize("ends", [(0.0, 0.01), (0.0, 5.0), (0.0, INF)])
def test_a_bin_without_probability_in_double_precision_is_shared(far, ends):
    """exp(-800) is 0, and 0 / 0 no responsibility; two components differ by some nats there, and each has its part of the row."""
    lower, upper = (far + end for end in ends) if far > 0 else (far - ends[1], far - ends[0])
    p = Parameters.univariate([0.5, 0.5], [0.0, 2.0 / far], [1.0, 1.0])
    s = Binned([lower, upper], [3.0]).sweep(p.factors)
    log_likelihood, mass, first, second = exact_sweep([lower, upper], [3.0], p.factors, p.means)
    rounding = RULE + 4 * EPS * far**2  # of a log probability, and so of each responsibility
    assert s.log_likelihood == pytest.approx(log_likelihood, rel=RULE)
    assert s.mass.sum() == pytest.approx(3.0, rel=4 * EPS)
    assert s.mass.min() > 0.3
    np.testing.assert_allclose(s.mass, mass, rtol=rounding)
    np.testing.assert_allclose(s.first[:, 0], first, rtol=rounding)
    np.testing.assert_allclose(s.second[:, 0, 0], second, rtol=rounding)


# ------------------------------------------------------------------ law 1 and law 4: sums add, and counts are weights


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_two_halves_make_the_whole(cut, histogram):
    """sweep(A) + sweep(B) == sweep(A and B), be they two ranges of bins or two sets of rows in the same bins."""
    whole = Binned(EDGES, histogram).sweep(TWO.factors)
    ranges = Binned(EDGES[: cut + 1], histogram[:cut]), Binned(EDGES[cut:], histogram[cut:])
    some = np.minimum(histogram, cut)
    rows = Binned(EDGES, some), Binned(EDGES, histogram - some)
    for a, b in (ranges, rows):
        assert_same_sums(a.sweep(TWO.factors) + b.sweep(TWO.factors), whole, len(histogram) * EPS)


def test_how_many_bins_are_taken_at_once_does_not_matter(histogram, monkeypatch):
    """One at a time, or all."""
    whole = Binned(EDGES, histogram).sweep(TWO.factors)
    monkeypatch.setattr(binned, "CHUNK", 1)
    assert_same_sums(Binned(EDGES, histogram).sweep(TWO.factors), whole, len(histogram) * EPS)


def test_a_bin_with_no_rows_is_absent(histogram):
    """Even one so far away that its probability overflows; the other bins' sums are the same to the last bit."""
    here = Binned(EDGES[1:-1], histogram[1:-1]).sweep(TWO.factors)
    there = Binned(np.r_[-1e300, EDGES[1:-1], 1e200, INF], np.r_[0, histogram[1:-1], 0, 0]).sweep(TWO.factors)
    for name in ("mass", "first", "second", "log_likelihood", "weight"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name), err_msg=name)


def test_counts_need_not_be_whole(histogram):
    """All counts times 1/1024: the same mixture to the last bit, and that share of the log-likelihood."""
    here, there = em(Binned(EDGES, histogram), TWO, stop=5), em(Binned(EDGES, histogram / 1024.0), TWO, stop=5)
    assert there.parameters == here.parameters
    np.testing.assert_array_equal(there.trace, here.trace / 1024.0)


def test_hard_assignment_gives_each_bin_whole_to_its_likeliest_component(histogram):
    """Masses are counts, sums are those of the component's own share of the bin."""
    s = Binned(EDGES, histogram).sweep(TWO.factors, hard=True)
    made = within_bins(EDGES[:-1], EDGES[1:], TWO.factors)
    own = made.log_probability.argmax(axis=1)
    np.testing.assert_allclose(s.mass, np.bincount(own, histogram))
    d = (made.nearest + made.mean - TWO.means[:, 0])[np.arange(len(own)), own]
    np.testing.assert_allclose(s.first[:, 0], np.bincount(own, histogram * d), rtol=1e-13)
    assert s.log_likelihood == pytest.approx(histogram @ made.log_probability.max(axis=1), rel=1e-14)


# ------------------------------------------------------------------ law 3: the log-likelihood never falls


@pytest.mark.parametrize("width", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("acceleration", [None, "emqn", "squarem"])
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_the_log_likelihood_never_falls(structure, acceleration, width):
    """On bins finer and coarser than the components, from a start that is off; but for the rounding of the two sums."""
    edges = np.r_[-INF, np.arange(-8.0, 12.0, width), INF]
    counts = np.histogram(TWO.sample(2000, random_state=1)[0], edges)[0]
    start = Parameters.univariate([0.5, 0.5], [-1.0, 5.0], [2.0, 2.0], structure)
    made = em(Binned(edges, counts), start, stop=80, acceleration=acceleration)
    rounding = 2 * counts.sum() * RULE  # nats, of each sum; and as many eps of it as there are terms
    assert np.diff(made.trace).min() >= -rounding - 2 * len(counts) * EPS * abs(made.trace[-1])
    assert made.trace[-1] > made.trace[0]


@pytest.mark.parametrize("acceleration", [None, "emqn", "squarem"])
def test_each_acceleration_ends_at_the_same_top(acceleration, histogram, top):
    """Each by its own way, within the stop's 1e-6 nats; what plain EM's estimate of that is worth, 100 times as much."""
    made = fit_binned(EDGES, histogram, 2, acceleration=acceleration)
    assert made.converged
    assert made.log_likelihood == pytest.approx(top.log_likelihood, abs=1e-6 if acceleration else 1e-4)


# ------------------------------------------------------------------ law 5 and law 6: shift, scale, order


@pytest.mark.parametrize("power", [-496, -20, 20, 496])
def test_the_scale_of_the_data_scales_the_answer(power, histogram):
    """Edges times a: means and standard deviations times a, and the same log-likelihood, which is of counts. 2^496 is 2e149."""
    a = 2.0**power
    scaled = Parameters.univariate(TWO.weights, a * TWO.means, a * TWO.sds[:, 0])
    here, there = em(Binned(EDGES, histogram), TWO, stop=20), em(Binned(a * EDGES, histogram), scaled, stop=20)
    # log a is added to a log probability and taken from it again, and rounds as often as there are steps
    tolerance = 16 * EPS * (1.0 + 2 * abs(np.log(a)))
    back = Parameters.univariate(there.parameters.weights, there.parameters.means / a, there.parameters.sds[:, 0] / a)
    assert_same_mixture(back, here.parameters, tolerance)
    np.testing.assert_allclose(there.trace, here.trace, rtol=0, atol=histogram.sum() * tolerance)


@pytest.mark.parametrize("offset", [1e3, -1e6, 1e8])
def test_an_offset_moves_the_means_alone(offset, histogram):
    """Edges plus b: means plus b, as far as a double holds the sum. EDGES are multiples of 1/4: they stay exact."""
    moved = Parameters.univariate(TWO.weights, TWO.means + offset, TWO.sds[:, 0])
    here, there = em(Binned(EDGES, histogram), TWO, stop=20), em(Binned(EDGES + offset, histogram), moved, stop=20)
    tolerance = 4 * EPS * (abs(offset) + 100)  # an eps of the offset, at every step, of which a step passes on less than half
    back = Parameters(there.parameters.weights, there.parameters.means - offset, there.parameters.covariances)
    assert_same_mixture(back, here.parameters, tolerance)
    np.testing.assert_allclose(there.trace, here.trace, rtol=0, atol=histogram.sum() * tolerance)


def test_the_mirror_image_has_the_mirrored_answer(histogram):
    """Edges and means with the other sign, bins in the other order."""
    mirrored = Parameters.univariate(TWO.weights, -TWO.means, TWO.sds[:, 0])
    here, there = em(Binned(EDGES, histogram), TWO, stop=20), em(Binned(-EDGES[::-1], histogram[::-1]), mirrored, stop=20)
    back = Parameters(there.parameters.weights, -there.parameters.means, there.parameters.covariances)
    assert_same_mixture(back, here.parameters, 20 * len(histogram) * EPS)
    np.testing.assert_allclose(there.trace, here.trace, rtol=20 * len(histogram) * EPS)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_the_order_of_the_components_is_kept(structure, order, histogram):
    """Permuting the start permutes the answer; sums over components are rounded in another order."""
    w, means, sds = np.array([0.5, 0.3, 0.2]), np.array([0.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0])
    here = em(Binned(EDGES, histogram), Parameters.univariate(w, means, sds, structure), stop=10)
    order = list(order)
    there = em(Binned(EDGES, histogram), Parameters.univariate(w[order], means[order], sds[order], structure), stop=10)
    p = here.parameters
    covariances = p.covariances if structure == "tied" else p.covariances[order]
    permuted = Parameters(p.weights[order], p.means[order], covariances, structure)
    assert_same_mixture(there.parameters, permuted, 10 * len(histogram) * EPS)
    np.testing.assert_allclose(there.trace, here.trace, rtol=10 * len(histogram) * EPS)


# ------------------------------------------------------------------ twin: fine bins are rows


def test_fine_bins_are_rows():
    """A bin of width h about each row: sums differ from the rows' by a share of h^2, so by a quarter where h is halved."""
    x = np.unique(np.round(TWO.sample(60, random_state=2)[0][:, 0], 2))
    rows = InMemory(x).sweep(TWO.factors)
    off = []
    for h in (2.0**-8, 2.0**-9):
        edges = np.sort(np.concatenate([x - h / 2, x + h / 2]))
        s = Binned(edges, np.arange(len(edges) - 1) % 2 == 0).sweep(TWO.factors)
        log_likelihood = s.log_likelihood - len(x) * np.log(h)  # of a density, from that of probabilities
        off.append(np.r_[s.mass - rows.mass, (s.first - rows.first).ravel(), (s.second - rows.second).ravel()])
        off[-1] = np.r_[off[-1], log_likelihood - rows.log_likelihood]
    assert np.abs(off[0]).max() < len(x) * 2.0**-16  # a row's share is some h^2
    np.testing.assert_allclose(off[0] / off[1], 4.0, rtol=1e-3)  # h^2 more of it, and rounding: 1e-13 in 1e-7 of the smallest


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_a_fit_of_fine_bins_is_the_fit_of_the_rows(structure):
    """2,000 rows in bins of a hundredth: parameters within 1e-3 standard deviations, for rows were moved by 3e-3 at random."""
    x = TWO.sample(2000, random_state=3)[0][:, 0]
    edges = np.arange(-6.0, 10.0, 0.01)
    start = Parameters.univariate([0.5, 0.5], [0.0, 3.0], [1.0, 1.0], structure)
    here = em(x, start, stop=stopping.AT_MAXIMUM, acceleration="emqn").parameters
    there = em(Binned(edges, np.histogram(x, edges)[0]), start, stop=stopping.AT_MAXIMUM, acceleration="emqn").parameters
    assert_same_mixture(there, here, 1e-3)


# ------------------------------------------------------------------ the truth is found where bin centres miss it


@pytest.mark.parametrize("structure", ["full", "tied"])
@pytest.mark.parametrize("width", [0.2, 1.0, 2.5])
def test_expected_counts_leave_their_own_mixture_where_it_is(structure, width):
    """Counts n P_j of a mixture have their maximum there (Gibbs), so that no step moves it: moments and M step in one."""
    p = Parameters.univariate([0.35, 0.65], [0.0, 3.0], [1.2, 1.2] if structure == "tied" else [1.0, 1.5], structure)
    edges = np.r_[-INF, np.arange(-5.0, 9.0, width), INF]
    made = em(Binned(edges, 1000.0 * probabilities(p, edges)), p, stop=10)
    assert_same_mixture(made.parameters, p, 10 * RULE)


def test_coarse_bins_have_the_standard_deviation_of_the_rows_and_their_centres_have_not():
    """Bins 1.5 standard deviations wide: centres have h^2 / 12 more variance, a standard deviation 9% too large (Sheppard)."""
    p, h = Parameters.univariate([1.0], [10.2], [2.0]), 3.0
    edges = np.arange(-19.0, 42.0, h)
    counts = 1e4 * probabilities(p, edges)
    made = fit_binned(edges, counts, 1).parameters
    assert made.means[0, 0] == pytest.approx(10.2, abs=1e-6)
    assert made.sds[0, 0] == pytest.approx(2.0, abs=1e-6)  # the stop's 1e-5 nats of 1e4 rows: 1e-9 of the variance squared
    centres = em(edges[:-1] + h / 2, p, sample_weight=counts, stop=1).parameters
    # Sheppard's correction leaves out terms of exp(-2 (pi sd / h)^2) = 1.5e-4, times the ratio of sd^2 to h^2 and some
    assert centres.sds[0, 0] == pytest.approx(np.sqrt(4.0 + h * h / 12.0), rel=2e-3)
    assert centres.sds[0, 0] > 1.08 * made.sds[0, 0]


@pytest.mark.parametrize("width", [0.25, 1.0, 2.0])
def test_a_mixture_is_found_from_coarse_counts(width):
    """Expected counts of two components, as far as two standard deviations wide, with what lies outside in infinite bins."""
    edges = np.r_[-INF, np.arange(-3.0, 11.0, width), INF]
    p = Parameters.univariate([0.6, 0.4], [0.0, 5.0], [1.0, 1.5])
    made = fit_binned(edges, 1e4 * probabilities(p, edges), 2)
    order = np.argsort(made.parameters.means[:, 0])
    found = Parameters(made.parameters.weights[order], made.parameters.means[order], made.parameters.covariances[order])
    assert made.converged
    # it stops 1e-5 nats below the maximum of 1e4 rows: sqrt(2e-5 / 1e4) standard deviations, and more where bins blur the curve
    assert_same_mixture(found, p, 1e-3)


def test_drawn_rows_are_found_as_well_as_unbinned():
    """20,000 rows in bins of one standard deviation: within four standard errors of the truth (0.015 over 40 seeds)."""
    edges = np.r_[-INF, np.arange(-3.5, 9.0, 1.0), INF]
    x = Parameters.univariate([0.5, 0.5], [0.0, 4.0], [1.0, 1.0]).sample(20_000, random_state=0)[0]
    p = fit_binned(edges, np.histogram(x, edges)[0], 2).parameters
    np.testing.assert_allclose(np.sort(p.means[:, 0]), [0.0, 4.0], atol=0.06)
    np.testing.assert_allclose(p.sds[:, 0], 1.0, atol=0.06)


# ------------------------------------------------------------------ edges of fit_binned


def test_a_fit_of_bins_is_used_like_any_other(histogram):
    """It predicts and scores points, counts its rows, keeps its history, calls back, and stops when told."""
    seen = []
    made = fit_binned(EDGES, histogram, 2, stop=3, history=True, callback=seen.append)
    assert len(made.history) == len(seen) == 4
    assert isinstance(made.history[-1].log_likelihood, float)
    assert made.statistics.weight == histogram.sum()
    np.testing.assert_array_equal(np.argsort(made.parameters.means[:, 0])[[0, 1]], made.predict([0.0, 5.0]))
    assert made.bic == pytest.approx(5 * np.log(histogram.sum()) - 2 * made.log_likelihood)
    assert made.score_samples([0.0]).shape == (1,)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_of_one_dimension_is_fitted(structure, histogram):
    """Own variances are the same thing by any of their three names, and a shared one is no better."""
    made = fit_binned(EDGES, histogram, 2, structure=structure)
    full = fit_binned(EDGES, histogram, 2)
    assert made.parameters.structure == structure
    if structure == "tied":
        assert made.log_likelihood < full.log_likelihood
        assert np.ptp(made.parameters.sds) == 0.0
    else:
        assert made.log_likelihood == pytest.approx(full.log_likelihood, abs=1e-6)


def test_the_same_histogram_gives_the_same_bits(histogram):
    """Nothing is drawn that is not drawn again."""
    here, there = fit_binned(EDGES, histogram, 3, stop=30), fit_binned(EDGES, histogram, 3, stop=30)
    assert there.parameters == here.parameters
    np.testing.assert_array_equal(there.trace, here.trace)


def test_a_start_of_your_own_is_taken(histogram):
    """Its sweep is the first of the trace."""
    made = fit_binned(EDGES, histogram, 2, init=TWO, stop=0)
    assert made.parameters == TWO
    assert made.log_likelihood == Binned(EDGES, histogram).sweep(TWO.factors).log_likelihood


@pytest.mark.parametrize(
    ("edges", "counts", "K"),
    [
        ([0.0, 1.0], [9], 1),
        ([0.0, 1.0, 2.0], [9, 0], 1),
        ([0.0, 1.0, 2.0], [5, 5], 2),
        ([0.0, 1.0, 2.0, 3.0], [5, 0, 5], 2),
        ([-INF, 0.0, 1.0, INF], [5, 1, 5], 3),
        ([-INF, 0.0, 1.0], [5, 4], 1),
        ([0.0, 1.0, INF], [5, 4], 2),
    ],
)
def test_as_many_components_as_bins_have_a_start_and_do_not_collapse(edges, counts, K):
    """A component may shrink into its bin, whose probability is then 1 and can be no more."""
    made = fit_binned(edges, counts, K, stop=50)
    n = np.array(counts, dtype=float)
    saturated = (n[n > 0] * np.log(n[n > 0] / n.sum())).sum()  # no mixture gives counts more than their own shares do
    assert np.all(made.parameters.sds > 0.0)
    assert made.trace[0] <= made.log_likelihood <= saturated + len(n) * n.sum() * RULE


def test_a_component_of_no_weight_gets_no_rows(histogram):
    """And nothing that is not a number."""
    p = Parameters.univariate([1.0, 0.0], [0.0, 1e6], [1.0, 1e-3])
    s = Binned(EDGES, histogram).sweep(p.factors)
    assert s.mass.tolist() == [pytest.approx(histogram.sum()), 0.0]
    assert np.isfinite(s.second).all()
    with pytest.raises(CollapsedComponent, match="component 1 has collapsed: no row is left"):
        em(Binned(EDGES, histogram), p)


def test_reg_covar_is_plain_em(histogram):
    """Acceleration "auto" is none where the steps maximise nothing that could be watched."""
    made = fit_binned(EDGES, histogram, 2, reg_covar=0.5, stop=20)
    assert made.parameters.variances.min() > 0.5
    with pytest.raises(ValueError, match="acceleration must be None where reg_covar is above 0"):
        fit_binned(EDGES, histogram, 2, reg_covar=0.5, acceleration="emqn")


def test_a_limit_reached_is_told(histogram, monkeypatch):
    """Only where the stop was ours."""
    monkeypatch.setattr(stopping, "AT_MAXIMUM", stopping.SweepLimit(2))
    with pytest.warns(NotConverged, match="the limit of 2 sweeps was reached"):
        made = fit_binned(EDGES, histogram, 2)
    assert isinstance(made.reason, str) and not made.converged
    assert not fit_binned(EDGES, histogram, 2, stop=lambda trace: Limit("enough")).converged


def test_edges_and_counts_are_copied():
    """What the caller does to them later is not seen."""
    edges, counts = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0])
    data = Binned(edges, counts)
    edges[:], counts[:] = 7.0, 0.0
    assert (data.edges.tolist(), data.counts.tolist()) == ([0.0, 1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("kind", [list, np.float32, np.int64, np.uint8])
def test_edges_and_counts_may_be_any_real_numbers(kind):
    """Lists, single precision, integers: the same as in float64."""
    edges, counts = np.array([0.0, 1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    given = (edges.tolist(), counts.tolist()) if kind is list else (edges.astype(kind), counts.astype(kind))
    assert Binned(*given).sweep(TWO.factors).log_likelihood == Binned(edges, counts).sweep(TWO.factors).log_likelihood


@pytest.mark.parametrize(
    ("edges", "counts", "error", "message"),
    [
        (["a", "b"], [1], TypeError, "edges must be real numbers, got an array of <U1"),
        ([0, 1], ["a"], TypeError, "counts must be real numbers, got an array of <U1"),
        ([0, 1j], [1], TypeError, "edges must be real numbers, got an array of complex128"),
        ([0, None], [1], TypeError, "edges must be real numbers, got an array of object"),
        ([[0, 1]], [1], ValueError, r"edges must have shape \(B \+ 1,\) for B bins, B at least 1, got \(1, 2\)"),
        ([0], [], ValueError, r"edges must have shape .* got \(1,\)"),
        ([0, 1, 1], [1, 1], ValueError, r"edges must increase strictly, got edges\[2\] = 1.0 after edges\[1\] = 1.0; sort them"),
        ([0, np.nan, 1], [1, 1], ValueError, r"got edges\[1\] = nan after edges\[0\] = 0.0"),
        ([0, INF, INF], [1, 1], ValueError, r"got edges\[2\] = inf after edges\[1\] = inf"),
        ([0, -INF, 1], [1, 1], ValueError, r"got edges\[1\] = -inf after edges\[0\] = 0.0"),
        ([0, 1, 2], [1, 1, 1], ValueError, r"counts must have shape \(2,\), one number for each bin of 3 edges, got \(3,\)"),
        ([0, 1, 2], [1, -2], ValueError, "counts must be finite and at least 0, got -2.0 for bin 1"),
        ([0, 1, 2], [np.nan, 1], ValueError, "counts must be finite and at least 0, got nan for bin 0"),
        ([0, 1, 2], [1, INF], ValueError, "counts must be finite and at least 0, got inf for bin 1"),
        ([0, 1, 2], [0, 0], ValueError, "counts must be above 0 for some bin, but every count is zero"),
        ([0, 1], [1e260], ValueError, r"counts must be at most 1e\+250, got 1e\+260 for bin 0; divide by a constant"),
    ],
)
def test_bins_that_cannot_be_used_are_refused(edges, counts, error, message):
    """One error that says what was seen and what was needed."""
    with pytest.raises(error, match=message):
        Binned(edges, counts)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_components": 2.0}, TypeError, "n_components must be a whole number, got 2.0"),
        ({"n_components": True}, TypeError, "n_components must be a whole number, got True"),
        ({"n_components": 0}, ValueError, "n_components must be from 1 to the number of bins with rows, 2, got 0"),
        ({"n_components": 3}, ValueError, "n_components must be from 1 to the number of bins with rows, 2, got 3"),
        ({"init": "kmeans"}, TypeError, "init must be emfuse.Parameters here, got str"),
        ({"n_components": 1, "init": TWO}, ValueError, "init must have n_components = 1 components, got 2"),
        ({"structure": "round"}, ValueError, "structure must be one of .* got 'round'"),
        ({"edges": [-INF, 0, INF], "counts": [5, 5]}, ValueError, "edges must have two finite ones for a start to be found"),
    ],
)
def test_a_fit_that_cannot_be_made_is_refused(arguments, error, message):
    """One error that says what was seen and what was needed."""
    given = {"edges": [0, 1, 2, 3], "counts": [4, 0, 5], "n_components": 2} | arguments
    with pytest.raises(error, match=message):
        fit_binned(**given)


def test_a_mixture_of_more_features_is_refused(mixture):
    """The number that was seen, and that which was needed."""
    with pytest.raises(ValueError, match="a histogram has 1 feature, but the mixture has 2"):
        Binned([0, 1], [1]).sweep(mixture("full", K=2, D=2).factors)


@pytest.mark.parametrize("edges", [[0.0, 1.0, 1e200, INF], [0.0, 1.0, 1e145, 1e146]])
def test_a_bin_whose_probability_overflows_is_named(edges):
    """As a row is, of which it is one."""
    with pytest.raises(ValueError, match=r"bin 2 \(from 1e\+\d+ to .*\) lies so many standard deviations from every component"):
        Binned(edges, [3, 0, 1]).sweep(TWO.factors)
