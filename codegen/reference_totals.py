"""Partials in the NumPy reference of an emitted file: what they are parts of.

One function of NumPy's combines most of them. A sum of exponentials that is relative to the maximum
of its chunk, and its like, becomes one that is relative to the maximum of the row first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.kernel import Apply, Const, Expr, Kernel, Load, Total, Var
from graphc.codegen.scalar_numpy import TOTALS
from graphc.codegen.walks import subexpressions
from graphc.dtypes import Type
from graphc.ir import Literal, Value
from graphc.naming import PARTS
from graphc.opdef import op_of

_NUMBER = re.compile("_[0-9]+$")


@dataclass(frozen=True)
class TotalSpelling:
    """Spells totals; `code` puts operands into a Python expression, `number` writes a number.

    `types` are those of the parameters by name, `function` says how a total is combined, and
    `fresh` gives a name that is free.
    """

    code: Callable[[str, Mapping[str, ast.expr]], ast.expr]
    number: Callable[[Literal], ast.expr]
    function: Callable[[Value], str]
    types: Mapping[str, Type]
    fresh: Callable[[str], str]

    def total(
        self, name: str, total: Total, known: Mapping[Value, ast.expr]
    ) -> tuple[list[tuple[str, ast.expr]], ast.expr]:
        """What the partials of a parameter are parts of, and names for what that is made of."""
        step: ast.expr = ast.Name(name)
        lets: list[tuple[str, ast.expr]] = []
        if total.step is not None:
            own = {n: known[v] for n, v in total.values.items() if v in known}
            for s in total.lets:
                free = self.fresh(_NUMBER.sub("", s.name))
                lets.append((free, self._spelled(s.expr, total, name, own)))
                own[s.name] = ast.Name(free)
            step = self._spelled(total.step, total, name, own)
        made = self.code(f"{self.function(total.value)}(x, axis={total.chunks})", {"x": step})
        rows = self.types[name].static_shape[:-1]
        shape = total.value.type.static_shape
        if shape != rows:
            made = self.code(f"np.reshape(x, {shape})", {"x": made})
        return lets, made

    def _spelled(
        self, expr: Expr, total: Total, name: str, own: Mapping[str, ast.expr]
    ) -> ast.expr:
        match expr:
            case Load(buffer=buffer):
                return ast.Name(buffer)
            case Var(name=other) if other not in total.values:
                return own[other]
            case Var(name=other):
                value = total.values[other]
                ends = "-1" if len(self.types[name].shape) == 1 else "(-1, 1)"
                code = "x[:, None]" if ends != "-1" and value.type.ndim == 1 else ""
                return self.code(code or f"np.reshape(x, {ends})", {"x": own[other]})
            case Const(value=number, dtype=dtype):
                return self.number(Literal(number, dtype))
            case Apply(function=function, args=args):
                words = [f"_{i}" for i in range(len(args))]
                spelled = (self._spelled(a, total, name, own) for a in args)
                operands = dict(zip(words, spelled))
                if function.isidentifier():
                    return self.code(f"{function}({', '.join(words)})", operands)
                if len(words) == 1:
                    return self.code(f"{function[1:]}{words[0]}", operands)
                return self.code(f" {function} ".join(words), operands)
        raise TypeError(f"{type(expr).__name__} stands in no total")


def needed_totals(name: str, totals: Mapping[str, Total]) -> list[str]:
    """The other partials on whose totals that of `name` depends, in order."""
    values = totals[name].values
    used = {values.get(e.name) for e in _exprs(totals[name]) if isinstance(e, Var)}
    direct = [n for n, t in totals.items() if t.value in used]
    wanted = {*direct, *(n for d in direct for n in needed_totals(d, totals))}
    return [n for n in totals if n in wanted]


def partials_of(name: str, totals: Mapping[str, Total]) -> list[str]:
    """The parameters of which the total of `name` is computed."""
    wanted = {name, *needed_totals(name, totals)}
    wanted |= {e.buffer for n in wanted for e in _exprs(totals[n]) if isinstance(e, Load)}
    return [n for n in totals if n in wanted]


def _exprs(total: Total) -> Iterator[Expr]:
    for expr in (*(s.expr for s in total.lets), *([total.step] if total.step else [])):
        yield from subexpressions(expr)


def results_in_parts(kernel: Kernel) -> dict[str, Total]:
    """What a kernel leaves as partials, by parameter."""
    given = {p.name for p in kernel.params if p.role == "input"}
    assert kernel.meaning is not None
    return {name: total for name, total in kernel.meaning.totals.items() if name not in given}


def whole_of(name: str) -> str:
    """What a function is called that combines the partials of a parameter."""
    return f"{name.removesuffix(PARTS)}_whole"


def combines(value: Value) -> str:
    """NumPy's function that reduces as a value is reduced."""
    return _function_of(op_of(value.node).step)


def _function_of(step: str) -> str:
    """NumPy's function that accumulates as a record's `step` does."""
    match ast.parse(step, mode="eval").body:
        case ast.BinOp(op=ast.Add()):
            return TOTALS["+"]
        case ast.BinOp(op=ast.Mult()):
            return TOTALS["*"]
        case ast.Call(func=ast.Name(id=function)):
            return TOTALS[function]
    raise TypeError(f"{step} is no accumulation that NumPy has")
