"""The arguments of a checked launch: given arrays put behind checks, or arrays made up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import Layout, layout_of
from graphc.codegen.simt_memory import Machine, Memory
from graphc.dtypes import DType, Type
from graphc.errors import ArgumentError

INPUT, OUTPUT, INOUT, TEMP = "input", "output", "inout", "temp"
STATUS = "status"  # the word that `check` writes; it is 0 at first, whatever its role

Buffers = Mapping[str, Sequence[np.ndarray[Any, Any]]]


class Located(NamedTuple):
    """An array that a kernel finds by its address, by the kernel's name for it."""

    name: str
    array: np.ndarray[Any, Any]
    memory: Memory

    @property
    def address(self) -> int:
        return _place(self.array)[0]


def bind(
    machine: Machine,
    kernel: KernelSource,
    args: Sequence[Any],
    blank: Collection[int],
    fixed: Collection[int],
) -> list[Any]:
    """The arguments as the kernel takes them: ints, and arrays behind checks."""
    params = kernel.params
    if len(args) != len(params):
        raise ArgumentError(f"{kernel.name} takes {len(params)} arguments, not {len(args)}")
    types = {n: type for n, (_, type) in enumerate(params) if isinstance(type, Type)}
    arrays = list(types)
    bound: list[Any] = [None if n in arrays else np.int64(arg) for n, arg in enumerate(args)]
    for n, type in types.items():
        _fits(kernel, params[n][0], type, args[n])
    fixed = {n for n in arrays if n in fixed or not args[n].flags.writeable}
    # Written buffers first, so that a name that only reads the same memory sees their stamps.
    for n in sorted(arrays, key=lambda n: (n in fixed, n)):
        twins = _twins(kernel, n, args, arrays, fixed)
        known = [bound[m] for m in twins if bound[m] is not None]
        bound[n] = Memory(
            machine,
            params[n][0],
            types[n].dtype,
            args[n].shape,
            "global",
            values=None if {n, *twins} <= set(blank) else args[n],
            read_only=n in fixed and n not in blank,
            shares=known[0] if known else None,
        )
    return bound


def _twins(
    kernel: KernelSource,
    n: int,
    args: Sequence[Any],
    arrays: Sequence[int],
    fixed: Collection[int],
) -> list[int]:
    """The other parameters that have the memory of parameter `n`, one of them writing it.

    Raises ArgumentError where the kernel does not declare it, since it was compiled on the
    promise that they do not overlap, and for buffers that overlap in part.
    """
    twins = []
    for m in arrays:
        if m == n or {m, n} <= set(fixed) or not np.may_share_memory(args[m], args[n]):
            continue
        first, second = (kernel.params[k][0] for k in sorted((m, n)))
        if not any(first in group and second in group for group in kernel.alias):
            raise ArgumentError(
                f"{kernel.name}: {first} and {second} share memory, which it does not declare"
            )
        if _place(args[m]) != _place(args[n]):
            raise ArgumentError(f"{kernel.name}: {first} and {second} overlap in part")
        twins.append(m)
    return twins


def locate(
    machine: Machine,
    kernel: KernelSource,
    buffers: Buffers,
    blank: Collection[str],
    fixed: Collection[str],
) -> list[Located]:
    """The arrays that the kernel finds by their addresses, behind checks.

    `buffers` has those of every row of the table by the kernel's name for them; arrays at one
    address are one memory. Raises ArgumentError for arrays that do not fit, that overlap in
    part, and for those of one row that are one, one of them written, which the kernel does not
    declare.
    """
    layout = layout_of(kernel)
    found = _arrays_of_rows(kernel, buffers, layout)
    only_read = {n for n in buffers if n in fixed or layout.constant(n)}
    _check_overlaps(kernel, found, only_read)
    needed = {_place(array) for name, _, array in found if name not in blank}
    made: dict[tuple[int, int], Memory] = {}
    result = []
    for name, row, array in sorted(found, key=lambda one: one[0] in only_read):
        place = _place(array)
        memory = Memory(
            machine,
            f"row {row}'s {name}",
            layout.located[name].dtype,
            array.shape,
            "global",
            values=array if place in needed else None,
            read_only=(name in only_read or not array.flags.writeable) and name not in blank,
            shares=made.get(place),
        )
        made.setdefault(place, memory)
        result.append(Located(name, array, memory))
    return result


