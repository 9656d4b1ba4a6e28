"""What a user may choose about a compilation, the same in code and on the command line."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Literal

from graphc.errors import ArgumentError

LEVELS = (0, 1, 2)
NANS = ("keep", "raise")


@dataclass(frozen=True)
class Options:
    """How to compile. Raises ArgumentError for a value that does not exist.

    fast            allow rewrites that hold for real numbers but change rounding or the sign of
                    zero: contracted products and sums, reciprocals, approximate division on CUDA.
                    An infinity or a NaN may become a finite number, or the reverse: x - x is 0 for
                    every x, so isnan(x - x) is False. Of arguments, and of values that no rewrite
                    replaced, isnan, isfinite and comparisons are right
    level           0: a kernel for each operation; 1: fusion of the graph as written; 2: also
                    simplification and common subexpressions
    nan             "keep" what is computed, or "raise" NotFinite for a result that holds a NaN or
                    an infinity, with the operation and the line that made it. After each call
                    every float result is looked through, on its device, and where one is not
                    finite the call is repeated as by `debug`. Donated arguments are kept for that
    deterministic   the same bits in every run on one machine, for any number of threads. All
                    present kernels are deterministic, so False changes nothing yet
    """

    fast: bool = False
    level: int = 2
    nan: Literal["keep", "raise"] = "keep"
    deterministic: bool = True

    def __repr__(self) -> str:
        """What is not as by default."""
        own = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if self._says(f)]
        return f"Options({', '.join(own)})"

    def __str__(self) -> str:
        """Every option, a line each."""
        return "\n".join(f"{f.name:<15} {getattr(self, f.name)}" for f in fields(self))

    def _says(self, field: Field[object]) -> bool:
        return bool(getattr(self, field.name) != field.default)

    def __post_init__(self) -> None:
        for name in ("fast", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name} is True or False, not {getattr(self, name)!r}")
        if self.nan not in NANS:
            raise ArgumentError(f'nan is "keep" or "raise", not {self.nan!r}')
        if type(self.level) is not int or self.level not in LEVELS:
            raise ArgumentError(
                f"level {self.level!r} does not exist",
                help="the levels are " + ", ".join(map(str, LEVELS)),
            )
