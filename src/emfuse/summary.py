"""What a fit found, on a page of text that fits a terminal, in the manner of R's summary(); and its table, which HTML uses too.

Layer 5.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from emfuse.em import Fit
from emfuse.parameters import Parameters

COLUMNS = 80
MOST_SHOWN = 20  # components, and features
LONGEST_NAME = 24  # letters


def summary(fit: Fit, *, names: Sequence[str] | None = None) -> str:
    """Return the fit as text, at most 80 columns wide: the components, the criteria, why it stopped, and what was repaired.

    fit : Fit
    names : D str or None    what the features are called; None: numbers

    Of more than 20 components, or features, the first 20 are shown. Raises ValueError where there are not D names.
    """
    p, weight = fit.parameters, fit.statistics.weight
    K, D = p.means.shape
    cells = table(p, names=names, most_components=MOST_SHOWN, most_features=MOST_SHOWN, rows=fit.statistics.mass.tolist())
    if min(D, MOST_SHOWN) > min(K, MOST_SHOWN):  # whichever is narrower
        cells = [list(column) for column in zip(*cells, strict=True)]
    lines = [f"Gaussian mixture: {counted(K, 'component')}, {counted(D, 'feature')}, structure {p.structure!r}; mean ± sd", ""]
    lines += _blocks(cells)
    left = [counted(n - MOST_SHOWN, of) for n, of in ((K, "more component"), (D, "more feature")) if n > MOST_SHOWN]
    lines += [f"and {' and '.join(left)}"] * bool(left) + [""]
    facts = {
        "log-likelihood": f"{fit.log_likelihood:.6f} nats, {fit.log_likelihood / weight:.6f} a row",
        "rows": f"{weight:.10g}",
        "free parameters": f"{fit.free_parameters}",
        "AIC": f"{fit.aic:.4f}",
        "BIC": f"{fit.bic:.4f}",
    }
    if len(fit.scores) > 1:
        facts["starts"] = f"{len(fit.scores)}, of which this is the best"
    lines += [f"{name:<16} {value}" for name, value in facts.items()]
    for sentence in (why_it_stopped(fit), *fit.repairs):
        lines += textwrap.wrap(sentence, COLUMNS, subsequent_indent="  ")
    return "\n".join(lines)


def table(
    p: Parameters,
    *,
    names: Sequence[str] | None = None,
    most_components: int,
    most_features: int,
    rows: Sequence[float] | None = None,
) -> list[list[str]]:
    """Return a mixture as cells: a head, and a row for each component with its weight, and mean ± standard deviation by feature.

    rows : (K,) floats or None    how many rows' worth of data each component has, for a column of their own
    """
    K, D = p.means.shape
    if names is not None and len(names) != D:
        raise ValueError(f"names must have {D} entries, one a feature, got {len(names)}")
    if names is None:
        called = ["mean ± sd"] if D == 1 else [f"feature {d}" for d in range(min(D, most_features))]
    else:
        called = [_plain(str(name)) for name in names[:most_features]]
    cells = [["component", "weight", *["rows"] * (rows is not None), *called]]
    sds = p.sds
    for k in range(min(K, most_components)):
        numbers = [f"{mean:.6g} ± {sd:.4g}" for mean, sd in zip(p.means[k], sds[k], strict=True)]
        worth = [] if rows is None else [f"{rows[k]:.6g}"]
        weight = f"{p.weights[k]:.4f}" if p.weights[k] >= 1e-3 else f"{p.weights[k]:.1e}"
        cells.append([str(k), weight, *worth, *numbers[:most_features]])
    return cells


def why_it_stopped(fit: Fit) -> str:
    """Return the reason, in a sentence, with how long it took."""
    state = "converged" if fit.converged else "stopped before convergence"
    return f"{state} after {counted(fit.sweeps, 'sweep')}, {fit.seconds:.3g} s: {fit.reason}"


def counted(number: int, of: str) -> str:
    """Return "1 sweep", "2 sweeps"."""
    return f"{number:,} {of}{'s' * (number != 1)}"


def _plain(name: str) -> str:
    """One line that a terminal shows as it is, not too long."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(name.split()))
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def _blocks(cells: list[list[str]]) -> list[str]:
    """Return a table as lines; where it is too wide, as several below each other, as R does, each with the first column."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines, start = [], 1
    while start < len(widths):
        stop, width = start + 1, widths[0] + 2 + widths[start]
        while stop < len(widths) and width + 2 + widths[stop] <= COLUMNS:
            width += 2 + widths[stop]
            stop += 1
        for row in cells:
            rest = [cell.rjust(size) for cell, size in zip(row[start:stop], widths[start:stop], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *rest]))
        start = stop
        lines += [""] * (start < len(widths))
    return lines
