"""Model-based hierarchical clustering: that each merge is the cheapest, and that the partitions are mclust's."""

import dataclasses

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from emfuse import hierarchical
from emfuse.hierarchical import hc, hclass, quantile_classes, scaled

MODELS = ("VVV", "EII")
SEVERAL = ("airquality", "faithful", "iris4")
ONE = ("acidity", "dax", "galaxies", "waiting")


def rows(N, D, seed=0):
    """Two groups of different spread, without a tie."""
    random = np.random.default_rng([seed, N, D])
    return random.standard_normal((N, D)) * np.where(np.arange(N) % 2, 1.0, 0.3)[:, None] + 2.0 * (np.arange(N) % 2)[:, None]


def groups_of(merges, N):
    """Sets of rows of the two clusters of each merge, before it."""
    members = {row: {row} for row in range(N)}
    for first, second in merges:
        yield members[first].copy(), members[second].copy()
        members[first] |= members.pop(second)


def criterion(Z, groups, model):
    """The criterion of a partition, written down from its definition; a determinant of too few rows is 0."""
    N, D = Z.shape
    spare = np.square(Z - Z.mean(axis=0)).sum() / (N * D)
    total = 0.0
    for group in groups:
        x = Z[sorted(group)]
        n, W = len(x), (x - x.mean(axis=0)).T @ (x - x.mean(axis=0))
        det = np.linalg.det(W / n) if n > D else 0.0
        total += n * np.log(det + (np.trace(W) + spare) / n) if model == "VVV" else np.trace(W)
    return total


# ------------------------------------------------------------------ literal


def test_one_feature_by_hand():
    """0, 1, 10, 12 about their mean 5.75: tr W = 112.75, a quarter of it to spare; pairs have scatters 0.5 and 2."""
    tree = hc([0.0, 1.0, 10.0, 12.0], use="VARS")
    spare = 112.75 / 4
    one, two = 0.5 / 2 + (0.5 + spare) / 2, 2.0 / 2 + (2.0 + spare) / 2
    everything = 112.75 / 4 + (112.75 + spare) / 4
    np.testing.assert_array_equal(tree.merges, [[0, 1], [2, 3], [0, 2]])
    by_hand = [2 * np.log(one / spare), 2 * np.log(two / spare), 4 * np.log(everything) - 2 * np.log(one) - 2 * np.log(two)]
    np.testing.assert_allclose(tree.rises, by_hand, atol=1e-9)  # as they are rounded


def test_two_features_by_hand():
    """(0, 0), (2, 0), (0, 2): tr W = 16/3, 8/9 to spare, det(W / 3) = 16/27. Two pairs are equal: the last is taken."""
    tree = hc([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], use="VARS")
    np.testing.assert_array_equal(tree.merges, [[0, 2], [0, 1]])
    by_hand = [2 * np.log(13 / 8), 3 * np.log(16 / 27 + 56 / 27) - 2 * np.log(13 / 9) - np.log(8 / 9)]
    np.testing.assert_allclose(tree.rises, by_hand, atol=1e-9)


def test_ward_by_hand():
    """0, 1, 10, 12: scatters 1/2 and 2, then 2 x 2 / 4 of the squared distance of means, 10.5."""
    tree = hc([0.0, 1.0, 10.0, 12.0], use="VARS", model="EII")
    np.testing.assert_array_equal(tree.merges, [[0, 1], [2, 3], [0, 2]])
    np.testing.assert_allclose(tree.rises, [0.5, 2.0, 110.25], rtol=1e-14)


def test_classes_by_hand():
    """Labels are in the order of the clusters' first rows."""
    tree = hc([10.0, 0.0, 12.0, 1.0], use="VARS")
    assert [hclass(tree, G).tolist() for G in (1, 2, 3, 4)] == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 2, 1], [0, 1, 2, 3]]


