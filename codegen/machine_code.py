"""Machine code of this computer: LLVM modules to object bytes, and object bytes to addresses.

The one file that talks to LLVM itself (llvmlite's binding). An object is bytes that another
process of this computer may load as well: `object_code` is the one place where objects are made,
and `host` says what they depend on beside the module.
"""

from __future__ import annotations

import itertools
import platform
import threading
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any, Literal

import llvmlite
import llvmlite.binding as llvm

from graphc import _lazy
from graphc.disk_cache import kept
from graphc.fingerprint import key_of

Effort = Literal["loops", "words"]
"""What is optimised: loops over arrays, by all that LLVM has. In code over words only variables
come off the stack: it waits for memory, and more would take longer than it gains.
"""

OUT_OF_LINE = b"graphc_function_"
"""How the symbols of scalar functions begin that long kernels call (`vector_functions`)."""

lock = threading.RLock()
"""Held while code is made that other threads may ask for; a fork waits for it."""
_lazy.llvm()  # llvmlite's own lock is taken after this one, so forks take them in this order
_lazy.hold_over_forks(lock)


@dataclass(frozen=True)
class Host:
    """What code is made for, and by what: objects of equal hosts are interchangeable."""

    triple: str
    cpu: str
    features: str
    llvm: str

    def has(self, feature: str) -> bool:
        """Whether the processor has the LLVM feature, such as "fma"."""
        return f"+{feature}" in self.features.split(",")


@cache
def host() -> Host:
    """This computer, and the LLVM that is here."""
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell on this processor
        features = ""
    numbers = ".".join(map(str, llvm.llvm_version_info))
    made_by = f"llvmlite {llvmlite.__version__}, LLVM {numbers}"
    return Host(llvm.get_process_triple(), llvm.get_host_cpu_name(), features, made_by)


@cache
def _target(level: int) -> Any:
    """A target machine of this computer, by the level of its code generator."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
    return llvm.Target.from_triple(host().triple).create_target_machine(
        cpu=host().cpu,
        features=host().features,
        opt=level,
        reloc="static" if x86 else "default",
        codemodel="jitdefault",
        jit=True,
    )


def _optimised(module: Any, effort: Effort) -> tuple[Any, Any]:
    """The module (llvmlite's `ir.Module`) as LLVM has optimised it, and the target machine."""
    target = _target(3 if effort == "loops" else 0)
    module.triple, module.data_layout = host().triple, str(target.target_data)
    # A context of its own takes all that LLVM keeps of the module with it.
    parsed = llvm.parse_assembly(str(module), llvm.create_context())
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(3 if effort == "loops" else 0)
    # Loops are vectorized already when these two passes would run.
    options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    if effort == "loops":
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
    passes.run(parsed, builder)
    return parsed, target


def emit_object(module: Any, effort: Effort) -> bytes:
    """The object bytes of a module."""
    with lock:
        parsed, target = _optimised(module, effort)
        return bytes(target.emit_object(parsed))


def emit_assembly(module: Any, effort: Effort) -> str:
    """The assembly of what `emit_object` emits."""
    with lock:
        parsed, target = _optimised(module, effort)
        return str(target.emit_assembly(parsed))


def object_code(name: str, build: Callable[[], Any], effort: Effort) -> bytes:
    """The object bytes of the module that `build` makes, from the disk cache if they are there.

    `name` stands for the module: where two names are equal, so are the modules.
    """
    key = key_of("code", name, effort, astuple(host()))
    return kept("code", key, lambda: emit_object(build(), effort))


class Code:
    """Machine code in memory: its addresses hold as long as this lives."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def address(self, symbol: str) -> int:
        """The address of one of the symbols that were asked for."""
        return int(self._tracker[symbol])


class _Linker:
    """LLVM's linker in memory, and the numbers of its libraries: no two may bear one name."""

    def __init__(self) -> None:
        self.jit = llvm.create_lljit_compiler(_target(3))
        self.numbers = itertools.count()


@cache
def _linker() -> _Linker:
    return _Linker()


def load_objects(objects: Iterable[bytes], symbols: Iterable[str]) -> Code:
    """Link objects with one another and with this process, and find their `symbols`.

    Raises RuntimeError for bytes that are no object or lack a symbol.
    """
    library = llvm.JITLibraryBuilder().add_current_process()
    for data in objects:
        library.add_object_img(data)
    for symbol in symbols:
        library.export_symbol(symbol)
    with lock:
        linker = _linker()
        return Code(library.link(linker.jit, f"graphc {next(linker.numbers)}"))
