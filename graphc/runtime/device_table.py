"""The table of a launch that does the work of several: where it lies on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.codegen.plan import Extent, Table
from graphc.runtime.cuda_device import CudaDevice


class DeviceTable:
    """A `Table` in device memory, with the device's addresses in place of buffer numbers.

    It is written by copies on the device's stream, so that launches there read it as it was when
    they were enqueued. The words on the host may change after such a copy, since `upload` has
    taken them by then.
    """

    def __init__(self, device: CudaDevice, table: Table) -> None:
        words = [word for row in table.rows for word in row]
        self._numbers = [word for word in words if not isinstance(word, Extent)]
        self._at = [n for n, word in enumerate(words) if not isinstance(word, Extent)]
        numbers = [word.value if isinstance(word, Extent) else 0 for word in words]
        self._words = np.array(numbers, np.int64)
        self._held: list[int] | None = None
        self._device = device
        self._memory, self.address = device.allocate(self._words.nbytes)

    def bind(self, addresses: Sequence[int]) -> None:
        """Copy the table to the device if a buffer is elsewhere now."""
        wanted = [addresses[number] for number in self._numbers]
        if wanted != self._held:
            self._words[self._at] = wanted
            self._device.upload(self.address, self._words)
            self._held = wanted
