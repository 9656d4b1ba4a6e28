"""The disk cache gives back what was put, or nothing: whatever becomes of its files."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import stat
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphc.cli import main
from graphc.disk_cache import _HEAD, DEFAULT_LIMIT, DiskCache, disk_cache, parse_size

KEY, OTHER = "0123456789abcdef" * 4, "f" * 64
DATA = bytes(range(256)) * 3
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are POSIX's")


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache", 1 << 20)


@pytest.fixture
def entry(cache: DiskCache) -> Path:
    """The file of an entry."""
    cache.put("plan", KEY, DATA)
    return cache.folder / f"plan-{KEY}"


def test_what_was_put_is_got(cache: DiskCache) -> None:
    assert cache.get("plan", KEY) is None and not cache.folder.exists()
    for data in (b"", b"x", DATA):
        cache.put("plan", KEY, data)
        assert cache.get("plan", KEY) == data
    assert cache.get("code", KEY) is None and cache.get("plan", OTHER) is None
    assert [f.name for f in cache.files()] == [f"plan-{KEY}"]


@posix
def test_folder_and_files_are_the_users_alone(entry: Path) -> None:
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600


# --- damage -------------------------------------------------------------------------------

PLACES = [*range(_HEAD.size), _HEAD.size, _HEAD.size + 100, _HEAD.size + len(DATA) - 1]


def test_a_flipped_bit_anywhere_is_found(cache: DiskCache, entry: Path) -> None:
    whole = entry.read_bytes()
    assert len(whole) == _HEAD.size + len(DATA)
    for place in PLACES:
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            entry.write_bytes(damaged)
            assert cache.get("plan", KEY) is None, (place, bit)
            assert not entry.exists()


def test_a_file_of_another_length_is_found(cache: DiskCache, entry: Path) -> None:
    whole = entry.read_bytes()
    for size in (*range(_HEAD.size + 2), len(whole) - 1):
        entry.write_bytes(whole[:size])
        assert cache.get("plan", KEY) is None, size
    entry.write_bytes(whole + b"x")
    assert cache.get("plan", KEY) is None
    cache.put("plan", KEY, DATA)
    assert cache.get("plan", KEY) == DATA


def test_an_entry_under_another_name_is_no_entry(cache: DiskCache, entry: Path) -> None:
    whole = entry.read_bytes()
    for kind, key in (("plan", OTHER), ("code", KEY)):
        (cache.folder / f"{kind}-{key}").write_bytes(whole)
        assert cache.get(kind, key) is None
    assert cache.get("plan", KEY) == DATA


# --- whose it is --------------------------------------------------------------------------


def refused(cache: DiskCache, what: str) -> None:
    """Assert that nothing is read or written, and that this is said once."""
    before = sorted((f, f.read_bytes()) for f in cache.folder.iterdir())
    with pytest.warns(UserWarning, match=f"the cache is not used: its folder {what}") as said:
        assert cache.get("plan", KEY) is None
        cache.put("plan", OTHER, DATA)
        assert cache.get("plan", KEY) is None
    assert len(said) == 1 and "help: GRAPHC_CACHE_DIR names another" in str(said[0].message)
    assert sorted((f, f.read_bytes()) for f in cache.folder.iterdir()) == before


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(
    cache: DiskCache, entry: Path, mode: int
) -> None:
    cache.folder.chmod(mode)
    refused(cache, rf"can be written to by others \(mode {mode:o}\)")
    cache.folder.chmod(0o755)
    assert cache.get("plan", KEY) == DATA


@posix
def test_a_folder_of_another_user_is_refused(
    cache: DiskCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.geteuid()
    if own == 0:
        os.chown(cache.folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    refused(cache, "belongs to user")


@posix
def test_a_file_of_another_user_or_open_to_others_is_not_read(
    cache: DiskCache, entry: Path
) -> None:
    entry.chmod(0o660)
    assert cache.get("plan", KEY) is None
    entry.chmod(0o600)
    assert cache.get("plan", KEY) == DATA
    if os.geteuid() == 0:
        os.chown(entry, 12345, -1)
        assert cache.get("plan", KEY) is None


@posix
def test_links_lead_nowhere(cache: DiskCache, entry: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    entry.rename(target)
    whole = target.read_bytes()
    entry.symlink_to(target)
    assert cache.get("plan", KEY) is None
    cache.put("plan", KEY, b"new")
    assert not entry.is_symlink() and target.read_bytes() == whole
    assert cache.get("plan", KEY) == b"new"


# --- a file system that refuses -----------------------------------------------------------


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@posix
def test_a_folder_that_is_read_only_is_read(
    cache: DiskCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(entry, (0, 0))
    cache.folder.chmod(0o500)
    if os.geteuid() == 0:  # to whom all is allowed
        real = os.open

        def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", read_only)
        monkeypatch.setattr(os, "utime", refusing(errno.EROFS))
    assert cache.get("plan", KEY) == DATA
    cache.put("plan", OTHER, DATA)
    assert cache.get("plan", OTHER) is None
    assert [f.name for f in cache.files()] == [entry.name]
    cache.folder.chmod(0o700)


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        cache = DiskCache(tmp_path / folder)
        cache.put("plan", KEY, DATA)
        assert cache.get("plan", KEY) is None
    assert (tmp_path / "file").read_text() == ""


def forked(work: Callable[[], object]) -> int:
    """Do this in a process of its own, which ends with 0 if it went well; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@posix
