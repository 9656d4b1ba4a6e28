"""How near a compiled graph must be to the interpreter, and whether it is.

The meaning of a graph is the interpreter's run of it after `expand`: later passes keep each
bit. Compiled it must have the same bits, except where a node may round differently: a
scalar function that states more than half an ulp, or a sum, product or matrix product, whose
order is free. There the interpreter is run again with such nodes off by as much as they may be,
and the compiled result must lie within a few times of what that changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.kernel import Apply, Const
from graphc.codegen.scalar import SCALARS
from graphc.codegen.spelling import spell
from graphc.codegen.walks import subexpressions
from graphc.dtypes import DType, Type, f32, f64
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Value
from graphc.kinds import CONTRACTION, ELEMENTWISE, REDUCTION, SCATTER
from graphc.opdef import Op
from graphc.passes.expand import expand

Arrays = Sequence[Any]
SLACK = 4.0
"""How many times the change of a perturbed run a compiled result may be off."""
SIGNS = (1.0, -1.0, None, None, None, None)
"""Perturbed runs: all nodes up, all down, and with random signs."""
ANYTHING = (np.nan, np.nan, np.inf, -np.inf, 0.0, 0.0)
"""What a run takes for a float of which anything may come."""
EPS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}
ZERO_SIGNS = ("maximum", "minimum", "max", "min", "sign")
"""Ops for which NumPy's sign of a zero depends on the dtype and the order of the operands."""
TINY = {"f64": 2.0**-1022, "f32": 2.0**-126, "f16": 2.0**-14, "bf16": 2.0**-126}


@dataclass(frozen=True)
class Reference:
    """The interpreter's outputs, which of them keep each bit, and perturbed runs of it."""

    outputs: list[Any]
    exact: list[bool]
    perturbed: list[list[Any]]


def reference(graph: Graph, arrays: Arrays) -> Reference:
    """What a compiled run of the graph is to be compared with."""
    meaning = expand(graph)
    plain = _Run(meaning, arrays, 0.0)
    exact = [v not in plain.loose for v in meaning.outputs]
    perturbed = [
        _Run(meaning, arrays, sign, seed).outputs
        for seed, sign in enumerate(SIGNS)
        if not all(exact)
    ]
    return Reference(plain.outputs, exact, perturbed)


class _Run:
    """A run of the interpreter in which nodes that may round differently are off by that.

    `sign` is 1 or -1 for all elements, None for random ones, 0 for a run that is not perturbed.
    `loose` holds the values that may differ.
    """

    def __init__(self, graph: Graph, arrays: Arrays, sign: float | None, seed: int = 0) -> None:
        self.values: dict[Value, Any] = dict(zip(graph.inputs, arrays, strict=True))
        self.sign = sign
        self.rng = np.random.default_rng(seed)
        self.anything = ANYTHING[seed]
        self.loose: set[Value] = set()
        with np.errstate(all="ignore"):
            for node in graph.nodes:
                self.node(node)
        self.outputs = [self.values[v] for v in graph.outputs]

    def node(self, node: Node) -> None:
        args = [
            self.values[o] if isinstance(o, Value) else o.dtype.numpy.type(o.value)
            for o in node.operands
        ]
        assert isinstance(node.op, Op)
        made = node.op.numpy(*args, **node.attrs)
        shaken = any(v in self.loose for v in node.values)
        results = made if isinstance(made, tuple) else (made,)
        for value, array in zip(node.results, results, strict=True):
            array = np.asarray(array).astype(value.type.dtype.numpy, copy=False)
            bound, vague = freedom(node, args, array, shaken)
            if bound is not None or np.any(vague) or shaken:
                self.loose.add(value)
            if self.sign != 0.0:
                array = self.moved(node.op.name, array, bound, vague)
            self.values[value] = array

    def moved(self, name: str, array: Any, bound: Any, vague: Any) -> Any:
        signs = self.rng.choice((-1.0, 1.0), array.shape) if self.sign is None else self.sign
        if bound is not None:
            wide = array.astype(np.float64)
            there = np.isfinite(wide)
            moved = wide + signs * np.where(there, bound, 0.0)
            if self.sign is None:  # a few ulp of a subnormal number are all of it
                moved = np.where((np.abs(wide) < bound) & (signs > 0), 0.0 * wide, moved)
            array = np.where(there, moved.astype(array.dtype), array)
        if np.any(vague):
            other: Any = self.anything
            if name in ZERO_SIGNS:
                other = np.where(signs > 0, -array, array)
            array = np.where(vague, other, array).astype(array.dtype)
        return array


