"""The scikit-learn face of `emfuse.select`: an estimator that chooses its number of components and its covariance type.

Layer 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from emfuse._typing import Doubles, Floats, Labels
from emfuse.estimator import FLOATS, GaussianMixture
from emfuse.selection import CRITERIA, INITS, select
from emfuse.structures import STRUCTURES


class GaussianMixtureSelector(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """The best of Gaussian mixtures with several numbers of components and covariance types, by AIC, BIC or ICL.

    `emfuse.select` fits them; what is left is one fitted `emfuse.GaussianMixture`, to which all methods go.

    Parameters
    ----------
    n_components : int or sequence of int, default=9
        The numbers of components; one number n is 1 to n. Those above the number of rows are left out.
    covariance_types : sequence of {"full", "tied", "diag", "spherical"}, default=all four
    criterion : {"bic", "aic", "icl"}, default="bic"
        The smallest is best; see `emfuse.selection.Row`.
    n_init : int, default=1
        How many starts of each model climb, besides those from the models beside it.
    init_params : str, default="short_runs"
        emfuse's own starts: see `emfuse.fit`.
    random_state : int, RandomState or None, default=None
        Seeds the starts, and `sample`; None is the same starts every time.
    n_threads : int or None, default=None
        None: what `emfuse.threads.thread_count` says. The result is the same to the last bit.
    verbose : int, default=0
        1 prints a line for each model.

    Attributes
    ----------
    best_estimator_ : emfuse.GaussianMixture
        Fitted; its `fit_` is the chosen `emfuse.Fit`.
    n_components_ : int
    covariance_type_ : str
    selection_ : emfuse.selection.Selection
        The table of all models, their fits, and `plot()`.
    n_features_in_ : int
    feature_names_in_ : array of str, where X has such names

    Examples
    --------
    >>> import numpy as np
    >>> from emfuse.selector import GaussianMixtureSelector
    >>> random = np.random.default_rng(0)
    >>> X = np.concatenate([random.normal(0, 1, (100, 2)), random.normal(9, 1, (100, 2))])
    >>> chosen = GaussianMixtureSelector(4).fit(X)
    >>> chosen.n_components_
    2
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), "array-like", range],
        "covariance_types": ["array-like"],
        "criterion": [StrOptions(set(CRITERIA))],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(INITS))],
        "random_state": ["random_state"],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int | Sequence[int] = 9,
        *,
        covariance_types: Sequence[str] = ("full", "tied", "diag", "spherical"),
        criterion: str = "bic",
        n_init: int = 1,
        init_params: str = "short_runs",
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.covariance_types = covariance_types
        self.criterion = criterion
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> GaussianMixtureSelector:
        """Fit every mixture to the rows of X, and keep the best.

        X : (N, D) array-like, at least 2 rows; y : ignored; sample_weight : (N,) or None, at least 0

        Raises ValueError for unusable parameters or data, and where no mixture can be fitted. The estimator is then as it was
        before. Warns ConvergenceWarning where the best has not converged.
        """
        before = dict(vars(self))
        try:
            self._fit(X, sample_weight)
        except BaseException:
            self.__dict__ = before
            raise
        if not self.best_estimator_.converged_:
            message = f"The best mixture did not converge: {self.best_estimator_.fit_.reason}."
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self._validate_params()
        wrong = [name for name in self.covariance_types if name not in STRUCTURES]
        if wrong or len(self.covariance_types) == 0:
            names = ", ".join(map(repr, STRUCTURES))
            raise ValueError(f"covariance_types must be one or several of {names}, got {wrong[0] if wrong else 'none'!r}")
        rows = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
        self.selection_ = select(
            rows,
            self.n_components,
            tuple(self.covariance_types),
            self.criterion,
            n_init=self.n_init,
            init=self.init_params,
            sample_weight=sample_weight,
            random_state=self.random_state,
            n_threads=self.n_threads,
            verbose=bool(self.verbose),
        )
        own = {"random_state": self.random_state, "n_threads": self.n_threads}
        best = GaussianMixture.from_fit(self.selection_.best, dtype=rows.dtype, **own)
        if hasattr(self, "feature_names_in_"):
            best.feature_names_in_ = self.feature_names_in_
        self.best_estimator_ = best
        self.n_components_, self.covariance_type_ = self.selection_.K, self.selection_.structure

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Labels:
        """Fit as `fit` does, and return the most likely component of each row, (N,)."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: ArrayLike) -> Labels:
        """Return the most likely component of each row of X, (N,)."""
        return self._best().predict(X)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the probability of each component given each row of X, (N, K)."""
        return self._best().predict_proba(X)

    def score_samples(self, X: ArrayLike) -> Floats:
        """Return the log density of each row of X, (N,), nats."""
        return self._best().score_samples(X)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Return the mean log density of the rows of X, nats."""
        return self._best().score(X)

    def bic(self, X: ArrayLike) -> float:
        """Return the Bayesian information criterion on X; smaller is better."""
        return self._best().bic(X)

    def aic(self, X: ArrayLike) -> float:
        """Return Akaike's information criterion on X; smaller is better."""
        return self._best().aic(X)

    def sample(self, n_samples: int = 1) -> tuple[Doubles, Labels]:
        """Draw rows: X (n_samples, D) float64 and the component of each, (n_samples,); rows come component by component."""
        return self._best().sample(n_samples)

    def _best(self) -> GaussianMixture:
        check_is_fitted(self)
        return self.best_estimator_
