"""The NumPy reference at the end of an emitted file: what the kernel computes, for comparison.

It is printed from the graph nodes of which the kernel was made, by their kinds and the fields
of their records, and knows nothing of loops: floats are float64 and every operation is NumPy's
own where it has one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.codegen.kernel import Kernel, Meaning
from graphc.codegen.kernel_text import float_text
from graphc.codegen.lines import folded, signature
from graphc.codegen.names import Names
from graphc.codegen.reference_totals import (
    TotalSpelling,
    combines,
    needed_totals,
    partials_of,
    results_in_parts,
    whole_of,
)
from graphc.codegen.scalar import SCALARS
from graphc.codegen.scatter import is_scatter
from graphc.dtypes import Type
from graphc.ir import Literal, Node, Value
from graphc.kinds.base import loops_of, numpy_name
from graphc.kinds.indexed import moved_axes, spelled_index
from graphc.naming import PARTS, value_name
from graphc.opdef import op_of

WIDTH = 64
"""Characters up to which an unnamed value is written where it is used."""
LINE = 80
"""Characters of an expression from which its operands get names."""


@dataclass(frozen=True)
class Reference:
    """The lines of `def reference(...)`, and the names that they need of the helper module.

    `totals` spells, for each parameter that is to hold partials, the function that combines them
    and along which axis, or one of the `functions`, whose lines stand above.
    """

    lines: tuple[str, ...]
    used: frozenset[str]
    totals: Mapping[str, str]
    functions: tuple[str, ...] = ()


def print_reference(kernel: Kernel) -> Reference | None:
    """The reference of a kernel; None for one that was made of no graph."""
    if any(part.meaning is None for part in kernel.whole):
        return None
    return _Writer(kernel).reference()


def input_roles(kernel: Kernel) -> dict[str, str]:
    """What a run of the file gives each buffer: its role, or `range(n)` for indices below n."""
    roles: dict[str, str] = {}
    for part in kernel.whole:
        for param in part.params:
            role = "output" if param.role == "status" else param.role
            roles.setdefault(param.name, f'"{role}"')
        if part.meaning is not None:
            name_of = {v: name for name, v in part.meaning.binding.items()}
            for node in part.meaning.nodes:
                for name, size in _indices(node, name_of):
                    if roles.get(name) == '"input"':
                        roles[name] = f"range({size})"
    return roles


def _indices(node: Node, name_of: Mapping[Value, str]) -> list[tuple[str, int]]:
    """The inputs that hold indices by which a node looks elements up, and their bounds."""
    loops, found = loops_of(node), []
    for atom in loops.loaded() if loops is not None else ():
        indices = node.operands[atom.value]
        while isinstance(indices, Value) and indices not in name_of and indices.node.operands:
            indices = indices.node.operands[0]
        if isinstance(indices, Value) and indices in name_of:
            found.append((name_of[indices], atom.size))
    return found


# --- the function -------------------------------------------------------------------------


@dataclass
class _Writer:
    """Writes the reference of one kernel."""

    kernel: Kernel
    names: Names = field(default_factory=Names)
    lines: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    known: dict[Value, ast.expr] = field(default_factory=dict)

    def reference(self) -> Reference:
        """The whole function."""
        inputs: dict[str, None] = {}
        outputs: list[Value] = []
        totals: dict[str, str] = {}
        functions: list[str] = []
        for part in self.kernel.whole:
            self.names.taken |= {p.name for p in part.params if p.role in ("input", "inout")}
        for part in self.kernel.whole:
            assert part.meaning is not None
            given, wanted = self._part(part, part.meaning)
            inputs |= dict.fromkeys(given)
            outputs += wanted
            for name, total in results_in_parts(part).items():
                totals[name] = f"({combines(total.value)}, {total.chunks})"
                if total.step is not None:
                    totals[name] = whole_of(name)
                    functions += self._function(part, name)
        results = self._results(outputs)
        lines = [f"    {line}" for line in (*self.lines, f"return {results}")]
        return Reference(
            (
                *signature("reference", list(inputs)),
                '    """What the kernel computes, by NumPy; floats are float64."""',
                *(part for line in lines for part in folded(line)),
            ),
            frozenset(self.used),
            totals,
            tuple(functions),
        )

    def _part(self, kernel: Kernel, meaning: Meaning) -> tuple[list[str], list[Value]]:
        """Write what one kernel computes; its inputs, and its results."""
        # Where every buffer runs along one axis of any size, so does every value.
        arrays = [p.type for p in kernel.params if p.type.shape]
        pointwise = all(map(_is_pointwise, meaning.nodes))
        self.flat = pointwise and bool(arrays) and not any(t.is_static for t in arrays)
        params = {p.name: p for p in kernel.params}
        given = {n: meaning.before.get(n, v) for n, v in meaning.binding.items()}
        inputs = [n for n in given if params[n].role in ("input", "inout")]
        parts = results_in_parts(kernel)
        totals = {name: total.value for name, total in parts.items()}
        wanted = [
            value
            for name, value in (dict(meaning.binding) | totals).items()
            if params[name].role != "input"
        ]
        for name in inputs:
            self._input(name, params[name].type, given[name])
        spelling = self._spelling(kernel, self.names.fresh)
        for name, total in meaning.totals.items():
            if name not in parts:
                inputs.append(name)
                lets, made = spelling.total(name, total, self.known)
                self.lines += [f"{n} = {ast.unparse(e)}" for n, e in lets]
                self._name(total.value, made)
        self._count_uses(meaning.nodes, wanted)
        self.returned = set(wanted)
        for node in meaning.nodes:
            self._node(node)
        return inputs, wanted

    def _results(self, outputs: Sequence[Value]) -> str:
        """What is returned, on one line."""
        for value in sorted(outputs, key=lambda v: -len(ast.unparse(self.known[v]))):
            text = ", ".join(ast.unparse(self.known[v]) for v in outputs)
            if len(text) <= LINE or isinstance(self.known[value], ast.Name):
                break
            self._name(value, self.known[value])
        return ", ".join(ast.unparse(self.known[v]) for v in outputs)

    def _input(self, name: str, given: Type, value: Value) -> None:
        self.known[value] = ast.Name(name)
        if given.shape != value.type.shape and not self.flat:
            self.lines.append(f"{name} = np.reshape({name}, {value.type.static_shape})")

    def _spelling(self, kernel: Kernel, fresh: Callable[[str], str]) -> TotalSpelling:
        types = {p.name: p.type for p in kernel.params}
        return TotalSpelling(self._code, _number, combines, types, fresh)

    def _function(self, kernel: Kernel, name: str) -> Iterator[str]:
        """The lines of a function: what the partials of a parameter are parts of."""
        assert kernel.meaning is not None
        totals, spelling = kernel.meaning.totals, self._spelling(kernel, Names().fresh)
        known: dict[Value, ast.expr] = {}
        yield from signature(whole_of(name), partials_of(name, totals))
        for part in (*needed_totals(name, totals), name):
            lets, made = spelling.total(part, totals[part], known)
            value = totals[part].value
            known[value] = ast.Name(part.removesuffix(PARTS))
            lets = [*lets, (part.removesuffix(PARTS), made)]
            for own, expr in lets[: -1 if part == name else None]:
                yield from folded(f"    {own} = {ast.unparse(expr)}")
        yield from (*folded(f"    return {ast.unparse(made)}"), "", "")

    def _count_uses(self, nodes: Sequence[Node], outputs: Any) -> None:
        self.uses: dict[Value, int] = {}
        for value in (*(v for n in nodes for v in n.values), *outputs):
            self.uses[value] = self.uses.get(value, 0) + 1

    # --- nodes --------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if is_scatter(node):
            self._scatter(node, self._operands(node))
            return
        made = self._spellings(node, self._operands(node))
        nested = [v for v in node.values if not isinstance(self.known[v], ast.Name)]
        while nested and any(len(ast.unparse(e)) > LINE for e in made):
            longest = max(nested, key=lambda v: len(ast.unparse(_repeated(self.known[v]))))
            nested.remove(longest)
            self._name(longest, self.known[longest])
            made = self._spellings(node, self._operands(node))
        for value, expr in zip(node.results, made, strict=True):
            if value not in self.known:
                self._bind(value, expr)

    def _operands(self, node: Node) -> list[ast.expr]:
        """The operands; NumPy repeats those of elementwise ops beside one that is whole."""
        given = [_number(o) if isinstance(o, Literal) else self.known[o] for o in node.operands]
        if not op_of(node).kind.is_pointwise:
            return given
        values = [at for at, o in enumerate(node.operands) if isinstance(o, Value)]
        whole = (at for at in values if _repeated(given[at]) is given[at])
        first = next(whole, values[0] if values else 0)
        return [e if at == first else _repeated(e) for at, e in enumerate(given)]

    def _bind(self, value: Value, expr: ast.expr) -> None:
        """Name the value, or keep it as an expression to be written where it is used."""
        width = LINE if value in self.returned else WIDTH
        simple = isinstance(expr, ast.Name | ast.Constant) or _is_simple(_repeated(expr))
        inlined = not value.name and self.uses.get(value, 0) <= 1
        if simple or (inlined and len(ast.unparse(expr)) <= width):
            self.known[value] = expr
        else:
            self._name(value, expr)

    def _name(self, value: Value, expr: ast.expr) -> None:
        """Give the value a name; of one that is repeated, to what is."""
        inner = _repeated(expr)
        if inner is not expr and _is_simple(inner):
            self.known[value] = expr
            return
        name = self.names.fresh(value_name(value))
        self.lines.append(f"{name} = {ast.unparse(inner)}")
        self.known[value] = ast.Name(name)
        if isinstance(expr, ast.Call) and inner is not expr:
            self.known[value] = ast.Call(expr.func, [ast.Name(name), *expr.args[1:]], [])

    def _spellings(self, node: Node, operands: list[ast.expr]) -> list[ast.expr]:
        """An expression for each result."""
        op = op_of(node)
        if op.is_cast:
            return [_cast(node, operands[0])]
        if self.flat and op.kind.is_access:  # all run along the one axis, or are numbers
            return operands
        args = dict(zip(op.names(len(operands)), operands, strict=True))
        return [self._code(code, args) for code in op.kind.spelling(node)]

    def _code(self, code: str, args: Mapping[str, ast.expr]) -> ast.expr:
        made: ast.expr = _Substitute(args, self.used).visit(_parsed(code))
        return made

    def _scatter(self, node: Node, operands: list[ast.expr]) -> None:
        """A copy of what is scattered into, and a statement that does the updates."""
        base, updates, *indices = operands
        axis, batch, own = node.attrs["axis"], node.attrs["batch"], node.operands[-1].type.ndim
        name = self.names.fresh(Value(node).name, "scattered")
        dtype = numpy_name(node.types[0].dtype)
        number = _repeated(base)
        filled = f"np.full({node.types[0].static_shape}, {ast.unparse(number)}, {dtype})"
        copied = f"np.array({ast.unparse(base)}, {dtype})"
        self.lines.append(f"{name} = {copied if number is base else filled}")
        target, index = spelled_index(node, name, [*map(ast.unparse, indices)])
        behind = range(own, own + axis - batch)
        given = moved_axes(ast.unparse(updates), range(batch, axis), behind)
        ufunc, at = _SCATTERS[op_of(node).step], ", ".join(index)
        line = f"{ufunc}.at({target}, ({at},), {given})" if ufunc else f"{target}[{at}] = {given}"
        self.lines.append(line)
        self.known[Value(node)] = ast.Name(name)


_SCATTERS = {
    "acc + u": "np.add",
    "acc * u": "np.multiply",
    "maximum(acc, u)": "np.maximum",
    "minimum(acc, u)": "np.minimum",
    "u": "",
}
"""The ufunc of NumPy's by which a scatter combines; none where it stores."""


