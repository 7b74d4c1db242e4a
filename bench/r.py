"""R's packages as peers: a fit of mixtools or mclust is run by Rscript, where that is on the PATH, and reads its own clock.

Rows and start go to R as files of doubles, the first index running fastest, as R has it. A fit is asked for so many iterations
(M steps) and for nothing that stops sooner: mclust's relative tolerance is 0, and mixtools' epsilon -1 nat. Both begin as emfuse
does, from one start: mixtools from its parameters, mclust from responsibilities, with an M step.

BLAS is held to one thread. R reads its clock around the call alone; reading the files and starting R do not count.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

PATIENCE = 120  # seconds, for R to do anything
INSTALL = "install R, and in it: install.packages(c('mclust', 'mixtools'))"
NAMED = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
FOURTEEN = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")


class Package(NamedTuple):
    """An R package, and mclust's names of the models that it can fit."""

    name: str
    models: tuple[str, ...]

    def available(self):
        """Its version; raises ImportError."""
        if not shutil.which("Rscript"):
            raise ImportError(f"Rscript is not on the PATH: {INSTALL}")
        code = f'cat(as.character(packageVersion("{self.name}")))'
        asked = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True)
        if asked.returncode:
            raise ImportError(f"R has no package {self.name}: {INSTALL}")
        return asked.stdout.strip()


MIXTOOLS, MCLUST = Package("mixtools", ("E", "V", "EEE", "VVV")), Package("mclust", ("E", "V", *FOURTEEN))
PACKAGES = (MIXTOOLS, MCLUST)

SCRIPT = r"""
# folder, package, rows, D, K, model, iterations ("1,6"), least seconds -> on the last line the median seconds of a fit with each
# number of iterations, how many the last one did, and its log-likelihood; and in the folder the log-likelihood after each of its
# iterations, the start's first, where the package tells it
given <- commandArgs(trailingOnly = TRUE)
folder <- given[1]; package <- given[2]; model <- given[6]
N <- as.integer(given[3]); D <- as.integer(given[4]); K <- as.integer(given[5])
counts <- as.integer(strsplit(given[7], ",")[[1]]); least <- as.numeric(given[8])
suppressPackageStartupMessages(library(package, character.only = TRUE))
numbers <- function(name, ...) {
  shape <- c(...)
  array(readBin(file.path(folder, name), "double", prod(shape), size = 8, endian = "little"), shape)
}
X <- numbers("rows", N, D)
shared <- model %in% c("E", "EEE")
if (package == "mixtools") {
  weights <- as.vector(numbers("weights", K))
  means <- numbers("means", K, D)
  matrices <- numbers("covariances", D, D, K)
}
if (package == "mixtools" && D == 1) {
  x <- X[, 1]
  sds <- sqrt(matrices[1, 1, ])
  # no start of its own may take the place of this one
  fit <- function(count) normalmixEM(x, lambda = weights, mu = means[, 1], sigma = if (shared) sds[1] else sds, k = K,
                                     arbvar = !shared, epsilon = -1, maxit = count, maxrestarts = 0)
} else if (package == "mixtools") {
  mu <- lapply(1:K, function(k) means[k, ])
  sigma <- if (shared) matrices[, , 1] else lapply(1:K, function(k) matrices[, , k])
  fit <- function(count) mvnormalmixEM(X, lambda = weights, mu = mu, sigma = sigma, k = K, arbvar = !shared, epsilon = -1,
                                       maxit = count)
} else {
  z <- numbers("responsibilities", N, K)
  data <- if (D == 1) X[, 1] else X
  usual <- emControl()  # inner loops as by default
  fit <- function(count) {
    control <- emControl(tol = c(0, usual$tol[2]), itmax = c(count, usual$itmax[2]))
    me(data = data, modelName = model, z = z, control = control, warn = FALSE)
  }
}
timed <- function(count) {
  sink(nullfile())
  on.exit(sink())
  began <- as.numeric(Sys.time())
  made <- fit(count)
  list(seconds = as.numeric(Sys.time()) - began, made = made)
}
took <- matrix(0, 0, length(counts))
while (nrow(took) == 0 || sum(took) < least) {
  runs <- lapply(counts, timed)
  took <- rbind(took, sapply(runs, function(run) run$seconds))
}
made <- runs[[length(runs)]]$made
if (package == "mixtools") {
  if (made$restarts > 0) stop("it took a start of its own")
  trace <- as.double(made$all.loglik[!is.na(made$all.loglik)])
  done <- length(trace) - 1
  writeBin(trace, file.path(folder, "trace"), size = 8, endian = "little")
} else {
  if (is.na(made$loglik)) stop("a covariance is singular")
  done <- abs(unlist(attr(made, "info"))[[1]])
}
cat(sprintf("%.9g", apply(took, 2, median)), sprintf("%d %.17g", as.integer(done), made$loglik), "\n")
"""


