"""Blocks: the same sums as of rows in memory, however they are cut and wherever they are read from; and nothing left behind."""

import contextlib
import decimal
import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import emfuse
from emfuse import InMemory, engines
from emfuse.blocks import AHEAD, Blocks, ahead, as_engine
from emfuse.parameters import Factors

EPS = np.finfo(np.float64).eps
NAMES = ("mass", "first", "second", "log_likelihood", "weight")
SOON = 30.0  # seconds in which anything here is done, unless there is a deadlock; a busy machine takes a few


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Whatever happened, no reader goes on after it."""
    yield
    assert readers() == []


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "emfuse_reader" and thread.is_alive()]


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow", reason="Arrow and Parquet are read with pyarrow: pip install pyarrow")


@pytest.fixture
def parquet(pyarrow):
    return pytest.importorskip("pyarrow.parquet", reason="Parquet is read with pyarrow: pip install pyarrow")


@pytest.fixture
def rows(mixture):
    """A mixture of three features, and 1,000 rows: so few that float32 is computed in float64 in any cut."""
    p = mixture("full", K=3, D=3)
    return p, np.random.default_rng(1).permutation(p.sample(1_000, random_state=0)[0])


@pytest.fixture
def large(mixture):
    """A mixture, and so many rows that they are cut into several chunks."""
    p = mixture("full", K=6, D=6, apart=1.0)
    X = np.random.default_rng(1).permutation(p.sample(30_000, random_state=0)[0])
    assert len(engines.cut(len(X), p.factors)) > 2
    return p, X


def assert_same_bits(a, b):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def assert_close(a, b, rows):
    """The same sums in another order: `rows` eps of the terms' sizes, which sqrt(second mass) bounds for `first`."""
    tolerance = rows * EPS
    np.testing.assert_allclose(a.mass, b.mass, rtol=tolerance)
    diagonal = np.diagonal(b.second, axis1=1, axis2=2) if b.second.ndim == 3 else b.second
    assert np.all(np.abs(a.first - b.first) <= tolerance * np.sqrt(diagonal * b.mass[:, None]))
    products = np.sqrt(diagonal[:, :, None] * diagonal[:, None, :]) if b.second.ndim == 3 else diagonal
    assert np.all(np.abs(a.second - b.second) <= tolerance * products)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=tolerance)
    assert a.weight == pytest.approx(b.weight, rel=tolerance)


def cut_at(X, *places):
    """Blocks between the places."""
    return [X[a:b] for a, b in itertools.pairwise((0, *places, len(X)))]


# ------------------------------------------------------------------ law 1: sums add, in any cut


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_have_the_sums_of_rows_in_memory(structure, dtype, weighted, mixture):
    """sweep(A) + sweep(B) == sweep(A and B), for each structure and precision, with weights and without, hard too."""
    p = mixture(structure, K=3, D=4)
    X = p.sample(1_000, random_state=0)[0].astype(dtype)
    v = np.random.default_rng(1).uniform(0.0, 2.0, 1_000) if weighted else None
    whole = InMemory(X, v)
    parts = cut_at(X, 1, 400, 401, 990)
    blocks = Blocks(lambda: zip(parts, cut_at(v, 1, 400, 401, 990), strict=True)) if weighted else Blocks(parts)
    for more in ({}, {"hard": True}, {"origin": p.means + 0.5}):
        assert_close(blocks.sweep(p.factors, **more), whole.sweep(p.factors, **more), rows=1_000)


def test_many_features_with_one_covariance(mixture):
    """In memory the scatter within components is what all rows have, less what lies between them; in blocks it is added up."""
    p = mixture("tied", K=3, D=12)
    X = p.sample(5_000, random_state=0)[0]
    assert p.n_features >= engines.POOLED_FROM
    assert_close(Blocks(np.array_split(X, 4)).sweep(p.factors), InMemory(X).sweep(p.factors), rows=5_000)


@pytest.mark.parametrize(
    "places", [(), (0,), (1,), (31, 32, 33), (500, 500, 500), (999,), (1_000,), tuple(range(100, 1_000, 100))]
)
def test_any_cut_has_the_same_sums(rows, places):
    """Blocks of no rows, of one, and all rows in one."""
    p, X = rows
    assert_close(Blocks(cut_at(X, *places)).sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)


def test_empty_blocks_add_nothing(rows):
    """Wherever they stand, of whatever shape: not even a bit of the result."""
    p, X = rows
    plain = Blocks([X[:300], X[300:]])
    among = Blocks([X[:0], X[:300], np.empty(0), [], (X[:0], []), X[300:], np.empty((0, 3), np.float32)])
    assert_same_bits(among.sweep(p.factors), plain.sweep(p.factors))
    assert (among.weight, among.noise) == (1_000.0, plain.noise)


def test_float32_rows_stay_float32(mixture):
    """Computed in float32 in both, log densities agree within what `noise` says of their rounding; few rows have less of it."""
    p = mixture("full", K=3, D=2)
    X = p.sample(20_000, random_state=0)[0].astype(np.float32)
    whole, blocks = InMemory(X), Blocks(np.array_split(X, 3))
    made, expected = blocks.sweep(p.factors), whole.sweep(p.factors)
    assert blocks.noise == whole.noise > 1e-9
    assert abs(made.log_likelihood - expected.log_likelihood) <= blocks.noise * 20_000
    assert Blocks.of(X[:1_000]).noise == InMemory(X[:1_000]).noise == Blocks.of(X.astype(float)).noise == 1e-14


@pytest.mark.parametrize("kind", ["list", "ints", "frame", "big-endian", "column", "Fortran"])
def test_a_block_may_be_whatever_rows_in_memory_may_be(kind, mixture):
    """As `InMemory` takes them; 1-D is one feature."""
    p = mixture("diag", K=2, D=1 if kind == "column" else 2)
    X = np.round(p.sample(60, random_state=0)[0])
    if kind == "frame":
        pandas = pytest.importorskip("pandas", reason="a data frame is made with pandas")
    made = {
        "list": lambda part: part.tolist(),
        "ints": lambda part: part.astype(np.int16),
        "frame": lambda part: pandas.DataFrame(part),
        "big-endian": lambda part: part.astype(">f8"),
        "column": lambda part: part[:, 0],
        "Fortran": np.asfortranarray,
    }[kind]
    blocks = Blocks([made(X[:25]), made(X[25:])])
    assert blocks.n_features == X.shape[1]
    assert_close(blocks.sweep(p.factors), InMemory(X).sweep(p.factors), rows=60)


def test_text_is_read_in_blocks_by_pandas(rows, tmp_path):
    """A function that opens the file anew is all it takes; what it returns is closed."""
    pandas = pytest.importorskip("pandas", reason="CSV is read with pandas")
    p, X = rows
    pandas.DataFrame(X).to_csv(tmp_path / "rows.csv", index=False)
    opened = []

    def make():
        opened.append(pandas.read_csv(tmp_path / "rows.csv", chunksize=300))
        return opened[-1]

    assert_close(Blocks(make).sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)
    assert all(reader.handles.handle.closed for reader in opened)


