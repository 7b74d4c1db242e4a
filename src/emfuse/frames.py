"""Data frames, in and out: what a frame calls its columns, and a table of results as a frame of pandas.

Neither pandas nor polars is imported before it is asked for, and neither is needed for anything else.

Layer 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any


def feature_names(X: Any) -> tuple[str, ...] | None:
    """Return what a data frame calls its columns, where all have a name that is text; else None."""
    columns = getattr(X, "columns", None)
    names = () if columns is None else tuple(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def data_frame(columns: Mapping[str, Sequence[Any]], index: Sequence[Any] | None = None, name: str | None = None) -> Any:
    """Return a pandas DataFrame, its index called `name`. Raises ImportError, with what to do, where pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError("as_frame needs pandas: pip install pandas; the rows themselves need nothing") from error
    return pandas.DataFrame(columns, index=None if index is None else pandas.Index(index, name=name))
