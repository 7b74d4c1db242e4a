"""What the command says: to people in lines of text, to machines in one JSON document.

A model's file is a saved mixture (`Parameters.as_dict`) with two keys more: "columns", what its features are called, and "fit",
how it was found. What `fit --json` and `select --json` print begins so too, and can be used as such a file.

Layer 5.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import Any

import numpy as np

from emfuse.em import Fit, History
from emfuse.parameters import Parameters
from emfuse.selection import Row, Selection
from emfuse.uncertainty import Uncertainty

# From the library's words to the command's: patterns, and what takes their place.
TRANSLATED = (
    (r"choose by (?:columns=|frame\[)\[([^\]]*)\]\]?", r"choose with --columns, of \1"),
    (r"\b(init|missing|on_collapse)='(\w+)'", r"--\1 \2"),
    (r"^method must", "--standard-errors must"),
)
LABELLED = 17  # columns, of which the first 16 are a label's
# Of the difference of two models' BIC: Kass & Raftery (1995), "Bayes factors", JASA 90, 773-795.
EVIDENCE = (
    (2.0, "a difference hardly worth a mention"),
    (6.0, "positive evidence against it"),
    (10.0, "strong evidence against it"),
    (float("inf"), "very strong evidence against it"),
)


def say(kind: str, message: object) -> None:
    """Print a message in one line on stderr: an "error" or a "warning"."""
    print(f"emfuse: {kind}: {' '.join(_translated(str(message)).split())}", file=sys.stderr)


def _translated(message: str) -> str:
    """Return what the library says with its arguments called as the command's options are."""
    for pattern, words in TRANSLATED:
        message = re.sub(pattern, words, message)
    for name in ("reg_covar", "variance_floor", "on_collapse"):
        message = re.sub(rf"`?\b{name}\b`?", f"--{name.replace('_', '-')}", message)
    return message


def line(label: str, value: object) -> str:
    """Return a line of a summary: a label, and what it labels."""
    return f"{label.ljust(LABELLED - 1)} {value}"


def paragraph(label: str, text: str) -> str:
    """Return the same of a text of several lines, 80 columns wide."""
    return textwrap.fill(text, 80, initial_indent=line(label, ""), subsequent_indent=" " * LABELLED)


def mixture(p: Parameters, names: Sequence[str]) -> str:
    """Return a mixture as a table, components down or across, whichever is narrower."""
    cells = [["component", "weight", *names]]
    for k in range(p.n_components):
        numbers = [f"{mean:.6g} ± {sd:.4g}" for mean, sd in zip(p.means[k], p.sds[k], strict=True)]
        cells.append([str(k), f"{p.weights[k]:.4f}", *numbers])
    if p.n_features > p.n_components:
        cells = [list(column) for column in zip(*cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "(mean ± standard deviation)"])


def of_fit(fit: Fit, names: Sequence[str]) -> str:
    """Return what a fit found, and why it stopped."""
    p, weight = fit.parameters, fit.statistics.weight
    lines = [
        line("components", f"{p.n_components}, covariances {p.structure}\n\n{mixture(p, names)}\n"),
        line("log-likelihood", f"{fit.log_likelihood:.6f} nats, {fit.log_likelihood / weight:.6f} a row"),
        line("free parameters", fit.free_parameters),
        line("AIC", f"{fit.aic:.4f}"),
        line("BIC", f"{fit.bic:.4f}"),
        line("stopped", f"{'converged' if fit.converged else 'before convergence'}: {fit.reason}"),
        line("sweeps", fit.sweeps),
    ]
    return "\n".join([*lines, *(line("repaired", sentence) for sentence in fit.repairs)])


