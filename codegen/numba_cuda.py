"""The seam to Numba's CUDA target: kernels to PTX, and PTX through `ptxas`, with no GPU needed.

Numba's front end runs once for a kernel and NVVM once for each compute capability, which our
scalar functions may ask for (`scalar_llvm.CudaArith`). In a kernel
that is not `fast` contraction is off and division and square root are exact, so what it writes
with + - * / gives NumPy's bits; the scalar functions and accumulations say `fma` themselves. The
entry is called by the kernel's name. The package's internals are used here and in no other
file; tried with numba-cuda 0.30.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from graphc._lazy import load
from graphc.codegen.device_helpers import DeviceHelper
from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import Layout, compile_error, layout_of
from graphc.codegen.ptx_version import restated
from graphc.codegen.transform import Vocabulary, rewrite, rewrite_helper
from graphc.codegen.vectors import VectorArray
from graphc.device import CC, ptx_target
from graphc.dtypes import Type, i32, i64
from graphc.errors import ParseError, TargetError

INSTALL = 'pip install "graphc[cuda]"'
_TOOLS = tuple(
    "numba-cuda numba llvmlite nvidia-nvvm nvidia-cuda-nvcc nvidia-cuda-nvcc-cu12".split()
)
SHARED_LIMIT = 48 << 10  # bytes of static shared memory of a block
_EXACT = {"fma": 0, "prec-div": 1, "prec-sqrt": 1}
_FAST = {"fma": 1, "prec-div": 0, "prec-sqrt": 0}


@dataclass(frozen=True)
class PtxasInfo:
    """What `ptxas` says: registers a thread, bytes spilled, bytes of shared memory."""

    registers: int
    spills: int
    shared: int
    log: str


def _numba_cuda() -> Any:
    """The module `numba.cuda` of the numba-cuda package; raises TargetError without it."""
    try:
        cuda = load("numba.cuda")
        load("numba.cuda.compiler")
    except ImportError as error:
        raise TargetError(
            f"PTX needs the numba-cuda package ({error})", help=INSTALL
        ) from error
    if "numba_cuda" not in str(cuda.__file__):
        raise TargetError(
            f"PTX needs the numba-cuda package; {cuda.__file__} is Numba's own, older target",
            help=INSTALL,
        )
    return cuda


def check_tools() -> None:
    """Raise TargetError where this machine cannot make PTX, saying what it needs."""
    _numba_cuda()
    nvvm = load("numba.cuda.cudadrv.nvvm")
    try:
        nvvm.NVVM()
    except Exception as error:
        # The loaders of NVIDIA's libraries raise unrelated classes for a library that is missing.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetError(f"PTX needs libNVVM ({reason})", help=INSTALL) from error
    _functions()


@cache
def toolkit() -> tuple[str | None, ...]:
    """What PTX is made by: versions of packages, and where CUDA is that is in none of them."""
    found: list[str | None] = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    for package in _TOOLS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return tuple(found)


@cache
def _functions() -> Mapping[str, Any]:
    """The names of the dialect, registered with numba-cuda on the first call."""
    names = load("graphc.codegen.numba_names")
    target = load("numba.cuda.descriptor").cuda_target
    try:
        target.typing_context.refresh()
        target.target_context.refresh()
    except AttributeError as error:
        # It registers NumPy's functions, and NumPy removes some.
        raise TargetError(
            f"numba-cuda does not fit the packages that are here ({error})", help=INSTALL
        ) from error
    arith = load("graphc.codegen.scalar_llvm").CudaArith
    return names.install(
        names.Toolkit(
            templates=load("numba.cuda.typing.templates"),
            lowering=load("numba.cuda.core.imputils"),
            primitive_model=load("numba.cuda.datamodel.models").PrimitiveModel,
            register_model=load("numba.cuda.models").register_model,
            typing_error=load("numba.cuda.core.errors").TypingError,
            typing_context=target.typing_context,
            target_context=target.target_context,
            arith=arith,
            vectors=True,
        )
    )


def _vocabulary(kernel: KernelSource, layout: Layout, cuda: Any) -> Vocabulary:
    buffers = load("graphc.codegen.buffers")
    numba_types = load("graphc.codegen.numba_types")

    def scratch(kind: Type, slot: int, slots: int) -> Any:
        return numba_types.BufferType(kind, buffers.Access("shared", slot, slots, narrow=True))

    @cache
    def helper(record: DeviceHelper) -> Any:
        return cuda.jit(device=True, inline="always")(rewrite_helper(record, vocabulary))

    def located(name: str) -> Any:
        return _global_buffer(layout, name, layout.located[name])

    kinds = [kind for _, kind in kernel.params if isinstance(kind, Type)]
    counter = i32 if all(map(buffers.is_small, (*kinds, *layout.located.values()))) else i64
    vocabulary = Vocabulary(
        _functions(),
        scratch,
        helper,
        {"cuda": cuda},
        counter,
        located,
        _registers,
        kernel.threads,
    )
    return vocabulary


def _registers(kind: Type | VectorArray) -> Any:
    """The Numba type of an array of a thread's own."""
    places, width = (
        (kind.places, kind.vector.width) if isinstance(kind, VectorArray) else (kind, 1)
    )
    access = load("graphc.codegen.buffers").Access("local", 0, 1, narrow=True)
    return load("graphc.codegen.numba_types").BufferType(places, access, width)


