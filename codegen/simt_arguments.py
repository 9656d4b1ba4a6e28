"""The arguments of a checked launch: given arrays put behind checks, or arrays made up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import layout
from graphc.codegen.simt_memory import Machine, Memory
from graphc.dtypes import Type
from graphc.errors import ArgumentError

INPUT, OUTPUT, TEMP = "input", "output", "temp"
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
    address are one memory. Raises ArgumentError for arrays that do not fit, that overlap in part,
    and for those of one row that are one, one of them written, which the kernel does not declare.
    """
    plan = layout(kernel)
    if set(buffers) != set(plan.located):
        wanted = ", ".join(plan.located) or "no buffer"
        raise ArgumentError(
            f"{kernel.name} finds {wanted} by address, not {', '.join(buffers) or 'none'}"
        )
    found = [(name, row, a) for name, arrays in buffers.items() for row, a in enumerate(arrays)]
    for name, _, array in found:
        _fits(kernel, name, plan.located[name], array)
    # An empty array has no element, and perhaps the address of another.
    found = [one for one in found if one[2].size]
    only_read = {n for n in buffers if n in fixed or plan.constant(n)}
    _check_overlaps(kernel, found, only_read)
    needed = {_place(array) for name, _, array in found if name not in blank}
    made: dict[tuple[int, int], Memory] = {}
    result = []
    for name, row, array in sorted(found, key=lambda one: one[0] in only_read):
        place = _place(array)
        memory = Memory(
            machine,
            f"row {row}'s {name}",
            plan.located[name].dtype,
            array.shape,
            "global",
            values=array if place in needed else None,
            read_only=(name in only_read or not array.flags.writeable) and name not in blank,
            shares=made.get(place),
        )
        made.setdefault(place, memory)
        result.append(Located(name, array, memory))
    return result


def _check_overlaps(
    kernel: KernelSource,
    found: Sequence[tuple[str, int, np.ndarray[Any, Any]]],
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


def make_up(kernel: KernelSource, roles: Mapping[str, str | int]) -> list[Any]:
    """An array of the parameter's type for each buffer, its given value for each integer.

    Floats are normal, integers below every extent, so that they are in bounds as indices.
    Raises ArgumentError for a parameter whose role does not say what it holds.
    """
    random = np.random.default_rng(0)
    types = [type for _, type in kernel.params if isinstance(type, Type)]
    high = min((n for type in types for n in type.static_shape if n), default=1)
    arguments: list[Any] = []
    for name, type in kernel.params:
        role = roles.get(name)
        if isinstance(type, Type) != (role in (INPUT, OUTPUT, TEMP)):
            wanted = "input, output or temp" if isinstance(type, Type) else "its value"
            raise ArgumentError(f"{kernel.name}: the role of {name} is {role!r}, not {wanted}")
        arguments.append(_values(random, name, type, high) if isinstance(type, Type) else role)
    return arguments


def _values(
    random: np.random.Generator, name: str, type: Type, high: int
) -> np.ndarray[Any, Any]:
    shape, dtype = type.static_shape, type.dtype
    if name == STATUS:
        return np.zeros(shape, dtype.numpy)
    if dtype.is_float:
        return np.asarray(random.standard_normal(shape), dtype.numpy)
    return np.asarray(random.integers(0, 2 if dtype.kind == "b" else high, shape), dtype.numpy)
