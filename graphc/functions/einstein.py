"""Einstein summation of any number of operands, two at a time."""

from __future__ import annotations

import math
import operator
import string
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from graphc.dtypes import bool_
from graphc.errors import ArgumentError, ShapeError, UnsupportedFunction
from graphc.functions.products import product
from graphc.functions.promote import array, astype, common_dtype, labels
from graphc.functions.reductions import any as any_of
from graphc.functions.shapes import squeeze, transpose
from graphc.ops import views
from graphc.ops.reductions import reduce_sum


class Term(NamedTuple):
    """An array, and the letters of its axes."""

    array: Any
    letters: str


def einsum(*operands: Any, optimize: Any = False) -> Any:
    """Sum of products by subscripts, such as `einsum("ij,jk->ik", a, b)`.

    Takes NumPy's subscripts: repeated letters, `...`, no `->`, and lists of integers after each
    operand. The operands are contracted two at a time, whatever `optimize` says, in the order of
    least work; a list of pairs, as `np.einsum_path` returns it, is an order of its own. Of
    booleans, products are logical ands and sums logical ors.
    """
    subscripts, arrays = _spelled(operands)
    arrays = [array(a) for a in arrays]
    kind = common_dtype(arrays)
    terms, result = _read(subscripts, arrays)
    ready = [
        _diagonal(Term(astype(a, kind), letters))
        for a, letters in zip(arrays, terms, strict=True)
    ]
    sizes = _sizes(ready)
    ready = [_without_units(term, sizes) for term in ready]
    for i, j in _order(optimize, [t.letters for t in ready], result, sizes):
        pair = ready[i], ready[j]
        ready = [t for n, t in enumerate(ready) if n not in (i, j)]
        if not ready:
            return _product(*pair, result)
        ready.append(_contracted(*pair, {*result}.union(*(t.letters for t in ready))))
    x, letters = _sum_out(ready[0], {*result})
    return transpose(x, [letters.index(c) for c in result])


# --- subscripts ---------------------------------------------------------------------------


_LETTERS: Mapping[int, str] = MappingProxyType(dict(enumerate(string.ascii_letters)))