def freedom(node: Node, args: Sequence[Any], array: Any, shaken: bool) -> tuple[Any, Any]:
    """How far a compiled result may be from the interpreter's, and where it may be anything.

    Anything may come of sums that overflow in some order. The bound is None where each bit is
    to be kept.
    """
    op, dtype = node.op, node.types[0].dtype
    assert isinstance(op, Op)
    if not dtype.is_float:
        return None, False
    eps, size = EPS[dtype.name], np.abs(array.astype(np.float64))
    if op.name in ZERO_SIGNS:
        return None, _both_zeros(args, dtype) & (array == 0)
    if not accumulates(node):
        ulp = ulp_of(op, dtype)
        if not ulp and not (shaken and op.kind is ELEMENTWISE):
            return None, False
        # The interpreter's own function is not exact either.
        return (ulp + 1.0) * eps * np.maximum(size, TINY[dtype.name]), False
    length = max(1, int(np.prod([o.type.size for o in node.operands])) // max(1, array.size))
    if op.step[4:5] == "*":
        factors = np.nan_to_num(np.abs(np.asarray(args[0], np.float64)), posinf=1.0)
        large = op.numpy(np.maximum(factors, 1.0), **node.attrs)
        small = op.numpy(np.where(factors == 0, 1.0, np.minimum(factors, 1.0)), **node.attrs)
        extreme = ~np.isfinite(large.astype(dtype.numpy)) | (small < TINY[dtype.name])
        return length * eps * size, extreme
    total = _total(node, args)
    return length * eps * np.nan_to_num(total, posinf=0.0), ~np.isfinite(
        total.astype(dtype.numpy)
    )


def _both_zeros(args: Sequence[Any], dtype: DType) -> Any:
    """Where operands are zeros of both signs; anywhere along a reduction."""
    zero = [np.asarray(a) == 0 for a in args]
    minus = [np.signbit(np.asarray(a, np.float64)) for a in args]
    if len(args) == 2:
        return zero[0] & zero[1] & (minus[0] != minus[1])
    negative = np.any(zero[0] & minus[0])
    return negative and (dtype.itemsize == 2 or np.any(zero[0] & ~minus[0]))


def _total(node: Node, args: Sequence[Any]) -> Any:
    """An accumulation of magnitudes, what is not finite taken as 0.

    An infinity that was computed stays: as a product it may be accumulated before it overflows.
    """
    assert isinstance(node.op, Op)
    wide = []
    for operand, array in zip(node.operands, map(np.asarray, args), strict=True):
        if array.dtype.kind not in "iub":
            array = np.abs(array.astype(np.float64))
            given = isinstance(operand, Literal) or operand.is_input
            array = np.where(np.isnan(array) | (given & np.isinf(array)), 0.0, array)
        wide.append(array)
    return np.asarray(node.op.numpy(*wide, **node.attrs), np.float64)


def accumulates(node: Node) -> bool:
    """Whether a node accumulates floats in an order, or a precision, that is free."""
    op, dtype = node.op, node.types[0].dtype
    assert isinstance(op, Op)
    if not dtype.is_float:
        return False
    if op.kind is SCATTER:
        return dtype.itemsize == 2 and op.step[4:5] == "+"
    return op.kind is CONTRACTION or (op.kind is REDUCTION and op.step[4:5] in "+*")


def in_float64(graph: Graph, arrays: Arrays) -> list[Any]:
    """The interpreter's outputs with every f32 of the graph as f64."""
    wide = {f32: f64}

    def widen(type: Type) -> Type:
        return type.with_dtype(wide.get(type.dtype, type.dtype))

    return interpret(
        retyped(expand(graph), widen),
        [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays],
    )


def retyped(graph: Graph, change: Callable[[Type], Type]) -> Graph:
    """The graph with other types of its inputs, literals and attributes."""
    builder = Builder(graph.name)
    values: dict[Value, Value] = {
        v: builder.parameter(change(v.type), v.name) for v in graph.inputs
    }

    def literal(o: Literal) -> Literal:
        return Literal(o.value, change(Type(o.dtype, ())).dtype)

    for node in graph.nodes:
        assert isinstance(node.op, Op)
        operands = [values[o] if isinstance(o, Value) else literal(o) for o in node.operands]
        attrs = {
            k: change(Type(a, ())).dtype if isinstance(a, DType) else a
            for k, a in node.attrs.items()
        }
        values.update(zip(node.results, builder.emit(node.op, operands, attrs), strict=True))
    return builder.graph([values[v] for v in graph.outputs])


def ulp_of(op: Op, dtype: Any) -> float:
    """How many ulp a compiled elementwise op may be off: the bounds of its functions added."""
    if op.kind is not ELEMENTWISE:
        return 0.0
    at = 1 if dtype is f64 else 0
    total = 0.0
    for code in op.code:
        names = {name: Const(1, f64) for name in (*op.operands, "D")}
        try:
            expr = spell(code, names, f64)
        except (KeyError, TypeError):
            continue
        for part in subexpressions(expr):
            if isinstance(part, Apply) and part.function in SCALARS:
                bound = SCALARS[part.function].ulp[at]
                total += bound if bound > 0.5 else 0.0
    return total


# --- comparing ----------------------------------------------------------------------------


def same_bits(a: Any, b: Any) -> Any:
    """Elementwise: the same number; any NaN equals any NaN, and zeros have signs."""
    if a.dtype.kind in "biu":
        return a == b
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def check(outputs: Sequence[Any], expected: Reference) -> None:
    """The outputs are the interpreter's, as near as their nodes allow."""
    assert len(outputs) == len(expected.outputs)
    for number, (got, want) in enumerate(zip(outputs, expected.outputs, strict=True)):
        assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, got.shape)
        runs = [run[number] for run in expected.perturbed]
        good = same_bits(got, want) if expected.exact[number] else _near(got, want, runs)
        if not np.all(good):
            raise AssertionError(_message(number, got, want, good, expected.exact[number]))


def _near(got: Any, want: Any, runs: Sequence[Any]) -> Any:
    """Within a few times of what perturbed runs changed; no matter where they disagree."""
    if want.dtype.kind in "biu":
        vague = ~np.logical_and.reduce([run == want for run in runs])
        return (got == want) | vague
    wide = want.astype(np.float64)
    with np.errstate(all="ignore"):
        changes = [np.abs(run.astype(np.float64) - wide) for run in runs]
        spread = np.max([np.nan_to_num(c, nan=0.0, posinf=0.0) for c in changes], axis=0)
        vague = np.logical_or.reduce(
            [~(np.isfinite(run) & np.isfinite(want)) & ~same_bits(run, want) for run in runs]
        )
        off = np.abs(got.astype(np.float64) - wide)
        equal = (got == want) | (np.isnan(got) & np.isnan(want))
        return equal | vague | (off <= SLACK * spread)


def _message(number: int, got: Any, want: Any, good: Any, exact: bool) -> str:
    at = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
    count = int(np.sum(~np.asarray(good)))
    kind = "exact" if exact else "rounded"
    return (
        f"output {number} ({kind}): {count} of {got.size} are wrong; "
        f"at {at} {got[at]!r} instead of {want[at]!r}"
    )