# ------------------------------------------------------------------ law 4: weights


def test_weight_zero_is_the_row_absent(rows):
    """Even where all of a block weigh nothing, or one is so far away that its square overflows."""
    p, X = rows
    far = np.full((2, 3), 1e200)
    weighted = Blocks([(X[:400], np.ones(400)), (far, [0.0, 0.0]), (np.vstack([far, X[400:]]), np.r_[0, 0, np.ones(600)])])
    for _ in range(2):  # looked at, and trusted
        assert_close(weighted.sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)
    assert weighted.weight == 1_000.0


def test_blocks_with_and_without_weights_mix(rows):
    """A row without a weight weighs 1."""
    p, X = rows
    mixed = Blocks([X[:400], (X[400:], np.full(600, 2.0)), (X[:5], None)])
    expected = InMemory(np.vstack([X, X[:5]]), np.r_[np.ones(400), np.full(600, 2.0), np.ones(5)])
    assert_close(mixed.sweep(p.factors), expected.sweep(p.factors), rows=2_000)
    assert mixed.weight == expected.weight
    drawn = mixed.sample(2_000, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.sample_weight, expected.sample_weight)


# ------------------------------------------------------------------ law 7: threads cannot be seen


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_bits_for_any_number_of_threads(structure, weighted, mixture):
    """1, 2, 3 and 8 threads: not even the last bit tells them apart; and neither does whether the rows are trusted."""
    p = mixture(structure, K=6, D=6, apart=1.0)
    X = p.sample(30_000, random_state=0)[0]
    v = np.random.default_rng(2).uniform(0.0, 2.0, len(X)) if weighted else None
    one = Blocks.of(X, weights=v, block_rows=13_000, n_threads=1)
    sums, moments = one.sweep(p.factors), one.moments
    for n_threads in (2, 3, 8):
        many = Blocks.of(X, weights=v, block_rows=13_000, n_threads=n_threads)
        np.testing.assert_array_equal(many.moments, moments)
        assert_same_bits(many.sweep(p.factors), sums)
        assert_same_bits(many.sweep(p.factors), sums)


def test_few_rows_use_no_threads_but_the_reader(monkeypatch, rows):
    """Where there are known to be as few as one chunk has, the caller sweeps them."""
    p, X = rows
    fresh = emfuse.threads._Pool()
    monkeypatch.setattr(emfuse.threads, "_pool", fresh)
    Blocks.of(X, n_threads=8).sweep(p.factors)
    assert fresh.started == 0


# ------------------------------------------------------------------ fits


def test_a_fit_of_blocks_is_that_of_the_array(structure, mixture):
    """The same parameters and log-likelihood to 1e-10 of their sizes, after the same sweeps."""
    p = mixture(structure, K=2, D=2)
    X = p.sample(3_000, random_state=0)[0]
    start = emfuse.Parameters(p.weights, p.means + 0.3, p.covariances, structure)
    for more in ({}, {"variance_floor": 1e-3, "acceleration": "emqn"}):
        a, b = emfuse.em(X, start, **more), emfuse.em(Blocks(np.array_split(X, 7)), start, **more)
        assert (a.sweeps, a.reason) == (b.sweeps, b.reason)
        assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-10)
        for name in ("weights", "means", "covariances"):
            made, expected = getattr(b.parameters, name), getattr(a.parameters, name)
            np.testing.assert_allclose(made, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_a_start_from_a_sample(large):
    """What `sample` returns is rows in memory, from which any start is made."""
    _, X = large
    blocks = Blocks.of(X, block_rows=7_000)
    sampled = blocks.sample(5_000, np.random.default_rng(0))
    start = emfuse.initialise.start(sampled, 6, "full", "kmeans", np.random.default_rng(0))
    assert emfuse.em(blocks, start, stop=5).sweeps == 6


# ------------------------------------------------------------------ moments, samples, evaluations


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_in_memory(rows, offset, weighted):
    """Also far from zero, where squares would cancel; each feature's rounding there is eps of the offset."""
    _, X = rows
    X = np.sort(X, axis=0) + offset  # so that blocks differ
    v = np.random.default_rng(1).uniform(0.0, 2.0, len(X)) if weighted else None
    mean, variance = Blocks.of(X, weights=v, block_rows=90).moments
    expected_mean, expected_variance = InMemory(X, v).moments
    np.testing.assert_allclose(mean, expected_mean, rtol=4 * EPS, atol=1e3 * EPS)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e3 * EPS + 10 * EPS * offset)


def test_moments_come_in_one_walk_and_tell_the_weight(rows):
    """A walk over data larger than memory takes minutes; the weight of known rows takes none."""
    _, X = rows
    walks = []
    blocks = Blocks(lambda: walks.append(1) or iter(np.array_split(X, 3)))
    assert (blocks.weight, len(blocks.moments), blocks.weight, len(walks)) == (1_000.0, 2, 1_000.0, 1)
    known = Blocks.of(X)
    assert (known.weight, known._checked) == (1_000.0, False)


def sampled(X, n_rows, seed, places=(), v=None):
    parts = cut_at(X, *places)
    return Blocks(parts if v is None else list(zip(parts, cut_at(v, *places), strict=True))).sample(
        n_rows, np.random.default_rng(seed)
    )


def test_a_sample_is_uniform():
    """10 of 40 rows, 1,000 times: each row as often as another, by chi-square for drawing without replacement."""
    N, n, times = 40, 10, 1_000
    X = np.arange(N, dtype=float)
    counts = np.zeros(N)
    for seed in range(times):
        drawn = sampled(X, n, seed, (7, 8, 30)).X[:, 0].astype(int)
        assert len(set(drawn)) == n
        counts[drawn] += 1
    share = n / N
    chi_square = ((counts - times * share) ** 2).sum() / (times * share * (1 - share)) * (N - 1) / N
    assert 1e-4 < stats.chi2(N - 1).cdf(chi_square) < 1 - 1e-4


def test_a_sample_of_many_rows_is_uniform():
    """The same over several times the rows that are kept while drawing: their numbers are uniform, by Kolmogorov and Smirnov."""
    X = np.arange(600_000, dtype=float)
    drawn = sampled(X, 5_000, 0, (100_000, 350_000)).X[:, 0]
    assert len(np.unique(drawn)) == 5_000
    assert stats.kstest(drawn / len(X), "uniform").pvalue > 1e-4


def test_the_same_generator_draws_the_same_rows_in_any_cut():
    """In the order of the source; another seed draws others."""
    X = np.random.default_rng(0).standard_normal((200_000, 2))
    one = sampled(X, 1_000, 5).X
    np.testing.assert_array_equal(sampled(X, 1_000, 5, (1, 70_000, 70_001, 150_000)).X, one)
    assert not np.array_equal(sampled(X, 1_000, 6).X, one)
    places = {tuple(row): i for i, row in enumerate(X.tolist())}
    assert np.all(np.diff([places[tuple(row)] for row in one.tolist()]) > 0)


