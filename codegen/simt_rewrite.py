"""Rewrites one function of a kernel for the SIMT checker: what waits yields, a store calls."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import reduce
from types import FunctionType, MappingProxyType
from typing import Any, TypeGuard

from graphc.codegen.scalar import SCALARS
from graphc.codegen.vectors import VectorType, literal_quotient, read_slice
from graphc.dtypes import DType
from graphc.errors import ParseError, UnsupportedFunction

BLOCK_BARRIERS = frozenset(
    {"syncthreads", "syncthreads_count", "syncthreads_and", "syncthreads_or"}
)
WARP_COLLECTIVES = frozenset(
    {
        "syncwarp", "shfl_sync", "shfl_xor_sync", "shfl_up_sync", "shfl_down_sync",
        "ballot_sync", "any_sync", "all_sync", "eq_sync",
    }
)  # fmt: skip
SCALAR = "scalar"  # waits for its value, which is computed for many threads at once

_ALLOCATORS = MappingProxyType(
    {
        "cuda.shared.array": "_simt_shared",
        "cuda.local.array": "_simt_local",
        "scratch": "_simt_scratch",
        "registers": "_simt_registers",
        "buffer_at": "_simt_buffer",
    }
)


def collective_name(call: ast.Call) -> str | None:
    """`syncthreads` of `cuda.syncthreads()`, None for any other call."""
    func = call.func
    if (
        isinstance(func, ast.Attribute)
        and isinstance(func.value, ast.Name)
        and func.value.id == "cuda"
        and func.attr in BLOCK_BARRIERS | WARP_COLLECTIVES
    ):
        return func.attr
    return None


def is_accumulated_product(node: ast.AST) -> TypeGuard[Any]:
    """Whether a statement is `total += a * b`, which compiled code computes by an FMA."""
    return (
        isinstance(node, ast.AugAssign)
        and isinstance(node.op, ast.Add)
        and isinstance(node.value, ast.BinOp)
        and isinstance(node.value.op, ast.Mult)
    )


def scalar_name(call: ast.Call, names: Mapping[str, Any]) -> str | None:
    """The row of `scalar.py` that a call names, None for any other call."""
    value = names.get(call.func.id) if isinstance(call.func, ast.Name) else None
    known = getattr(value, "__name__", None)
    return known if isinstance(value, FunctionType) and known in SCALARS else None


def waits(node: ast.AST, names: Mapping[str, Any]) -> bool:
    """Whether a thread waits at this very node for others, or for a value."""
    if isinstance(node, ast.Call):
        return collective_name(node) is not None or scalar_name(node, names) is not None
    return is_accumulated_product(node)


class Rewriter(ast.NodeTransformer):
    """Rewrites one function; `literals` is None where bare floats stay weak (helpers).

    `width` is the number of elements of its slices.
    """

    def __init__(
        self,
        name: str,
        kernel: bool,
        generator: bool,
        collective: set[str],
        names: Mapping[str, Any],
        literals: DType | None,
        width: int = 1,
    ) -> None:
        self.width = width
        self.name, self.kernel, self.generator = name, kernel, generator
        self.collective, self.names, self.literals = collective, names, literals
        self.constants: dict[str, Any] = {}
        self.label = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list, node.returns = [], None
        for argument in node.args.args:
            argument.annotation = None
        node.body = self._block(node.body)
        if self.generator:
            if not self.kernel:
                node.args.args.insert(0, ast.arg("_simt_from"))
            node.body.append(_statement("if False: yield", node.lineno))
        return node

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The statements of one level, led by the count of how many they are."""
        visited: list[ast.stmt] = []
        for statement in body:
            result = self.visit(statement)
            visited += result if isinstance(result, list) else [result]
        return [_statement(f"_simt_count[0] += {len(body)}", body[0].lineno), *visited]

    def _branch(self, node: Any) -> Any:
        """A compound statement: its header rewritten, its bodies led by counts."""
        for name, value in ast.iter_fields(node):
            if name in ("body", "orelse"):
                setattr(node, name, self._block(value) if value else [])
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        return node

    visit_For = visit_If = visit_With = _branch

    def visit_While(self, node: ast.While) -> Any:
        self._branch(node)
        node.body.insert(0, _statement("_simt_spin()", node.lineno))
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        if self.kernel:
            # A thread that leaves early says where, for the barrier that waits for it.
            return ast.copy_location(ast.Return(ast.Constant(node.lineno)), node)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_Assign(self, node: ast.Assign) -> Any:
        stores = [t for t in node.targets if isinstance(t, ast.Subscript)]
        if not stores:
            self.label = ast.unparse(node.targets[0])
            return self.generic_visit(node)
        if len(node.targets) > 1:
            raise self._refuse(node, "more than one target")
        target, value = stores[0], self.visit(node.value)
        part = self._slice(target)
        if part is not None:
            return self._method(target, "store_slice", [*part, value, self._site(node)])
        return self._store(target, self.visit(target.slice), value, node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        if isinstance(node.target, ast.Name):
            old = ast.Name(node.target.id, ast.Load())
            value = self._updated(old, node)
            return ast.copy_location(ast.Assign([node.target], value), node)
        if not isinstance(node.target, ast.Subscript):
            raise self._refuse(node, "an update of an attribute")
        part = self._slice(node.target)
        if part is not None:
            # It is rewritten twice, as what is read and as what is written.
            held = ast.parse(ast.unparse(node.target), mode="eval").body
            ast.increment_lineno(held, node.lineno - 1)
            parts = [*part, self._updated(held, node), self._site(node)]
            return self._method(node.target, "store_slice", parts)
        index = ast.Name("_simt_index", ast.Load())
        keep = ast.Assign([ast.Name("_simt_index", ast.Store())], self.visit(node.target.slice))
        old_item = ast.Subscript(node.target.value, index, ast.Load())
        store = self._store(node.target, index, self._updated(old_item, node), node)
        return [ast.copy_location(keep, node), store]

    def _updated(self, old: ast.expr, node: ast.AugAssign) -> ast.expr:
        """What an update makes of `old`; where it may be one FMA it is the compiled code's."""
        if is_accumulated_product(node):
            factors = [old, node.value.left, node.value.right]
            row: ast.expr = ast.Constant("accumulate_product")
            return self._wait(SCALAR, node.value, [row, *map(self.visit, factors)])
        return self.visit(ast.copy_location(ast.BinOp(old, node.op, node.value), node))

    def _store(
        self, target: ast.Subscript, index: ast.expr, value: ast.expr, node: ast.stmt
    ) -> ast.stmt:
        return self._method(target, "store", [index, value, self._site(node)])

    def _method(self, target: ast.Subscript, name: str, arguments: list[ast.expr]) -> ast.stmt:
        """The statement that calls a method of a buffer for a store to `target`."""
        method = ast.Attribute(target.value, name, ast.Load())
        call = ast.copy_location(ast.Call(method, arguments, []), target)
        return ast.copy_location(ast.Expr(call), target)

    def _slice(self, node: ast.Subscript) -> list[ast.expr] | None:
        """Index, stop and width of a slice, rewritten; None for a subscript that is none."""
        try:
            part = read_slice(node, self.width)
        except ParseError as error:
            where = f"{self.name}, line {node.lineno}"
            raise ParseError(f"{where}: {error.message}") from None
        if part is None:
            return None
        index: list[ast.expr] = [self.visit(i) for i in part.index]
        at = index[0] if len(index) == 1 else ast.Tuple(index, ast.Load())
        stop = self.visit(part.stop) if part.stop else ast.Constant(None)
        return [at, stop, ast.Constant(self.width)]

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        if not isinstance(node.ctx, ast.Load):
            raise self._refuse(node, "a store among several targets")
        part = self._slice(node)
        if part is not None:
            method = ast.Attribute(self.visit(node.value), "load_slice", ast.Load())
            return ast.copy_location(ast.Call(method, part, []), node)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, float) or self.literals is None:
            return node
        name = f"_simt_{len(self.constants)}"
        self.constants[name] = self.literals.compute.numpy.type(node.value)
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        number = literal_quotient(node)
        if number is not None:
            return self.visit(ast.copy_location(ast.Constant(number), node))
        self.generic_visit(node)
        if isinstance(node.op, ast.Pow):
            return self._wait(SCALAR, node, [ast.Constant("pow"), node.left, node.right])
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        """A chain of comparisons is their `&`, as in compiled code: vectors have no `and`."""
        self.generic_visit(node)
        if len(node.ops) == 1:
            return node
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        parts: list[ast.expr] = [ast.Compare(a, [op], [b]) for a, op, b in pairs]
        whole = reduce(lambda a, b: ast.BinOp(a, ast.BitAnd(), b), parts)
        return ast.copy_location(whole, node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, ast.Invert):
            invert = ast.Name("_simt_invert", ast.Load())
            return ast.copy_location(ast.Call(invert, [node.operand], []), node)
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        if node.keywords:
            raise self._refuse(node, "a call with keywords")
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if isinstance(self.names.get(name or ""), DType | VectorType):
            number = self._number(node.args[0])
            if number is not None:
                # f64(0.1) is the double nearest to 0.1, whatever the kernel's literals are.
                node.args = [ast.copy_location(ast.Constant(number), node)]
                return node
        self.generic_visit(node)
        operation = collective_name(node)
        if operation is not None:
            return self._wait(operation, node, node.args)
        row = scalar_name(node, self.names)
        if row is not None:
            return self._wait(SCALAR, node, [ast.Constant(row), *node.args])
        if name in self.collective:
            node.args.insert(0, self._here(node))
            return ast.copy_location(ast.YieldFrom(node), node)
        hidden = _ALLOCATORS.get(ast.unparse(node.func))
        if hidden is not None:
            place = (self.label, f"{self.name}:{node.lineno}:{node.col_offset}")
            node.args.insert(0, ast.Constant(place))  # type: ignore[arg-type]
            node.func = ast.Name(hidden, ast.Load())
        elif name == "check":
            node.args.insert(0, ast.Name("status", ast.Load()))
            node.func = ast.Name("_simt_check", ast.Load())
        return node

    def _number(self, node: ast.expr) -> Any:
        """The Python number that a literal or a global number is, None for anything else."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._number(node.operand)
            return None if number is None else -number
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(node, ast.Name):
            value = self.names.get(node.id)
        return value if isinstance(value, (bool, int, float)) else literal_quotient(node)

    def _wait(self, operation: str, node: ast.expr, arguments: list[ast.expr]) -> ast.expr:
        """`yield (operation, place, arguments)`."""
        parts = [ast.Constant(operation), self._here(node), ast.Tuple(arguments, ast.Load())]
        return ast.copy_location(ast.Yield(ast.Tuple(parts, ast.Load())), node)

    def _here(self, node: ast.expr) -> ast.expr:
        """The chain of (function, line) by which this place was reached, as an expression."""
        place = ast.Constant(((self.name, node.lineno),))  # type: ignore[arg-type]
        if self.kernel:
            return place
        return ast.BinOp(ast.Name("_simt_from", ast.Load()), ast.Add(), place)

    def _site(self, node: ast.stmt) -> ast.expr:
        line = f"line {node.lineno}"
        return ast.Constant(line if self.kernel else f"{self.name}, {line}")

    def _refuse(self, node: Any, what: str) -> UnsupportedFunction:
        return UnsupportedFunction(
            f"{self.name}, line {node.lineno}: the checker does not run {what}"
        )


def _statement(source: str, line: int) -> ast.stmt:
    tree = ast.parse(source)
    ast.increment_lineno(tree, line - 1)
    return tree.body[0]
