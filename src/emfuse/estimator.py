"""The scikit-learn face and nothing else: `GaussianMixture`, a translator between emfuse's nouns and scikit-learn's names.

It walks scikit-learn's path: its starts from its random stream, its stopping rule (which looks at the log-likelihood before the
last M step), its `reg_covar`, its 10 eps of spare mass. The sweeps are emfuse's; scikit-learn's mixture code is not called.

Layer 4.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from emfuse import initialise
from emfuse._typing import AnyArray, Doubles, Floats, Labels
from emfuse.checkpoint import Checkpoint
from emfuse.constraints import Constraints
from emfuse.dask_engine import is_dask
from emfuse.em import Fit, History, Progress, em, evaluated, lazily, rows_for_starts, streamed, suited
from emfuse.engines import InMemory
from emfuse.maximise import CollapsedComponent, estimate, require_density
from emfuse.online import OnlineEM
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import AsNumbers, Limit, Trace
from emfuse.structures import ALIASES, ALL_STRUCTURES, STRUCTURES, Structure, structure_named

COLLAPSED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance caused by "
    "singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale the input data."
)
COLLAPSED_SINGLE = " The numerical accuracy can also be improved by passing float64 data instead of float32."
NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or check for "
    "degenerate data."
)
OWN_STARTS = {"emfuse-kmeans": "kmeans", "emfuse-k-means++": "kmeans++"}
OURS = ("acceleration", "constraints", "n_threads", "callback", "checkpoint")  # parameters that scikit-learn's estimator has not
FLOATS = (np.float64, np.float32)
MOST_HISTORY_BYTES = 1 << 26


class GaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussian mixture fitted by EM: scikit-learn's `GaussianMixture`, faster, and right where that one loses its digits.

    Parameters
    ----------
    n_components : int, default=1
        Number of components, K.
    covariance_type : {"full", "tied", "diag", "spherical"} or one of mclust's, such as "VVE", default="full"
        Each component its own matrix, one matrix for all, each its own variances, each one variance; or as
        `emfuse.structures` says.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood of a row, in nats, changes by less than this.
    reg_covar : float, default=1e-6
        Added to every variance at every M step, data units squared.
    max_iter : int, default=100
        Most M steps; 0 makes the start the model.
    n_init : int, default=1
        Number of starts; the one with the largest `lower_bound_` is kept.
    init_params : str, default="kmeans"
        "kmeans", "k-means++", "random", "random_from_data" are scikit-learn's own starts, draw for draw; "emfuse-kmeans" and
        "emfuse-k-means++" run on emfuse's compiled pass, on features scaled to unit variance.
    weights_init : array-like of shape (K,), default=None
    means_init : array-like of shape (K, D), default=None
    precisions_init : array-like, default=None
        (K, D, D), (D, D), (K, D) or (K,), by `covariance_type`. These three replace their part of the start.
    random_state : int, RandomState or None, default=None
        Seeds the start, and `sample`.
    warm_start : bool, default=False
        Let `fit` go on from the last solution, with one start.
    verbose : int, default=0
        1 prints starts and iterations, 2 also times and changes.
    verbose_interval : int, default=10
        Iterations between two lines.
    acceleration : {"auto", "emqn", "squarem"} or None, default=None
        Steps longer than EM's (`emfuse.accelerate`), that never lower the log-likelihood; needs `reg_covar=0`. None walks
        scikit-learn's path.
    constraints : emfuse.Constraints or None, default=None
        What is fixed, and what goes together.
    n_threads : int or None, default=None
        None: what `emfuse.threads.thread_count` says, all cores that this process may use if nobody does. The result is the
        same to the last bit.
    callback : callable or None, default=None
        Called after each sweep with an `emfuse.Progress`; a true answer stops the fit.
    checkpoint : path, emfuse.Checkpoint or None, default=None
        A file to which the fit is written every minute. Where the process dies, the same call goes on from it and ends with the
        same bits; so the start must be the same, by `random_state` or given. Needs `n_init=1`.

    Attributes
    ----------
    weights_ : array of shape (K,)
    means_ : array of shape (K, D)
    covariances_, precisions_, precisions_cholesky_ : arrays
        Shapes by `covariance_type` as for `precisions_init`. `precisions_cholesky_` is upper triangular, U U' = precision.
        These public arrays *are* the model: set or reorder them, and scores follow.
    converged_ : bool
    n_iter_ : int
        M steps of the best start.
    lower_bound_ : float
        Mean log-likelihood of a row before the last M step, nats.
    lower_bounds_ : list of float
        The same for each iteration.
    fit_ : emfuse.Fit
        The best start's fit, with its whole trace; `fit_.log_likelihood` belongs to the final parameters. None after
        `partial_fit`.
    history_ : emfuse.History or None
        Parameters at each iteration, where all of them take less than 64 MiB.
    online_ : emfuse.OnlineEM
        What follows the stream, after `partial_fit`.
    n_features_in_ : int
    feature_names_in_ : array of str, where X has such names

    Examples
    --------
    >>> import numpy as np
    >>> from emfuse import GaussianMixture
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> gm.means_
    array([[10.,  2.],
           [ 1.,  2.]])
    >>> gm.predict([[0, 0], [12, 3]])
    array([1, 0])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({*ALL_STRUCTURES, *ALIASES})],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data", *OWN_STARTS})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "acceleration": [StrOptions({"auto", "emqn", "squarem"}), None],
        "constraints": [Constraints, None],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "callback": [callable, None],
        "checkpoint": [str, os.PathLike, Checkpoint, None],
    }

    weights_: Floats
    means_: Floats
    covariances_: Floats
    precisions_: Floats
    precisions_cholesky_: Floats
    converged_: bool
    n_iter_: int
    lower_bound_: float
    n_features_in_: int
    fit_: Fit  # None after `partial_fit`
    history_: History | None
    online_: OnlineEM
    lower_bounds_: list[float]

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        acceleration: str | None = None,
        constraints: Constraints | None = None,
        n_threads: int | None = None,
        callback: Callable[[Progress], object] | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.acceleration = acceleration
        self.constraints = constraints
        self.n_threads = n_threads
        self.callback = callback
        self.checkpoint = checkpoint

    # ------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit the mixture to the rows of X.

        X : (N, D) array-like, at least 2 rows and at least K; or whatever else `emfuse.fit` takes: the path of an .npy or Parquet
            file, a folder or glob of them, `emfuse.Blocks`, Arrow tables, h5py and Zarr data sets, Dask arrays and data frames.
            Starts look at 100,000 of its rows, drawn from `random_state`, EM at all; attributes are float64
        y : ignored
        sample_weight : (N,) or None, at least 0; of Arrow and Parquet the name of a column

        Raises ValueError for unusable parameters or data, CollapsedComponent (a ValueError) where a covariance is no longer
        positive definite, TypeError for what can be read only once. The estimator is then as it was before. Warns
        ConvergenceWarning at `max_iter`.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: Any, y: object = None, sample_weight: Any = None) -> Labels:
        """Fit as `fit` does, and return the most likely component of each row, as `predict` does."""
        engine = self._fit(X, sample_weight)
        return self.predict(X) if is_dask(X) else cast(Labels, evaluated(engine, self._factors(), "labels"))

    def _fit(self, X: Any, sample_weight: Any) -> Any:
        before = dict(vars(self))
        try:
            engine = self._fit_or_raise(X, sample_weight)
        except BaseException:
            self.__dict__ = before
            raise
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(NOT_CONVERGED, ConvergenceWarning, stacklevel=3)
        return engine

    def _fit_or_raise(self, X: Any, sample_weight: Any) -> Any:
        self._validate_params()
        engine, dtype = self._engine(X, sample_weight)
        given = _Given(self, engine.n_features)
        continued = self.warm_start and hasattr(self, "converged_")
        if self.checkpoint is not None and self.n_init > 1 and not continued:
            raise ValueError(
                f"n_init must be 1 with a checkpoint, got {self.n_init}; `emfuse.fit(..., checkpoint=...)` takes several starts"
            )
        random = check_random_state(self.random_state)
        rows = engine
        if not continued and (self.constraints is not None or not given.complete):
            rows = rows_for_starts(engine, self.n_components, random)
            self._require_rows(len(rows.X))
        best: Fit | None = None
        with _in_their_words(dtype):
            for number in range(1 if continued else self.n_init):
                talk = _Talk(self, number, engine.weight)
                start = self._current_parameters() if continued else self._start(rows, given, random)
                if self.constraints is not None and not continued:
                    start = suited(rows, start, self.constraints)
                rule = _Stop(self.tol, self.max_iter, self.lower_bound_ if continued else -np.inf)
                made = em(
                    engine,
                    start,
                    stop=rule,
                    reg_covar=self.reg_covar,
                    spare_mass=_spare_mass(dtype) if self.acceleration is None and self.constraints is None else 0.0,
                    acceleration=self.acceleration,
                    constraints=self.constraints,
                    history=start.means.nbytes * (engine.n_features + 1) * (self.max_iter + 1) < MOST_HISTORY_BYTES,
                    n_threads=self.n_threads,
                    callback=talk if self.verbose or self.callback is not None else None,
                    checkpoint=self.checkpoint,
                )
                talk.end(made)
                if best is None or self.max_iter == 0 or _bound(made) > _bound(best):
                    best = made
        assert best is not None
        self._publish(best, dtype)
        return engine

    def _engine(self, X: Any, sample_weight: Any) -> tuple[Any, Any]:
        """The rows to be fitted as an engine, and the type of the attributes; notes the features' number and names."""
        engine = streamed(X, sample_weight, self.n_threads)
        if engine is None:
            rows = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
            self._require_rows(len(rows))
            return InMemory(rows, sample_weight, n_threads=self.n_threads, trusted=True), rows.dtype
        self.n_features_in_ = engine.n_features
        self.__dict__.pop("feature_names_in_", None)
        if (names := _names_of(X, engine)) is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        return engine, engine.X.dtype if isinstance(engine, InMemory) else np.dtype(np.float64)

    def _require_rows(self, count: int) -> None:
        if count < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {count}"
            )

    def partial_fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> GaussianMixture:
        """Move the mixture a step by a batch of rows, which is seen once: `emfuse.OnlineEM`, with its steps.

        X : (N, D) array-like; y : ignored; sample_weight : (N,) or None, at least 0

        The first call makes its start from these rows, of which there must be at least K, as `fit` would; after `fit` it goes on
        from that fit, whose rows count as seen. `tol`, `max_iter`, `n_init` and `acceleration` mean nothing here.

        The public arrays are those of `fit`, and an estimate: EM over all rows ends higher. `n_iter_` counts batches,
        `lower_bound_` is the running mean of what rows scored when they came, nats; `fit_` and `history_` are None,
        `converged_` is False, and `online_` is the `emfuse.OnlineEM`. Raises as `fit` does, and is then as it was before.
        """
        before = dict(vars(self))
        try:
            self._validate_params()
            fitted = hasattr(self, "means_")
            rows = validate_data(self, X, dtype=FLOATS, reset=not fitted)
            engine = InMemory(rows, sample_weight, n_threads=self.n_threads, trusted=True)
            with _in_their_words(rows.dtype):
                model = self.online_ if hasattr(self, "online_") else self._online(engine, fitted)
                model.add(engine)
        except BaseException:
            self.__dict__ = before
            raise
        self._set_mixture(model.parameters, rows.dtype)
        self.lower_bound_ = model.log_likelihood
        self.lower_bounds_ = [] if model.n_batches == 1 else self.lower_bounds_
        self.lower_bounds_.append(self.lower_bound_)
        self.online_, self.n_iter_, self.converged_ = model, model.n_batches, False
        self.fit_ = self.history_ = None  # type: ignore[assignment]
        return self

    def _online(self, engine: InMemory, fitted: bool) -> OnlineEM:
        """What follows the stream, from the fit that there is, or from a start by the first rows."""
        known = getattr(self, "fit_", None)
        if known is not None:
            start, statistics = known.parameters, known.statistics
        elif fitted:  # public arrays alone
            start, statistics = self._current_parameters(), None
        else:
            self._require_rows(len(engine.X))
            start, statistics = self._start(engine, _Given(self, engine.n_features), check_random_state(self.random_state)), None
            if self.constraints is not None:
                start = suited(engine, start, self.constraints)
        return OnlineEM(
            start, statistics=statistics, reg_covar=self.reg_covar, constraints=self.constraints, n_threads=self.n_threads
        )

    def _publish(self, best: Fit, dtype: Any) -> None:
        self._set_mixture(best.parameters, dtype)
        self.__dict__.pop("online_", None)
        self.fit_, self.history_ = best, best.history
        self.converged_ = best.converged and self.max_iter > 0
        self.n_iter_ = len(best.trace) - 1
        self.lower_bounds_ = [float(bound) for bound in best.trace[:-1] / best.statistics.weight]
        self.lower_bound_ = self.lower_bounds_[-1] if self.lower_bounds_ else -np.inf

    def _set_mixture(self, p: Parameters, dtype: Any) -> None:
        cholesky = _as_cholesky(p.factors.P, p.covariances.shape)
        self._set_parameters([array.astype(dtype) for array in (p.weights, p.means, p.covariances, cholesky)])

    def _set_parameters(self, params: Any) -> None:
        """Set the public arrays from (weights, means, covariances, precisions_cholesky); the name is scikit-learn's."""
        self.weights_, self.means_, self.covariances_, self.precisions_cholesky_ = params
        U = self.precisions_cholesky_
        self.precisions_ = U @ np.swapaxes(U, -1, -2) if structure_named(self.covariance_type).form == "full" else U**2

    # ------------------------------------------------------------------ starts

    def _start(self, engine: InMemory, given: _Given, random: np.random.RandomState) -> Parameters:
        if given.complete:  # no random number is drawn
            return given.parameters()
        kind = structure_named(self.covariance_type)
        return given.parameters_of(_start_statistics(self.init_params, engine, self.n_components, kind, random), engine)

    def _initialize(self, X: AnyArray, resp: AnyArray) -> None:
        """Set the public arrays to the start that responsibilities (N, K) make; the name is scikit-learn's."""
        engine = InMemory(X)
        form = structure_named(self.covariance_type).form
        statistics = initialise.statistics_of_responsibilities(engine, np.asarray(resp, dtype=np.float64), form)
        self._set_mixture(_Given(self, engine.n_features, K=resp.shape[1]).parameters_of(statistics, engine), engine.X.dtype)

    # ------------------------------------------------------------------ using the fitted model

    def predict(self, X: Any) -> Labels:
        """Return the most likely component of each row of X, (N,) int64.

        Of what `fit` takes beyond arrays it is an array too, made block by block; of a Dask collection a lazy dask.array.
        """
        return cast(Labels, self._evaluate(X, "labels"))

    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each component given each row of X, (N, K); see `predict`."""
        return cast(Floats, self._evaluate(X, "responsibilities"))

    def score_samples(self, X: Any) -> Floats:
        """Return the log density of each row of X, (N,), nats; see `predict`."""
        return cast(Floats, self._evaluate(X, "log_density"))

    def score(self, X: Any, y: object = None) -> float:
        """Return the mean log density of the rows of X, nats; where X is more than an array, with the weights that it has."""
        return self._score(X)[0]

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion on X, p log N - 2 log L; smaller is better."""
        mean, N = self._score(X)
        return -2.0 * mean * N + self._n_parameters() * float(np.log(N))

    def aic(self, X: Any) -> float:
        """Return Akaike's information criterion on X, 2 p - 2 log L; smaller is better."""
        mean, N = self._score(X)
        return -2.0 * mean * N + 2.0 * self._n_parameters()

    def _score(self, X: Any) -> tuple[float, float]:
        """The mean log density of the rows of X, and their number, or weight."""
        check_is_fitted(self)
        engine = streamed(X, None, self.n_threads)
        if engine is None:
            log_density = self.score_samples(X)
            return float(log_density.mean()), len(log_density)
        self._check_features(X, engine)
        s = engine.sweep(self._factors())
        return s.log_likelihood / s.weight, s.weight

    def sample(self, n_samples: int = 1) -> tuple[Doubles, Labels]:
        """Draw rows: X (n_samples, D) float64 and the component of each, (n_samples,); rows come component by component."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        random = check_random_state(self.random_state)
        counts = random.multinomial(n_samples, self.weights_)
        K, D = self.means_.shape
        if structure_named(self.covariance_type).form == "full":
            matrices = np.broadcast_to(self.covariances_, (K, D, D))
            parts = [random.multivariate_normal(m, C, int(n)) for m, C, n in zip(self.means_, matrices, counts, strict=True)]
        else:
            sds = np.sqrt(self.covariances_).reshape(K, -1)
            parts = [m + random.standard_normal(size=(n, D)) * sd for m, sd, n in zip(self.means_, sds, counts, strict=True)]
        return np.vstack(parts).astype(np.float64), np.repeat(np.arange(K), counts)

    def _evaluate(self, X: Any, want: str) -> Any:
        """What `InMemory.evaluate` calls `want`, of each row of X."""
        check_is_fitted(self)
        if is_dask(X):
            return lazily(X, self._current_parameters(), want)
        engine = streamed(X, None, self.n_threads)
        if engine is not None:
            self._check_features(X, engine)
            return evaluated(engine, self._factors(), want)
        rows = validate_data(self, X, dtype=FLOATS, reset=False)
        return evaluated(InMemory(rows, n_threads=self.n_threads, trusted=True), self._factors(), want, rows.dtype)

    def _check_features(self, X: Any, engine: Any) -> None:
        """Raise ValueError where features are not those of the fit."""
        D, expected = engine.n_features, len(self.means_[0])
        if expected != D:
            raise ValueError(f"X has {D} features, but {type(self).__name__} is expecting {expected} features as input")
        names, fitted = _names_of(X, engine), getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and names != list(fitted):
            raise ValueError(
                f"The feature names should match those that were passed during fit, {list(fitted)}, got {names}. Choose them by "
                "`emfuse.Blocks.of(X, columns=[...])`, or of a data frame by X[[...]]."
            )

    def _factors(self) -> Factors:
        """The public arrays, prepared for a sweep."""
        weights, means = (np.asarray(array, dtype=np.float64) for array in (self.weights_, self.means_))
        return _factors(
            weights, means, np.asarray(self.precisions_cholesky_, dtype=np.float64), structure_named(self.covariance_type)
        )

    def _current_parameters(self) -> Parameters:
        weights, means, covariances = (
            np.array(array, dtype=np.float64) for array in (self.weights_, self.means_, self.covariances_)
        )
        return Parameters.unchecked(weights, means, covariances, structure_named(self.covariance_type), self._factors())

    def _n_parameters(self) -> int:
        """Number of free parameters; the name is scikit-learn's."""
        K, D = self.means_.shape
        if self.constraints is not None:
            return self.constraints.held(self._current_parameters()).free_parameters
        return int(K - 1 + K * D) + structure_named(self.covariance_type).free_parameters(K, D)

    # ------------------------------------------------------------------ to scikit-learn and back

    @classmethod
    def from_fit(cls, fit: Fit, *, dtype: Any = np.float64, **parameters: Any) -> GaussianMixture:
        """Return an estimator that has been fitted: by `emfuse.fit` or `emfuse.em`, whose `Fit` it keeps as `fit_`.

        dtype : float32 or float64, of the attributes; parameters : of the estimator, besides the two that the fit says
        """
        made = cls(fit.parameters.n_components, covariance_type=fit.parameters.structure, **parameters)
        made.n_features_in_ = fit.parameters.n_features
        made._publish(fit, dtype)
        return made

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.mixture.GaussianMixture` with the same answers (and so ONNX export)."""
        from sklearn.mixture import GaussianMixture as Theirs

        check_is_fitted(self)
        shared = {name: value for name, value in self.get_params().items() if name not in OURS}
        if self.init_params in OWN_STARTS:
            shared["init_params"] = "kmeans"
        kind = structure_named(self.covariance_type).name
        shared["covariance_type"] = kind if kind in STRUCTURES else {3: "full", 2: "diag", 1: "spherical"}[self.covariances_.ndim]
        return _copy_fitted(self, Theirs(**shared))

    @classmethod
    def from_sklearn(cls, estimator: Any) -> GaussianMixture:
        """Return a fitted emfuse estimator with the parameters and the answers of a fitted `sklearn.mixture.GaussianMixture`."""
        check_is_fitted(estimator)
        return cast(GaussianMixture, _copy_fitted(estimator, cls(**estimator.get_params())))


MODEL = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
COPIED = (*MODEL, "converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_", "feature_names_in_")


def _copy_fitted(source: Any, target: Any) -> Any:
    for name in COPIED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, value.copy() if isinstance(value, (np.ndarray, list)) else value)
    return target


def _names_of(X: Any, engine: Any) -> list[str] | None:
    """Names of the features of a source, where all have one that is text."""
    names = next((holder.columns for holder in (engine, X) if getattr(holder, "columns", None) is not None), ())
    return list(names) if len(names) and all(isinstance(name, str) for name in names) else None


@contextmanager
def _in_their_words(dtype: Any) -> Generator[None]:
    """Say of a collapse what scikit-learn says, and then what is known."""
    try:
        yield
    except CollapsedComponent as error:
        message = COLLAPSED + COLLAPSED_SINGLE * (dtype == np.float32) + f" ({error})"
        raise CollapsedComponent(message, component=error.component, mass=error.mass, feature=error.feature) from error


def _bound(fit: Fit) -> float:
    """Total log-likelihood before the last M step, nats."""
    return float(fit.trace[-2]) if len(fit.trace) > 1 else -np.inf


class _Stop(AsNumbers):
    """scikit-learn's rule, which looks one sweep back: at the log-likelihood before the last M step, for each row."""

    def __init__(self, tol: float, max_iter: int, before: float):
        self.tol, self.max_iter, self.before = tol, max_iter, before

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        steps = len(trace) - 1
        if steps > 0:
            bound = trace[steps - 1] / trace.weight
            change = bound - (trace[steps - 2] / trace.weight if steps > 1 else self.before)
            if abs(change) < self.tol:
                return f"the mean log-likelihood of a row changed by {change:.3g} nats, less than tol = {self.tol:g}"
        return Limit(f"max_iter = {self.max_iter} was reached") if steps >= self.max_iter else None

    def numbers(self) -> dict[str, float | int]:
        """Return it as a build's own loop asks for it."""
        return {"gain_before": self.tol, "before": self.before, "steps": self.max_iter}


class _Talk:
    """What `verbose` prints, in scikit-learn's words; and the way to the user's own callback."""

    def __init__(self, estimator: GaussianMixture, number: int, weight: float):
        self.estimator, self.weight = estimator, weight
        self.started = self.last = time.monotonic()
        self.bounds: list[float] = []
        if estimator.verbose:
            print(f"Initialization {number}")

    def __call__(self, progress: Progress) -> object:
        steps = progress.sweep
        if self.estimator.verbose and steps > 0 and steps % self.estimator.verbose_interval == 0:
            if self.estimator.verbose == 1:
                print(f"  Iteration {steps}")
            else:
                now = time.monotonic()
                change = self.bounds[-1] - self.bounds[-2] if steps > 1 else np.inf
                print(f"  Iteration {steps}\t time lapse {now - self.last:.5f}s\t ll change {change:.5f}")
                self.last = now
        self.bounds.append(progress.log_likelihood / self.weight)
        return None if self.estimator.callback is None else self.estimator.callback(progress)

    def end(self, made: Fit) -> None:
        state = "converged" if made.converged else "did not converge"
        if self.estimator.verbose == 1:
            print(f"Initialization {state}.")
        elif self.estimator.verbose:
            bound = self.bounds[-2] if len(self.bounds) > 1 else -np.inf
            print(f"Initialization {state}. time lapse {time.monotonic() - self.started:.5f}s\t lower bound {bound:.5f}.")


class _Given:
    """The parts of the start that the user gives, checked; the estimator's own attributes stay as they are."""

    def __init__(self, estimator: GaussianMixture, D: int, K: int | None = None):
        self.estimator, self.type = estimator, estimator.covariance_type
        self.kind: Structure = structure_named(self.type)
        K = estimator.n_components if K is None else K
        self.weights = _checked_weights(estimator.weights_init, K)
        self.means = _checked_means(estimator.means_init, K, D)
        self.precisions = _checked_precisions(estimator.precisions_init, self.type, K, D)
        self.complete = all(part is not None for part in (self.weights, self.means, self.precisions))

    def parameters(
        self, weights: Doubles | None = None, means: Doubles | None = None, covariances: Doubles | None = None
    ) -> Parameters:
        """Return the start: what was given, and for the rest the arguments."""
        weights = self.weights if self.weights is not None else weights
        means = self.means if self.means is not None else means
        assert weights is not None and means is not None
        factors = None
        if self.precisions is not None:
            cholesky = _cholesky_of_precisions(self.precisions, self.kind)
            factors = _factors(weights, means, cholesky, self.kind)
            covariances = np.asarray(np.linalg.inv(self.precisions) if self.kind.form == "full" else 1.0 / self.precisions)
        assert covariances is not None
        return Parameters.unchecked(weights, means, covariances, self.kind, factors)

    def parameters_of(self, statistics: SufficientStatistics, engine: InMemory) -> Parameters:
        """Return the start that one M step makes of statistics, as scikit-learn does: its weights need not sum to 1."""
        reg_covar, spare_mass = self.estimator.reg_covar, _spare_mass(engine.X.dtype)
        made = estimate(statistics, self.kind, reg_covar=reg_covar, spare_mass=spare_mass)
        if self.precisions is None:
            require_density(made, statistics, reg_covar)
        return self.parameters((statistics.mass + spare_mass) / engine.weight, made.means.copy(), made.covariances.copy())


def _start_statistics(
    init_params: str, engine: InMemory, K: int, kind: Structure, random: np.random.RandomState
) -> SufficientStatistics:
    """Statistics of a start; for scikit-learn's own, drawing the same random numbers as it does."""
    X, v = engine.X, engine.sample_weight
    if init_params in OWN_STARTS:
        centres = initialise.CENTRES[OWN_STARTS[init_params]](engine, K, initialise.generator(random))
        return initialise.statistics_of_nearest(engine, centres, kind.form)
    if init_params == "kmeans":
        labels = KMeans(n_clusters=K, n_init=1, random_state=random).fit(X, sample_weight=v).labels_
        return initialise.statistics_of_labels(engine, labels.astype(np.int64), K, kind.form)
    if init_params == "random":
        return initialise.statistics_of_drawn(engine, K, kind.form, initialise.random_responsibilities(engine, K, random))
    if init_params == "random_from_data":
        chosen = random.choice(len(X) if v is None else np.flatnonzero(v), size=K, replace=False)
    else:
        _, chosen = kmeans_plusplus(X, K, sample_weight=v, random_state=random)
    # One row each, all other responsibilities 0: mass 1 (or the row's weight), and nothing about the rows themselves.
    rows = X[chosen].astype(np.float64)
    statistics = SufficientStatistics.zeros(rows, kind.form)
    statistics.mass += 1.0 if v is None else v[chosen]
    if kind.name == "tied":  # except that scikit-learn takes a shared scatter from all rows, about zero, less that of the means
        D = engine.n_features
        about_zero = engine.sweep(Factors(np.zeros((1, D)), np.zeros((1, D, D)), np.zeros(1)))
        statistics.second[0] = about_zero.second[0] - (rows.T * statistics.mass) @ rows
    return statistics


def _spare_mass(dtype: Any) -> float:
    return 10.0 * float(np.finfo(dtype).eps)


def _factors(weights: Doubles, means: Doubles, cholesky: Doubles, kind: Structure) -> Factors:
    """Factors from `precisions_cholesky_`: P is its transpose, since P' P = U U'."""
    K, D = means.shape
    P = np.ascontiguousarray(np.swapaxes(cholesky, -1, -2) if kind.form == "full" else cholesky).reshape(kind.factor_shape(K, D))
    if P.ndim == 2 and P.size == K:  # features share one
        P = P.reshape(K, 1)
    diagonal = np.diagonal(P, axis1=1, axis2=2) if P.ndim == 3 else P
    return Factors.of(weights, np.ascontiguousarray(means), P, np.log(np.broadcast_to(diagonal, (K, D))).sum(axis=1))


def _as_cholesky(P: Doubles, shape: tuple[int, ...]) -> Doubles:
    """`precisions_cholesky_` from P, in the shape of the covariances."""
    return (P.transpose(0, 2, 1) if P.ndim == 3 else P).reshape(shape)


def _cholesky_of_precisions(precisions: Doubles, kind: Structure) -> Doubles:
    """Upper U with U U' = precision: the Cholesky factor of the matrix turned about, turned back."""
    if kind.form == "full":
        turned = precisions[..., ::-1, ::-1]
        return np.asarray(np.linalg.cholesky(turned)[..., ::-1, ::-1])
    return np.sqrt(precisions)


def _checked_array(value: ArrayLike, shape: tuple[int, ...], name: str, *, allow_nd: bool = False) -> AnyArray:
    """Return an array of that shape; with scikit-learn's word on one that is not what it should be."""
    if isinstance(value, np.ndarray) and value.dtype in FLOATS and value.shape == shape and np.isfinite(value).all():
        return value  # as most are: check_array would take longer than a sweep of small data
    array: AnyArray = check_array(value, dtype=FLOATS, ensure_2d=False, allow_nd=allow_nd)
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}")
    return array


def _checked_weights(weights: ArrayLike | None, K: int) -> Doubles | None:
    if weights is None:
        return None
    w = _checked_array(weights, (K,), "weights")
    if w.min() < 0.0 or w.max() > 1.0:  # the two numbers stand under each other's name, as in scikit-learn
        raise ValueError(
            f"The parameter 'weights' should be in the range [0, 1], but got max value {w.min():.5f}, min value {w.max():.5f}"
        )
    if abs(1.0 - float(w.sum(dtype=np.float64))) > (1e-6 if w.dtype == np.float32 else 1e-8):
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {w.sum():.5f}")
    return np.array(w, dtype=np.float64)


def _checked_means(means: ArrayLike | None, K: int, D: int) -> Doubles | None:
    if means is None:
        return None
    m = _checked_array(means, (K, D), "means")
    return np.array(m, dtype=np.float64, order="C")


def _checked_precisions(precisions: ArrayLike | None, covariance_type: str, K: int, D: int) -> Doubles | None:
    if precisions is None:
        return None
    name, kind = f"{covariance_type} precision", structure_named(covariance_type)
    p = _checked_array(precisions, kind.shape(K, D), name, allow_nd=len(kind.shape(K, D)) == 3)
    if kind.form == "full":
        if not np.allclose(p, np.swapaxes(p, -1, -2)) or not np.all(np.linalg.eigvalsh(p) > 0.0):
            raise ValueError(f"'{name}' should be symmetric, positive-definite")
    elif not np.all(p > 0.0):
        raise ValueError(f"'{name}' should be positive")
    return np.array(p, dtype=np.float64, order="C")
