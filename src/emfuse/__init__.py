"""emfuse: Gaussian mixtures by expectation-maximisation, in one fused, compiled pass over the data.

    fit = emfuse.fit(X, 3)                       # what we recommend
    fit = emfuse.em(X, start, stop=20)           # from an explicit start
    emfuse.GaussianMixture(3).fit(X)             # scikit-learn's drop-in

`GaussianMixture` imports scikit-learn and `plots` matplotlib when they are first asked for, not before.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

from emfuse import engines, initialise, kernels, stopping, threads
from emfuse.binned import Binned, fit_binned
from emfuse.blocks import Blocks
from emfuse.checkpoint import Checkpoint
from emfuse.collapse import CollapseWarning
from emfuse.constraints import Constraints
from emfuse.dask_engine import DaskEngine
from emfuse.density import Mixture
from emfuse.em import Fit, History, NotConverged, Progress, em, fit
from emfuse.engines import InMemory
from emfuse.initialise import from_labels, from_responsibilities
from emfuse.lrt import bootstrap_lrt
from emfuse.many import Fits, fit_many
from emfuse.maximise import CollapsedComponent, maximise
from emfuse.online import OnlineEM
from emfuse.parameters import Parameters
from emfuse.selection import Selection, select
from emfuse.statistics import SufficientStatistics
from emfuse.structures import NotPositiveDefinite
from emfuse.uncertainty import Uncertainty, confidence_intervals, standard_errors

if TYPE_CHECKING:
    from emfuse import mclust, mixtools, plots
    from emfuse.estimator import GaussianMixture
    from emfuse.selector import GaussianMixtureSelector

__all__ = [
    "Binned",
    "Blocks",
    "Checkpoint",
    "CollapseWarning",
    "CollapsedComponent",
    "Constraints",
    "DaskEngine",
    "Fit",
    "Fits",
    "GaussianMixture",
    "GaussianMixtureSelector",
    "History",
    "InMemory",
    "Mixture",
    "NotConverged",
    "NotPositiveDefinite",
    "OnlineEM",
    "Parameters",
    "Progress",
    "Selection",
    "SufficientStatistics",
    "Uncertainty",
    "bootstrap_lrt",
    "confidence_intervals",
    "em",
    "engines",
    "fit",
    "fit_binned",
    "fit_many",
    "from_labels",
    "from_responsibilities",
    "initialise",
    "kernels",
    "maximise",
    "mclust",
    "mixtools",
    "plots",
    "select",
    "standard_errors",
    "stopping",
    "threads",
]


def __getattr__(name: str) -> object:
    import importlib

    if name == "GaussianMixture":
        return importlib.import_module("emfuse.estimator").GaussianMixture
    if name == "GaussianMixtureSelector":
        return importlib.import_module("emfuse.selector").GaussianMixtureSelector
    if name in ("mclust", "mixtools", "plots"):
        return importlib.import_module(f"emfuse.{name}")
    raise AttributeError(f"module 'emfuse' has no attribute {name!r}")