BIC_SCRIPT = r"""
# folder, rows, D -> the median seconds of three calls of mclustBIC with its defaults, and the highest BIC
given <- commandArgs(trailingOnly = TRUE)
D <- as.integer(given[3])
X <- matrix(readBin(file.path(given[1], "rows"), "double", as.integer(given[2]) * D, size = 8, endian = "little"), ncol = D)
suppressPackageStartupMessages(library(mclust))
took <- replicate(3, system.time(made <<- mclustBIC(X, verbose = FALSE))[["elapsed"]])
cat(sprintf("%.9g %.17g", median(took), max(made, na.rm = TRUE)), "\n")
"""


class Ran(NamedTuple):
    """What R did.

    seconds : tuple of float    of a fit with each number of iterations
    log_likelihood : float      of the last fit, in all, nats
    trace : (T,) or None        log-likelihood of the start and after each iteration
    """

    seconds: tuple[float, ...]
    log_likelihood: float
    trace: np.ndarray | None


def find():
    """(package, version) of those that are here, and a line for each that is not."""
    found, skipped = [], []
    for package in PACKAGES:
        try:
            found.append((package, package.available()))
        except ImportError as error:
            skipped.append(f"{package.name} is skipped: {error}")
    return found, skipped


def model_of(structure, D):
    """mclust's name of one of scikit-learn's structures, or of its own."""
    model = NAMED.get(structure, structure)
    return model if D > 1 else model[0]


def write(folder, X, start, responsibilities):
    """Rows, the start's parameters, and the responsibilities that mclust begins with."""
    arrays = {"rows": X, "weights": start.weights, "means": start.means}
    arrays["covariances"] = start.covariance_matrices.transpose(1, 2, 0)
    arrays["responsibilities"] = np.clip(responsibilities, 0.0, 1.0)
    for name, array in arrays.items():
        np.asarray(array, dtype="<f8").ravel(order="F").tofile(Path(folder) / name)
    (Path(folder) / "fit.R").write_text(SCRIPT, encoding="utf-8")


def run(package, folder, shape, model, counts, least=0.0):
    """Fit what was written with each number of iterations, again and again for `least` seconds in all.

    shape : rows, D, K

    Raises ValueError where the package fails, or stops sooner.
    """
    trace = Path(folder) / "trace"
    trace.unlink(missing_ok=True)
    asked = (folder, package.name, *shape, model, ",".join(map(str, counts)), least)
    try:
        *seconds, done, log_likelihood = _last_line(Path(folder) / "fit.R", asked)
    except subprocess.TimeoutExpired:
        raise ValueError(f"> {PATIENCE} s for {counts[-1]} iterations") from None
    if int(done) != counts[-1]:
        raise ValueError(f"it stopped after {done} iterations, of {counts[-1]}")
    return Ran(tuple(map(float, seconds)), float(log_likelihood), np.fromfile(trace, "<f8") if trace.exists() else None)


def mclust_bic(folder, X):
    """Seconds of mclustBIC with all its defaults, and the highest BIC (the higher the better, as mclust has it)."""
    np.asarray(X, dtype="<f8").ravel(order="F").tofile(Path(folder) / "rows")
    (Path(folder) / "bic.R").write_text(BIC_SCRIPT, encoding="utf-8")
    seconds, best = _last_line(Path(folder) / "bic.R", (folder, *X.shape))
    return float(seconds), float(best)


def _last_line(script, given):
    """The words of the last line that a script prints. Raises ValueError where it fails."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = ["Rscript", str(script), *map(str, given)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, timeout=PATIENCE)
    if ran.returncode:
        raise ValueError((ran.stderr.strip().splitlines() or ["it failed"])[-1])
    return ran.stdout.splitlines()[-1].split()
