"""The disk cache: bytes by kind and key, in one folder of the user's for all processes.

An entry is a file that is written under another name and then renamed, so that nobody sees half of
one. It begins with a checksum of itself and the key that it was written for, and is given out only
if both are right. An entry that is damaged is removed and counts as missing, and so does whatever
the file system refuses: a cache that fails makes a program slow and nothing else.

What is read is run, so the folder has to belong to the user and nobody else may write to it; a
warning says once that another is not used. What was used least recently goes when the entries
outgrow the limit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from struct import Struct

from graphc.errors import ArgumentError

LOG = logging.getLogger("graphc")
FOLDER, SIZE = "GRAPHC_CACHE_DIR", "GRAPHC_CACHE_SIZE"
OFF = ("", "off")
DEFAULT_LIMIT = 1 << 30
KINDS = ("plan", "ptx", "code")

MAGIC = b"graphc\x00\x01"
_HEAD = Struct(
    "<8s32s8s32sQ"
)  # magic, checksum of all that follows, kind, key, payload's bytes
_ENTRY = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]{{64}}")
_UNFINISHED = re.compile(r"\.new-\d+-[0-9a-f]{16}")
_STAMP = ".pruned"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TOUCH_SECONDS = 3600.0  # how exactly the time of the last use is known
_PRUNE_SECONDS = 86400.0
_UNFINISHED_SECONDS = 3600.0  # nobody writes that long: what is older was left behind
_SLACK = 8  # of the limit's parts, how many a process may write before it looks at the sum
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_PLAIN = _BINARY | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class CacheFile:
    """A file of the cache: an entry of a kind, or one half written ("")."""

    name: str
    kind: str
    nbytes: int
    used: float


class _Folder:
    """The open folder. Files are found from it and not by path, wherever the system can."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number: int | None = None
        if os.open in os.supports_dir_fd:
            self.number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _BINARY)

    def status(self) -> os.stat_result:
        return os.stat(self.path) if self.number is None else os.fstat(self.number)

    def close(self) -> None:
        if self.number is not None:
            os.close(self.number)

    def open(self, name: str, flags: int) -> int:
        return os.open(self._at(name), flags | _PLAIN, 0o600, dir_fd=self.number)

    def remove(self, name: str) -> bool:
        """Remove a file; whether it was there and could be."""
        try:
            os.unlink(self._at(name), dir_fd=self.number)
        except OSError:
            return False
        return True

    def rename(self, old: str, new: str) -> None:
        here = self.number
        os.replace(self._at(old), self._at(new), src_dir_fd=here, dst_dir_fd=here)

    def files(self) -> list[CacheFile]:
        """Our files, and nothing else that lies there."""
        found = []
        with os.scandir(self.path if self.number is None else self.number) as entries:
            for entry in entries:
                whole = _ENTRY.fullmatch(entry.name)
                if whole is None and _UNFINISHED.fullmatch(entry.name) is None:
                    continue
                with suppress(OSError):  # another process may have removed it
                    seen = entry.stat(follow_symlinks=False)
                    kind = "" if whole is None else whole[1]
                    found.append(CacheFile(entry.name, kind, seen.st_size, seen.st_mtime))
        return found

    def _at(self, name: str) -> str | Path:
        return self.path / name if self.number is None else name


