"""How a mixture, a fit and a selection show themselves in a notebook: a small table, and a picture in SVG without matplotlib.

Everything is in the elements themselves: no style sheet, no script, no identifiers that could meet those of the page. Text has
the page's colour, and lines are legible on white and on black.

Layer 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from emfuse._typing import Doubles
from emfuse.em import Fit
from emfuse.parameters import Parameters
from emfuse.selection import Selection
from emfuse.summary import counted, table, why_it_stopped

# After Okabe & Ito; yellow and the light blue are darker. Contrast is at least 3 with white and with #111 (tests/test_html.py).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#C06A9A", "#A87500", "#3C93C4")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "12 3")
MOST_COMPONENTS = 20
MOST_FEATURES = 8
WIDTH, HEIGHT, EDGE = 260, 160, 4  # CSS pixels; EDGE is what is left free on each side
POINTS = 41  # of a curve
TALLEST = 10.0  # times the middle one of the components' peaks: a spike above is cut off, or the others could not be seen
FARTHEST = 3.0  # times how much worse the middle one of the models is than the best: what is worse still is cut off


def of_fit(fit: Fit, *, names: Sequence[str] | None = None) -> str:
    """Return a fit as HTML: its mixture, its criteria, why it stopped, and what was repaired.

    fit : Fit
    names : D str or None    what the features are called; None: numbers

    Raises ValueError where there are not D names.
    """
    facts = f"log-likelihood {fit.log_likelihood:.6f} nats, {counted(fit.free_parameters, 'free parameter')}"
    criteria = f"AIC {fit.aic:.4f}, BIC {fit.bic:.4f}"
    return _page(fit.parameters, names, [f"{facts}, {criteria}", why_it_stopped(fit), *fit.repairs])


def of_parameters(p: Parameters, *, names: Sequence[str] | None = None) -> str:
    """Return a mixture as HTML: components with weights, means and standard deviations, and a picture.

    names : D str or None    what the features are called; None: numbers

    Raises ValueError where there are not D names.
    """
    return _page(p, names, [])


def of_selection(selection: Selection) -> str:
    """Return a selection as HTML: its criterion for each number of components and structure, and a picture of these."""
    best, criterion = selection.best_row, selection.criterion
    structures = list(dict.fromkeys(row.structure for row in selection.table))
    numbers = sorted({row.K for row in selection.table})
    found = {(row.K, row.structure): float(getattr(row, criterion)) for row in selection.table if not row.failed}
    head = ["K", *(f"{_key(i)} {escape(name)}" for i, name in enumerate(structures))]
    rows = []
    for K in numbers:
        cells = [f"{found[K, name]:.2f}" if (K, name) in found else "-" for name in structures]
        if best.K == K:
            at = structures.index(best.structure)
            cells[at] = f"<b>{cells[at]}</b>"
        rows.append([str(K), *cells])
    failed = sum(row.failed for row in selection.table)
    notes = [
        f"{criterion.upper()}, the smallest is best: {counted(best.K, 'component')}, structure {best.structure!r}",
        f"{counted(len(selection.table), 'model')} in {selection.seconds:.3g} s{f', {failed} without a fit' * bool(failed)}",
    ]
    return _beside(_criteria(numbers, structures, found, criterion), head, rows, notes)


def _page(p: Parameters, names: Sequence[str] | None, sentences: list[str]) -> str:
    K, D = p.means.shape
    cells = table(p, names=names, most_components=MOST_COMPONENTS, most_features=MOST_FEATURES)
    head = [escape(text) for text in cells[0]]
    rows = [[f"{_key(k)} {escape(first)}", *map(escape, rest)] for k, (first, *rest) in enumerate(cells[1:])]
    shown = ((K, MOST_COMPONENTS, "component"), (D, MOST_FEATURES, "feature"))
    left = [f"the first {most} of {counted(n, of)}" for n, most, of in shown if n > most]
    notes = [
        f"Gaussian mixture, structure {p.structure!r}; mean ± standard deviation{'; ' * bool(left)}{', '.join(left)}",
        *sentences,
    ]
    return _beside(_picture(p, cells[0][2:] if D > 1 else [names[0] if names else "x"]), head, rows, notes)


def _beside(picture: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A picture, and a table of HTML beside it, whose first column is a head too; below them notes, which are text."""
    cell = "padding:1px 8px;text-align:right;white-space:nowrap"

    def line(cells: Sequence[str], heads: int) -> str:
        tags = ["th"] * heads + ["td"] * (len(cells) - heads)
        made = "".join(f'<{tag} style="{cell}">{text}</{tag}>' for tag, text in zip(tags, cells, strict=True))
        return f"<tr>{made}</tr>"

    return (
        '<div style="display:flex;flex-wrap:wrap;gap:0 16px;align-items:center">'
        f"{picture}"
        f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f"<thead>{line(head, len(head))}</thead><tbody>{''.join(line(row, 1) for row in rows)}</tbody></table>"
        f'<div style="flex-basis:100%;font-size:90%">{"<br>".join(escape(note) for note in notes)}</div></div>'
    )