def test_a_sample_of_more_rows_than_there_are_is_all_of_them(rows):
    """In their order, with their weights, in their precision; rows that weigh nothing are absent."""
    _, X = rows
    np.testing.assert_array_equal(sampled(X, 1_000, 0, (10,)).X, X)
    v = np.arange(1_000.0) % 3
    drawn = sampled(X.astype(np.float32), 10**12, 0, (10, 400), v)
    assert drawn.X.dtype == np.float32
    np.testing.assert_array_equal(drawn.X, X.astype(np.float32)[v > 0])
    np.testing.assert_array_equal(drawn.sample_weight, v[v > 0])


@pytest.mark.parametrize("n_rows", [0, -1, 1.5, True])
def test_a_senseless_size_of_a_sample_is_refused(rows, n_rows):
    """At least one row."""
    with pytest.raises(ValueError, match="n_rows must be a whole number of at least 1, got"):
        Blocks.of(rows[1]).sample(n_rows, np.random.default_rng(0))


def test_evaluations_come_block_by_block(rows):
    """What `InMemory` gives for the same rows, with nothing for empty blocks; rows that weigh nothing are evaluated too."""
    p, X = rows
    blocks = Blocks([(X[:300], np.ones(300)), X[:0], (X[300:], np.zeros(700))])
    made = list(blocks.evaluate_blocks(p.factors, log_density=True, labels=True, dtype=np.float32))
    expected = InMemory(X).evaluate(p.factors, log_density=True, labels=True, dtype=np.float32)
    assert [len(part.labels) for part in made] == [300, 700]
    assert made[0].responsibilities is None
    np.testing.assert_array_equal(np.concatenate([part.labels for part in made]), expected.labels)
    np.testing.assert_array_equal(np.concatenate([part.log_density for part in made]), expected.log_density)


# ------------------------------------------------------------------ reading ahead


def test_the_next_blocks_are_asked_for_while_one_is_swept(monkeypatch, rows):
    """Block i + 1 and i + 2 are being read before the sweep of block i has ended, and none further ahead."""
    p, X = rows
    asked = [threading.Event() for _ in range(6)]
    swept = []

    def make():
        for event, part in zip(asked, np.array_split(X, 6), strict=True):
            event.set()
            yield part

    sweep = InMemory._sweep

    def watched(engine, *arguments, **options):
        i = len(swept)
        swept.append(i)
        for event in asked[: i + 1 + AHEAD]:
            assert event.wait(SOON), "it was read only after the sweep before"
        assert not any(event.is_set() for event in asked[i + 1 + AHEAD :])
        return sweep(engine, *arguments, **options)

    monkeypatch.setattr(InMemory, "_sweep", watched)
    Blocks(make, n_threads=1).sweep(p.factors)
    assert len(swept) == 6


def test_blocks_are_let_go_once_they_are_swept(rows):
    """No more than a few of many are ever in memory."""
    p, X = rows
    alive, most = weakref.WeakValueDictionary(), []

    def make():
        for i in range(50):
            part = alive[i] = X.copy()
            most.append(len(alive))
            yield part
            del part

    blocks = Blocks(make, n_threads=2)
    for walk in (lambda: blocks.moments, lambda: blocks.sweep(p.factors), lambda: blocks.sample(5, np.random.default_rng(0))):
        walk()
        assert 1 < max(most) <= AHEAD + 6  # that being made, those read ahead, the four that two threads have before them
        assert not alive
        most.clear()


class Broken(Exception):
    pass


def test_an_error_of_the_reader_is_raised_as_itself(rows):
    """After the blocks before it; its iterator is closed, and nothing is left."""
    p, X = rows
    closed = []

    def make():
        try:
            yield X[:500]
            raise Broken("disk on fire")
        finally:
            closed.append(True)

    for walk in (lambda b: b.sweep(p.factors), lambda b: b.moments, lambda b: list(b.evaluate_blocks(p.factors, labels=True))):
        with pytest.raises(Broken, match="disk on fire"):
            walk(Blocks(make))
        assert closed.pop()
        assert readers() == []


def test_an_error_in_opening_is_raised_as_itself(rows):
    """`make` itself may fail."""

    def make():
        raise Broken

    with pytest.raises(Broken):
        Blocks(make).sweep(rows[0].factors)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, MemoryError])
def test_an_error_of_the_sweep_leaves_nothing_behind(monkeypatch, rows, error, n_threads):
    """Neither a reader, which may be waiting, nor an open iterator."""
    p, X = rows
    closed = []

    def make():
        try:
            for _ in range(100):
                yield X
        finally:
            closed.append(True)

    monkeypatch.setattr(InMemory, "_sweep", lambda *arguments, **options: (_ for _ in ()).throw(error()))
    with pytest.raises(error):
        Blocks(make, n_threads=n_threads).sweep(p.factors)
    assert closed == [True]
    assert readers() == []


def test_ctrl_c_while_waiting_for_a_block_leaves_nothing_behind(run):
    """It is raised at once in a caller that waits for the reader, and the reader ends with the block that it is at."""
    code = """
import os, signal, threading, numpy as np
from emfuse import Parameters
from emfuse.blocks import Blocks
go = threading.Event()
def make():
    yield np.zeros((5, 1))
    os.kill(os.getpid(), signal.SIGINT)
    go.wait(20)
    yield np.zeros((5, 1))
threading.Timer(0.5, go.set).start()
try:
    Blocks(make).sweep(Parameters([1.0], [0.0], [1.0], "spherical").factors)
except KeyboardInterrupt:
    print("stopped", [t.name for t in threading.enumerate() if t.name == "emfuse_reader"])
"""
    if sys.platform == "win32":
        pytest.skip("a process cannot send itself Ctrl-C alone on Windows")
    assert run(code, timeout=SOON) == "stopped []"


def test_evaluations_that_are_left_in_the_middle_leave_no_reader(rows):
    """Closed, or forgotten."""
    p, X = rows
    blocks = Blocks([X] * 50)
    with closing(blocks.evaluate_blocks(p.factors, labels=True)) as parts:
        next(parts)
        assert len(readers()) == 1
    assert readers() == []
    parts = blocks.evaluate_blocks(p.factors, labels=True)
    next(parts)
    del parts
    gc.collect()
    assert readers() == []


def test_python_ends_though_evaluations_are_left_in_the_middle(run):
    """A reader that waits holds nothing up, whatever still refers to it."""
    code = """
import numpy as np
from emfuse import Parameters
from emfuse.blocks import Blocks
parts = Blocks([np.zeros((5, 1))] * 50).evaluate_blocks(Parameters([1.0], [0.0], [1.0], "spherical").factors, labels=True)
next(parts)
print("done")
"""
    assert run(code, timeout=SOON) == "done"


def test_without_threads_blocks_are_read_by_the_caller(monkeypatch, rows):
    """Where the system gives no more of them."""
    p, X = rows

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert_close(Blocks(np.array_split(X, 3)).sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)


def test_several_sweeps_may_go_on_at_once(large):
    """Each has its own iterator and its own reader, as starts side by side need it."""
    p, X = large
    blocks = Blocks.of(X, block_rows=4_000)
    expected, made = blocks.sweep(p.factors), [None] * 4

    def sweep(i):
        made[i] = blocks.sweep(p.factors)

    side_by_side = [threading.Thread(target=sweep, args=(i,)) for i in range(4)]
    for thread in side_by_side:
        thread.start()
    for thread in side_by_side:
        thread.join(SOON)
    for sums in made:
        assert_same_bits(sums, expected)


