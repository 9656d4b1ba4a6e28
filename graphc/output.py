"""Folders and files that appear whole or not at all, never in the place of what is not ours."""

from __future__ import annotations

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


@contextmanager
def output_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `path` when the block ends well.

    Otherwise nothing is left. Raises ArgumentError if `path` is there, not empty, and was not
    written by graphc (unless `force`), or is no folder, or holds the working directory, or cannot
    be written.
    """
    path = path.absolute()
    with writing(path):
        _check(path, force)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            made.chmod(0o755)
            yield made
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


def is_ours(path: Path) -> bool:
    """Whether graphc wrote the folder: it has a manifest or an index of dumps."""
    return any(
        (path / name).is_file()
        and (path / name).read_text("utf-8", errors="replace").startswith(start)
        for name, start in MARKERS.items()
    )