def _key(k: int) -> str:
    """A short piece of a component's line, for the table."""
    return f'<svg width="24" height="8" aria-hidden="true" style="vertical-align:middle"><path d="M0 4H24" {_line(k)}/></svg>'


def _line(k: int, width: int = 2) -> str:
    dashes = DASHES[k % len(DASHES)]
    colour = COLOURS[k % len(COLOURS)]
    return f'fill="none" stroke="{colour}" stroke-width="{width}"' + f' stroke-dasharray="{dashes}"' * bool(dashes)


def _picture(p: Parameters, called: Sequence[str]) -> str:
    """The densities of one feature, or the ellipses of the first two."""
    return _framed(*(_curves(p) if p.n_features == 1 else _ellipses(p)), called[:2])


def _framed(what: str, drawn: str, ends: Doubles, called: Sequence[str]) -> str:
    """Elements in a frame, with its ends and names beside it.

    ends : (2, n)    of the n axes that have names, 1 or 2
    """
    low, high = ([f"{end:.4g}" for end in side] for side in ends)
    small = 'font-size="10" fill="currentColor"'
    foot, base = HEIGHT + 12, HEIGHT - 2
    texts = [
        f'<text x="0" y="{foot}" {small}>{low[0]}</text>',
        f'<text x="{WIDTH}" y="{foot}" {small} text-anchor="end">{high[0]}</text>',
        f'<text x="{WIDTH / 2:g}" y="{foot}" {small} text-anchor="middle">{escape(_cut(called[0]))}</text>',
    ]
    if len(called) > 1:
        texts += [
            f'<text x="{WIDTH + 4}" y="{base}" {small}>{low[1]}</text>',
            f'<text x="{WIDTH + 4}" y="10" {small}>{high[1]}</text>',
            f'<text transform="translate({WIDTH + 6} {HEIGHT / 2:g}) rotate(90)" {small} text-anchor="middle">'
            f"{escape(_cut(called[1]))}</text>",
        ]
    wide = WIDTH + (10 + 6 * max(map(len, (low[1], high[1]))) if len(called) > 1 else 0)
    return (
        f'<svg width="{wide}" height="{foot + 4}" viewBox="0 0 {wide} {foot + 4}" role="img" style="flex:none;margin:4px 0">'
        f"<title>{escape(what)}</title>"
        f'<svg width="{WIDTH}" height="{HEIGHT}">{drawn}</svg>'  # it clips what goes beyond, and needs no identifier for that
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" fill="none" stroke="currentColor" opacity="0.4"/>'
        f"{''.join(texts)}</svg>"
    )


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _curves(p: Parameters) -> tuple[str, str, Doubles]:
    """Each weighted component, and their sum. Returns what it is, its elements, and the ends of the axis, (2, 1)."""
    shown = np.arange(min(p.n_components, MOST_COMPONENTS))
    means, sds = p.means[shown, 0], p.sds[shown, 0]
    unit = float(sds.max())  # sizes of any order must neither overflow nor vanish
    centre = means[0]
    m, s = (means - centre) / unit, sds / unit
    low, high = float((m - 3.5 * s).min()), float((m + 3.5 * s).max())
    steps = np.linspace(-3.5, 3.5, POINTS)
    grid = np.unique(np.append(m[:, None] + s[:, None] * steps, np.linspace(low, high, 4 * POINTS)))
    if len(grid) > 8 * POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, 8 * POINTS).astype(int)]
    peaks = p.weights[shown] / s
    whole = (peaks * np.exp(-0.5 * np.square((grid[:, None] - m) / s))).sum(axis=1)
    top = min(float(max(whole.max(), peaks.max())), TALLEST * float(np.median(peaks[peaks > 0.0])))

    def path(x: Doubles, y: Doubles) -> str:
        across = EDGE + (x - low) / (high - low) * (WIDTH - 2 * EDGE)
        down = np.maximum(-HEIGHT, HEIGHT - EDGE - y / top * (HEIGHT - 3 * EDGE))
        return "M" + " ".join(f"{a:.4g} {d:.4g}" for a, d in zip(across.tolist(), down.tolist(), strict=True))

    parts = [f'<path d="{path(grid, whole)}" fill="none" stroke="currentColor" stroke-width="3" opacity="0.35"/>']
    for k in shown.tolist():
        parts.append(f'<path d="{path(m[k] + s[k] * steps, peaks[k] * np.exp(-0.5 * np.square(steps)))}" {_line(k)}/>')
    ends = centre + unit * np.array([[low], [high]])
    return "densities of the components and of their mixture", "".join(parts), ends


