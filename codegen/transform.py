"""The kernel dialect rewritten: the one step that all compilers of kernels share.

Numba's own rules would make `i32 + i32` an int64, `0.5` a float64 and `a // b` a branch. So
every operator on values becomes a call of a row of `scalar.py`, every float literal a constant
of the kernel's dtype, `s += e` an accumulation, and every name the target's own object. Index
arithmetic (inside subscripts and `range`) keeps Python's operators, which Numba computes in
int64.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType, ModuleType
from typing import Any

from graphc.codegen.device_helpers import DeviceHelper
from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import Layout, error_at, function_tree, in_memory
from graphc.codegen.scalar import ELEMENTS, SCALARS
from graphc.codegen.trees import statements
from graphc.codegen.vectors import WIDTHS, VectorArray, VectorType, literal_quotient, read_slice
from graphc.codegen.versions import versioned
from graphc.dtypes import DTYPES, Dim, DType, Size, Type, f32, i32
from graphc.errors import ParseError

_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder",
    ast.Pow: "pow",
    ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or",
    ast.BitXor: "bitwise_xor",
    ast.LShift: "left_shift",
    ast.RShift: "right_shift",
}
_COMPARE: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_PLAIN_INDEX = (ast.Add, ast.Sub, ast.Mult)
MOST_TURNS = 64  # of a loop that is unrolled because it indexes registers
FAILED = "_failed"  # the local that holds the greatest code of a failed check


@dataclass(frozen=True)
class Vocabulary:
    """What a target offers to the rewritten function."""

    functions: Mapping[str, Any]  # rows of scalar.py, `scratch`, `scratch_like`, `like`, ...
    scratch: Callable[[Type, int, int], Any]  # type, slot and slots to the target's buffer type
    helper: Callable[[DeviceHelper], Any]  # the helper, made callable
    modules: Mapping[str, ModuleType]  # names left alone, such as `cuda`
    counter: DType | None = None  # count loops in this dtype by hand, not by Numba's range
    located: Callable[[str], Any] | None = None  # the buffer type of a buffer found by address
    # The type of a thread's own array; None where the target has no vectors and no such arrays.
    registers: Callable[[Type | VectorArray], Any] | None = None
    threads: int = 0  # the threads of a block, 0 where there are none


class _Rewriter(ast.NodeTransformer):
    """Rewrites one function; `environment` are the globals it was written against."""

    def __init__(
        self,
        environment: Mapping[str, Any],
        vocabulary: Vocabulary,
        literals: DType,
        slots: tuple[int, int],
        filename: str,
        width: int = 1,
    ) -> None:
        self.environment, self.vocabulary, self.literals = environment, vocabulary, literals
        self.width = width
        self.next_slot, self.slots = slots
        self.filename = filename
        self.globals: dict[str, Any] = {}
        self.locals: set[str] = set()
        self.kept: set[str] = set()  # the names of registers
        self.sizes: Mapping[str, Dim] = {}  # the parameters that hold sizes
        self.types: dict[str, Type] = {}  # of buffers with sizes that are parameters
        self.in_index = False
        self.checks = False
        self.loops = 0

    def visit(self, node: ast.AST) -> Any:
        """What a node becomes, at the place where the node was."""
        made = super().visit(node)
        if isinstance(made, ast.AST) and hasattr(node, "lineno") and not hasattr(made, "lineno"):
            ast.copy_location(made, node)
        return made

    # --- names and constants ----------------------------------------------------------

    def fail(self, node: ast.AST, message: str) -> ParseError:
        return error_at(self.filename, getattr(node, "lineno", 0), message)

    def bind(self, stem: str, value: Any) -> ast.Name:
        """A global of the rewritten function with this value."""
        name = f"_{stem}"
        while name in self.globals and self.globals[name] is not value:
            name += "_"
        self.globals[name] = value
        return ast.Name(name, ast.Load())

    def call(self, function: str, *operands: ast.expr) -> ast.expr:
        if function not in self.vocabulary.functions:
            raise ParseError(f"{self.filename}: there is no scalar function {function}")
        return ast.Call(
            self.bind(function, self.vocabulary.functions[function]), [*operands], []
        )

    def constant(self, value: Any, dtype: DType) -> ast.Name:
        typed = dtype.compute.numpy.type(dtype.numpy.type(value))
        text = str(typed).replace("-", "minus_").replace("+", "").replace(".", "_")
        name = f"_{dtype.compute.name}_{text}"
        self.globals.setdefault(name, typed)
        return ast.Name(name, ast.Load())

    def number(self, node: ast.expr) -> Any:
        """The Python value of a literal, `inf`, `nan` or a global number; None for others."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.number(node.operand)
            return None if value is None or isinstance(value, bool) else -value
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return node.value
        if isinstance(node, ast.Name) and node.id not in self.locals:
            value = self.environment.get(node.id)
            return value if isinstance(value, (bool, int, float)) else None
        return literal_quotient(node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, float):
            return self.constant(node.value, self.literals)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Store) or node.id in self.locals:
            return node
        number = self.number(node)
        if number is not None:
            return self.visit(ast.Constant(number))
        if node.id in self.vocabulary.modules:
            self.globals[node.id] = self.vocabulary.modules[node.id]
            return node
        if hasattr(builtins, node.id) and node.id not in self.environment:
            return node
        raise self.fail(node, f"{node.id} cannot be used in a kernel")

    # --- operators --------------------------------------------------------------------

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        number = literal_quotient(node)
        if number is not None:
            return self.visit(ast.Constant(number))
        left, right = self.visit(node.left), self.visit(node.right)
        if self.in_index and isinstance(node.op, _PLAIN_INDEX):
            return ast.BinOp(left, node.op, right)
        name = _BINARY.get(type(node.op))
        if name is None:
            raise self.fail(node, f"{type(node.op).__name__} is not an operator of kernels")
        return self.call(name, left, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        number = self.number(node)
        if number is not None and isinstance(node.op, ast.USub):
            return self.visit(ast.Constant(number))
        operand = self.visit(node.operand)
        match node.op:
            case ast.USub():
                return self.call("negative", operand)
            case ast.Invert():
                return self.call("invert", operand)
            case ast.Not():
                return ast.UnaryOp(node.op, operand)
        return operand

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        operands = [self.visit(node.left), *map(self.visit, node.comparators)]
        result: ast.expr | None = None
        for op, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if type(op) not in _COMPARE:
                raise self.fail(node, f"{type(op).__name__} is not a comparison of kernels")
            part = self.call(_COMPARE[type(op)], left, right)
            result = part if result is None else self.call("bitwise_and", result, part)
        assert result is not None
        return result

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """A read; what a subscript that is written means is said where it is assigned."""
        name, index = self.access(node)
        return self.call(f"load{name}", self.visit(node.value), *index)

    def access(self, node: ast.Subscript) -> tuple[str, list[ast.expr]]:
        """How the functions that read and write a subscript end, and their last arguments.

        Those of a slice take its width, the index of its first element, and where it stops if
        it is not whole.
        """
        try:
            found = read_slice(node, self.width)
        except ParseError as error:
            raise self.fail(node, error.message) from None
        if found is None:
            at = node.slice
            index = [self.index(i) for i in (at.elts if isinstance(at, ast.Tuple) else [at])]
            return "", self.flattened(node, index)
        self.need_vectors(node, "a slice")
        index = [*found.index, *([found.stop] if found.stop else [])]
        return "_slice", [ast.Constant(self.width), *map(self.index, index)]

    def flattened(self, node: ast.Subscript, index: list[ast.expr]) -> list[ast.expr]:
        """The index along the one axis of a buffer whose strides are known at run time."""
        type = self.types.get(getattr(node.value, "id", ""))
        if type is None or in_memory(type) == type:
            return index
        if len(index) != type.ndim:
            raise self.fail(node, f"{type} is indexed with {len(index)} integers")
        whole = index[0]
        for size, at in zip(type.shape[1:], index[1:], strict=True):
            whole = ast.BinOp(ast.BinOp(whole, ast.Mult(), _size(size)), ast.Add(), at)
        return [whole]

    def need_vectors(self, node: ast.AST, what: str) -> None:
        if self.vocabulary.registers is None:
            raise self.fail(node, f"{what} is for CUDA kernels")

    def index(self, node: ast.expr) -> ast.expr:
        outer, self.in_index = self.in_index, True
        result = self.visit(node)
        self.in_index = outer
        return result

    # --- calls ------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if node.keywords:
            raise self.fail(node, "a call in a kernel has no keywords")
        if isinstance(node.func, ast.Attribute):
            return self.module_call(node)
        if not isinstance(node.func, ast.Name):
            raise self.fail(node, "only named functions are called in a kernel")
        name = node.func.id
        if name == "range" and name not in self.environment:
            return ast.Call(node.func, [self.index(a) for a in node.args], [])
        target = self.environment.get(name)
        if isinstance(target, DType):
            (operand,) = self.arguments(node, 1)
            return self.cast(DTYPES[target.name], operand)
        if isinstance(target, DeviceHelper):
            operands = [self.visit(a) for a in node.args]
            return ast.Call(self.bind(name, self.vocabulary.helper(target)), operands, [])
        if isinstance(target, VectorType):
            (operand,) = self.arguments(node, 1)
            self.need_vectors(node, name)
            number = self.cast(target.dtype, operand)
            return self.call("splat", number, ast.Constant(target.width))
        known = getattr(target, "__name__", None)
        if known == "scratch":
            return self.scratch(*self.arguments(node, 1))
        if known in ("registers", "iota", *ELEMENTS):
            self.need_vectors(node, name)
            return self.vector_call(node, str(known))
        if known in SCALARS or known == "like":
            return self.call(str(known), *map(self.visit, node.args))
        raise self.fail(node, f"{name} is not a function of kernels")

    def vector_call(self, node: ast.Call, name: str) -> ast.expr:
        """A call of a word that makes or combines vectors, or of `registers`."""
        if name == "iota":
            start, width = self.arguments(node, 2)
            if self.number(width) not in WIDTHS:
                raise self.fail(node, f"{ast.unparse(width)} is no literal width of a vector")
            return self.call(name, self.index(start), self.visit(width))
        (operand,) = self.arguments(node, 1)
        if name != "registers":
            return self.call(name, self.visit(operand))
        assert self.vocabulary.registers is not None
        kind = self.storage(operand)
        return self.call(name, self.bind("registers_type", self.vocabulary.registers(kind)))

    def arguments(self, node: ast.Call, count: int) -> list[ast.expr]:
        """The arguments of a call that takes just so many."""
        if len(node.args) != count:
            name = ast.unparse(node.func)
            raise self.fail(node, f"{name} takes {count} operands, not {len(node.args)}")
        return node.args

    def module_call(self, node: ast.Call) -> ast.expr:
        """`cuda.…(…)`; shared arrays become buffers of ours, shuffles take every dtype."""
        function = ast.unparse(node.func)
        if ".shfl_" in function:
            # The hardware moves words: what is narrower is widened, and is itself again after.
            mask, given, lane = self.arguments(node, 3)
            value = self.visit(given)
            operands = [self.index(mask), self.call("widened", value), self.index(lane)]
            return self.call("like", value, ast.Call(self.visit(node.func), operands, []))
        if function.endswith("shared.array"):
            given, kind = self.arguments(node, 2)
            size = self.visit(given)
            number = self.number(size)
            if not isinstance(number, int) or not isinstance(kind, ast.Call):
                raise self.fail(node, "a shared array is made as array(32, dtype_of(v))")
            (operand,) = self.arguments(kind, 1)
            value = self.visit(operand)
            spec = self.vocabulary.scratch(Type(self.literals, (number,)), 0, 1)
            return self.call("scratch_like", value, self.bind("parts", spec))
        return ast.Call(self.visit(node.func), [self.index(a) for a in node.args], [])

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """`cuda.threadIdx.x` and its like are int32 to Numba and int64 to a kernel.

        A block has one dimension, whose size is known.
        """
        if ast.unparse(node) == "cuda.blockDim.x" and self.vocabulary.threads:
            return ast.Constant(self.vocabulary.threads)
        attribute = ast.Attribute(self.visit(node.value), node.attr, node.ctx)
        if node.attr in ("x", "y", "z"):
            return self.call("i64", attribute)
        return attribute

    def cast(self, dtype: DType, operand: ast.expr) -> ast.expr:
        number = self.number(operand)
        if number is not None:
            return self.constant(number, dtype)
        name = dtype.name if dtype.compute is dtype else f"round_{dtype.name}"
        return self.call(name, self.visit(operand))

    def storage(self, node: ast.expr) -> Type | VectorArray:
        """The type that an expression is, its sizes numbers or parameters."""
        try:
            kind = eval(ast.unparse(node), {**self.environment, **self.sizes})
        except Exception:  # whatever a user wrote there
            kind = None
        known = {*self.sizes.values()}
        if isinstance(kind, VectorArray) or (
            isinstance(kind, Type) and all(isinstance(n, int) or n in known for n in kind.shape)
        ):
            return kind
        raise self.fail(node, f"{ast.unparse(node)} is no type of storage of known size")

    def scratch(self, node: ast.expr) -> ast.expr:
        kind = self.storage(node)
        if not isinstance(kind, Type):
            raise self.fail(node, "scratch takes the type of a buffer")
        spec = self.vocabulary.scratch(in_memory(kind), self.next_slot, self.slots)
        self.next_slot += 1
        given = self.bind(f"scratch_{self.next_slot}", spec)
        if kind.is_static:
            return self.call("scratch", given)
        if self.vocabulary.threads:
            raise self.fail(node, "the sizes of scratch are numbers in CUDA kernels")
        count = reduce(lambda n, size: ast.BinOp(n, ast.Mult(), size), map(_size, kind.shape))
        return self.call("scratch", given, count)

    # --- statements -------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> ast.stmt | list[ast.stmt]:
        """A loop over a range, spelled as a while loop where the target wants that.

        The counter is hidden, so `continue` and assignments to the variable mean what they
        should.
        """
        bounds = self.range_bounds(node)
        body = [s for part in node.body for s in _as_list(self.visit(part))]
        if bounds is None or self.vocabulary.counter is None:
            loop = ast.For(self.visit(node.target), self.visit(node.iter), body, [])
            return ast.copy_location(loop, node)
        self.loops += 1
        counter, end = f"_count_{self.loops}", f"_end_{self.loops}"
        kind = self.vocabulary.counter.name
        start, stop, step = (self.call(kind, self.index(b)) for b in bounds)
        now = ast.Name(counter, ast.Load())
        head = [
            ast.Assign([node.target], self.call("i64", now)),
            ast.Assign([ast.Name(counter, ast.Store())], self.call("add", now, step)),
        ]
        test = self.call("less", now, ast.Name(end, ast.Load()))
        if self.unrolls(node, bounds):
            body.append(ast.Expr(self.call("unroll")))
        return [
            ast.Assign([ast.Name(counter, ast.Store())], start),
            ast.Assign([ast.Name(end, ast.Store())], stop),
            ast.copy_location(ast.While(test, [*head, *body], []), node),
        ]

    def unrolls(self, node: ast.For, bounds: Sequence[ast.expr]) -> bool:
        """Whether a loop indexes registers in a few turns, which must not stay a loop then."""
        start, stop, step = map(self.number, bounds)
        if not isinstance(start, int) or not isinstance(stop, int):
            return False
        indexed = {
            part.value.id
            for part in ast.walk(node)
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name)
        }
        return len(range(start, stop, step)) <= MOST_TURNS and not indexed.isdisjoint(self.kept)

    def range_bounds(self, node: ast.For) -> list[ast.expr] | None:
        """Start, stop and step of a loop over a range with a positive constant step."""
        call = node.iter
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "range"):
            raise self.fail(node, "a loop of a kernel runs over a range")
        if node.orelse or not isinstance(node.target, ast.Name):
            raise self.fail(node, "a loop of a kernel has one variable and no else")
        bounds = list(call.args)
        if len(bounds) == 1:
            bounds.insert(0, ast.Constant(0))
        if len(bounds) == 2:
            bounds.append(ast.Constant(1))
        step = self.number(bounds[2])
        return bounds if isinstance(step, int) and step > 0 else None

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        """`s += e` accumulates; `+=` of a product may use one FMA."""
        # A copy that is read, not stored.
        current = ast.parse(ast.unparse(node.target), mode="eval").body
        current = self.visit(current)
        value = node.value
        match node.op, value:
            case ast.Add(), ast.BinOp(op=ast.Mult()):
                factors = self.visit(value.left), self.visit(value.right)
                result = self.call("accumulate_product", current, *factors)
            case ast.Add(), _:
                result = self.call("accumulate_add", current, self.visit(value))
            case ast.Sub(), _:
                negated = self.call("negative", self.visit(value))
                result = self.call("accumulate_add", current, negated)
            case ast.Mult(), _:
                result = self.call("accumulate_multiply", current, self.visit(value))
            case ((ast.BitAnd() | ast.BitOr() | ast.BitXor()), _):
                result = self.call(_BINARY[type(node.op)], current, self.visit(value))
            case _:
                raise self.fail(node, "this augmented assignment is not in kernels")
        return self.assigned(node.target, result)

    def assigned(self, target: ast.expr, value: ast.expr) -> ast.stmt:
        """`target = value`, the value rewritten already."""
        if isinstance(target, ast.Subscript):
            name, index = self.access(target)
            return ast.Expr(self.call(f"store{name}", self.visit(target.value), value, *index))
        return ast.Assign([self.visit(target)], value)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | None:
        if isinstance(node.value, ast.Constant):
            return None
        call = node.value
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check":
            self.checks = True
            condition, code = self.arguments(call, 2)
            failed = ast.Name(FAILED, ast.Load())
            number = self.constant(self.number(code), i32)
            zero = self.constant(0, i32)
            worst = self.call("where", self.visit(condition), zero, number)
            return ast.Assign(
                [ast.Name(FAILED, ast.Store())], self.call("maximum", failed, worst)
            )
        return ast.Expr(self.visit(node.value))

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="scratch"), args=[kind]),
            ):
                type = self.storage(kind)
                if isinstance(type, Type):
                    self.types[name] = type
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="buffer_at"), args=[address, _]),
            ) if self.vocabulary.located is not None:
                spec = self.bind(f"type_of_{name}", self.vocabulary.located(name))
                buffer = self.call("buffer_at", self.visit(address), spec)
                return ast.Assign(node.targets, buffer)
        if len(node.targets) > 1:
            raise self.fail(node, "an assignment in a kernel has one target")
        return self.assigned(node.targets[0], self.visit(node.value))


