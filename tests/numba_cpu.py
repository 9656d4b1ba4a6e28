"""The oracle of the CPU's kernels: Numba compiles the emitted file, and gives the same bits.

A kernel is a native function `void(i64* table, i64 lo, i64 hi)` here as there. Numba's internals
are used here and nowhere else for the CPU; tried with Numba 0.68.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import compiler, datamodel, errors, imputils, typed_passes, untyped_passes
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target
from numba.core.typing import templates

from graphc.codegen.buffers import Access
from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import Layout, compile_error, in_memory, layout_of
from graphc.codegen.llvm_kernels import vocabulary
from graphc.codegen.machine_code import host
from graphc.codegen.numba_names import Toolkit, install
from graphc.codegen.numba_types import BufferType
from graphc.codegen.scalar_llvm import FAST, CpuArith
from graphc.codegen.transform import rewrite
from graphc.dtypes import Type
from graphc.errors import ParseError

_WORD = ir.IntType(64)
# Of Numba's thirty passes, those that a kernel needs: it has no closures, lists or exceptions.
_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class _Pipeline(compiler.CompilerBase):
    """The short pipeline."""

    def define_pipelines(self) -> list[PassManager]:
        manager: Any = PassManager("graphc")
        for step in _PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


@dataclass(frozen=True)
class ByNumba:
    """A kernel as Numba compiles it: `address` is valid as long as `keepalive` is referenced."""

    address: int
    keepalive: Any


@cache
def _functions() -> Mapping[str, Any]:
    """The names of the dialect, registered with Numba on the first call."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    return install(
        Toolkit(
            templates=templates,
            lowering=imputils,
            primitive_model=datamodel.models.PrimitiveModel,
            register_model=datamodel.registry.register_default,
            typing_error=errors.TypingError,
            typing_context=cpu_target.typing_context,
            target_context=cpu_target.target_context,
            arith=lambda builder: CpuArith(builder, host().has("f16c")),
        )
    )


def rewritten(kernel: KernelSource, layout: Layout) -> Callable[..., None]:
    """The kernel as a Python function of (table, lo, hi) that makes its own buffers."""
    lines: list[str] = []
    given: dict[str, Any] = {
        "_argument": _functions()["argument"],
        "_word": _functions()["word"],
    }
    if [name for name, _ in kernel.params[-2:]] != ["lo", "hi"]:
        raise ParseError(f"the last parameters of kernel {kernel.name} must be lo and hi")
    for k, (name, kind) in enumerate(kernel.params[:-2]):
        if isinstance(kind, Type):
            slot = layout.slots[name]
            access = Access("global", slot, layout.slot_count, layout.constant(name))
            given[f"_{name}_type"] = BufferType(in_memory(kind), access)
            lines.append(f"{name} = _argument(_{name}_type, _table, {k})")
        else:
            lines.append(f"{name} = _word(_table, {k})")
    params = ("_table", "lo", "hi")
    words = vocabulary(kernel, _functions(), BufferType)
    return rewrite(kernel, layout, words, params, "\n".join(lines), given)


def _compile_into(library: Any, kernel: KernelSource, symbol: str, layout: Layout) -> str:
    """Add a kernel to the library under its symbol; returns the name of Numba's function."""
    flags: Any = compiler.Flags()
    flags.error_model = "numpy"
    flags.nrt = False
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.no_compile = True
    if kernel.fast:
        flags.fastmath = set(FAST)
    arguments = (types.int64, types.int64, types.int64)
    context = cpu_target.target_context
    try:
        result = compiler.compile_extra(
            cpu_target.typing_context,
            context,
            rewritten(kernel, layout),
            arguments,
            types.none,
            flags,
            {},
            library=library,
            pipeline_class=_Pipeline,
        )
    except errors.NumbaError as error:
        raise compile_error(kernel, error) from error
    module = library.create_ir_module(symbol)
    inner = context.declare_function(module, result.fndesc)
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORD] * 3), symbol)
    if host().has("avx512vbmi2"):
        set.add(outer.attributes, '"prefer-vector-width"="512"')
    builder = ir.IRBuilder(outer.append_basic_block())
    context.call_conv.call_function(builder, inner, types.none, arguments, outer.args)
    builder.ret_void()
    library.add_ir_module(module)
    return str(inner.name)


def compile_by_numba(kernel: KernelSource) -> ByNumba:
    """Numba's code of a kernel; raises ParseError for one outside the dialect."""
    layout = layout_of(kernel)
    with global_compiler_lock:
        _functions()
        library = cpu_target.target_context.codegen().create_library(kernel.name)
        symbol = f"{kernel.name}_{id(library):x}"
        inner = _compile_into(library, kernel, symbol, layout)
        library._final_module.get_function(inner).linkage = "internal"
        library.finalize()
    return ByNumba(library.get_pointer_to_function(symbol), library)