def _ellipses(p: Parameters) -> tuple[str, str, Doubles]:
    """Ellipses at 1 and 2 standard deviations. Returns what it is, its elements, and the ends of the axes, (2, 2)."""
    shown = slice(0, MOST_COMPONENTS)
    means, sds = p.means[shown, :2], p.sds[shown, :2]
    low, high = (means - 2.1 * sds).min(axis=0), (means + 2.1 * sds).max(axis=0)
    size = np.array([WIDTH, HEIGHT]) - 2.0 * EDGE
    scale = size / (high - low) * [1.0, -1.0]  # SVG counts y downwards
    correlations = p.covariance_matrices[shown, :2, :2] / sds[:, :, None] / sds[:, None, :]
    parts, numbers = [], []
    for k in range(len(means)):
        x, y = EDGE + (means[k] - [low[0], high[1]]) * scale
        s = sds[k] * scale
        variances, directions = np.linalg.eigh(correlations[k] * s[:, None] * s)
        radii = np.sqrt(np.maximum(variances, 0.0))
        angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
        place = f"translate({x:.4g} {y:.4g}) rotate({angle:.4g})"
        for level, width in ((1.0, 2), (2.0, 1)):
            rx, ry = level * radii[::-1]
            parts.append(f'<ellipse rx="{rx:.4g}" ry="{ry:.4g}" transform="{place}" {_line(k, width)}/>')
        style = 'font-size="11" font-weight="bold" fill="currentColor" text-anchor="middle"'
        numbers.append(f'<text x="{x:.4g}" y="{y + 4.0:.4g}" {style}>{k}</text>')
    of = "features" if p.n_features == 2 else f"first two of {p.n_features} features"
    return f"components at 1 and 2 standard deviations, {of}", "".join(parts + numbers), np.array([low, high])


def _criteria(numbers: list[int], structures: list[str], found: dict[tuple[int, str], float], criterion: str) -> str:
    """A criterion over the number of components, a line for each structure, and a ring around the best."""
    values = np.array(list(found.values()))
    best, middle = values.min(), np.median(values)
    worst = min(float(values.max()), float(best + FARTHEST * (middle - best)))
    if worst == best:  # one model, or half of them alike
        worst = float(values.max()) if values.max() > best else float(best + 1.0)
    across = (WIDTH - 6 * EDGE) / max(1, numbers[-1] - numbers[0])

    def place(K: int, value: float) -> tuple[float, float]:
        down = 3 * EDGE + (worst - value) / (worst - best) * (HEIGHT - 6 * EDGE)
        return 3 * EDGE + (K - numbers[0]) * across, max(-float(HEIGHT), down)

    parts = []
    for i, name in enumerate(structures):
        points = [place(K, found[K, name]) for K in numbers if (K, name) in found]
        if points:
            parts.append(f'<path d="M{" ".join(f"{x:.4g} {y:.4g}" for x, y in points)}" {_line(i)}/>')
            parts += [f'<circle cx="{x:.4g}" cy="{y:.4g}" r="2.5" fill="{COLOURS[i % len(COLOURS)]}"/>' for x, y in points]
    x, y = place(*next((K, value) for (K, _), value in found.items() if value == best))
    parts.append(f'<circle cx="{x:.4g}" cy="{y:.4g}" r="7" fill="none" stroke="currentColor" stroke-width="1.5"/>')
    ends = np.array([[numbers[0], best], [numbers[-1], worst]])
    what = f"{criterion.upper()} over the number of components, a line for each structure"
    return _framed(what, "".join(parts), ends, ["number of components", criterion.upper()])