def test_quantiles_by_hand():
    """The median of 1, 2, 2, 3, 5 is 2, which belongs above it; where a class would be empty, different values are cut."""
    assert quantile_classes([5.0, 2.0, 1.0, 2.0, 3.0], 2).tolist() == [1, 1, 0, 1, 1]
    assert quantile_classes([0.0, 0.0, 0.0, 0.0, 1.0, 2.0], 3).tolist() == [0, 0, 0, 0, 1, 2]


# ------------------------------------------------------------------ law


@pytest.mark.parametrize("use", ["SVD", "STD", "VARS"])
@pytest.mark.parametrize("D", [1, 2, 3])
@pytest.mark.parametrize("model", MODELS)
def test_each_merge_is_the_cheapest_of_all_pairs(model, D, use):
    """Against every pair of clusters, with the criterion from its definition; 1e-9 nats is how far rises are rounded."""
    X = rows(14, D)
    tree, Z = hc(X, use=use, model=model), scaled(X, use)
    groups = [{row} for row in range(len(X))]
    for (a, b), rise in zip(groups_of(tree.merges, len(X)), tree.rises, strict=True):
        before = criterion(Z, groups, model)
        costs = {
            (i, j): criterion(Z, [g for k, g in enumerate(groups) if k not in (i, j)] + [groups[i] | groups[j]], model) - before
            for i in range(len(groups))
            for j in range(i)
        }
        assert rise == pytest.approx(min(costs.values()), abs=2e-9)
        groups = [g for g in groups if g not in (a, b)] + [a | b]
        assert criterion(Z, groups, model) - before == pytest.approx(rise, abs=2e-9)


@pytest.mark.parametrize("D", [4, 12, 30])
def test_determinants_that_cannot_be_seen_are_not_missed(D, monkeypatch):
    """Of many features determinants are less than rounding, and are left out: with all of them the merges are the same."""
    X = rows(120, D)
    without = hc(X)
    monkeypatch.setattr(hierarchical, "UNSEEN", -np.inf)
    np.testing.assert_array_equal(without.merges, hc(X).merges)


@pytest.mark.parametrize("model", MODELS)
def test_partitions_are_nested(model):
    """Merges never split: with one cluster fewer, rows that were together stay together."""
    tree = hc(rows(60, 2), model=model)
    for G in range(1, 60):
        fewer, more = hclass(tree, G), hclass(tree, G + 1)
        assert sorted(set(fewer)) == list(range(G))
        assert len(set(zip(fewer, more, strict=True))) == G + 1


@pytest.mark.parametrize("model", MODELS)
def test_each_cluster_is_merged_away_once(model):
    """Second ones are all rows but row 0, and the first is always the smaller: clusters are called after their first rows."""
    tree = hc(rows(60, 2), model=model)
    assert sorted(tree.merges[:, 1]) == list(range(1, 60))
    assert (tree.merges[:, 0] < tree.merges[:, 1]).all()


@pytest.mark.parametrize("model", MODELS)
def test_units_shifts_signs_and_order_of_features_do_not_matter(model):
    """An affine map of each feature by itself; powers from 1e-150 to 1e150. (A mix of features has other correlations.)"""
    X = rows(80, 3)
    Y = X[:, [2, 0, 1]] * [-1e150, 3.0, 1e-150] + [0.0, 1e6, 0.0]
    np.testing.assert_array_equal(hc(Y, model=model).merges, hc(X, model=model).merges)


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_rows_does_not_matter(model):
    """Without ties, permuted rows have permuted clusters."""
    X, order = rows(80, 2), np.random.default_rng(1).permutation(80)
    for G in (2, 3, 7):
        a, b = hclass(hc(X, model=model), G)[order], hclass(hc(X[order], model=model), G)
        assert len(set(zip(a, b, strict=True))) == G


