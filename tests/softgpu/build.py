"""Builds the driver: `libcuda.so.1` of the C files in driver/, once for each state of them.

The library is kept in a cache folder under the hash of all that goes into it, and is moved there
when it is complete, so that any number of processes may build at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).with_name("driver")
ROOT = Path(__file__).resolve().parents[2]
OLDEST = 13000  # the release of cuda.h that the sources are written for
FLAGS = (
    "-std=c11 -D_GNU_SOURCE -O3 -march=native -fno-math-errno -frounding-math -fPIC -Wall -Wextra"
).split()
LINK = "-shared -Wl,-soname,libcuda.so.1 -pthread -ldl -lm".split()


class Unavailable(Exception):
    """Why the driver cannot be built on this machine, in one line."""


def library() -> Path:
    """The path of `libcuda.so.1`, built if need be; raises Unavailable."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("the software GPU needs Linux")
    compiler, headers = find_compiler(), find_headers()
    folder = _cache_folder() / _digest(compiler, headers)
    target = folder / "libcuda.so.1"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _build(compiler, headers, target)
    return target


@cache
def find_compiler() -> str:
    """The C compiler: `CC`, or the first of cc, gcc and clang."""
    said = os.environ.get("CC", "").split()
    for name in (*said[:1], "cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise Unavailable("there is no C compiler (cc, gcc or clang) for the software GPU")


@cache
def find_headers() -> Path:
    """The folder of cuda.h and cudaTypedefs.h: `CUDA_INCLUDE`, NVIDIA's wheels, or a toolkit."""
    reason = "there is no cuda.h for the software GPU; pip install 'graphc[cuda]' brings it"
    for folder in _header_folders():
        if not (folder / "cuda.h").is_file() or not (folder / "cudaTypedefs.h").is_file():
            continue
        version = re.search(
            r"#define CUDA_VERSION (\d+)", (folder / "cuda.h").read_text("utf-8")
        )
        if version is not None and int(version[1]) >= OLDEST:
            return folder
        reason = (
            f"the software GPU needs cuda.h of CUDA {OLDEST // 1000}.0 or newer, not {folder}"
        )
    raise Unavailable(reason)


def _header_folders() -> Iterator[Path]:
    if "CUDA_INCLUDE" in os.environ:
        yield Path(os.environ["CUDA_INCLUDE"])
    for base in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path}:
        yield from sorted(Path(base).glob("nvidia/cu*/include"), reverse=True)
        yield Path(base, "nvidia", "cuda_runtime", "include")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            yield Path(os.environ[variable], "include")
    yield Path("/usr/local/cuda/include")


def _cache_folder() -> Path:
    """The folder of built libraries; one that another user could have filled is refused."""
    said = os.environ.get("SOFTGPU_CACHE_DIR")
    folder = Path(said) if said else Path(tempfile.gettempdir(), f"softgpu-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Unavailable(f"{folder}, where the software GPU is built, is another user's")
    return folder


def _digest(compiler: str, headers: Path) -> str:
    """A hash of the sources, this file, the headers, the compiler and the processor it aims at."""
    # What a compiler defines tells its version and, by -march=native, the processor.
    macros = subprocess.run(
        [compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    parts = [str(ROOT).encode(), macros, (headers / "cuda.h").read_bytes()]
    for path in [Path(__file__), *sorted(SOURCES.iterdir())]:
        parts += [path.name.encode(), path.read_bytes()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:20]


def _build(compiler: str, headers: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        entries = Path(scratch, "entries.c")
        entries.write_text(entries_of(headers), "utf-8")
        options = [*FLAGS, f"-I{SOURCES}", f"-isystem{headers}", f'-DSOFTGPU_ROOT="{ROOT}"']
        sources = [*sorted(SOURCES.glob("*.c")), entries]
        objects = [Path(scratch, f"{source.stem}.o") for source in sources]
        compiles = [
            [compiler, *options, "-c", str(source), "-o", str(object)]
            for source, object in zip(sources, objects)
        ]
        _run(compiles)
        made = Path(scratch, target.name)
        script = f"-Wl,--version-script={SOURCES / 'exports.map'}"
        _run([[compiler, *map(str, objects), script, *LINK, "-o", str(made)]])
        made.replace(target)


def _run(commands: list[list[str]]) -> None:
    """Run commands, a few at a time; raises RuntimeError with what a compiler said."""
    waiting = list(reversed(commands))
    running: list[subprocess.Popen[str]] = []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            running.append(subprocess.Popen(waiting.pop(), stderr=subprocess.PIPE, text=True))
        process = running.pop(0)
        said = process.communicate()[1]
        if process.returncode:
            for other in running:
                other.communicate()
            raise RuntimeError(f"the software GPU does not compile:\n{said}")
        if said:
            sys.stderr.write(said)


def entries_of(headers: Path) -> str:
    """C that defines every function of cuda.h weakly, and the tables of functions and errors."""
    header = (headers / "cuda.h").read_text("utf-8")
    symbols = _symbols(header)
    versions = _versions((headers / "cudaTypedefs.h").read_text("utf-8"))
    lines = ['#include "entries.h"', "int not_implemented(const char *name);"]
    for names in symbols.values():
        for name in names:
            lines.append(f"__attribute__((weak)) int {name}(void);")
            lines.append(f'int {name}(void) {{ return not_implemented("{name}"); }}')
    lines.append("const struct entry softgpu_entries[] = {")
    for base, names in symbols.items():
        for name, since in zip(names, versions.get(base, [])):
            lines.append(f'  {{"{base}", {since}, (void *){name}}},')
    lines += ["};", "const struct error softgpu_errors[] = {"]
    errors = re.findall(r"^\s*(CUDA_(?:SUCCESS|ERROR_\w+))\s*=\s*(\d+)", header, re.MULTILINE)
    lines += [f'  {{{number}, "{name}"}},' for name, number in errors]
    lines.append("};")
    for kind, table in (("entry", "entries"), ("error", "errors")):
        size = f"sizeof softgpu_{table} / sizeof *softgpu_{table}"
        lines.append(f"const size_t softgpu_{kind}_count = {size};")
    return "\n".join(lines) + "\n"


def _symbols(header: str) -> dict[str, list[str]]:
    """The names that a library exports for each function, oldest version first."""
    found = set(re.findall(r"CUresult\s+CUDAAPI\s+(cu[A-Z]\w+)\s*\(", header))
    found |= set(
        re.findall(r"#define\s+cu[A-Z]\w+\s+(?:__CUDA_API_PT\w+\()?(cu[A-Z]\w+)", header)
    )
    plain = {name for name in found if not re.search(r"_pt(ds|sz)$", name)}
    symbols: dict[str, list[str]] = {}
    for name in sorted(plain, key=lambda name: (len(name), name)):
        symbols.setdefault(re.sub(r"_v\d+$", "", name), []).append(name)
    return symbols


def _versions(typedefs: str) -> dict[str, list[int]]:
    """The releases that brought a version of each function, oldest first: as many as symbols."""
    versions: dict[str, set[int]] = {}
    for name, release in re.findall(r"\*PFN_(cu[A-Z]\w+?)_v(\d+)\)\(", typedefs):
        versions.setdefault(name, set()).add(int(release))
    return {name: sorted(releases) for name, releases in versions.items()}
