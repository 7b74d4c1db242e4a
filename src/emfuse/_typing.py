"""Names for array types, and nothing else.

Layer 0.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float64] | NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
AnyArray: TypeAlias = NDArray[Any]
RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None
