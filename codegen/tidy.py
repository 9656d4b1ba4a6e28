"""A kernel without lines that do nothing, and with names for its indices: the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.index_names import name_indices
from graphc.codegen.kernel import Combine, Kernel, Loop, Once, Statement, Var, walk
from graphc.codegen.renaming import renumbered
from graphc.codegen.walks import expressions, map_body, subexpressions
from graphc.index import Index


def tidy(kernel: Kernel) -> Kernel:
    """The same kernel, to be read: it computes the same in the same order."""
    body = map_body(kernel.body, _without_needless_bounds)
    body = _with_one_once(map_body(body, _without_loop_of_one))
    loops = {s.axis.number for s in walk(body) if isinstance(s, Loop)}
    sizes = {number: name for number, name in kernel.sizes.items() if number in loops}
    extents = {n: kernel.extents[n] for n in dict.fromkeys(sizes.values())}
    kernel = name_indices(replace(kernel, body=body, sizes=sizes, extents=extents))
    return renumbered(kernel)


def _without_needless_bounds(s: Statement) -> Statement:
    """A loop over a part of an axis that is all of it is a loop over the axis."""
    if not isinstance(s, Loop) or s.start is None or s.stop is None:
        return s
    covers = s.start == Index() and not s.stop.terms and isinstance(s.axis.extent, int)
    whole = covers and s.stop.constant >= s.axis.size
    return replace(s, start=None, stop=None) if whole else s


def _without_loop_of_one(s: Statement) -> Statement | list[Statement]:
    """What a loop of one turn does (no index mentions an axis of one element)."""
    one = isinstance(s, Loop) and s.role == "serial" and s.axis.extent == 1
    return list(s.body) if one and isinstance(s, Loop) and s.start is None else s


def _with_one_once(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """What one lane does in one place: lanes combine first what that does not need."""
    result: list[Statement] = []
    for s in body:
        if isinstance(s, Loop):
            s = replace(s, body=_with_one_once(s.body))
        last = result[-1] if result else None
        if isinstance(s, Once) and isinstance(last, Once):
            result[-1] = replace(last, body=(*last.body, *s.body))
        elif isinstance(s, Combine) and isinstance(last, Once) and s.name not in _names(last):
            result.insert(-1, s)
        else:
            result.append(s)
    return tuple(result)


def _names(once: Once) -> set[str]:
    exprs = [
        e for s in walk(once.body) for part in expressions(s) for e in subexpressions(part)
    ]
    return {e.name for e in exprs if isinstance(e, Var)}
