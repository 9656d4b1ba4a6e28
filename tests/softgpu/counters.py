"""What launches did, counted: instructions, and the memory that they asked for.

Thread instructions cost nothing to count. The rest costs much: every access is looked at again,
by warps, as the memory system of a GPU sees it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.ptx.kinds import I64
from tests.softgpu.threads.access import Access
from tests.softgpu.threads.groups import Group

if TYPE_CHECKING:
    from tests.softgpu.kernels import Kernel
    from tests.softgpu.threads.part import Launch, Part

SECTOR = 32  # bytes that memory moves at least
ADDRESS_BITS = 47
KINDS = ("load", "store", "atomic")
BANKS, BANK_BYTES = 32, 4


@dataclass(frozen=True)
class Traffic:
    """What one kind of access did: of all parameters together, or by one of them.

    `requested` are the bytes that threads asked for, `sectors` those of 32 bytes that warps
    touched, access by access. `distinct` are bytes of the sectors that the launch touched at
    all, and `by_block` the sum of those that each block touched: what has to be moved if caches
    hold all that is used again, in the whole launch or within a block. `widths` are accesses of
    threads by bytes.
    """

    accesses: int = 0  # of warps
    requested: int = 0
    sectors: int = 0
    distinct: int = 0
    by_block: int = 0
    widths: Mapping[int, int] = field(default_factory=dict)

    @property
    def efficiency(self) -> float:
        """Bytes requested of bytes in the sectors touched: 1 where accesses coalesce."""
        return self.requested / (SECTOR * self.sectors) if self.sectors else 1.0


@dataclass(frozen=True)
class Counts:
    """Counts of one launch.

    Where a sample of its blocks ran (`sampled` < `blocks`), numbers are scaled to all of them,
    and `distinct` is an upper bound: it is right only if no two blocks touch the same bytes.
    `by_parameter` is by the parameters that addresses come from (`a or b` where the code leaves
    it open, `*` for addresses that were loaded from memory), and then by one of KINDS.
    """

    kernel: str
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    blocks: int
    sampled: int  # how many of them ran
    opcodes: Mapping[str, int]  # thread instructions by opcode with modifiers
    warp_instructions: int = 0
    loads: Traffic | None = None  # None: these were not counted
    stores: Traffic | None = None
    atomics: Traffic | None = None
    by_parameter: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)
    shared_accesses: int = 0  # of warps
    shared_wavefronts: int = 0  # of warps, each counted as often as its banks conflict

    @property
    def instructions(self) -> int:
        """Thread instructions."""
        return sum(self.opcodes.values())


@dataclass
class _Tally:
    """What is counted of accesses of one kind by one parameter."""

    accesses: int = 0
    requested: int = 0
    sectors: int = 0
    by_block: int = 0
    widths: Counter[int] = field(default_factory=Counter)
    touched: list[np.ndarray] = field(default_factory=list)  # sectors, each once in an array
    now: list[np.ndarray] = field(default_factory=list)  # sectors of this part, with their block


class LaunchCounter:
    """Counts while a launch runs."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.warp_instructions = 0
        self.tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
        self.shared_accesses = self.shared_wavefronts = 0

    def block(self, size: int, G: Group) -> None:
        """A group runs a block of so many instructions."""
        self.warp_instructions += size * G.warp_count

    def access(self, access: Access, S: Part, G: Group, address: Any) -> None:
        """The threads of a group touch memory."""
        if access.space == "shared":
            self._shared(access, G, address)
        elif access.space == "global":
            name = " or ".join(sorted(access.origins)) or "unknown"
            self._global(self.tallies[access.what, name], access, S, G, address)

    def _global(self, tally: _Tally, access: Access, S: Part, G: Group, address: Any) -> None:
        at = G.each(address)
        tally.accesses += G.warp_count
        tally.requested += access.nbytes * G.n
        tally.widths[access.nbytes] += G.n
        tally.sectors += _distinct(G, at // SECTOR)  # being aligned, an access is within one
        tally.now.append((S.block_of(G) << ADDRESS_BITS | at) // SECTOR)

    def _shared(self, access: Access, G: Group, address: Any) -> None:
        at = G.each(address)
        self.shared_accesses += G.warp_count
        for k in range(max(access.nbytes // BANK_BYTES, 1)):
            self.shared_wavefronts += _wavefronts(G.warps, at // BANK_BYTES + k)

    def end_part(self) -> None:
        """The blocks that ran at once have ended."""
        for tally in self.tallies.values():
            if tally.now:
                keys = np.unique(np.concatenate(tally.now))
                tally.now = []
                tally.by_block += len(keys) * SECTOR
                tally.touched.append(np.unique(keys % ((1 << ADDRESS_BITS) // SECTOR)))

    def traffic(self, what: str, names: list[str], scale: float) -> Traffic:
        """The counts of one kind of access by parameters, together."""
        held = [self.tallies[what, name] for name in names if (what, name) in self.tallies]
        touched = [units for tally in held for units in tally.touched]
        distinct = len(np.unique(np.concatenate(touched))) * SECTOR if touched else 0
        widths: Counter[int] = Counter()
        for tally in held:
            widths.update(tally.widths)
        return Traffic(
            _scaled(sum(t.accesses for t in held), scale),
            _scaled(sum(t.requested for t in held), scale),
            _scaled(sum(t.sectors for t in held), scale), _scaled(distinct, scale),
            _scaled(sum(t.by_block for t in held), scale),
            {width: _scaled(many, scale) for width, many in sorted(widths.items())},
        )  # fmt: skip


def counts_of(launch: Launch, sampled: int) -> Counts:
    """The counts of a launch of which so many blocks ran."""
    scale = launch.blocks / sampled
    counter, opcodes = launch.counter, launch.kernel.opcodes(launch.ran)
    plain = Counts(
        launch.kernel.name, launch.grid, launch.threads, launch.blocks, sampled,
        {name: _scaled(many, scale) for name, many in opcodes.items()},
    )  # fmt: skip
    if counter is None:
        return plain
    names = sorted({name for _, name in counter.tallies})
    by_parameter = {
        name: {what: counter.traffic(what, [name], scale) for what in KINDS
               if (what, name) in counter.tallies}
        for name in names
    }  # fmt: skip
    return replace(
        plain, by_parameter=by_parameter,
        warp_instructions=_scaled(counter.warp_instructions, scale),
        shared_accesses=_scaled(counter.shared_accesses, scale),
        shared_wavefronts=_scaled(counter.shared_wavefronts, scale),
        loads=counter.traffic("load", names, scale),
        stores=counter.traffic("store", names, scale),
        atomics=counter.traffic("atomic", names, scale),
    )  # fmt: skip


def _scaled(number: float, scale: float) -> int:
    return round(number * scale)


def _distinct(G: Group, numbers: np.ndarray) -> int:
    """How many different numbers each warp has, all warps together."""
    if G.whole:
        rows = np.sort(numbers.reshape(-1, 32), axis=1)
        return len(rows) + int(np.count_nonzero(rows[:, 1:] != rows[:, :-1]))
    return len(np.unique(G.warps << ADDRESS_BITS | numbers))


def _wavefronts(warps: np.ndarray, words: np.ndarray) -> int:
    """How often the banks of shared memory are asked: lanes that read one word ask once."""
    low, width = words.min(), int(words.max() - words.min()) + 1
    unique = np.unique(warps.astype(I64) * width + (words - low))
    bank = (unique % width + low) % BANKS
    _, which = np.unique(unique // width, return_inverse=True)
    loads = np.bincount(which * BANKS + bank, minlength=(which.max() + 1) * BANKS)
    return int(loads.reshape(-1, BANKS).max(axis=1).sum())
