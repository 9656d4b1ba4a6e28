"""Expressions from what the records of ops say: their `code` spelled out, and conversions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache

from graphc.codegen.kernel import Apply, Const, Expr
from graphc.codegen.scalar import SCALARS
from graphc.dtypes import DTYPES, DType, bool_

_BINARY: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
UNARY: Mapping[type[ast.AST], str] = {ast.USub: "u-", ast.Invert: "u~"}
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


def spell(code: str, names: Mapping[str, Expr], dtype: DType, op: str = "an op") -> Expr:
    """The expression that a record's `code` writes, its free names replaced.

    `dtype` is the compute dtype of the operands: literals take it. `cast(x)` is the caller's.
    Raises TypeError, which names `op`, for what kernels cannot compute.
    """
    try:
        return _expression(_parsed(code), names, dtype)
    except TypeError as error:
        raise TypeError(f"the code {code!r} of {op}: {error}") from None


@lru_cache(maxsize=512)
def _parsed(code: str) -> ast.expr:
    return ast.parse(code, mode="eval").body


def _expression(tree: ast.AST, names: Mapping[str, Expr], dtype: DType) -> Expr:
    match tree:
        case ast.Name(id=name):
            if name not in names:
                raise TypeError(f"{name} is none of its operands: {', '.join(names)}")
            return names[name]
        case ast.Constant(value=bool() | int() | float() as value):
            return Const(value, dtype)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            args = (_expression(left, names, dtype), _expression(right, names, dtype))
            return Apply(_BINARY[type(op)], args, args[0].dtype)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            args = (_expression(left, names, dtype), _expression(right, names, dtype))
            return Apply(_BINARY[type(op)], args, bool_)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            arg = _expression(operand, names, dtype)
            return Apply(UNARY[type(op)], (arg,), arg.dtype)
        case ast.Call(func=ast.Name(id=function), args=parts):
            operands = tuple(_expression(p, names, dtype) for p in parts)
            return Apply(function, operands, _result(function, operands))
    raise TypeError(f"{ast.unparse(tree)} is not part of the spelling of an op")


def _result(function: str, args: tuple[Expr, ...]) -> DType:
    row = SCALARS.get(function)
    if row is None:
        raise TypeError(f"{function} is no scalar function, a row of codegen/scalar.py")
    return args[-1].dtype if row.result == "same" else DTYPES[row.result]


def convert(expr: Expr, to: DType) -> Expr:
    """`expr` in another dtype; the half types are rounded and stay in their compute dtype."""
    if to.compute is not to:
        return Apply(f"round_{to.name}", (expr,), to.compute)
    return expr if expr.dtype == to else Apply(to.name, (expr,), to)