def test_reading_ahead_keeps_the_order():
    """And ends where the generator ends, whatever the depth."""
    for depth in (1, 2, 7):
        with closing(ahead(lambda: (i for i in range(20)), depth)) as items:
            assert list(items) == list(range(20))


def test_who_listens_is_told_of_rows_in_every_walk(rows):
    """After each block, of how many where that is known; of a file, before the first walk."""
    p, X = rows
    told = []
    for blocks, known, after in (
        (Blocks(cut_at(X, 300, 300, 900)), None, [300, 900, 1_000]),
        (Blocks.of(X, block_rows=400), 1_000, [400, 800, 1_000]),
    ):
        blocks.on_rows = lambda done, total, seconds: told.append((done, total, seconds))
        for walk in (
            lambda b: b.moments,
            lambda b: b.sweep(p.factors),
            lambda b: b.sample(5, np.random.default_rng(0)),
            lambda b: list(b.evaluate_blocks(p.factors, labels=True)),
        ):
            walk(blocks)
            assert [done for done, _, _ in told] == after
            assert told[0][1] == known
            assert 0.0 <= told[0][2] <= told[-1][2]
            known = 1_000
            told.clear()


def test_a_listener_that_raises_ends_the_walk(rows):
    """So it can stop a long one; nothing is left behind."""
    p, X = rows
    blocks = Blocks([X] * 50)
    blocks.on_rows = lambda done, total, seconds: (_ for _ in ()).throw(KeyboardInterrupt()) if done > 3_000 else None
    with pytest.raises(KeyboardInterrupt):
        blocks.sweep(p.factors)
    assert readers() == []


# ------------------------------------------------------------------ the same rows, every time


@pytest.mark.parametrize(
    "once",
    [
        lambda: iter([np.zeros((3, 1))]),
        lambda: (part for part in ()),
        lambda: open(os.devnull),  # noqa: SIM115
        lambda: map(len, []),
    ],
)
def test_what_can_be_read_only_once_is_refused(once):
    """Iterators and generators, by all who could be given one."""
    one = once()
    with contextlib.ExitStack() as stack:
        if hasattr(one, "close"):
            stack.callback(one.close)
        for take in (Blocks, Blocks.of, as_engine):
            with pytest.raises(TypeError, match="can be read only once, and EM needs many passes: give `Blocks` a function"):
                take(one)


def test_a_function_that_returns_the_same_iterator_is_found_out(rows):
    """The second sweep has no rows."""
    p, X = rows
    one = iter([X])
    blocks = Blocks(lambda: one)
    blocks.sweep(p.factors)
    with pytest.raises(ValueError, match="X must have at least one row, got none"):
        blocks.sweep(p.factors)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_rows_in_a_later_sweep_is_refused(rows, change):
    """Both numbers are in the error."""
    p, X = rows
    lengths = iter([900, 900 + change])
    blocks = Blocks(lambda: iter([X[:5], X[5 : next(lengths)]]))
    blocks.sweep(p.factors)
    words = f"the source must give the same rows every time, but there were 900 and are now {900 + change};"
    with pytest.raises(ValueError, match=words):
        blocks.sweep(p.factors)


def test_a_value_that_is_no_longer_finite_in_a_later_sweep_is_found(build, structure, mixture):
    """Rows that were finite are not looked at again; NaN and infinity are seen by what comes out of whichever build."""
    p = mixture(structure, K=2, D=3)
    X = p.sample(5_000, random_state=0)[0]
    for dtype, value in itertools.product((np.float64, np.float32), (np.nan, np.inf, -np.inf)):
        Y = X.astype(dtype)
        blocks = Blocks.of(Y, block_rows=2_000, n_threads=1)
        blocks.sweep(p.factors)
        Y[4_321, 2] = value
        words = rf"X must be finite, got {value} \(NaN or infinity\) in row 4321, feature 2; .* \(block 2\)"
        with pytest.raises(ValueError, match=words), np.errstate(all="ignore"):
            blocks.sweep(p.factors)
        with pytest.raises(ValueError, match=words):
            list(blocks.evaluate_blocks(p.factors, labels=True))


# ------------------------------------------------------------------ errors, word for word


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([], "X must have at least one row, got none"),
        ([np.empty((0, 3))], "X must have at least one row, got none"),
        ([np.zeros((3, 2)), np.zeros((3, 5))], "X must have 2 features, as the first block has, got 5 (block 1)"),
        (
            [np.zeros((3, 2)), np.array([[0.0, 1.0], [np.inf, 0.0]])],
            "X must be finite, got inf (NaN or infinity) in row 4, feature 0",
        ),
        ([np.zeros((3, 2, 2))], "X must be 2-D, rows x features (or 1-D, for one feature), got shape (3, 2, 2) (block 0)"),
        ([(np.zeros((3, 2)), [1.0])], "sample_weight must have shape (3,), one number a row of X, got (1,) (block 0)"),
        ([(np.zeros((3, 2)), [0.0])], "sample_weight must have shape (3,), one number a row of X, got (1,) (block 0)"),
        (
            [np.zeros((3, 2)), (np.zeros((3, 2)), [1.0, -1.0, 1.0])],
            "sample_weight must be finite and at least 0, got -1.0 for row 4 (block 1)",
        ),
        ([(np.zeros((3, 2)), np.zeros(3))], "sample_weight must be above 0 for some row, but every weight is zero"),
    ],
)
def test_blocks_that_cannot_be_used_say_why(blocks, words):
    """What `InMemory` would say, with the row's number in all rows and the number of the block."""
    with pytest.raises(ValueError) as caught:
        Blocks(blocks).sweep(Factors(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1)))
    assert str(caught.value).startswith(words)


def test_a_block_of_no_numbers_is_a_type_error():
    """As it is in memory."""
    with pytest.raises(TypeError, match=r"X must be real numbers, got an array of <U1 \(block 1\)"):
        Blocks([[[0.0]], [["a"]]]).sweep(Factors(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)))


@pytest.mark.parametrize("row", [0, 16_383, 16_384, 29_999])
def test_a_row_too_far_away_is_named(large, row):
    """By its number in all rows, whichever chunk of whichever block it is in."""
    p, X = large
    X[row, 1] = 1e200
    for walk in (Blocks.of(X, block_rows=29_000), Blocks.of(X, block_rows=700)):
        with pytest.raises(ValueError, match=rf"^row {row} of X \(.*1e\+200.* lies so many standard deviations from every"):
            walk.sweep(p.factors)


def test_a_spread_that_overflows_is_named():
    """Within a block by its row, between blocks by its feature."""
    with pytest.raises(ValueError, match=r"^row 4 of X has 1e\+200 in feature 1, so far from the others .* \(block 1\)"):
        _ = Blocks([np.zeros((3, 2)), np.array([[0.0, 0.0], [0.0, 1e200]])]).moments
    with pytest.raises(ValueError, match="feature 1 has rows so far from the others that the variance overflows"):
        _ = Blocks([np.zeros((3, 2)), np.array([[0.0, 1e200]])]).moments


