"""Every op compiled to PTX, for each dtype that it takes, in the forms that kernels have.

Each distinct kernel is compiled once, for the first capability and for the last, whose code NVVM
makes by another back end. By default each sample and each dtype of an op is there in one form, a
reduction of each dtype in half of them; `--slow` has every sample and dtype in every form.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

from graphc.codegen.ptx_version import FIRST_VERSIONS, stated, target
from graphc.device import CC, H100
from graphc.dtypes import DType, Type, f32, f64, u8
from graphc.errors import ShapeError, TargetError
from graphc.ir import Builder, Graph, Value
from graphc.kinds import GROUP, REDUCTION
from graphc.lowered import EmittedKernel, lower_graph
from graphc.opdef import Op
from graphc.ops import REGISTRY
from graphc.options import Options
from tests.codegen_harness import nodes_of, skip_without_numba_cuda
from tests.op_cases import CASES, SHAPE, Case
from tests.test_ptx_version import refusal

CCS: tuple[CC, ...] = ((7, 5), (12, 0))
OPS = tuple(op for op in REGISTRY if op.kind is not GROUP)
WIDE, TALL, LARGE = (40, 300), (300, 40), (4096, 40)

# --- graphs of one op in each form ----------------------------------------------------------

Shape = tuple[int, ...]
Make = Callable[[Builder, Case, DType], Sequence[Value]]


def applied(builder: Builder, case: Case, dtype: DType, shape: Shape) -> tuple[Value, ...]:
    """The op on operands of `shape`, or of its own shapes where it says some."""
    types = case.types(dtype)
    if "shapes" not in case.hints:
        types = [t.with_shape(shape) for t in types]
    operands = [builder.parameter(t, n) for t, n in zip(types, case.operands, strict=True)]
    return builder.emit(case.op, operands, case.attrs)


def highest(builder: Builder, value: Value, axes: Shape) -> Value:
    return builder.emit(REGISTRY["max"], [value], {"axes": axes})[0]


def reduced(shape: Shape, axis: int | None) -> Make:
    """The op, and the maximum of its result along an axis, or of all of it."""

    def make(builder: Builder, case: Case, dtype: DType) -> Sequence[Value]:
        value = applied(builder, case, dtype, shape)[0]
        axes = tuple(range(value.type.ndim))
        return [highest(builder, value, axes if axis is None else axes[axis:][:1])]

    return make


def kept_row(builder: Builder, case: Case, dtype: DType) -> Sequence[Value]:
    """The result beside its maximum along rows: the row is kept meanwhile."""
    value = applied(builder, case, dtype, WIDE)[0]
    *others, last = range(value.type.ndim)
    top = highest(builder, value, (last,))
    attrs = {"shape": value.type.shape, "dims": tuple(others)}
    repeated = builder.emit(REGISTRY["broadcast"], [top], attrs)[0]
    return builder.emit(REGISTRY["minimum"], [value, repeated])


def over_table(builder: Builder, case: Case, dtype: DType) -> Sequence[Value]:
    return [v for n in (3, 255, 700) for v in applied(builder, case, dtype, (2, n))]


def side_by_side(builder: Builder, case: Case, dtype: DType) -> Sequence[Value]:
    other = builder.parameter(Type(u8, WIDE), "other")
    return [*applied(builder, case, dtype, SHAPE), highest(builder, other, (1,))]


FORMS = MappingProxyType(
    {
        "alone": lambda builder, case, dtype: applied(builder, case, dtype, SHAPE),
        "rows": reduced(WIDE, -1),
        "columns": reduced(TALL, 0),
        "split": reduced(LARGE, 0),
        "total": reduced(LARGE, None),
        "kept row": kept_row,
        "table": over_table,
        "beside": side_by_side,
    }
)
# What shows the form in the source of a `tanh`.
SHOWS = {
    "alone": r"if \w+ < n:",
    "rows": r"warp_max\(",
    "columns": r"across_warps_max\(",
    "split": r"_parts\[",
    "total": r"block_max\(",
    "kept row": r"= registers\(f32x4\[3\]\)",
    "table": r"find_row\(table, 3,",
    "beside": r"cuda\.blockIdx\.x < ",
}


def graph_in(form: str, case: Case, dtype: DType) -> Graph | None:
    """The graph; None where the op's own shapes do not take the form."""
    builder = Builder(f"one_{case.op.name}")
    try:
        return builder.graph(FORMS[form](builder, case, dtype))
    except (ShapeError, IndexError, ValueError):
        return None


