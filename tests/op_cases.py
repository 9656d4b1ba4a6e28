"""Operands for every op, read off its record: what the generated tests share.

A record's `samples` are attribute dicts. Some keys are hints and no attributes: `shapes` of the
operands, `integers` (the operands that are indices, each with its range), their `domains`, and
`whole`, their domains where the dtype is an integer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import DTYPES, DType, Type, bool_, f32, i8, i16, i64, u16, u32
from graphc.ir import Builder, Graph
from graphc.opdef import Op
from graphc.ops import REGISTRY

SHAPE = (3, 4)
HINTS = ("shapes", "integers", "domains", "whole")

SELDOM = (i8, u16, i16, u32)
"""Integers to which nothing happens that does not to others: a case takes one of them."""


@dataclass(frozen=True)
class Case:
    """An op with attributes, and what is known of its operands."""

    op: Op
    attrs: Mapping[str, Any]
    hints: Mapping[str, Any]
    number: int

    def __str__(self) -> str:
        return f"{self.op.name}-{self.number}"

    @property
    def operands(self) -> tuple[str, ...]:
        """The operands' names: as many as there are shapes of."""
        return self.op.names(len(self.hints.get("shapes", self.op.operands)))

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtypes that the op takes, one of `SELDOM`; one, if nothing depends on that."""
        kinds = self.op.kinds or self.op.kind.dtypes
        seldom = SELDOM[(self.number + len(self.op.name)) % len(SELDOM)]
        left_out = {*SELDOM} - {seldom}
        found = tuple(d for d in DTYPES.values() if d.kind in kinds and d not in left_out)
        return found if self.op.operands else (f32,)

    def types(self, dtype: DType) -> list[Type]:
        """The operands' types if the common dtype is `dtype`."""
        letters = self.op.signature.split("->")[0] or "T" * len(self.operands)
        shapes = self.hints.get("shapes", (SHAPE,) * len(letters))
        found = []
        for name, letter, shape in zip(self.operands, letters, shapes, strict=True):
            index = name in self.hints.get("integers", {})
            found.append(Type(i64 if index else bool_ if letter == "b" else dtype, shape))
        return found

    def arrays(self, dtype: DType, rng: np.random.Generator) -> list[Any]:
        """Operands drawn from the op's domain."""
        found = []
        for i, (name, type) in enumerate(zip(self.operands, self.types(dtype), strict=True)):
            low, high = self.domain(i, type.dtype)
            if name in self.hints.get("integers", {}):
                array = rng.integers(*self.hints["integers"][name], type.static_shape)
            elif type.dtype.kind == "b":
                array = rng.random(type.static_shape) < 0.5
            elif type.dtype.is_integer:
                low = max(int(np.ceil(low)), 0 if type.dtype.kind == "u" else -128)
                array = rng.integers(low, int(high) + 1, type.static_shape)
            else:
                array = rng.uniform(low, high, type.static_shape)
            found.append(array.astype(type.dtype.numpy))
        return found

    def domain(self, operand: int, dtype: DType) -> tuple[float, float]:
        """The range of an operand's numbers."""
        domain = self.op.domain
        each = self.hints.get("domains") or (
            domain if isinstance(domain[0], tuple) else (domain,) * len(self.operands)
        )
        if dtype.is_integer:
            each = self.hints.get("whole", each)
        low, high = each[operand]
        return float(low), float(high)

    def graph(self, dtype: DType) -> Graph:
        """The graph of this one node."""
        builder = Builder(f"one_{self.op.name}")
        operands = [
            builder.parameter(type, name)
            for name, type in zip(self.operands, self.types(dtype), strict=True)
        ]
        return builder.graph(builder.emit(self.op, operands, self.attrs))


def _cases(op: Op) -> Iterator[Case]:
    samples = op.samples or op.kind.samples
    for number, sample in enumerate(samples):
        attrs = {k: v for k, v in sample.items() if k not in HINTS}
        hints = {k: v for k, v in sample.items() if k in HINTS}
        yield Case(op, attrs, hints, number)


# What has regions has no meaning of its own: test_interpret.py and test_text.py build some.
CASES = tuple(case for op in REGISTRY if not op.kind.regions for case in _cases(op))