def test_a_mixture_of_other_features_is_refused(rows, mixture):
    """Both numbers are in the error, of a sweep and of an evaluation."""
    factors, blocks = mixture(D=2).factors, Blocks.of(rows[1])
    for ask in (blocks.sweep, lambda f: list(blocks.evaluate_blocks(f, labels=True))):
        with pytest.raises(ValueError, match="X has 3 features, but the mixture has 2"):
            ask(factors)


def test_what_a_function_returns_must_be_blocks():
    """Not one array, whose rows would be taken for blocks; nor tuples of anything else."""
    factors = Factors(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))
    with pytest.raises(TypeError, match="make must return an iterator over blocks, got ndarray"):
        Blocks(lambda: np.zeros((3, 1))).sweep(factors)
    with pytest.raises(ValueError, match=r"a block must be rows, or a tuple of rows and weights, got a tuple of 3 \(block 1\)"):
        Blocks([[1.0], (1.0, 2.0, 3.0)]).sweep(factors)


@pytest.mark.parametrize("make", [3, "rows.npy", np.zeros((3, 1)), None])
def test_what_is_no_function_and_no_list_is_refused(make):
    """A path, or an array, is for `Blocks.of`."""
    with pytest.raises(TypeError, match=r"make must be a function, or a list of blocks, got .*; see `Blocks.of` for files"):
        Blocks(make)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(missing="skip"), ValueError, "missing must be 'raise' or 'drop', got 'skip'"),
        (dict(block_rows=0), ValueError, "block_rows must be a whole number of at least 1, or None, got 0"),
        (dict(block_rows=2.0), ValueError, "block_rows must be a whole number of at least 1, or None, got 2.0"),
        (dict(n_threads=0), ValueError, "n_threads must be a whole number of at least 1, or None, got 0"),
        (dict(columns="ab"), TypeError, "columns must be a list, got 'ab'; write columns=['ab']"),
        (dict(columns=[3]), ValueError, "X: there is no column 3; choose from 0 to 2"),
        (dict(columns=["a"]), ValueError, "X: there is no column 'a'; choose from 0 to 2"),
        (dict(columns=[]), ValueError, "X: no column was chosen, or is left beside the weights"),
        (dict(columns=[1, 1]), ValueError, "X: a column was chosen twice: 1, 1"),
        (dict(weights=3), ValueError, "X: there is no column 3; choose from 0 to 2"),
        (dict(weights=[1.0, 2.0]), ValueError, "weights must have shape (4,), one number a row, got (2,)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, words):
    """The error names the argument and what would do."""
    with pytest.raises(error) as caught:
        Blocks.of(np.zeros((4, 3)), **arguments)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("source", [[[1.0, 2.0]], 3.0, {"a": 1}, [], object()])
def test_a_source_that_cannot_be_read_in_blocks_is_refused(source):
    """The error says what takes it."""
    with pytest.raises(TypeError, match=r"rows cannot be read in blocks from a .*Give `emfuse.fit` what is in memory as it is"):
        Blocks.of(source)


# ------------------------------------------------------------------ arrays and files of arrays


@pytest.fixture
def npy(rows, tmp_path):
    """The rows in a .npy file."""
    np.save(tmp_path / "rows.npy", rows[1])
    return tmp_path / "rows.npy"


def test_a_npy_file_is_swept_as_it_is(rows, npy):
    """By its path, a folder, a pattern or a list; as a memmap; by rows or by columns."""
    p, X = rows
    np.save(npy.parent / "columns.npy", np.asfortranarray(X))
    expected = InMemory(X).sweep(p.factors)
    sources = [npy, str(npy), str(npy.parent / "ro*.npy"), np.load(npy, mmap_mode="r"), npy.parent / "columns.npy", X]
    for source in [*sources, np.load(npy.parent / "columns.npy", mmap_mode="r")]:
        blocks = Blocks.of(source, block_rows=130)
        assert (blocks.n_features, blocks.weight) == (3, 1_000.0)
        assert_close(blocks.sweep(p.factors), expected, rows=1_000)
    for several in (npy.parent, [npy, npy.parent / "columns.npy"]):
        assert_close(Blocks.of(several, block_rows=130).sweep(p.factors), expected + expected, rows=2_000)


def test_no_file_stays_open(rows, npy):
    """Neither between sweeps nor after an error."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("which files a process has open is read from /proc")
    p, X = rows
    blocks = Blocks.of(npy)
    blocks.sweep(p.factors)
    assert str(npy) not in maps.read_text()
    X[77, 1] = np.nan
    np.save(npy, X)
    with contextlib.suppress(ValueError):
        blocks.sweep(p.factors)
    gc.collect()
    assert str(npy) not in maps.read_text()
    assert not any(os.path.realpath(link) == str(npy) for link in Path("/proc/self/fd").iterdir())


def test_float_slices_of_arrays_are_not_copied():
    """Views are swept, also of neighbouring columns."""
    X = np.zeros((100, 4), np.float32)
    for columns in (None, [1, 2], [3]):
        with closing(Blocks.of(X, columns=columns, block_rows=30)._read(trusted=True)) as blocks:
            assert all(np.shares_memory(block.engine.X, X) for block in blocks)


@pytest.mark.parametrize("columns", [None, [0, 1], [2, 0], [1]])
def test_columns_of_arrays_are_chosen_by_number(rows, columns):
    """In the order given; None is all but the weights'."""
    _, X = rows
    table = np.column_stack([X[:, :2], np.arange(1_000.0) % 3, X[:, 2]])
    picked = table[:, [0, 1, 3] if columns is None else columns]
    p = emfuse.Parameters([1.0], picked[:1], np.ones(1), "spherical")
    blocks = Blocks.of(table, columns=columns, weights=2, block_rows=300)
    assert_close(blocks.sweep(p.factors), InMemory(picked, table[:, 2]).sweep(p.factors), rows=1_000)
    assert_close(
        Blocks.of(table, columns=columns, block_rows=300).sweep(p.factors) if columns else blocks.sweep(p.factors),
        InMemory(picked, None if columns else table[:, 2]).sweep(p.factors),
        rows=1_000,
    )


def test_weights_of_arrays_may_stand_beside_them(rows, npy):
    """An array, a list, a file; over several files one after the other."""
    p, X = rows
    v = np.arange(1_000) % 3
    np.save(npy.parent / "v", v)
    expected = InMemory(X, v).sweep(p.factors)
    for weights in (v, v.tolist(), npy.parent / "v.npy", np.load(npy.parent / "v.npy", mmap_mode="r")):
        assert_close(Blocks.of(npy, weights=weights, block_rows=300).sweep(p.factors), expected, rows=1_000)
    twice = Blocks.of([npy, npy], weights=np.r_[v, np.zeros(1_000)], block_rows=300)
    assert_close(twice.sweep(p.factors), expected, rows=1_000)


def test_rows_with_nan_are_dropped_where_that_is_asked(rows):
    """From arrays, with their weights; an infinity is an error still, and rows keep the numbers that they have in the source."""
    p, X = rows
    v = np.random.default_rng(0).uniform(1.0, 2.0, 1_000)
    X[[0, 5, 400], [0, 1, 2]] = np.nan
    v[[7, 999]] = np.nan
    kept = np.isfinite(X).all(axis=1) & np.isfinite(v)
    blocks = Blocks.of(X, weights=v, missing="drop", block_rows=300)
    for _ in range(2):
        assert_close(blocks.sweep(p.factors), InMemory(X[kept], v[kept]).sweep(p.factors), rows=1_000)
    assert blocks.weight == pytest.approx(v[kept].sum(), rel=1e3 * EPS)
    with pytest.raises(ValueError, match="in row 0, feature 0"):
        Blocks.of(X).sweep(p.factors)
    X[450, 1] = np.inf
    with pytest.raises(ValueError, match=r"got inf \(NaN or infinity\) in row 450, feature 1; .* \(block 1\)"):
        Blocks.of(X, missing="drop", block_rows=300).sweep(p.factors)
    with pytest.raises(ValueError, match="X must have at least one row without NaN, got none"):
        Blocks.of(np.full((3, 3), np.nan), missing="drop").sweep(p.factors)


def test_a_file_that_cannot_be_used_says_why(rows, npy):
    """Missing, of another kind, broken, of strings, of three dimensions, in an empty folder."""
    folder = npy.parent
    (folder / "empty").mkdir()
    (folder / "a.csv").write_text("1,2\n")
    (folder / "broken.npy").write_bytes(npy.read_bytes()[:200])
    np.save(folder / "cube.npy", np.zeros((2, 2, 2)))
    np.save(folder / "text.npy", np.array([["a"]]))
    (folder / "a.parquet").write_bytes(b"PAR1")
    for path, error, words in [
        ("none.npy", FileNotFoundError, "none.npy"),
        ("none-*.npy", FileNotFoundError, "none-"),
        ("empty", ValueError, "empty: no .npy or .parquet file is in this folder; open a Zarr array with zarr"),
        ("a.csv", ValueError, r"a.csv: neither a .npy nor a Parquet file. .*pandas.read_csv\(path, chunksize=100_000"),
        ("broken.npy", ValueError, "broken.npy: not a whole NumPy file of plain numbers"),
        ("cube.npy", ValueError, r"cube.npy must be 2-D, rows x features .*, got shape \(2, 2, 2\)"),
        ("text.npy", TypeError, r"X must be real numbers, got an array of <U1 \(block 0 of .*text.npy\)"),
    ]:
        with pytest.raises(error, match=words):
            Blocks.of(folder / path).sweep(rows[0].factors)
    with pytest.raises(ValueError, match=r"rows.npy and .*a.parquet: files must be of one kind, all .npy or all Parquet"):
        Blocks.of([npy, folder / "a.parquet"])


def test_an_error_names_the_file(rows, npy):
    """Of several, the one that the row is in, and its number there."""
    p, X = rows
    X[17, 2] = np.nan
    np.save(npy.parent / "second.npy", X)
    with pytest.raises(ValueError, match=r"in row 17, feature 2; .* \(block 0 of .*second.npy\)"):
        Blocks.of(npy.parent / "second.npy").sweep(p.factors)
    words = r"in row 1017, feature 2; .* \(block 4 of .*rows.npy and 1 more, row 17 of .*second.npy\)"
    with pytest.raises(ValueError, match=words):
        Blocks.of([npy, npy.parent / "second.npy"], block_rows=300).sweep(p.factors)


# ------------------------------------------------------------------ HDF5 and Zarr


def test_an_hdf5_data_set_is_swept(rows, tmp_path):
    """In whole chunks, or as it lies."""
    h5py = pytest.importorskip("h5py", reason="HDF5 is read with h5py: pip install h5py")
    p, X = rows
    expected = InMemory(X).sweep(p.factors)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["plain"] = X
        file.create_dataset("chunked", data=X, chunks=(64, 3), compression="gzip")
        file.create_dataset("column", data=X[:, 0], chunks=(64,))
        for name in ("plain", "chunked"):
            assert_close(Blocks.of(file[name], block_rows=300).sweep(p.factors), expected, rows=1_000)
        blocks = as_engine(file["chunked"], columns=[2, 0, 1], weights=file["column"])
        assert blocks.n_features == 3
        assert as_engine(file["column"]).n_features == 1


def test_a_zarr_array_is_swept(rows, tmp_path):
    """By its slices."""
    zarr = pytest.importorskip("zarr", reason="Zarr is read with zarr: pip install zarr")
    p, X = rows
    array = zarr.open(str(tmp_path / "rows.zarr"), mode="w", shape=X.shape, chunks=(64, 3), dtype="f8")
    array[:] = X
    assert_close(as_engine(array, block_rows=300).sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)
    with pytest.raises(ValueError, match="open a Zarr array with zarr, and give that"):
        Blocks.of(tmp_path / "rows.zarr")


@pytest.mark.parametrize(
    ("stored", "expected"), [(1_000, 2_097_000), (3_000_000, 3_000_000), (10**8, 1 << 21), (1 << 21, 1 << 21)]
)
def test_blocks_are_whole_chunks_where_they_can_be(stored, expected):
    """Of 32 MiB or less; one larger chunk up to 256 MiB, since all of it is unpacked for any row of it."""

    class Stored:
        shape, dtype, chunks = (10**9, 4), np.dtype(np.float32), (stored, 4)

        def __getitem__(self, rows):
            raise AssertionError("it is not read yet")

    assert Blocks.of(Stored())._make.block_rows == expected


# ------------------------------------------------------------------ Arrow and Parquet


@pytest.fixture
def table(pyarrow, rows):
    """The rows as a table of columns a, b, c; with a name for each row, and its weight."""
    X = rows[1]
    columns = {"name": [f"row {i}" for i in range(len(X))], "v": np.arange(1_000) % 3}
    return pyarrow.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], **columns})


