"""Array types with their shapes. Checked where jaxtyping is loaded already (the test run), plain tensors elsewhere."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float
    from torch import Tensor

    Scalar = Float[Tensor, ""]
    PerTask = Float[Tensor, " T"]
    TaskMask = Bool[Tensor, " all"]
    TaskSquare = Float[Tensor, "T T"]
    TaskRows = Float[Tensor, "T n"]
    Row = Float[Tensor, " n"]
else:
    from torch import Tensor

    Scalar = PerTask = TaskMask = TaskSquare = TaskRows = Row = Tensor

__all__ = ["PerTask", "Row", "Scalar", "TaskMask", "TaskRows", "TaskSquare"]
