"""The type and the numbers of an array that lies elsewhere, as Python and NumPy have them."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from graphc.dtypes import Type
from graphc.errors import ArgumentError, InvalidIndex, MutationError, TypeMismatch
from graphc.functions.promote import Array
from graphc.provenance import call_site


class HostNumbers(Array):
    """Base of arrays with a `type`, whose `cpu()` is a copy as a NumPy array.

    What asks for a number copies one element alone. It is refused where NumPy refuses it, by an
    error of the same built-in class.
    """

    type: Type

    @property
    def device(self) -> str:
        """The name of the place where it lies."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def cpu(self) -> NDArray[Any]:
        """A copy in host memory."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.static_shape

    @shape.setter
    def shape(self, shape: Any) -> NoReturn:
        _refuse_to_set("shape", "write x = x.reshape(shape)")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @dtype.setter
    def dtype(self, dtype: Any) -> NoReturn:
        _refuse_to_set("dtype", "x.astype(dtype) is an array of the numbers in another dtype")

    @property
    def ndim(self) -> int:
        return self.type.ndim

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def itemsize(self) -> int:
        return self.type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    def item(self, *position: Any) -> bool | int | float:
        """The one element, or that at a position (flat or by axes), as a Python number."""
        if len(position) == 1 and isinstance(position[0], tuple):
            (position,) = position
        if not position:
            if self.size != 1:
                raise ArgumentError(
                    f"item: an array of {self.size} elements is no Python number",
                    values=[("array", self.type)],
                    help="x.item(0) is that of the first element" if self.size else None,
                ).at(call_site()[0])
            return _number(self.cpu())
        if len(position) == 1:
            position = np.unravel_index(*self._flat(position[0]))
        element = self[tuple(operator.index(p) for p in position)]
        if element.ndim:
            raise ArgumentError(f"item: {len(position)} indices for {self.ndim} dimensions").at(
                call_site()[0]
            )
        return _number(element.cpu())

    def _flat(self, position: Any) -> tuple[int, tuple[int, ...]]:
        at = operator.index(position)
        if not -self.size <= at < self.size:
            raise InvalidIndex(
                f"item: index {at} is out of bounds for {self.size} elements"
            ).at(call_site()[0])
        return at % self.size, self.shape

    def tolist(self) -> Any:
        """The elements as Python numbers, in nested lists."""
        return self.cpu().tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(
                f"the truth value of an array of {self.size} elements is ambiguous",
                values=[("array", self.type)],
                help="use x.any() or x.all()" if self.size else "x.size > 0 asks for elements",
            ).at(call_site()[0])
        return bool(self.cpu())

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        if self.ndim or not self.type.dtype.is_integer:
            raise TypeMismatch(
                "only a 0-d array of integers is an index", values=[("array", self.type)]
            ).at(call_site()[0])
        return int(self.cpu())

    def _scalar(self, kind: str) -> NDArray[Any]:
        if self.ndim:
            raise TypeMismatch(
                f"only a 0-d array becomes a Python {kind}",
                values=[("array", self.type)],
                help="x.item() is the number of one element" if self.size == 1 else None,
            ).at(call_site()[0])
        return self.cpu()

    def __format__(self, spec: str) -> str:
        if spec and self.ndim:
            raise TypeMismatch(
                f"the format {spec!r} is for one number", values=[("array", self.type)]
            ).at(call_site()[0])
        return format(self.cpu(), spec)

    def __str__(self) -> str:
        return str(self.cpu())

    def __repr__(self) -> str:
        name = f"{self.__class__.__name__}("
        text = np.array2string(self.cpu(), separator=", ", prefix=name)
        empty = "" if self.size or self.shape == (0,) else f"shape={self.shape}, "
        return f"{name}{text}, {empty}dtype={self.dtype}, device='{self.device}')"


def _refuse_to_set(what: str, help: str) -> NoReturn:
    raise MutationError(f"the {what} of an array on a device cannot be set", help=help).at(
        call_site()[0]
    )


def _number(host: NDArray[Any]) -> bool | int | float:
    number: bool | int | float = host.item()
    return number