def test_the_same_data_have_the_same_tree():
    """Nothing is drawn, even where nearly all distances are tied."""
    X = np.random.default_rng(0).integers(0, 4, (200, 2))
    np.testing.assert_array_equal(hc(X).merges, hc(X).merges)
    np.testing.assert_array_equal(hc(X.astype(np.float32)).merges, hc(X).merges)


def test_a_tree_cannot_be_changed():
    """Frozen, with its arrays."""
    tree = hc(rows(5, 2))
    with pytest.raises(ValueError, match="read-only"):
        tree.merges[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        tree.model = "EII"


# ------------------------------------------------------------------ twin


@pytest.mark.parametrize("G", [2, 3, 10, 79])
def test_ward_is_scipys(G):
    """The same partitions, and merges that rise by half the square of its distances."""
    X = rows(80, 3)
    steps, tree = linkage(X, "ward"), hc(X, use="VARS", model="EII")
    pairs = zip(fcluster(steps, G, "maxclust"), hclass(tree, G), strict=True)
    assert len(set(pairs)) == G
    np.testing.assert_allclose(tree.rises, np.square(steps[:, 2]) / 2, rtol=1e-12)


@pytest.mark.parametrize("case", [f"mclust_bic/{name}" for name in SEVERAL], indirect=True)
def test_partitions_are_those_of_mclust(case):
    """hclass(hc(data), G) of the scaled data, G = 2 .. 9, row by row and label by label; `faithful` is full of ties."""
    tree = hc(case.data)
    for G, stated in case.start["partitions"].items():
        np.testing.assert_array_equal(hclass(tree, int(G)), np.array(stated) - 1)


@pytest.mark.parametrize("case", [f"mclust_bic/{name}" for name in ONE], indirect=True)
def test_quantile_classes_are_those_of_mclust(case):
    """Its classes of one feature, value by value; `waiting` has 51 different ones in 272 rows."""
    for G, stated in case.start["partitions"].items():
        np.testing.assert_array_equal(quantile_classes(case.data, int(G)), np.array(stated) - 1)


# ------------------------------------------------------------------ edge


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("X", [[[3.0, 4.0]], [[1.0, 2.0], [1.0, 2.0]], np.ones((5, 3)), np.eye(3), np.eye(2, 6)])
def test_few_rows_and_equal_rows_have_a_tree(X, model):
    """One row, equal rows, and more features than rows: all merges are there."""
    tree = hc(X, model=model)
    assert tree.merges.shape == (len(X) - 1, 2) and np.isfinite(tree.rises).all()
    assert sorted(hclass(tree, len(X))) == list(range(len(X)))


def test_columns_that_say_nothing_are_dropped():
    """A constant column, and one that repeats others, change no merge."""
    X = rows(60, 2)
    np.testing.assert_array_equal(hc(np.column_stack([X, np.full(60, 7.1)])).merges, hc(X).merges)
    assert scaled(np.column_stack([X, X @ [1.0, 2.0]]), "SVD").shape == (60, 2)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: hc(rows(5, 2), model="VII"), ValueError, "model must be one of 'VVV', 'EII', got 'VII'"),
        (lambda: hc(rows(5, 2), use="PCS"), ValueError, "use must be one of 'SVD', 'STD', 'VARS', got 'PCS'"),
        (lambda: hc([[1.0, np.nan]]), ValueError, "X must be finite"),
        (lambda: hclass(hc(rows(5, 2)), 6), ValueError, "G must be from 1 to the number of rows, 5, got 6"),
        (lambda: hclass(hc(rows(5, 2)), 2.0), TypeError, "G must be a whole number, got 2.0"),
        (lambda: quantile_classes(rows(5, 2), 2), ValueError, "quantile classes need one feature, got 2"),
        (lambda: quantile_classes([1, 1, 2], 3), ValueError, "at most the number of different values, 2, got 3"),
    ],
)
def test_errors_say_what_was_seen_and_what_was_needed(wrong, error, words):
    """In the user's words."""
    with pytest.raises(error, match=words):
        wrong()