def _is_pointwise(node: Node) -> bool:
    """Whether the elements of a node depend on where they are by its operands alone."""
    kind = op_of(node).kind
    return bool(node.operands) and (kind.is_pointwise or kind.is_access)


def _repeated(expr: ast.expr) -> ast.expr:
    """What is broadcast by an expression; any other expression itself."""
    match expr:
        case ast.Call(func=function, args=[inner, _]) if (
            ast.unparse(function) == "np.broadcast_to"
        ):
            return inner
    return expr


def _is_simple(expr: ast.expr) -> bool:
    """Whether an expression is a name or a number, perhaps with more axes."""
    inner = expr.value if isinstance(expr, ast.Subscript) else expr
    return isinstance(inner, ast.Name | ast.Constant)


class _Substitute(ast.NodeTransformer):
    """Replaces operands by what they are, and scalar functions by NumPy's."""

    def __init__(self, args: Mapping[str, ast.expr], used: set[str]) -> None:
        self.args, self.used = args, used

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.args.get(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = node.func
        if isinstance(function, ast.Name):
            row = SCALARS.get(function.id)
            spelling = row.spelling if row is not None else ""
            if not spelling:
                self.used.add(function.id)
            function = ast.Name(spelling or function.id)
        keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        return ast.Call(function, [self.visit(a) for a in node.args], keywords)


def _parsed(code: str) -> ast.expr:
    """A tree of its own: substitution changes it."""
    return ast.parse(code, mode="eval").body


def _call(function: str, *args: ast.expr, keywords: Sequence[ast.keyword] = ()) -> ast.expr:
    return ast.Call(ast.Name(function), list(args), list(keywords))


def _number(literal: Literal) -> ast.expr:
    """A literal, as few digits as its dtype needs; Python has none for nan and infinities."""
    value = literal.value
    if isinstance(value, float) and value != value:
        return ast.Name("np.nan")
    if value in (float("inf"), float("-inf")):
        return _parsed("np.inf" if value > 0 else "-np.inf")
    return _parsed(float_text(value, literal.dtype) if literal.dtype.is_float else repr(value))


def _cast(node: Node, operand: ast.expr) -> ast.expr:
    """A conversion; floats of all sizes are one dtype here."""
    to, source = node.attrs["dtype"], node.operands[0].type.dtype
    if to == source or (to.is_float and source.is_float):
        return operand
    if source.is_float and to.kind == "u" and to.itemsize >= 4:
        # NumPy leaves negative numbers to the machine; kernels make 0 of them.
        operand = _call("np.maximum", operand, ast.Constant(0))
    array = _call("np.asarray", operand)
    return ast.Call(ast.Attribute(array, "astype"), [ast.Name(numpy_name(to))], [])
