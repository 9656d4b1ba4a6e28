"""What inputs of a graph a Python number becomes that is an argument of the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphc.dtypes import DType, Type, i8
from graphc.functions import promote
from graphc.kinds import extreme


@dataclass(frozen=True)
class Cast:
    """How a Python number becomes an input of a graph: `exact`, in a dtype that has to hold it.

    Compared with integers it becomes two: the `nearest` one of their dtype, and the `side` of the
    range of the dtype on which the number lies (-1, 0 or 1).
    """

    dtype: DType
    how: Literal["exact", "nearest", "side"] = "exact"

    @property
    def type(self) -> Type:
        return Type(i8 if self.how == "side" else self.dtype, ())

    def named(self, name: str | None) -> str | None:
        """The name of the input that an argument of this name becomes."""
        return f"{name}_side" if name and self.how == "side" else name

    def number(self, number: Any) -> Any:
        """A number as the input; raises OverflowError where the dtype has to hold it."""
        if self.how != "exact":
            side = promote.beyond(number, self.dtype)
            if self.how == "side":
                return np.int8(side)
            number = extreme(self.dtype, side > 0) if side else number
        return self.dtype.numpy.type(number)

    def traced(self, number: Any) -> Any:
        """A weak value of an enclosing trace as the input."""
        if self.how == "exact":
            return promote.astype(number, self.dtype)
        return number.nearest(self.dtype)[self.how == "side"]