@pytest.fixture
def folder(parquet, table, tmp_path):
    """The table in three files, one of them without rows, with row groups of 64 and 70 rows; and what is no part of it."""
    parquet.write_table(table.slice(0, 400), tmp_path / "part-0.parquet", row_group_size=64)
    (tmp_path / "year=2025").mkdir()
    parquet.write_table(table.slice(0, 0), tmp_path / "part-1.parquet")
    parquet.write_table(table.slice(400), tmp_path / "year=2025" / "part-2.parquet", row_group_size=70)
    (tmp_path / "_metadata.parquet").write_bytes(b"no data")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "part-3.parquet").write_bytes(b"no data")
    return tmp_path


@pytest.mark.parametrize("block_rows", [None, 1, 65, 300, 5_000])
def test_parquet_files_are_swept(rows, folder, block_rows):
    """Row groups are split and joined to blocks of any size, over files too."""
    p, X = rows
    blocks = Blocks.of(folder, columns=["a", "b", "c"], block_rows=block_rows)
    assert (blocks.weight, blocks._checked) == (1_000.0, False)  # known without reading any
    assert_close(blocks.sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)
    lengths = [len(part.labels) for part in blocks.evaluate_blocks(p.factors, labels=True)]
    assert sum(lengths) == 1_000
    assert max(lengths) <= (block_rows or 1_000)


