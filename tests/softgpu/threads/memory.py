"""Memory as kernels see it: bytes, and a state for each of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from tests.softgpu.native import Space
from tests.softgpu.ptx.kinds import BYTES, I64, NUMPY
from tests.softgpu.threads.groups import Group

UNALLOCATED, ALLOCATED, WRITTEN, FREED = range(4)


class Memory:
    """One space: windows of bytes and of their states, cut into a part for each owner.

    `data` and `shadow` are flat arrays; the memory of owner k (a block or a thread) begins at
    k * stride. `owner` says which one is whose, by slots; None if there is one for all.
    """

    def __init__(self, name: str, nbytes: int, owners: int, owner: np.ndarray | None) -> None:
        self.name, self.nbytes = name, nbytes
        self.stride = -(-nbytes // 16) * 16
        data = np.empty(self.stride * owners + 16, np.uint8)
        start = -data.ctypes.data % 16
        self.data = data[start : start + self.stride * owners]
        shadow = np.zeros((owners, self.stride), np.uint8)
        shadow[:, :nbytes] = ALLOCATED
        self.shadow = shadow.reshape(-1)
        self.begins = None if owner is None else owner.astype(I64) * self.stride
        self.space = Space(
            data=self.data.ctypes.data, shadow=self.shadow.ctypes.data, base=0, nbytes=nbytes,
        )  # fmt: skip
        self.watched: tuple[np.ndarray, ...] = ()

    def watch(self, epochs: np.ndarray, padded: int, unit: int) -> None:
        """Find races: two warps of a block touch a unit, one writes, and no barrier between.

        `epochs` counts the barriers of every block; a unit is 2 ** unit bytes.
        """
        count = len(self.shadow) >> unit
        self.watched = (np.zeros(count, np.uint64), np.zeros(count, np.uint64), epochs)
        space = self.space
        space.writers, space.readers, space.epochs = (a.ctypes.data for a in self.watched)
        space.padded, space.unit = padded, unit

    def lanes(self, G: Group) -> np.ndarray | None:
        """By how much each thread of the group is displaced in the windows."""
        if self.begins is None:
            return None
        found = G.begins.get(self.name)
        if found is None:
            found = G.begins[self.name] = self.begins.take(G.slots)
        return found

    def cell(self, place: int, kind: str) -> np.ndarray:
        """One value in memory, to read and write."""
        held = (ctypes.c_uint8 * BYTES[kind]).from_address(self.space.data + place)
        return np.frombuffer(held, NUMPY[kind])

    def states(self, place: int, nbytes: int) -> bytes:
        return self.shadow[place : place + nbytes].tobytes()

    def describe(self, address: int) -> str:
        """What lies at an address, in words."""
        return f"byte {address} of {self.nbytes} bytes of {self.name} memory"


class DeviceMemory(Memory):
    """The memory of a device, and what of the host's it sees: windows of the driver."""

    def __init__(
        self, data: int, shadow: int, base: int, nbytes: int, pinned: tuple[int, int] = (0, 0),
        describe: Callable[[int], str] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.nbytes, self.begins, self.watched = "global", nbytes, None, ()
        self.space = Space(
            data=data, shadow=shadow, base=base, nbytes=nbytes, start=pinned[0], stop=pinned[1]
        )
        self._describe = describe

    def forget(self, start: int, stop: int) -> None:
        """Let allocated memory between two addresses count as never written."""
        ctypes.memset(self.space.shadow + start - self.space.base, ALLOCATED, stop - start)

    def states(self, place: int, nbytes: int) -> bytes:
        return ctypes.string_at(self.space.shadow + place, nbytes)

    def describe(self, address: int) -> str:
        return self._describe(address) if self._describe else f"address {address:#x}"
