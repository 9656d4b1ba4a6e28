"""Objects whose methods are compiled: their arrays are arguments, and all else is constant."""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import optree
from optree.registry import __GLOBAL_NAMESPACE as GLOBAL

from graphc.errors import MutationError, SignatureError

_MADE_IN_PYTHON, _UNCHANGING = 1 << 9, 1 << 8  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_IMMUTABLETYPE


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """An object in a tree of arguments: the trees that its attributes are.

    In its place, what is called finds another object of its class, with the same attributes.
    `above` are the objects that hold it.
    """

    instance: Any
    above: tuple[int, ...] = ()

    def parts(self) -> tuple[tuple[Any, ...], Any, tuple[str, ...]]:
        """What its attributes are, its class, and their names."""
        names = tuple(vars(self.instance))
        return tuple(map(self.part, vars(self.instance).values())), type(self.instance), names

    def part(self, tree: Any) -> Any:
        """An attribute with a node for everything in it that is no array."""
        return optree.tree_map(self._leaf, tree)

    def _leaf(self, leaf: Any) -> Any:
        if is_array(leaf):
            return leaf
        if not is_object(leaf):
            return Constant(leaf)
        above = (*self.above, id(self.instance))
        if id(leaf) in above:
            raise SignatureError(
                f"a {type(leaf).__name__} holds itself, through its attributes",
                help="static= takes an object as a constant, with all that it holds",
            )
        return Members(leaf, above)


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """What an attribute holds that is no array: of the signature, by its value."""

    value: Any


def _object(settings: Any, parts: Any) -> Any:
    kind, names = settings
    made = object.__new__(kind)
    vars(made).update(zip(names, parts))
    return made


def _flattened(members: Members) -> Any:
    parts, kind, names = members.parts()
    return parts, (kind, names), names


_register: Any = optree.register_pytree_node
_register(Members, _flattened, _object, namespace=GLOBAL)
_register(Constant, lambda node: ((), node.value), lambda value, _: value, namespace=GLOBAL)


def opened(value: Any) -> Any:
    """An object, or a class, as a tree of arguments; what else there is, as it is."""
    if isinstance(value, type):
        return Constant(value)
    return Members(value) if is_object(value) else value


def is_array(value: Any) -> bool:
    """Whether it is an array, of whichever library."""
    return not isinstance(value, type) and hasattr(value, "shape") and hasattr(value, "dtype")


def is_object(value: Any) -> bool:
    """Whether it is of a class of the user's, and told from others by its attributes or by itself.

    Classes that say themselves what is equal, but for dataclasses, make constants.
    """
    kind: Any = type(value)
    if not kind.__flags__ & _MADE_IN_PYTHON or kind.__flags__ & _UNCHANGING:
        return False
    if isinstance(value, type) or not hasattr(value, "__dict__") or is_array(value):
        return False
    if not optree.tree_is_leaf(value) or isinstance(value, Members | Constant):
        return False
    if kind.__module__.partition(".")[0] in {"graphc", "numpy", *sys.stdlib_module_names}:
        return False
    return kind.__eq__ is object.__eq__ or dataclasses.is_dataclass(kind)


def attributes_in(tree: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The objects in a tree, with what their attributes are and hold now."""
    for leaf in optree.tree_leaves(tree):
        if is_object(leaf):
            yield leaf, {name: optree.tree_flatten(each) for name, each in vars(leaf).items()}
            yield from attributes_in(dict(vars(leaf)))


def refuse_changes(before: Iterable[tuple[Any, dict[str, Any]]]) -> None:
    """Raise MutationError for an attribute that is not what it was, or holds something else."""
    for instance, attributes in before:
        now = vars(instance)
        changed = attributes.keys() ^ now.keys() or {
            name for name, held in attributes.items() if not _holds(now[name], *held)
        }
        if changed:
            raise MutationError(
                f"a compiled method changes {type(instance).__name__}.{min(changed)}",
                help="the method runs only while it is traced: return the new value, and assign it "
                "where the method is called",
            )


def _holds(tree: Any, leaves: list[Any], structure: optree.PyTreeSpec) -> bool:
    found, other = optree.tree_flatten(tree)
    return other == structure and all(map(operator.is_, found, leaves))
