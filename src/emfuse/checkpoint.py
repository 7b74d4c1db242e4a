"""A fit that outlives its process: its state is written to a file now and then, and the same call goes on from there.

    emfuse.fit("rows.parquet", 8, checkpoint="fit.checkpoint")     # killed? The same line again, and nothing is lost but a minute

The file is an .npz of plain arrays and a header in JSON: reading it executes nothing. It is written beside its place, brought to
the disk and then put there, so that at any moment the file is a whole one, the old or the new.

Layer 3.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import warnings
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, cast

import numpy as np

from emfuse import kernels
from emfuse._typing import AnyArray
from emfuse.maximise import CollapsedComponent
from emfuse.parameters import Factors, Parameters
from emfuse.structures import structure_named

FORMAT, VERSION = "emfuse.Checkpoint", 1
SHARE = 0.02  # of the time, at most, is spent on writing, where it is the clock that says when


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a fit is written down.

    path : str or path-like       of the file; its folder must be there
    every_seconds : float         at the end of the first sweep after so many; later, where writing would take 2% of the time
    every_sweeps : int or None    also after each so many sweeps
    """

    path: str | os.PathLike[str]
    every_seconds: float = 60.0
    every_sweeps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be a path or an emfuse.Checkpoint, got {type(self.path).__name__}")
        if not self.every_seconds >= 0.0:
            raise ValueError(f"every_seconds must be at least 0, got {self.every_seconds!r}")
        n = self.every_sweeps
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
            raise ValueError(f"every_sweeps must be a whole number of at least 1, or None, got {n!r}")


class Keeper:
    """The file of one fit while it runs: read at its start, written after sweeps, and as a context removed at its end.

    A collapse is an end too, since the same call would come to it again; after another error the file stays.

    Raises OSError where the file cannot be written, before anything else is done.
    """

    def __init__(self, checkpoint: Checkpoint | str | os.PathLike[str]):
        self.wish = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self.file = os.path.abspath(self.wish.path)
        self._part = self.file + ".part"
        if os.path.isdir(self.file):
            raise IsADirectoryError(f"{self.file}: a checkpoint is a file, and this is a folder; give the path of a file in it")
        with open(self._part, "wb"):  # the error is the system's own
            pass
        os.remove(self._part)
        self._problem: dict[str, Any] = {}
        self._sweeps, self._wrote, self._took = 0, monotonic(), 0.0

    def read(self, problem: dict[str, Any]) -> dict[str, Any] | None:
        """Return the state that was written last for this problem; None where there is no file.

        problem : what must be the same for a state to be gone on from: names, with plain numbers, strings or None

        Raises ValueError where the file is none of ours, or of another problem.
        """
        self._problem = problem
        if not os.path.exists(self.file):
            return None
        with open(self.file, "rb") as opened:
            try:
                arrays = np.load(opened, allow_pickle=False)
                header = json.loads(bytes(arrays["header"]))
                if header["format"] != FORMAT or header["version"] != VERSION:
                    raise ValueError(f"its format is {header['format']!r}, version {header['version']!r}")
                state, before = _unpacked(header["state"], arrays), dict(header["problem"])
            except Exception as error:  # a damaged file makes zipfile, NumPy and JSON raise almost anything
                raise ValueError(
                    f"{self.file}: not a whole checkpoint of this version of emfuse ({type(error).__name__}: {error}). Delete "
                    "it, or give another path, to begin anew."
                ) from None
        others = [
            f"{name} was {before.get(name)!r} and is {problem.get(name)!r}"
            for name in {**before, **problem}
            if not _same(before.get(name), problem.get(name))
        ]
        if others:
            raise ValueError(
                f"{self.file}: a checkpoint of another fit: {', '.join(others)}. Give the same data and arguments to go on with "
                f"it (written by emfuse {header['emfuse']}, build {header['build']}), or delete it, or give another path, to "
                "begin anew."
            )
        return cast(dict[str, Any], state)

    def due(self) -> bool:
        """Whether to write now; asked once a sweep."""
        self._sweeps += 1
        since = monotonic() - self._wrote
        by_clock = since >= self.wish.every_seconds and since >= self._took / SHARE
        return by_clock or (self.wish.every_sweeps is not None and self._sweeps >= self.wish.every_sweeps)

    def write(self, state: dict[str, Any]) -> None:
        """Write a state: dicts and lists of numbers, strings, None, arrays and `Parameters`.

        Where that fails, for a full disk for one, it warns, and the fit goes on: what was written before is still there.
        """
        began = monotonic()
        arrays: dict[str, AnyArray] = {}
        header = {
            "format": FORMAT,
            "version": VERSION,
            "emfuse": importlib.import_module("emfuse").__version__,
            "build": kernels.active(),
            "problem": self._problem,
            "state": _packed(state, arrays),
        }
        text = json.dumps(header, default=lambda number: number.item())  # NumPy's numbers among the arguments
        try:
            with open(self._part, "wb") as opened:
                np.savez(opened, header=np.frombuffer(text.encode(), np.uint8), **cast(dict[str, Any], arrays))
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(self._part, self.file)
        except OSError as error:
            warnings.warn(f"the fit goes on, but could not be written to {self.file}: {error}", UserWarning, stacklevel=2)
        self._sweeps, self._wrote = 0, monotonic()
        self._took = self._wrote - began

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, CollapsedComponent):
            for file in (self.file, self._part):
                if os.path.exists(file):
                    os.remove(file)


def digest(p: Parameters) -> str:
    """Return a few letters that are others for any other mixture."""
    made = hashlib.sha256(p.structure.encode())
    for array in (p.weights, p.means, p.covariances):
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()[:16]


def _same(a: Any, b: Any) -> bool:
    """Whether two entries of a problem are the same; sums of weights may have been added in another order."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)


def _packed(tree: Any, arrays: dict[str, AnyArray]) -> Any:
    """Return a state as JSON has it, its arrays under names in `arrays`."""
    if isinstance(tree, dict):
        return {name: _packed(value, arrays) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_packed(value, arrays) for value in tree]
    if isinstance(tree, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = tree
        return {"array": name}
    if isinstance(tree, Parameters):  # with its factors: made again, their last bits may be others
        f = tree.factors
        parts = [_packed(part, arrays) for part in (tree.weights, tree.means, tree.covariances, f.P, f.log_constant)]
        return {"structure": tree.structure, "mixture": parts}
    return tree


def _unpacked(tree: Any, arrays: Any) -> Any:
    """Return what `_packed` was given."""
    if isinstance(tree, list):
        return [_unpacked(value, arrays) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"array"}:
        return arrays[tree["array"]]
    if tree.keys() == {"structure", "mixture"}:
        w, means, covariances, P, log_constant = (_unpacked(part, arrays) for part in tree["mixture"])
        return Parameters.unchecked(w, means, covariances, structure_named(tree["structure"]), Factors(means, P, log_constant))
    return {name: _unpacked(value, arrays) for name, value in tree.items()}