def test_columns_of_parquet_are_chosen_by_name(rows, folder):
    """In the order given, with one of weights; by the folder, a pattern, a list of files."""
    _, X = rows
    p = emfuse.Parameters([1.0], X[:1, [2, 0]], np.ones(1), "spherical")
    expected = InMemory(X[:, [2, 0]], np.arange(1_000) % 3).sweep(p.factors)
    files = [folder / "part-0.parquet", folder / "part-1.parquet", folder / "year=2025" / "part-2.parquet"]
    for source in (folder, str(folder / "**/part-*.parquet"), files):
        blocks = Blocks.of(source, columns=["c", "a"], weights="v")
        assert_close(blocks.sweep(p.factors), expected, rows=1_000)
        assert blocks.weight == expected.weight


def test_arrow_tables_and_datasets_are_swept(pyarrow, rows, table, folder):
    """Whatever has `to_batches`."""
    dataset = pytest.importorskip("pyarrow.dataset", reason="data sets are read with pyarrow")
    p, X = rows

    class Batches:
        def to_batches(self):
            return iter(table.to_batches(max_chunksize=77))

    files = [str(folder / "part-0.parquet"), str(folder / "year=2025" / "part-2.parquet")]
    pyarrow.feather = pytest.importorskip("pyarrow.feather", reason="Feather is written with pyarrow")
    pyarrow.feather.write_feather(table, folder / "a.feather")
    feather = dataset.dataset(str(folder / "a.feather"), format="feather")
    for source in (table, table.combine_chunks(), dataset.dataset(files), feather, Batches()):
        blocks = as_engine(source, columns=["a", "b", "c"], block_rows=130)
        assert_close(blocks.sweep(p.factors), InMemory(X).sweep(p.factors), rows=1_000)
        assert blocks.weight == 1_000.0


def test_a_reader_of_record_batches_can_be_read_only_once(pyarrow, table):
    """It is an iterator."""
    with pytest.raises(TypeError, match="a RecordBatchReader can be read only once, and EM needs many passes"):
        as_engine(table.to_reader())


def test_numbers_of_any_arrow_type_are_taken(pyarrow):
    """Whole, of half precision, decimal, boolean: in float64; float32 where all columns are."""
    single = pyarrow.array([0.5, 1.5], pyarrow.float32())
    columns = {
        "int8": pyarrow.array([1, -2], pyarrow.int8()),
        "uint64": pyarrow.array([1, 2**63], pyarrow.uint64()),
        "half": pyarrow.array(np.array([0.5, 2.0], np.float16)),
        "decimal": pyarrow.array([decimal.Decimal("1.25"), decimal.Decimal("-3")]),
        "bool": pyarrow.array([True, False]),
        "float": single,
    }
    with closing(Blocks.of(pyarrow.table(columns))._read(trusted=False)) as blocks:
        X = next(blocks).engine.X
    assert X.dtype == np.float64
    np.testing.assert_array_equal(X, [[1, 1, 0.5, 1.25, 1, 0.5], [-2, 2.0**63, 2.0, -3, 0, 1.5]])
    with closing(
        Blocks.of(pyarrow.table({"a": single, "b": single, "v": [1.0, 2.0]}), weights="v")._read(trusted=False)
    ) as blocks:
        engine = next(blocks).engine
    assert (engine.X.dtype, engine.sample_weight.tolist()) == (np.float32, [1.0, 2.0])


@pytest.mark.parametrize(("column", "row"), [("b", 0), ("b", 700), ("a", 999), ("v", 431)])
def test_a_null_in_parquet_is_refused_by_its_name(pyarrow, parquet, table, tmp_path, column, row):
    """File, row group, column and row; also of the weights."""
    values = table.column(column).to_pylist()
    values[row] = None
    table = table.set_column(table.schema.get_field_index(column), column, pyarrow.array(values))
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=300)
    group, inside = divmod(row, 300)
    place = rf"row {row} \(row {inside} of row group {group} of .*rows.parquet\)"
    for block_rows in (70, 1_000):
        blocks = Blocks.of(tmp_path / "rows.parquet", columns=["a", "b", "c"], weights="v", block_rows=block_rows)
        with pytest.raises(ValueError, match=rf"column '{column}' is null in {place}; fill the value in, or leave"):
            _ = blocks.moments
    with pytest.raises(ValueError, match=rf"column '{column}' is null in row {row}; fill the value in"):
        _ = Blocks.of(table, columns=["a", "b", "c"], weights="v").moments


@pytest.mark.parametrize("block_rows", [90, 1_000])
def test_nulls_in_parquet_are_dropped_where_that_is_asked(pyarrow, parquet, rows, tmp_path, block_rows):
    """As are NaN: in any column that is read, whole numbers too; all rows of a block, and of a file."""
    p, X = rows
    X[5, 0] = np.nan
    whole = [None if 300 <= i < 500 else i % 3 for i in range(1_000)]
    columns = {name: pyarrow.array(X[:, i], mask=np.arange(1_000) % 17 == i) for i, name in enumerate("abc")}
    table = pyarrow.table({**columns, "v": whole})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=100)
    kept = (np.arange(1_000) % 17 > 2) & ~((np.arange(1_000) >= 300) & (np.arange(1_000) < 500))
    kept[5] = False
    expected = InMemory(X[kept], (np.arange(1_000) % 3)[kept])
    for source in (tmp_path, table):
        blocks = Blocks.of(source, weights="v", missing="drop", block_rows=block_rows)
        assert_close(blocks.sweep(p.factors), expected.sweep(p.factors), rows=1_000)
        assert blocks.weight == expected.weight


def test_a_nan_in_parquet_is_named(pyarrow, parquet, rows, tmp_path):
    """By row and column, file and row group; also an infinity where NaN are dropped, and a row too far away."""
    p, X = rows
    X[3, 0] = np.nan
    X[731, 2] = np.inf

    def write(X):
        table = pyarrow.table(dict(zip("abc", X.T, strict=True)))
        parquet.write_table(table, tmp_path / "x.parquet", row_group_size=90)

    write(X)
    words = r"in row {}, feature {}; .* \(block {} of .*x.parquet, row {} of row group {} of .*x.parquet, column '{}'\)"
    with pytest.raises(ValueError, match=words.format(3, 0, 0, 3, 0, "a")):
        Blocks.of(tmp_path, block_rows=150).sweep(p.factors)
    with pytest.raises(ValueError, match=words.format(731, 2, 8, 11, 8, "c")):
        Blocks.of(tmp_path, missing="drop", block_rows=150).sweep(p.factors)
    X[3, 0], X[731, 2] = 0.0, 1e200
    write(X)
    with pytest.raises(ValueError, match=r"^row 731 of X \(.* \(block 8 of .*x.parquet, row 11 of row group 8 of .*x.parquet\)"):
        Blocks.of(tmp_path, block_rows=150).sweep(p.factors)


