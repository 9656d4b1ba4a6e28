"""A value of the primitive arithmetic over LLVM: Python's operators call the arithmetic."""

from __future__ import annotations

from typing import Any, Protocol


class Arithmetic(Protocol):
    """What a value asks of its arithmetic."""

    def arithmetic(self, name: str, a: Any, b: Any) -> Value: ...

    def bitwise(self, name: str, a: Any, b: Any) -> Value: ...

    def compare(self, sign: str, a: Any, b: Any) -> Value: ...

    def negative(self, a: Value) -> Value: ...


class Value:
    """An LLVM value of a kind; its operators take the same kind or plain numbers."""

    __slots__ = ("m", "ir", "kind")

    def __init__(self, m: Arithmetic, value: Any, kind: str) -> None:
        self.m, self.ir, self.kind = m, value, kind

    def __add__(self, other: Any) -> Value:
        return self.m.arithmetic("add", self, other)

    def __sub__(self, other: Any) -> Value:
        return self.m.arithmetic("sub", self, other)

    def __mul__(self, other: Any) -> Value:
        return self.m.arithmetic("mul", self, other)

    def __truediv__(self, other: Any) -> Value:
        return self.m.arithmetic("div", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.m.arithmetic("add", other, self)

    def __rsub__(self, other: Any) -> Value:
        return self.m.arithmetic("sub", other, self)

    def __rmul__(self, other: Any) -> Value:
        return self.m.arithmetic("mul", other, self)

    def __rtruediv__(self, other: Any) -> Value:
        return self.m.arithmetic("div", other, self)

    def __neg__(self) -> Value:
        return self.m.negative(self)

    def __and__(self, other: Any) -> Value:
        return self.m.bitwise("and_", self, other)

    def __or__(self, other: Any) -> Value:
        return self.m.bitwise("or_", self, other)

    def __xor__(self, other: Any) -> Value:
        return self.m.bitwise("xor", self, other)

    def __invert__(self) -> Value:
        return self.m.bitwise("xor", self, True if self.kind == "bool" else -1)

    def __lshift__(self, other: Any) -> Value:
        return self.m.bitwise("shl", self, other)

    def __rshift__(self, other: Any) -> Value:
        return self.m.bitwise("ashr" if self.kind[0] == "i" else "lshr", self, other)

    def __lt__(self, other: Any) -> Value:
        return self.m.compare("<", self, other)

    def __le__(self, other: Any) -> Value:
        return self.m.compare("<=", self, other)

    def __gt__(self, other: Any) -> Value:
        return self.m.compare(">", self, other)

    def __ge__(self, other: Any) -> Value:
        return self.m.compare(">=", self, other)

    def __eq__(self, other: Any) -> Value:  # type: ignore[override]
        return self.m.compare("==", self, other)

    def __ne__(self, other: Any) -> Value:  # type: ignore[override]
        return self.m.compare("!=", self, other)

    __hash__ = None  # type: ignore[assignment]
