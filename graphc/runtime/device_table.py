"""The table of a launch that does the work of several: where it lies on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.plan import Extent, Table
from graphc.runtime.device_array import upload


class DeviceTable:
    """A `Table` in device memory, with the device's addresses in place of buffer numbers.

    `memory` has its 8 bytes a word. It is written by copies on `stream`, so that launches there
    read it as it was when they were enqueued.
    """

    def __init__(self, core: Any, stream: Any, memory: Any, table: Table) -> None:
        self._core, self._stream, self._memory = core, stream, memory
        words = [word for row in table.rows for word in row]
        self._numbers = [word for word in words if not isinstance(word, Extent)]
        self._at = [n for n, word in enumerate(words) if not isinstance(word, Extent)]
        numbers = [word.value if isinstance(word, Extent) else 0 for word in words]
        self._words = np.array(numbers, np.int64)
        self._held: list[int] | None = None

    def bind(self, addresses: Sequence[int]) -> int:
        """The table's own address, after a copy to the device if a buffer is elsewhere now."""
        wanted = [addresses[number] for number in self._numbers]
        if wanted != self._held:
            self._words[self._at] = wanted
            upload(self._core, self._stream, self._memory, self._words)
            self._held = wanted
        return int(self._memory.handle)


def table_bytes(table: Table) -> int:
    """The size of a table in device memory."""
    return 8 * sum(map(len, table.rows))