class DiskCache:
    """The entries in one folder, which is made when the first is written.

    `limit` bounds their total size, which may be exceeded until the next prune. Safe to
    use from any number of threads and processes.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._said = False
        self._unseen: int | None = None  # bytes written since the sum was last looked at

    def get(self, kind: str, key: str) -> bytes | None:
        """What was put for this kind and key (64 hexadecimal digits); None if there is nothing."""
        name = f"{kind}-{key}"
        with self._ignoring_errors(), self._opened() as folder:
            entry = _read(folder, name)
            payload = None if entry is None else _decode(entry, kind, key)
            if entry is not None and payload is None and folder.remove(name):
                LOG.info("%s of the cache was damaged, and is made anew", name)
            return payload
        return None

    def put(self, kind: str, key: str, data: bytes) -> None:
        """Keep `data` for this kind and key, if that can be done."""
        if len(data) + _HEAD.size > self.limit:
            return
        with self._ignoring_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder:
                _write(folder, f"{kind}-{key}", _encode(kind, key, data))
                self._look_after(folder, len(data))

    def files(self) -> list[CacheFile]:
        """Entries, and files half written.

        As `prune` and `clear`, it raises OSError, and ArgumentError for a folder not to be used.
        """
        try:
            with self._opened() as folder:
                return folder.files()
        except FileNotFoundError:
            return []

    def prune(self, limit: int) -> list[CacheFile]:
        """Remove what was used least recently until the rest has `limit` bytes.

        Returns what was removed.
        """
        try:
            with self._opened() as folder:
                return _prune(folder, limit)
        except FileNotFoundError:
            return []

    def clear(self) -> list[CacheFile]:
        """Remove every entry and whatever is half written; returns what was removed."""
        try:
            with self._opened() as folder:
                return [file for file in folder.files() if folder.remove(file.name)]
        except FileNotFoundError:
            return []

    def _look_after(self, folder: _Folder, written: int) -> None:
        """Prune now and then: once a day, and when much has been written."""
        due = False
        if self._unseen is None:
            self._unseen = 0
            due = not 0 <= time.time() - _stamped(folder) < _PRUNE_SECONDS
        self._unseen += written
        if due or self._unseen * _SLACK > self.limit:
            self._unseen = 0
            os.close(folder.open(_STAMP, os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
            _prune(folder, self.limit)

    @contextmanager
    def _opened(self) -> Iterator[_Folder]:
        """The folder; raises OSError, and ArgumentError where it is not to be trusted."""
        folder = _Folder(self.folder)
        try:
            reason = _distrust(folder.status())
            if reason is not None:
                raise ArgumentError(
                    f"the cache is not used: its folder {reason}",
                    values=[("folder", self.folder)],
                    help=f"{FOLDER} names another folder, or is off; "
                    "chmod 700 closes one of your own",
                )
            yield folder
        finally:
            folder.close()

    @contextmanager
    def _ignoring_errors(self) -> Iterator[None]:
        """Go on where the file system refuses; say once that the folder is not to be trusted."""
        try:
            yield
        except OSError as error:
            LOG.debug("the cache: %s", error)
        except ArgumentError as error:
            if not self._said:
                self._said = True
                warnings.warn(str(error), stacklevel=4)


def _distrust(status: os.stat_result) -> str | None:
    """Why a file or folder is not to be trusted, None if it is."""
    if not hasattr(os, "geteuid"):  # the rights of Windows are not in these numbers
        return None
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not to user {os.geteuid()}"
    if status.st_mode & 0o022:
        return f"can be written to by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def _encode(kind: str, key: str, data: bytes) -> bytes:
    """The bytes of an entry."""
    named = kind.encode(), bytes.fromhex(key), len(data)
    rest = _HEAD.pack(MAGIC, b"", *named)[len(MAGIC) + 32 :]
    return MAGIC + hashlib.sha256(rest + data).digest() + rest + data


def _decode(entry: bytes, kind: str, key: str) -> bytes | None:
    """The payload of an entry, if all of it is as it was written and for this kind and key."""
    payload = entry[_HEAD.size :]
    return payload if entry == _encode(kind, key, payload) else None


def _read(folder: _Folder, name: str) -> bytes | None:
    """A file that belongs to us, and whose use is noted; None for another. Raises OSError."""
    number = folder.open(name, os.O_RDONLY)
    with os.fdopen(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or _distrust(status) is not None:
            return None
        if time.time() - status.st_mtime > _TOUCH_SECONDS:
            with suppress(OSError):  # of a file system that is read only
                os.utime(number if os.utime in os.supports_fd else folder.path / name)
        return file.read()


def _write(folder: _Folder, name: str, entry: bytes) -> None:
    """Make a file all at once; raises OSError.

    It need not have reached the disk: what a crash of the machine leaves fails its checksum.
    """
    half = f".new-{os.getpid()}-{os.urandom(8).hex()}"
    number = folder.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(entry)
        folder.rename(half, name)
    except BaseException:
        folder.remove(half)
        raise


def _stamped(folder: _Folder) -> float:
    """When the folder was last pruned."""
    try:
        number = folder.open(_STAMP, os.O_RDONLY)
    except FileNotFoundError:
        return 0.0
    try:
        return os.fstat(number).st_mtime
    finally:
        os.close(number)


def _prune(folder: _Folder, limit: int) -> list[CacheFile]:
    files = sorted(folder.files(), key=lambda file: -file.used)
    kept, removed = 0, []
    for file in files:
        old = not file.kind and time.time() - file.used > _UNFINISHED_SECONDS
        kept += 0 if old else file.nbytes
        if (old or (file.kind and kept > limit)) and folder.remove(file.name):
            removed.append(file)
    return removed


# --- the user's own -----------------------------------------------------------------------


def disk_cache() -> DiskCache | None:
    """The cache that the environment asks for; None where it is off or there is no place for it.

    `GRAPHC_CACHE_DIR` names its folder, or is `off`; else it is `graphc` in the platform's folder
    for caches. `GRAPHC_CACHE_SIZE` is its limit: bytes, or a number with K, M, G or T.
    """
    named = os.environ.get(FOLDER)
    folder = _default_folder() if named is None else named
    return None if folder is None or folder in OFF else _cache_at(folder, os.environ.get(SIZE))


def kept(kind: str, key: str, make: Callable[[], bytes]) -> bytes:
    """What the user's cache has for this kind and key, or else what `make` makes for it."""
    cache = disk_cache()
    data = None if cache is None else cache.get(kind, key)
    if data is None:
        data = make()
        if cache is not None:
            cache.put(kind, key, data)
    return data


@cache
def _cache_at(folder: str, size: str | None) -> DiskCache:
    try:
        limit = DEFAULT_LIMIT if size is None else parse_size(size)
    except ValueError as error:
        limit = DEFAULT_LIMIT
        warnings.warn(f"{SIZE}: {error}; the limit is 1G", stacklevel=2)
    return DiskCache(Path(folder).absolute(), limit)


def parse_size(text: str) -> int:
    """The bytes that a text such as 500M means; raises ValueError."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is no size such as 500M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


def _default_folder() -> str | None:
    """`graphc` in the folder that the platform has for caches; None if there is no home."""
    named = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", "")
    if sys.platform != "darwin" and os.path.isabs(named):
        return str(Path(named, "graphc"))
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    try:
        return str(Path.home() / below / "graphc")
    except RuntimeError:
        return None
