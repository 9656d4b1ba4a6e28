"""The seam to Numba's CPU target: kernels to native functions `void(i64* table, i64 lo, i64
hi)`.

The kernels of one call are compiled into one LLVM module. Word k of the table is the address of
the kernel's k-th parameter, or its value if it is an integer. The functions touch no Python
object, allocate nothing and raise nothing, so they run with or without the GIL. Numba's
internals are used here and in no other CPU file; tried with Numba 0.68.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

from graphc import _lazy
from graphc.codegen.buffers import Access, Buffer
from graphc.codegen.device_helpers import DeviceHelper
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.codegen.layout import Layout, compile_error, layout_of
from graphc.codegen.numba_names import Toolkit, install
from graphc.codegen.scalar_llvm import FAST, CpuArith
from graphc.codegen.transform import Vocabulary, rewrite
from graphc.device import STACK_BYTES
from graphc.dtypes import Type
from graphc.errors import ParseError

_lazy.llvm()  # whoever has the compiler takes its lock, so forks do so in this order
_lazy.hold_over_forks(global_compiler_lock)

__all__ = ["CompiledKernel", "compile_cpu", "load_kernels"]

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
class CompiledKernel:
    """Native code of a kernel: `address` is valid as long as `keepalive` is referenced."""

    address: int
    name: str
    keepalive: Any

    def assembly(self) -> str:
        """The assembly of this kernel alone."""
        text: str = self.keepalive.get_asm_str()
        start = text.index(f"\n{self.name}:")
        end = text.find(f"\n\t.size\t{self.name}", start)
        return text[start : end if end >= 0 else None]


@cache
def has_feature(name: str) -> bool:
    """Whether the machine that Numba compiles for has the LLVM feature, such as "fma"."""
    return f"+{name}" in cpu_target.target_context.codegen()._tm_features.split(",")


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
            arith=lambda builder: CpuArith(builder, has_feature("f16c")),
        )
    )


def _no_helper(helper: DeviceHelper) -> Any:
    raise ParseError(f"{helper.name} is for CUDA kernels")


def _vocabulary(kernel: KernelSource) -> Vocabulary:
    used = 0

    def scratch(kind: Type, slot: int, slots: int) -> Buffer:
        nonlocal used
        used += kind.nbytes
        if used > STACK_BYTES:
            raise ParseError(f"kernel {kernel.name} wants {used} bytes of stack")
        return Buffer(kind, Access("stack", slot, slots))

    return Vocabulary(_functions(), scratch, _no_helper, {})


def _rewritten(kernel: KernelSource, layout: Layout) -> Callable[..., None]:
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
            given[f"_{name}_type"] = Buffer(kind, access)
            lines.append(f"{name} = _argument(_{name}_type, _table, {k})")
        else:
            lines.append(f"{name} = _word(_table, {k})")
    params = ("_table", "lo", "hi")
    return rewrite(kernel, layout, _vocabulary(kernel), params, "\n".join(lines), given)


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
            _rewritten(kernel, layout),
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
    if has_feature("avx512vbmi2"):
        # LLVM prefers 256 bits since Skylake slowed down at 512; from Ice Lake on, 512 wins.
        # llvmlite's own `add` knows no attribute with a value.
        set.add(outer.attributes, '"prefer-vector-width"="512"')
    builder = ir.IRBuilder(outer.append_basic_block())
    context.call_conv.call_function(builder, inner, types.none, arguments, outer.args)
    builder.ret_void()
    library.add_ir_module(module)
    return str(inner.name)


def compile_cpu(kernels: Sequence[KernelSource]) -> list[CompiledKernel]:
    """Native code of `kernels`, in their order; equal kernels share it.

    Raises ParseError for a kernel outside the dialect.
    """
    if not kernels:
        return []
    layouts = [layout_of(kernel) for kernel in kernels]
    symbols = [f"{k.name}_{x.digest(k)}" for k, x in zip(kernels, layouts, strict=True)]
    distinct = {s: (k, x) for s, k, x in zip(symbols, kernels, layouts, strict=True)}
    with global_compiler_lock:
        _functions()
        library = cpu_target.target_context.codegen().create_library(symbols[0])
        inner = [_compile_into(library, k, s, x) for s, (k, x) in distinct.items()]
        for name in inner:
            library._final_module.get_function(name).linkage = "internal"
        library.finalize()
    return [
        CompiledKernel(library.get_pointer_to_function(symbol), symbol, library)
        for symbol in symbols
    ]
