"""A plan as bytes, and back: JSON, and behind it the elements of its constants.

Constants that the traced graph has, too, are told by their numbers there. Every field of the
records is written, so what is read back is equal to the plan, its errors included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from struct import Struct
from typing import Any

import numpy as np

from graphc import errors
from graphc.codegen.plan import (
    Buffer,
    Extent,
    Gemm,
    Launch,
    Place,
    Plan,
    Step,
    StepKind,
    Table,
)
from graphc.dtypes import DTYPES, DType, Type, dtype
from graphc.ir import Loc

MOST_BYTES = 64 << 20
"""The most bytes of constants that a plan has of its own and is still kept."""
_LENGTH = Struct("<Q")
_LONG = 40  # characters: a text from here on is written once
_RECORDS: dict[str, Any] = {
    record.__name__: record for record in (Buffer, Extent, Gemm, Launch, Loc, Plan, Step, Table)
}
_FIELDS = {record: [f.name for f in fields(record)] for record in _RECORDS.values()}
_ENUMS: dict[str, Any] = {enum.__name__: enum for enum in (Place, StepKind)}


class NotSerializable(Exception):
    """The plan cannot be serialized: it holds a function, or too much."""


def plan_bytes(plan: Plan, constants: Sequence[Any]) -> bytes:
    """The plan as bytes; `constants` are the arrays of the traced graph. Raises NotSerializable."""
    writer = _Writer(constants)
    body = writer.written(plan)
    text = json.dumps([writer.shared, body], separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *writer.elements])


def read_plan(data: bytes, constants: Sequence[Any]) -> Plan:
    """The plan of which these are the bytes, with constants of an equal traced graph."""
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    shared, body = json.loads(data[_LENGTH.size : start])
    reader = _Reader(constants, memoryview(data)[start:])
    for value in shared:
        reader.shared.append(reader.value(value))
    plan = reader.value(body)
    assert isinstance(plan, Plan)
    return plan


class _Writer:
    def __init__(self, constants: Sequence[Any]) -> None:
        self.known = {id(array): number for number, array in enumerate(constants)}
        self.shared: list[Any] = []
        self.numbers: dict[Any, int] = {}
        self.elements: list[bytes] = []
        self.used = 0

    def written(self, value: Any) -> Any:
        """A value as JSON has it: lists are tuples, an object of one key says what it holds."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return value if len(value) < _LONG else self.once(value, value)
            case tuple():
                return [self.written(v) for v in value]
            case dict():
                return {"dict": [[self.written(k), self.written(v)] for k, v in value.items()]}
            case DType():
                return {"dtype": value.name}
            case Type() if value.is_static:
                return self.once(value, {"Type": [value.dtype.name, *value.shape]})
            case Place() | StepKind():
                return {type(value).__name__: value.value}
            case errors.GraphcError():
                said = value.message, value.values, value.loc, value.help
                return {"error": [type(value).__name__, *map(self.written, said)]}
            case np.ndarray():
                return self.array(value)
        if type(value) not in _FIELDS:
            raise NotSerializable(type(value).__name__)
        parts = [self.written(getattr(value, name)) for name in _FIELDS[type(value)]]
        return {type(value).__name__: parts}

    def once(self, value: Any, form: Any) -> Any:
        """A reference to what is written once."""
        key = type(value), value
        if key not in self.numbers:
            self.numbers[key] = len(self.shared)
            self.shared.append(form)
        return {"": self.numbers[key]}

    def array(self, array: Any) -> Any:
        if id(array) in self.known:
            return {"constant": self.known[id(array)]}
        start = self.used
        self.used += array.nbytes
        if self.used > MOST_BYTES:
            raise NotSerializable("constants of many bytes")
        self.elements.append(np.ascontiguousarray(array).tobytes())
        return {"array": [dtype(array.dtype).name, start, *array.shape]}


class _Reader:
    def __init__(self, constants: Sequence[Any], elements: memoryview) -> None:
        self.constants, self.elements = constants, elements
        self.shared: list[Any] = []

    def value(self, form: Any) -> Any:
        if type(form) is list:
            return tuple([self.value(f) for f in form])
        if type(form) is not dict:
            return form
        ((tag, held),) = form.items()
        if tag in _RECORDS:
            return _RECORDS[tag](*[self.value(f) for f in held])
        match tag:
            case "":
                return self.shared[held]
            case "dict":
                return {self.value(k): self.value(v) for k, v in held}
            case "dtype":
                return DTYPES[held]
            case "Type":
                return Type(DTYPES[held[0]], tuple(held[1:]))
            case "error":
                name, message, values, loc, help = held
                made = getattr(errors, name)
                loc = self.value(loc)
                return made(
                    self.value(message),
                    values=self.value(values),
                    loc=loc,
                    help=self.value(help),
                )
            case "constant":
                return self.constants[held]
            case "array":
                name, start, *shape = held
                count, kept = math.prod(shape), DTYPES[name].numpy
                if not count:
                    return np.empty(shape, kept)
                there = np.frombuffer(self.elements, kept, count, start)
                return there.reshape(shape).copy()  # where it is aligned
        return _ENUMS[tag](held)