Row = tuple[str, int, np.ndarray[Any, Any]]
"""A buffer's name, the number of a row of the table, and the array that is found there."""


def _arrays_of_rows(kernel: KernelSource, buffers: Buffers, layout: Layout) -> list[Row]:
    """The arrays that have elements; raises ArgumentError for those that do not fit."""
    if set(buffers) != set(layout.located):
        wanted = ", ".join(layout.located) or "no buffer"
        raise ArgumentError(
            f"{kernel.name} finds {wanted} by address, not {', '.join(buffers) or 'none'}"
        )
    found = [(name, row, a) for name, arrays in buffers.items() for row, a in enumerate(arrays)]
    for name, _, array in found:
        _fits(kernel, name, layout.located[name], array)
    # An empty array has no element, and perhaps the address of another.
    return [one for one in found if one[2].size]


def _check_overlaps(
    kernel: KernelSource,
    found: Sequence[Row],
    only_read: Collection[str],
) -> None:
    for number, (name, row, array) in enumerate(found):
        for other, other_row, twin in found[:number]:
            if {name, other} <= set(only_read) or not np.may_share_memory(array, twin):
                continue
            both = f"{kernel.name}: row {other_row}'s {other} and row {row}'s {name}"
            if _place(array) != _place(twin):
                raise ArgumentError(f"{both} overlap in part")
            declared = any(name in group and other in group for group in kernel.alias)
            if row == other_row and not declared:
                raise ArgumentError(f"{both} share memory, which it does not declare")