def _spelled(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """The subscripts as a string, and the arrays."""
    if operands and isinstance(operands[0], str):
        subscripts, arrays = operands[0], list(operands[1:])
    else:
        arrays = list(operands[: len(operands) // 2 * 2 : 2])
        terms = ",".join(map(_from_list, operands[1::2]))
        wanted = f"->{_from_list(operands[-1])}" if len(operands) % 2 else ""
        subscripts = terms + wanted
    if not arrays:
        raise ArgumentError("einsum needs subscripts and at least one operand")
    return subscripts, arrays


def _from_list(numbers: Any) -> str:
    """Integers, each for a letter, and Ellipsis."""
    try:
        return "".join("..." if n is ... else _LETTERS[operator.index(n)] for n in numbers)
    except (TypeError, KeyError):
        raise ArgumentError(
            f"einsum: {numbers!r} are not subscripts: a string before the operands, or after "
            "each a list of integers from 0 to 51"
        ) from None


def _read(subscripts: str, arrays: Sequence[Any]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with letters in the place of `...`."""
    spec = subscripts.replace(" ", "")
    left, arrow, result = spec.partition("->")
    terms = left.split(",")
    if not set(spec.replace("...", "").replace("->", "", 1)) <= {*string.ascii_letters, ","}:
        raise ArgumentError(
            f"einsum: subscripts {subscripts!r} are not letters, commas, '...' and one '->'"
        )
    if len(terms) != len(arrays):
        raise ArgumentError(
            f"einsum: {subscripts!r} is for {len(terms)} operands, not {len(arrays)}"
        )
    spare = [c for c in string.ascii_letters if c not in spec]
    rest = [_dotted(t, a) for t, a in zip(terms, arrays, strict=True)]
    if max(rest) > len(spare):
        raise UnsupportedFunction("einsum has 52 letters for axes, and these are more")
    dots = "".join(spare[: max(rest)])
    if not arrow:
        once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        result = "..." * ("..." in left) + "".join(once)
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, rest, strict=True)]
    if dots and "..." not in result:
        raise ArgumentError(f"einsum: the output of {subscripts!r} must have '...' as well")
    result = result.replace("...", dots)
    for c in result:
        if c not in "".join(terms) or result.count(c) > 1:
            raise ArgumentError(
                f"einsum: the output of {subscripts!r} must name {c!r} once, and an input too"
            )
    return terms, result


def _dotted(letters: str, x: Any) -> int:
    """For how many axes of `x` the dots in its letters stand."""
    parts = letters.split("...")
    count = int(x.ndim - sum(map(len, parts)))
    if len(parts) > 2 or count < 0 or (len(parts) == 1 and count):
        raise ShapeError(f"einsum: {letters!r} does not name the axes of {x.type}")
    return count


# --- one operand --------------------------------------------------------------------------


def _diagonal(term: Term) -> Term:
    """Axes of one letter made one."""
    x, letters = term
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            x = views.diagonal(x, axes=(i, j)).is_view_of(x)
            letters = letters[:j] + letters[j + 1 :]
    return Term(x, letters)


def _sizes(terms: Sequence[Term]) -> dict[str, int]:
    """The size of every letter; NumPy lets an axis of size 1 stand for an index of any size."""
    sizes: dict[str, int] = {}
    for x, letters in terms:
        for c, n in zip(letters, x.shape, strict=True):
            if sizes.get(c, 1) != n and 1 not in (n, sizes.get(c, 1)):
                arrays = [t.array for t in terms]
                names = labels(arrays, [f"operand {i}" for i in range(len(arrays))])
                values = zip(names, (a.type for a in arrays), strict=True)
                raise ShapeError(f"einsum: index {c} has two sizes", values=values)
            sizes[c] = n if sizes.get(c, 1) == 1 else sizes[c]
    return sizes


def _without_units(term: Term, sizes: Mapping[str, int]) -> Term:
    """Without the axes of size 1 that stand for more."""
    x, letters = term
    gone = tuple(i for i, c in enumerate(letters) if x.shape[i] != sizes[c])
    if not gone:
        return term
    return Term(squeeze(x, gone), "".join(c for i, c in enumerate(letters) if i not in gone))


def _sum_out(term: Term, kept: Set[str]) -> Term:
    """Summed over the letters that are not among `kept`."""
    x, letters = term
    gone = tuple(i for i, c in enumerate(letters) if c not in kept)
    if not gone:
        return term
    total = any_of(x, gone) if x.type.dtype is bool_ else reduce_sum(x, axes=gone)
    return Term(total, "".join(c for c in letters if c in kept))


# --- several operands ---------------------------------------------------------------------

_OPTIMAL = 8
"""Of so many operands the best order is found; of more, those that shrink most come first."""
_UNKNOWN = 64
"""The size that an axis of an unknown one is taken to have where orders are compared."""

Pair = tuple[int, int]
Tree = Any  # the number of an operand, or a pair of trees


def _contracted(a: Term, b: Term, kept: Set[str]) -> Term:
    """The product of two terms, summed over the letters that are not among `kept`."""
    both = [c for c in a.letters if c in b.letters]
    free = [c for c in a.letters + b.letters if c not in both]
    result = "".join(c for c in (*both, *free) if c in kept)
    return Term(_product(a, b, result), result)


def _product(a: Term, b: Term, result: str) -> Any:
    """The array of these letters."""
    a, b = _sum_out(a, {*b.letters, *result}), _sum_out(b, {*a.letters, *result})
    return product(a.array, b.array, f"{a.letters},{b.letters}->{result}")


def _order(
    optimize: Any, terms: Sequence[str], result: str, sizes: Mapping[str, int]
) -> list[Pair]:
    """The pairs of terms to contract; the product of a pair is put at the end of the terms."""
    given = tuple(optimize) if isinstance(optimize, (list, tuple)) else (optimize,)
    if given and (isinstance(given[0], bool) or given[0] in ("greedy", "optimal")):
        return _best_order([frozenset(t) for t in terms], frozenset(result), sizes)
    pairs: list[Pair] = []
    try:
        for step in given[given[:1] == ("einsum_path",) :]:
            first, *others = sorted(map(operator.index, step))
            for gone, other in enumerate(others):
                last = len(terms) - len(pairs) - 1
                pairs.append((last, other - gone - 1) if gone else (first, other))
        whole = len(pairs) == len(terms) - 1
    except TypeError:
        whole = False
    if not whole or any(
        not 0 <= i < len(terms) - n for n, pair in enumerate(pairs) for i in pair
    ):
        raise ArgumentError(
            f"einsum: optimize={optimize!r} is neither True, False, 'greedy', 'optimal' nor "
            f"an order for {len(terms)} operands as numpy.einsum_path returns it"
        )
    return pairs


def _best_order(
    terms: list[frozenset[str]], result: frozenset[str], sizes: Mapping[str, int]
) -> list[Pair]:
    """The order of least work."""

    def count(letters: Set[str]) -> int:
        return math.prod(n if isinstance(n := sizes[c], int) else _UNKNOWN for c in letters)

    def growth(pair: Pair) -> int:
        after = _put_last(terms, pair, result)
        return count(after[-1]) - sum(count(terms[i]) for i in pair)

    pairs: list[Pair] = []
    while len(terms) > _OPTIMAL:
        pairs.append(min(combinations(range(len(terms)), 2), key=growth))
        terms = _put_last(terms, pairs[-1], result)
    return pairs + _positions(_best_tree(terms, result, count), len(terms))


def _put_last(
    terms: list[frozenset[str]], pair: Pair, result: frozenset[str]
) -> list[frozenset[str]]:
    """The terms after the contraction of a pair."""
    rest = [t for i, t in enumerate(terms) if i not in pair]
    return [*rest, (terms[pair[0]] | terms[pair[1]]) & result.union(*rest)]


def _best_tree(
    terms: list[frozenset[str]], result: frozenset[str], count: Callable[[Set[str]], int]
) -> Tree:
    """By dynamic programming over the subsets of terms."""
    everything = frozenset(range(len(terms)))

    @cache
    def kept(group: frozenset[int]) -> frozenset[str]:
        outside = (terms[i] for i in everything - group)
        return frozenset().union(*(terms[i] for i in group)) & result.union(*outside)

    @cache
    def best(group: frozenset[int]) -> tuple[int, int, Tree]:
        """The multiplications, the elements stored, and the order."""
        if len(group) == 1:
            (only,) = group
            return 0, 0, only
        first, *others = sorted(group)
        found = []
        for size in range(len(others)):
            for more in combinations(others, size):
                left = frozenset((first, *more))
                parts = left, group - left
                work = [best(part) for part in parts]
                multiplied = count(kept(parts[0]) | kept(parts[1]))
                found.append(
                    (
                        work[0][0] + work[1][0] + multiplied,
                        work[0][1] + work[1][1] + count(kept(group)),
                        (work[0][2], work[1][2]),
                    )
                )
        return min(found, key=lambda f: f[:2])

    return best(everything)[2]


def _positions(tree: Tree, number: int) -> list[Pair]:
    """The pairs of a tree's contractions as positions among the terms that are left."""
    left: list[Tree] = list(range(number))
    pairs: list[Pair] = []

    def visit(part: Tree) -> None:
        if isinstance(part, tuple):
            for half in part:
                visit(half)
            pairs.append((left.index(part[0]), left.index(part[1])))
            for half in part:
                left.remove(half)
            left.append(part)

    visit(tree)
    return pairs
