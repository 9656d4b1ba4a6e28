"""What goes wrong on the device, with the code by which the driver says so."""

from __future__ import annotations

OUT_OF_MEMORY = 2
INVALID_PTX = 218
ILLEGAL_ADDRESS = 700
OUT_OF_RESOURCES = 701
LAUNCH_TIMEOUT = 702
MISALIGNED_ADDRESS = 716
LAUNCH_FAILED = 719
NOT_SUPPORTED = 801


class Fault(Exception):
    """A kernel did what it must not do; `code` is the CUresult that a driver would give."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class InvalidPtx(Fault):
    """Text that is not PTX."""

    def __init__(self, text: str) -> None:
        super().__init__(INVALID_PTX, text)


class NotSupported(Fault):
    """PTX that the software GPU has no translation for."""

    def __init__(self, text: str) -> None:
        super().__init__(NOT_SUPPORTED, f"not supported: {text}")