def _place(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    return array.__array_interface__["data"][0], array.nbytes


def _fits(kernel: KernelSource, name: str, type: Type, arg: Any) -> None:
    fits = (
        isinstance(arg, np.ndarray)
        and arg.dtype == type.dtype.numpy
        and arg.ndim == type.ndim
        and all(
            not isinstance(want, int) or want == have
            for want, have in zip(type.shape, arg.shape, strict=True)
        )
    )
    if not fits:
        given = f"{arg.dtype} {arg.shape}" if isinstance(arg, np.ndarray) else repr(arg)
        raise ArgumentError(
            f"{kernel.name}: {name} does not fit its parameter",
            values=[("parameter", type), ("given", given)],
        )


def numbers(kernel: KernelSource, names: Collection[str | int]) -> set[int]:
    """The numbers of parameters given by name or number; raises ArgumentError if unknown."""
    known: dict[str | int, int] = {}
    for number, (name, _) in enumerate(kernel.params):
        known[name] = known[number] = number
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ArgumentError(f"{kernel.name} has no parameter {unknown[0]!r}")
    return {known[n] for n in names}


@dataclass(frozen=True)
class MadeUp:
    """Made-up arguments of a launch: `args` in order, and what is found by address, by name.

    `tables` names the parameters that hold the addresses.
    """

    args: list[Any]
    buffers: dict[str, list[np.ndarray[Any, Any]]]
    tables: tuple[str, ...] = ()


Role = str | int | range | tuple[tuple[int, int], ...]


def make_up(
    kernel: KernelSource, workers: int, roles: Mapping[str, Role], *, positive: bool = False
) -> MadeUp:
    """An array of the parameter's type for each buffer, its given value for each integer.

    A role is that of an entry of LAUNCHES. Floats are normal (or their magnitudes), integers lie
    in the role's range, or below every extent. A size that a type leaves open is the integer of its
    name, or else the number of workers. Parameters that may overlap are one array. Raises
    ArgumentError for a parameter whose role does not say what it holds.
    """
    maker = _Maker(kernel, roles, positive)
    sizes = {name: role for name, role in roles.items() if isinstance(role, int)}
    # On the CPU the last two parameters bound the workers of a call.
    params = kernel.params[:-2] if kernel.target == "cpu" else kernel.params
    tables = {name: role for name, role in roles.items() if isinstance(role, tuple)}
    args = maker.row({n: t for n, t in params if n not in tables}, sizes, workers)
    if not tables:
        return MadeUp(args, {})
    (rows,) = tables.values()
    table, buffers = maker.over_table(rows)
    # The table is the last parameter.
    return MadeUp([*args, table], buffers, tuple(tables))


class _Maker:
    """Makes arrays, of the same numbers every time."""

    def __init__(self, kernel: KernelSource, roles: Mapping[str, Role], positive: bool) -> None:
        self.kernel, self.roles, self.positive = kernel, roles, positive
        self.random = np.random.default_rng(0)

    def row(
        self, params: Mapping[str, Type | DType], sizes: Mapping[str, int], other: int
    ) -> list[Any]:
        """The arguments of one launch of these parameters; of a size without a name, `other`."""

        def shape_of(type: Type) -> tuple[int, ...]:
            return tuple(
                n if isinstance(n, int) else sizes.get(n.name, other) for n in type.shape
            )

        kinds = {n: t for n, t in params.items() if isinstance(t, Type) and n != STATUS}
        shapes = [shape_of(t) for t in kinds.values()]
        high = min((n for shape in shapes for n in shape if n), default=1)
        made: dict[str, Any] = {}
        for name, type in params.items():
            role = self._checked(name, type)
            if isinstance(type, Type):
                twin = self._twin(name, type, params, made)
                if twin is None:
                    twin = self._array(name, type.with_shape(shape_of(type)), role, high)
                made[name] = twin
            else:
                made[name] = role
        return list(made.values())

    def over_table(
        self, firsts_and_sizes: tuple[tuple[int, int], ...]
    ) -> tuple[Any, dict[str, list[np.ndarray[Any, Any]]]]:
        """The table of a launch that does the work of several, and the arrays that it locates."""
        kinds = layout_of(self.kernel).located
        rows = [self.row(kinds, {}, size) for _, size in firsts_and_sizes]
        words = [
            [*begin, *(a.__array_interface__["data"][0] for a in arrays)]
            for begin, arrays in zip(firsts_and_sizes, rows, strict=True)
        ]
        table = np.array(words, np.int64)
        table.flags.writeable = False
        columns = zip(*rows, strict=True)
        return table, dict(zip(kinds, map(list, columns), strict=True))

    def _checked(self, name: str, type: Type | DType) -> Role | None:
        role = self.roles.get(name)
        buffer = isinstance(type, Type)
        holds = isinstance(role, range) or role in (INPUT, OUTPUT, INOUT, TEMP)
        if not (holds if buffer else isinstance(role, int)):
            wanted = "input, output, inout or temp" if buffer else "its value"
            raise ArgumentError(
                f"{self.kernel.name}: the role of {name} is {role!r}, not {wanted}"
            )
        return role

    def _twin(
        self, name: str, type: Type, params: Mapping[str, Type | DType], made: Mapping[str, Any]
    ) -> Any:
        """The array of a parameter that is declared to overlap this one, if it is of its type."""
        groups = [g for g in self.kernel.alias if name in g]
        return next(
            (made[n] for g in groups for n in g if n in made and params[n] == type), None
        )

    def _array(
        self, name: str, type: Type, role: Role | None, high: int
    ) -> np.ndarray[Any, Any]:
        shape, dtype = type.static_shape, type.dtype
        if name == STATUS:
            return np.zeros(shape, dtype.numpy)
        if dtype.is_float:
            normal = self.random.standard_normal(shape)
            return np.asarray(np.abs(normal) if self.positive else normal, dtype.numpy)
        bounds = role if isinstance(role, range) else range(2 if dtype.kind == "b" else high)
        numbers = self.random.integers(bounds.start, bounds.stop, shape)
        return np.asarray(numbers, dtype.numpy)