def why(selection: Selection) -> str:
    """Return in sentences why the best model is the best, by how much, and what speaks against taking it as it is."""
    criterion, best, ranked = selection.criterion, selection.best_row, selection.table.ranked()
    sound = [row for row in ranked if not row.doubtful]
    said = [f"its {criterion.upper()}, {_value(best, criterion):.10g}, is the smallest."]
    if best.doubtful or not best.converged:
        said.append(f"But look at it before you take it: {best.reason}.")
    if len(sound) > 1:
        said.append(_beside(sound[1], best, criterion))
    passed_over = sum(row.doubtful and _value(row, criterion) < _value(best, criterion) for row in ranked)
    if passed_over and not best.doubtful:
        said.append(f"Doubtful ones with a smaller {criterion.upper()} were passed over: {passed_over}.")
    if best.K == max(row.K for row in selection.table) > 1:
        said.append("More components than that were not tried.")
    return " ".join(said)


def _beside(second: Row, best: Row, criterion: str) -> str:
    """Return how the second-best model compares with the best."""
    apart = _value(second, criterion) - _value(best, criterion)
    gained = second.log_likelihood - best.log_likelihood
    more = second.free_parameters - best.free_parameters
    parameters = f"{abs(more)} {'more' if more > 0 else 'fewer'} free parameter{'s' * (abs(more) != 1)}"
    return (
        f"The next, K = {second.K} with {second.structure!r} covariances, is {apart:.4g} above{_evidence(criterion, apart)}; "
        f"its log-likelihood is {abs(gained):.4g} nats {'higher' if gained > 0 else 'lower'}, with "
        f"{parameters if more else 'as many free parameters'}."
    )


def _value(row: Row, criterion: str) -> float:
    return float(getattr(row, criterion))


def _evidence(criterion: str, apart: float) -> str:
    """Return what it says against a model that a criterion is so much above the smallest; nothing where there is no scale."""
    if criterion == "aic":
        return f", which makes it {np.exp(-0.5 * apart):.2g} times as likely to be the nearest to the truth"
    if criterion == "bic":
        return f", {next(words for most, words in EVIDENCE if apart < most)}"
    return ""


# ------------------------------------------------------------------ machines


def model(p: Parameters, names: Sequence[str] | None, fit: Fit | None = None, rows: int | None = None) -> dict[str, Any]:
    """Return the content of a model's file.

    names : D str or None    of the columns
    fit : Fit or None        how it was found; without its seconds, so that the same call writes the same bytes
    rows : int or None       how many there were
    """
    content = p.as_dict()
    if names:
        content["columns"] = list(names)
    if fit is not None:
        content["fit"] = {
            "rows": rows,
            "weight": fit.statistics.weight,
            "log_likelihood": fit.log_likelihood,
            "free_parameters": fit.free_parameters,
            "aic": fit.aic,
            "bic": fit.bic,
            "converged": fit.converged,
            "reason": fit.reason,
            "sweeps": fit.sweeps,
            "distance": fit.distance,
            "repairs": fit.repairs,
            "scores": fit.scores,
            "trace": fit.trace,
        }
    return content


def history(kept: History) -> list[dict[str, Any]]:
    """Return a fit's path, sweep by sweep."""
    return [
        {
            "sweep": each.sweep,
            "log_likelihood": each.log_likelihood,
            "weights": each.parameters.weights,
            "means": each.parameters.means,
            "covariances": each.parameters.covariances,
        }
        for each in kept
    ]


def standard_errors(found: Uncertainty) -> dict[str, Any]:
    """Return standard errors, and the intervals of 95% made of them."""
    intervals = found.confidence_intervals()
    names = ("name", "estimate", "standard_error", "lower", "upper")
    rows = [dict(zip(names, astuple(row), strict=True)) for row in intervals]
    return {"method": found.method, "level": intervals.level, "parameters": rows}


def selection(found: Selection) -> dict[str, Any]:
    """Return what was tried, and what is best."""
    return {
        "criterion": found.criterion,
        "components": found.K,
        "structure": found.structure,
        "why": why(found),
        "models": [asdict(row) for row in found.table],
    }


def as_json(document: dict[str, Any]) -> str:
    """Return a document as JSON: numbers to the last bit; what is not finite, or not known, as null."""
    return json.dumps(_plain(document), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