def _size(size: Size) -> ast.expr:
    return ast.Constant(size) if isinstance(size, int) else ast.Name(size.name, ast.Load())


def _as_list(part: Any) -> list[ast.stmt]:
    return part if isinstance(part, list) else [] if part is None else [part]


def _local_names(tree: ast.FunctionDef) -> set[str]:
    stored = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return stored | {a.arg for a in tree.args.args} | {FAILED}


def _register_names(tree: ast.FunctionDef) -> set[str]:
    """The variables to which statements `name = registers(...)` give arrays."""
    return {
        target.id
        for node in statements(tree.body)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "registers"
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _flush(body: list[ast.stmt]) -> list[ast.stmt]:
    """Before every return and at the end, a failed check goes to the status word."""
    text = f"if {FAILED} != 0:\n    _store(status, {FAILED}, 0)"

    class Returns(ast.NodeTransformer):
        def visit_Return(self, node: ast.Return) -> list[ast.stmt]:
            return [*ast.parse(text).body, node]

    flat = [s for part in body for s in _as_list(Returns().visit(part))]
    start = ast.parse(f"{FAILED} = {FAILED}_start").body
    return [*start, *flat, *ast.parse(text).body]


@dataclass(frozen=True)
class Rewritten:
    """The statements of a kernel, and what their names stand for that are no variables."""

    body: list[ast.stmt]
    names: dict[str, Any]


def rewritten(kernel: KernelSource, layout: Layout, vocabulary: Vocabulary) -> Rewritten:
    """The kernel in the words of `vocabulary`; raises ParseError where it leaves the dialect."""
    first = max(layout.slots.values(), default=-1) + 1
    environment = kernel.function.__globals__
    if kernel.width != 1 and vocabulary.registers is None:
        raise ParseError(f"{layout.filename}: kernel {kernel.name}: width is for CUDA kernels")
    slots = (first, layout.slot_count)
    rewriter = _Rewriter(
        environment, vocabulary, kernel.literals, slots, layout.filename, kernel.width
    )
    rewriter.sizes = {n: Dim(n) for n, kind in kernel.params if not isinstance(kind, Type)}
    rewriter.types = {n: kind for n, kind in kernel.params if isinstance(kind, Type)}
    body = _rewritten_body(rewriter, versioned(layout.tree, kernel.width))
    if rewriter.checks:
        body = _flush(body)
        rewriter.bind("store", vocabulary.functions["store"])
        rewriter.globals[f"{FAILED}_start"] = i32.numpy.type(0)
    return Rewritten(body, rewriter.globals)


def rewrite(
    kernel: KernelSource,
    layout: Layout,
    vocabulary: Vocabulary,
    params: Sequence[str],
    prologue: str = "",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[..., None]:
    """The kernel as a function that Numba compiles for the target of `vocabulary`.

    Its parameters are `params`; `prologue` is text put before its body, whose names are
    `given`. Raises ParseError where the body leaves the dialect.
    """
    made = rewritten(kernel, layout, vocabulary)
    body = [*ast.parse(prologue).body, *made.body]
    return _build(kernel.name, params, body, made.names | dict(given), layout.filename)


def rewrite_helper(helper: DeviceHelper, vocabulary: Vocabulary) -> Callable[..., Any]:
    """A block helper as a function that Numba compiles for the target of `vocabulary`."""
    tree, filename = function_tree(helper.function, None)
    captured = inspect.getclosurevars(helper.function).nonlocals
    known = {**helper.function.__globals__, **captured}
    rewriter = _Rewriter(known, vocabulary, f32, (0, 1), filename)
    body = _rewritten_body(rewriter, tree)
    params = [a.arg for a in tree.args.args]
    return _build(helper.name, params, body, rewriter.globals, filename)


def _rewritten_body(rewriter: _Rewriter, tree: ast.FunctionDef) -> list[ast.stmt]:
    rewriter.locals = _local_names(tree)
    rewriter.kept = _register_names(tree)
    return [s for part in tree.body for s in _as_list(rewriter.visit(part))]


def _build(
    name: str, params: Sequence[str], body: list[ast.stmt], given: dict[str, Any], filename: str
) -> Callable[..., Any]:
    tree = ast.parse(f"def {name}({', '.join(params)}):\n    pass")
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.body = body
    ast.fix_missing_locations(tree)
    namespace: dict[str, Any] = dict(given)
    exec(builtins.compile(tree, filename, "exec", dont_inherit=True), namespace)
    return namespace[name]