def graphs(op: Op, every: bool) -> Iterator[Graph]:
    """The op's graphs: all, or one for each sample and each dtype; more of reductions.

    These are in half of the forms for each dtype, in the other half for the next one.
    """
    cases = [case for case in CASES if case.op is op]
    for number, case in enumerate(cases):
        for place, dtype in enumerate(case.dtypes):
            made = [g for form in FORMS if (g := graph_in(form, case, dtype)) is not None]
            assert made, (case, dtype)
            if every:
                yield from made
            elif op.kind is REDUCTION:
                yield from (
                    g
                    for turn, g in enumerate(made)
                    if turn // 2 % len(cases) == number and (turn + place) % 2 == 0
                )
            elif place % len(cases) == number or number % len(case.dtypes) == place:
                yield made[(number + place) % len(made)]


# --- compiling --------------------------------------------------------------------------------


@cache
def compiled(kernel: EmittedKernel) -> dict[CC, str]:
    try:
        return kernel.assemble(CCS)
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise


def kernels_of(graph: Graph) -> tuple[EmittedKernel, ...]:
    return lower_graph(graph, H100, Options()).kernels


def types_of(graph: Graph) -> Iterator[Type]:
    yield from (v.type for v in graph.inputs)
    yield from (t for node in nodes_of(graph) for t in node.types)


_ENTRY = re.compile(r"\.entry ([\w$]+)")
_SYMBOL = re.compile(r"\.(?:global|shared) [^;={]*?([\w$]+)(?=\[\w+\])")


def joined(texts: Sequence[str]) -> str:
    """Texts of one target and version as one, their names made distinct."""
    head, mark = texts[0][: texts[0].index(".address_size")], ".address_size 64"
    bodies = []
    for number, text in enumerate(texts):
        body = text[text.index(mark) + len(mark) :]
        for name in _ENTRY.findall(body):
            # Alone a name may be that of an instruction: `max`.
            body = body.replace(f".entry {name}(", f".entry {name}_{number}(")
            body = body.replace(f"{name}_param_", f"{name}_{number}_param_")
        for name in set(_SYMBOL.findall(body)):
            body = re.sub(rf"(?<![\w$]){re.escape(name)}(?![\w$])", f"{name}_{number}", body)
        bodies.append(body)
    return "\n".join([head, mark, *bodies])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_and_dtype(op: Op, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    every = bool(request.config.getoption("--slow"))
    texts: dict[tuple[str, object], dict[str, None]] = defaultdict(dict)
    for graph in graphs(op, every):
        narrow = f64 not in {t.dtype for t in types_of(graph)}
        for kernel in kernels_of(graph):
            for ptx in compiled(kernel).values():
                assert not (narrow and ".f64" in ptx), kernel.source
                assert stated(ptx) == FIRST_VERSIONS[target(ptx)], "a form that is not known"
                texts[target(ptx), stated(ptx)][ptx] = None
    for group in texts.values():
        assert not refusal(joined(list(group)), tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_what_they_say(form: str) -> None:
    (case,) = (c for c in CASES if c.op.name == "tanh")
    graph = graph_in(form, case, f32)
    assert graph is not None
    sources = "\n".join(k.source for k in kernels_of(graph))
    assert re.search(SHOWS[form], sources), sources


def test_a_text_that_is_wrong_is_refused(tmp_path: Path) -> None:
    """The joint text holds each: one wrong kernel among right ones is found."""
    (case,) = (c for c in CASES if c.op.name == "tanh")
    texts = []
    for form in ("alone", "rows", "total"):
        graph = graph_in(form, case, f32)
        assert graph is not None
        texts += [compiled(kernel)[7, 5] for kernel in kernels_of(graph)]
    assert not refusal(joined(texts), tmp_path)
    texts[1] = texts[1].replace("ld.global.nc.v4", "ld.global.nc.NaN.v4")
    assert "NaN" in refusal(joined(texts), tmp_path)