def _global_buffer(layout: Layout, name: str, kind: Type) -> Any:
    """The Numba type of a buffer in global memory; indices are 32 bits wide in small ones."""
    slot, constant = layout.slots[name], layout.constant(name)
    access = load("graphc.codegen.buffers").Access(
        "global", slot, layout.slot_count, constant, narrow=True
    )
    return load("graphc.codegen.numba_types").BufferType(kind, access)


def _arguments(kernel: KernelSource, layout: Layout) -> list[Any]:
    """Numba types of the kernel's parameters."""
    types = load("numba.cuda.types")
    return [
        _global_buffer(layout, name, kind) if isinstance(kind, Type) else types.int64
        for name, kind in kernel.params
    ]


def compile_ptx(kernel: KernelSource, ccs: Sequence[CC]) -> dict[CC, str]:
    """PTX that devices of each compute capability run; its entry is `kernel.name`.

    It states the lowest PTX version that it needs. Raises TargetError without numba-cuda and for
    a capability below the least, ParseError for a kernel outside the dialect.
    """
    targets = {cc: ptx_target(cc) for cc in ccs}
    cuda = _numba_cuda()
    compiler, errors = load("numba.cuda.compiler"), load("numba.cuda.core.errors")
    nvvm = load("numba.cuda.cudadrv.nvvm")
    layout = layout_of(kernel)
    names = [name for name, _ in kernel.params]
    function = rewrite(kernel, layout, _vocabulary(kernel, layout, cuda), names)
    try:
        result = compiler.compile_cuda(
            function,
            load("numba.cuda.types").void,
            tuple(_arguments(kernel, layout)),
            nvvm_options=dict(_FAST if kernel.fast else _EXACT),
            cc=targets[ccs[0]],
        )
    except (errors.NumbaError, load("numba.core.errors").NumbaError) as error:
        raise compile_error(kernel, error) from error
    library, entry = result.library, result.fndesc.llvm_func_name
    used = load("graphc.codegen.buffers").shared_bytes(library.get_function(entry).module)
    if used > SHARED_LIMIT:
        raise ParseError(f"kernel {kernel.name} wants {used} bytes of shared memory")
    library._entry_name = entry
    compiler.kernel_fixup(library.get_function(entry), False)
    load("graphc.codegen.numba_vectors").unroll_loops(library.get_function(entry))
    nvvm.set_launch_bounds(library.get_function(entry), kernel.threads)
    return {
        cc: restated(_clean(library.get_asm_str(cc=target), entry, kernel.name))
        for cc, target in targets.items()
    }


def _clean(ptx: str, entry: str, name: str) -> str:
    """The PTX with its entry renamed and without Numba's environment, whose name counts up."""
    kept = [line for line in ptx.splitlines() if "NumbaEnv" not in line]
    return "\n".join(kept).replace(entry, name) + "\n"


@cache
def find_ptxas() -> str:
    """The path of `ptxas`: the nvidia wheels' first, then PATH's; raises TargetError."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(folder).glob("*/bin/ptxas*")):
            if found.stem == "ptxas":
                return str(found)
    found_on_path = shutil.which("ptxas")
    if found_on_path is None:
        raise TargetError("there is no ptxas on this machine", help=INSTALL)
    return found_on_path


def _sum(pattern: str, log: str) -> int:
    return sum(map(int, re.findall(pattern, log)))


def ptxas(ptx: str, cc: CC) -> PtxasInfo:
    """Assemble PTX for a compute capability; raises TargetError if `ptxas` refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        target = re.search(r"\.target\s+(sm_\w+)", ptx)
        arch = target.group(1) if target else f"sm_{cc[0]}{cc[1]}"
        command = [find_ptxas(), "-v", f"-arch={arch}", str(source), "-o", f"{folder}/k.cubin"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    log = run.stdout + run.stderr
    if run.returncode:
        raise TargetError(f"ptxas does not take the PTX for {arch}: {log.strip()}")
    return PtxasInfo(
        registers=max(map(int, re.findall(r"Used (\d+) registers", log)), default=0),
        spills=_sum(r"(\d+) bytes spill", log),
        shared=_sum(r"(\d+) bytes smem", log),
        log=log,
    )
