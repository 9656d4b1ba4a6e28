"""Folders and files that appear whole or not at all, never in the place of what is not ours."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from graphc.errors import ArgumentError

MARKERS = {"manifest.json": '{\n  "graphc": ', "index.txt": "graphc ir dump"}
"""How the files begin by which a folder of graphc's is known."""

RECORD = "SHA256SUMS"
"""The file in a folder of graphc's that has the sums of the others, as sha256sum writes them."""

_SHOWN = 5
"""The files that an error names, if there are more."""


@contextmanager
def output_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `path` when the block ends well.

    Otherwise nothing is left. Raises ArgumentError if `path` is there, not empty, and was not
    written by graphc, or holds what was not, or was changed since (unless `force`), or is no
    folder, or holds the working directory, or cannot be written.
    """
    path = path.absolute()
    with writing(path):
        _check(path, force)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            made.chmod(0o755)
            yield made
            _record(made)
            _check(path, force)
            _put(made, path)
        finally:
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses in the block becomes an ArgumentError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not _concerns(error.filename, path.absolute()):
            raise
        raise ArgumentError(f"{path} cannot be written: {error.strerror}") from error


def _concerns(name: object, path: Path) -> bool:
    """Whether an error about a file of this name is one about what is written to `path`."""
    if not isinstance(name, str):
        return name is None
    return Path(name).is_relative_to(path.parent) or path.is_relative_to(name)


@contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` when the block ends well.

    Otherwise nothing is left. A link stays, and what it leads to is replaced; a device or a pipe
    is written to. Raises ArgumentError if `path` is a folder or cannot be written.
    """
    with writing(path):
        if path.is_dir():
            raise ArgumentError(f"{path} is a folder")
        if path.exists() and not path.is_file():
            # At once: an archive asks where it is, which a device or a pipe does not tell.
            content = io.BytesIO()
            yield content
            path.write_bytes(content.getbuffer())
            return
        path = Path(os.path.realpath(path))
        made = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with made.open("xb") as file:
                yield file
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)


def _put(made: Path, path: Path) -> None:
    """Rename; what was there before is moved away first and deleted last."""
    if not path.exists():
        made.rename(path)
        return
    away = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    path.rename(away / "old")
    try:
        made.rename(path)
    except BaseException:
        (away / "old").rename(path)
        raise
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _check(path: Path, force: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir() or path.is_symlink():
        raise ArgumentError(f"{path} is there already and is no folder")
    if Path.cwd().is_relative_to(path.resolve()):
        raise ArgumentError(
            f"{path} holds the working directory and cannot be replaced",
            help="name a folder of its own for the output",
        )
    if any(path.iterdir()) and not force and not is_ours(path):
        raise ArgumentError(
            f"{path} is there already and was not written by graphc",
            help="--force replaces it",
        )
    foreign = [] if force else _foreign(path)
    if foreign:
        more = [f"and {len(foreign) - _SHOWN} more"] if len(foreign) > _SHOWN else []
        raise ArgumentError(
            f"{path} holds what graphc did not write, or what was changed since",
            values=[("files", ", ".join(foreign[:_SHOWN] + more))],
            help="--force deletes them; or name another folder",
        )


def _record(folder: Path) -> None:
    """Write down what the folder holds."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    lines = [f"{_sum(f)}  {f.relative_to(folder).as_posix()}\n" for f in files]
    (folder / RECORD).write_text("".join(lines), "utf-8")


def _foreign(folder: Path) -> list[str]:
    """What a folder of graphc's holds beyond its record; nothing if it has none.

    What Python keeps beside files that it ran is nobody's.
    """
    record = folder / RECORD
    if not record.is_file():
        return []
    lines = record.read_text("utf-8", errors="replace").splitlines()
    sums = {name: known for known, _, name in (line.partition("  ") for line in lines)}
    folders = {parent.as_posix() for name in sums for parent in Path(name).parents}
    found = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file == record or "__pycache__" in Path(name).parts:
            continue
        if file.is_dir() and not file.is_symlink():
            if name not in folders:
                found.append(f"{name}/")
        elif file.is_symlink() or name not in sums or _sum(file) != sums[name]:
            found.append(name)
    return found


def _sum(file: Path) -> str:
    """The sum of a file's bytes; of what is no file, such as a pipe, none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def is_ours(path: Path) -> bool:
    """Whether graphc wrote the folder: it has a manifest or an index of dumps."""
    return any(
        (path / name).is_file()
        and (path / name).read_text("utf-8", errors="replace").startswith(start)
        for name, start in MARKERS.items()
    )