def test_columns_that_cannot_be_used_say_why(pyarrow, parquet, table, folder):
    """Strings, a name that is not there or twice, files that differ."""
    with pytest.raises(
        TypeError, match=r"part-0.parquet: column 'name' holds string, and must .* by columns=\['a', 'b', 'c', 'v'\]"
    ):
        Blocks.of(folder)
    with pytest.raises(ValueError, match=r"part-0.parquet: no column is called 'd'; there are a, b, c, name, v"):
        Blocks.of(folder, columns=["a", "d"])
    with pytest.raises(ValueError, match="X: no column is called 'w'; there are"):
        Blocks.of(table, columns=["a"], weights="w")
    with pytest.raises(TypeError, match="weights must be the name of a column, got ndarray"):
        Blocks.of(table, columns=["a"], weights=np.ones(1_000))
    with pytest.raises(ValueError, match="X: 2 columns are called 'a'; there are a, a"):
        Blocks.of(pyarrow.table([[1.0], [2.0]], names=["a", "a"]), columns=["a"])
    parquet.write_table(pyarrow.table({"a": [1.0], "z": [2.0]}), folder / "part-0.parquet")
    parquet.write_table(pyarrow.table({"a": [1.0]}), folder / "part-1.parquet")
    with pytest.raises(
        ValueError, match=r"part-0.parquet has columns \['a', 'z'\], and .*part-1.parquet \['a'\]; choose by columns"
    ):
        Blocks.of([folder / "part-0.parquet", folder / "part-1.parquet"])
    (folder / "part-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"part-0.parquet: not a whole Parquet file"):
        Blocks.of(folder / "part-0.parquet")


def test_a_parquet_file_that_has_grown_is_refused(pyarrow, parquet, tmp_path):
    """As any source is whose rows are others than before."""
    p = emfuse.Parameters([1.0], [0.0], [1.0], "spherical")
    parquet.write_table(pyarrow.table({"a": np.zeros(10)}), tmp_path / "x.parquet")
    blocks = Blocks.of(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"a": np.zeros(1_200_000)}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"the same rows every time, but there were 10 and are now 1,200,000 of .*x.parquet"):
        blocks.sweep(p.factors)


def test_parquet_without_rows_is_refused(pyarrow, parquet, tmp_path):
    """Of one file, or of all."""
    parquet.write_table(pyarrow.table({"a": np.zeros(0)}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"X must have at least one row, got none of .*x.parquet"):
        _ = Blocks.of(tmp_path).n_features


def test_an_index_that_pandas_kept_is_no_feature(parquet, tmp_path):
    """It is left out, unless asked for by its name."""
    pandas = pytest.importorskip("pandas", reason="such a file is written by pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0, 4.0], "b": [0.0, 1.0, 5.0]}, index=[7, 8, 10])
    frame.to_parquet(tmp_path / "frame.parquet")
    assert Blocks.of(tmp_path).n_features == 2
    assert Blocks.of(tmp_path, columns=["a", "__index_level_0__"]).moments[0][1] == pytest.approx(25 / 3)


def test_without_pyarrow_the_error_names_what_to_install(monkeypatch, tmp_path):
    """Only Parquet needs it."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r'a.parquet: to read Parquet takes pyarrow; pip install "emfuse\[parquet\]"'):
        Blocks.of(tmp_path / "a.parquet")


# ------------------------------------------------------------------ which data is larger than memory


def test_what_is_a_file_becomes_blocks(npy, table):
    """A path in any form, a memmap, Arrow."""
    for source in (npy, str(npy), np.load(npy, mmap_mode="r")):
        assert isinstance(as_engine(source), Blocks)
    made = as_engine(table, columns=["a"], weights="v", missing="drop", block_rows=7, n_threads=3)
    assert (made.n_features, made.columns, made.n_threads, made._make.block_rows) == (1, ["a"], 3, 7)
    assert as_engine(npy).columns is None


def test_what_is_in_memory_does_not_become_blocks(rows):
    """Arrays, lists, data frames and series are for `InMemory`; an engine is one already."""
    pandas = pytest.importorskip("pandas", reason="data frames are made with pandas")
    X = rows[1]
    for source in (X, X.tolist(), X[:, 0], pandas.DataFrame(X), pandas.Series(X[:, 0]), 3.0, None, Blocks.of(X), InMemory(X)):
        assert as_engine(source) is None


# ------------------------------------------------------------------ law 9: memory

MEMORY = """
import sys, threading, time, numpy as np
from pathlib import Path
from emfuse import Parameters
from emfuse.blocks import Blocks

def resident():
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)

N, file = 100_000_000, sys.argv[1]
np.lib.format.open_memmap(file, "w+", np.float32, (N, 1))  # 400 MB of zeros, which take no room on disk
p = Parameters([0.5, 0.5], [0.0, 1.0], [1.0, 1.0], "spherical")
Blocks.of(np.zeros((100_000, 1)), n_threads=2).sweep(p.factors)
most, over, step = [0.0], threading.Event(), 1 << 23

def watch():
    while not over.wait(0.002):
        most[0] = max(most[0], resident())

def make():
    return (np.ones((min(step, N - i), 1), np.float32) for i in range(0, N, step))

threading.Thread(target=watch, daemon=True).start()
for blocks in (Blocks.of(file, n_threads=2), Blocks(make, n_threads=2)):
    before, most[0] = resident(), 0.0
    assert blocks.sweep(p.factors).weight == N
    print(most[0] - before, end=" ")
over.set()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_bounded_whatever_the_number_of_rows(tmp_path):
    """400 MB in 2 threads: of blocks of 32 MiB, mapped or computed, the five that are said at most; pages of the file count."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "zeros.npy")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    sliced, computed = map(float, done.stdout.split())
    assert max(sliced, computed) < 5 * 32.0 + 32.0  # MiB; 32 for the threads' own stacks and scratch


@pytest.mark.parametrize("structure", ["full", "tied", "VEE"])
def test_fit_takes_a_path_and_ends_where_the_array_does(tmp_path, structure):
    """A file is fitted like the array in it: the starts see the same rows where all fit into the sample."""
    X = np.random.default_rng(0).normal(size=(3000, 3)) + np.repeat([[0, 0, 0], [6, 0, 3], [0, 9, 0]], 1000, axis=0)
    np.save(tmp_path / "rows.npy", X)
    here, there = emfuse.fit(X, 3, structure=structure), emfuse.fit(tmp_path / "rows.npy", 3, structure=structure)
    assert there.converged
    assert there.log_likelihood == pytest.approx(here.log_likelihood, abs=1e-5)  # both stop within 1e-6 by estimate
    twice = emfuse.fit(str(tmp_path / "rows.npy"), 3, structure=structure)
    assert twice.parameters == there.parameters


def test_an_engine_that_draws_no_sample_is_refused_by_fit():
    """A histogram has a fit of its own."""
    with pytest.raises(TypeError, match="or an engine that can draw a `sample` of them, got Binned"):
        emfuse.fit(emfuse.Binned([0.0, 1.0, 2.0], [3, 4]), 2)