def test_what_does_not_fit_is_not_there(cache: DiskCache) -> None:
    """A write that ends in its midst: what was there before stays, and nothing half done."""
    resource = importlib.import_module("resource")

    def write() -> None:
        cache.put("plan", OTHER, b"short")
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        for size, fits in ((10, 1), (200, 1), (400, 0), (10_000, 0), (1_000_000, 0)):
            cache.put("plan", KEY, b"y" * size)
            assert (cache.get("plan", KEY) == b"y" * size) == fits

    assert ended(forked(write)) == 0
    assert cache.get("plan", OTHER) == b"short" and cache.get("plan", KEY) == b"y" * 200
    assert len(cache.files()) == 2


def test_a_full_disk_is_no_error(
    cache: DiskCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", refusing(errno.ENOSPC))
    cache.put("plan", OTHER, DATA)
    assert [f.name for f in cache.files()] == [entry.name] and cache.get("plan", KEY) == DATA


# --- processes ----------------------------------------------------------------------------


def write_often(cache: DiskCache, turns: int) -> None:
    for turn in range(turns):
        for number in range(5):
            key = f"{number:064x}"
            found = cache.get("code", key)
            assert found is None or set(found) == {number}
            cache.put("code", key, bytes([number]) * (1 + (turn * 99_991) % 300_000))


def whole_entries(cache: DiskCache) -> int:
    """How many of the writers' entries there are; each is as one of them wrote it."""
    found = [cache.get("code", f"{number:064x}") for number in range(5)]
    assert all(data is None or set(data) == {n} for n, data in enumerate(found))
    return sum(data is not None for data in found)


@posix
def test_eight_processes_share_a_folder(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    writers = [forked(lambda: write_often(cache, 8)) for _ in range(8)]
    assert list(map(ended, writers)) == [0] * 8
    assert whole_entries(cache) == len(cache.files()) == 5


@posix
def test_a_process_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    for moment in range(10):
        cache.clear()
        writer = forked(lambda: write_often(cache, 100_000))
        while not whole_entries(cache):
            time.sleep(0.001)
        time.sleep(moment * 0.007)
        os.kill(writer, signal.SIGKILL)
        assert ended(writer) == -signal.SIGKILL
        assert whole_entries(cache) > 0
    for number in range(5):
        cache.put("code", f"{number:064x}", bytes([number]))
    assert whole_entries(cache) == 5
    # What was half written is no entry, and goes when nobody can be writing it any more.
    for file in cache.folder.glob(".new-*"):
        os.utime(file, (0, 0))
    cache.prune(cache.limit)
    assert len(cache.files()) == 5


def test_what_a_killed_writer_leaves_behind_goes(cache: DiskCache, entry: Path) -> None:
    left, fresh = (cache.folder / f".new-{n}-{'0' * 16}" for n in (1, 2))
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert [f.name for f in cache.prune(cache.limit)] == [left.name]
    assert fresh.exists() and entry.exists()


# --- size ---------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(cache: DiskCache) -> None:
    keys = [f"{n:064x}" for n in range(6)]
    for age, key in enumerate(keys):
        cache.put("code", key, bytes(1000))
        then = time.time() - 7200 * (len(keys) - age)
        os.utime(cache.folder / f"code-{key}", (then, then))
    assert cache.get("code", keys[0]) is not None  # and is now the one that was used last
    removed = cache.prune(3 * (1000 + _HEAD.size))
    assert [f.name[-1] for f in removed] == ["3", "2", "1"]
    assert [cache.get("code", key) is not None for key in keys] == [1, 0, 0, 0, 1, 1]


def test_nothing_older_stays_than_what_goes(cache: DiskCache) -> None:
    keys = [f"{n:064x}" for n in range(3)]
    for age, (key, size) in enumerate(zip(keys, (1000, 5000, 10), strict=True)):
        cache.put("code", key, bytes(size))
        os.utime(cache.folder / f"code-{key}", (10_000 - age,) * 2)
    removed = cache.prune(3000)
    assert [f.name[-1] for f in removed] == ["1", "2"]


def test_the_size_is_bounded_while_it_is_written_to(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 100_000)
    for number in range(200):
        cache.put("code", f"{number:064x}", bytes(5_000))
        assert sum(f.nbytes for f in cache.files()) <= 100_000 * 9 / 8 + 6_000
    assert cache.get("code", f"{199:064x}") is not None
    cache.put("code", KEY, bytes(100_001))
    assert cache.get("code", KEY) is None


def test_a_new_process_prunes_once_a_day(cache: DiskCache, entry: Path) -> None:
    stamp = cache.folder / ".pruned"
    assert stamp.exists()
    small = DiskCache(cache.folder, 1000)
    small.put("ptx", KEY, b"x")
    assert entry.exists()
    os.utime(stamp, (0, 0))
    os.utime(entry, (0, 0))
    small = DiskCache(cache.folder, 900)
    small.put("ptx", OTHER, b"x" * 100)
    assert not entry.exists() and small.get("ptx", OTHER) is not None
    assert time.time() - stamp.stat().st_mtime < 1000


# --- the environment ----------------------------------------------------------------------


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("GRAPHC_CACHE_DIR", "GRAPHC_CACHE_SIZE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is the platform's")
def test_the_folder_is_the_platforms(plain: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = disk_cache()
    assert found is not None and found.folder == tmp_path / ".cache/graphc"
    assert found.limit == DEFAULT_LIMIT and not found.folder.exists()
    plain.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert (found := disk_cache()) is not None and found.folder == tmp_path / "x/graphc"
    plain.setenv("XDG_CACHE_HOME", "not/absolute")
    assert (found := disk_cache()) is not None and found.folder == tmp_path / ".cache/graphc"
    plain.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "own"))
    plain.setenv("GRAPHC_CACHE_SIZE", "3M")
    assert (found := disk_cache()) is not None and found.folder == tmp_path / "own"
    assert found.limit == 3 << 20
    for off in ("", "off"):
        plain.setenv("GRAPHC_CACHE_DIR", off)
        assert disk_cache() is None


@pytest.mark.parametrize(
    "text, size",
    [
        ("0", 0),
        ("512", 512),
        ("3K", 3072),
        ("2 mb", 2 << 20),
        ("1GiB", 1 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_size_that_is_none_is_said(plain: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain.setenv("GRAPHC_CACHE_SIZE", "lots")
    plain.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "own"))
    with pytest.warns(UserWarning, match="'lots' is no size such as 500M or 2G"):
        found = disk_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert disk_cache() is found is not None and found.limit == DEFAULT_LIMIT


# --- the command --------------------------------------------------------------------------


def test_the_command_shows_prunes_and_clears(
    plain: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, golden: Callable[[str, str], None]
) -> None:
    plain.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "own"))
    cache = disk_cache()
    assert cache is not None

    def said(*words: str) -> str:
        assert main(["cache", *words]) == 0
        out: str = capsys.readouterr().out
        return f"$ graphc {' '.join(['cache', *words])}\n{out.replace(str(tmp_path), '/home')}"

    text = said()
    for number, kind in enumerate(["plan", "plan", "code"]):
        cache.put(kind, f"{number:064x}", bytes(3000))
        os.utime(cache.folder / f"{kind}-{number:064x}", (number, number))
    (cache.folder / "notes.txt").write_text("of the user's")
    (cache.folder / f".new-1-{'0' * 16}").write_text("half")
    text += said("show") + said("prune") + said("prune", "--size", "5K") + said("clear")
    assert {f.name for f in cache.folder.iterdir()} == {"notes.txt", ".pruned"}
    plain.setenv("GRAPHC_CACHE_DIR", "off")
    golden("cli/cache.txt", text + said())


@posix
def test_the_command_says_what_is_wrong_with_the_folder(
    plain: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, golden: Callable[[str, str], None]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o777)
    plain.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "own"))
    assert main(["cache"]) == 1
    text = capsys.readouterr().err
    plain.setenv("GRAPHC_CACHE_DIR", __file__)
    assert main(["cache", "clear"]) == 1
    text += capsys.readouterr().err.replace(__file__, "/home/file")
    golden("cli/cache_refused.txt", text.replace(str(tmp_path), "/home"))


def test_a_limit_goes_with_prune(capsys: Any) -> None:
    assert main(["cache", "clear", "--size", "3K"]) == 2
    assert "--size goes with prune" in capsys.readouterr().err
    assert main(["cache", "prune", "--size", "much"]) == 2
    assert "'much' is no size such as 500M or 2G" in capsys.readouterr().err
