"""The language of machine words: every function gives what Python gives."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

from graphc.codegen import machine_code
from graphc.runtime.machine import compiled, together

SEVEN = 7


def arithmetic(a, b):
    c = a * 3 - b + SEVEN
    c += a & 12
    d, c = c | 1, c ^ b
    return (c << 2) + (d >> 1) - -a


def quotients(a, b):
    a, b = max(a, -a), max(b, -b) + 1
    return 100 * (a // b) + a % b


def conditions(a, b):
    equal = a == b
    either = a < 0 or b > 3 or equal
    both = a >= 0 and not (b < 2 or b > 2)
    return 100 * either + 10 * both + (equal if a <= b else min(a, b))


def guarded(a, b):
    """What a condition does not need is not computed: it would divide by nothing."""
    if b != 0 and a // b > 1:
        return 1
    if b == 0 or a // b == 0:
        return 2
    return 3 if b and a else 4


def loops(a, b):
    total = 0
    for i in range(a):
        if i == 2:
            continue
        for j in range(i, b):
            if j > 4:
                break
            total += 10 * i + j
        else_ = i
        i = 50
        total += else_ + i
    while True:
        total += 1
        if total > 20:
            return total
        a += 1
        while a < 3:
            a += 2
            total += a


def steps(a, b):
    total = 0
    for i in range(a, 20, 3):
        for j in range(b, -9, -2):
            total += i * j
    for i in range(a, b, 2 if b > 0 else -1):
        total += i
    for i in range(b, a, a - b or 1):
        total -= 3 * i + 1
    return total


def kinds(a, b):
    """A truth value is a number, whatever path it comes from."""
    found = False
    for i in range(a):
        if i == b:
            found = 5
            break
        found = i > b
    either = found and a or b
    return found + 10 * either + (a > b) * 3


def paths(a, b):
    """What a variable was given last, by whatever way to here."""
    c, d, e = a + b, a + b, a + b
    if a > b:
        c = a - b
        if b > 1:
            d = c
        else:
            d, c = c, d
    elif a < 0:
        e, c = c * 2, e
    f = c - d
    for i in range(a):
        g = f
        if i == b:
            c, f = f, c
            if d > 4:
                break
            continue
        f = g + d - i
        while e > i:
            d, e = e, e - 1 - d
            if d < c:
                h = d
                break
        else_ = c
        c = f if f < 50 else else_
    h = c + f
    return 10000 * h + 100 * d + e + 7 * f


def nothing(a, b):
    if a > b:
        return
    a += b


@compiled
def square(a):
    """A function that others call."""
    return a * a


def square_of(a):
    return a * a


def with_a_call(a, b):
    return square(a) + square(b + 1)


PAIRS = tuple(product((0, 1, 2, 3, 5, 9), repeat=2))
SIGNED = tuple(product((-5, -1, 0, 1, 2, 7), repeat=2))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (arithmetic, SIGNED),
        (quotients, SIGNED),
        (conditions, SIGNED),
        (guarded, PAIRS),
        (loops, PAIRS),
        (steps, SIGNED),
        (kinds, SIGNED),
        (paths, SIGNED + PAIRS),
        (with_a_call, SIGNED),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_results_are_those_of_python(function: Callable[..., int], given: tuple) -> None:
    native = compiled(function)
    assert [native(a, b) for a, b in given] == [function(a, b) for a, b in given]


def test_an_end_without_a_result_gives_zero() -> None:
    assert compiled(nothing)(1, 2) == compiled(nothing)(2, 1) == 0


def test_words_are_of_64_bits() -> None:
    @compiled
    def double(a):
        return a + a

    assert double(1 << 61) == 1 << 62
    assert double(1 << 62) == -(1 << 63)


def test_functions_of_one_name_stay_apart() -> None:
    def adding(number: int):
        @compiled
        def add(a):
            return a + number

        return add

    made = [adding(n) for n in range(5)]
    assert [f(10) for f in made] == [10, 11, 12, 13, 14]
    entrance = made[0].entrance
    del made[1:]
    gc.collect()
    assert [adding(n)(1) for n in range(20, 25)] == [21, 22, 23, 24, 25] and entrance(1) == 1


def test_what_functions_of_one_module_call_is_there_once(monkeypatch) -> None:
    made = []
    emit = machine_code.emit_object

    def emitted(module, effort):
        made.append([function.name for function in module.functions])
        return emit(module, effort)

    monkeypatch.setattr(machine_code, "emit_object", emitted)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "off")

    @compiled
    def inner(a):
        return a * 3 + 1

    @compiled
    def first(a):
        return inner(a) + 1

    @compiled
    def second(a):
        return inner(a) + first(a)

    together(first, second)
    assert (second(2), first(2)) == (15, 8)
    assert len(made) == 1 and made[0].count("inner") == 1


def test_threads_that_meet_at_the_first_call() -> None:
    @compiled
    def third(a, b):
        return a * b + 3

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: third(n, n), range(40)))
    assert found == [n * n + 3 for n in range(40)]


def floats(a):
    return a + 0.5


def lists(a):
    return [a]


def unknown(a):
    return square_of(a)


def unbound(a):
    return a + missing  # noqa: F821


def chained(a):
    return 0 < a < 9


def unequal_tuples(a):
    a, b = 1, 2, 3
    return a + b


@pytest.mark.parametrize("function", [floats, lists, unknown, unbound, chained, unequal_tuples])
def test_what_is_not_of_the_language(function: Callable[..., int]) -> None:
    with pytest.raises(TypeError, match=f"{function.__name__}: .* is not (defined|supported)"):
        compiled(function)(1)


def test_the_number_of_words_is_checked_from_python() -> None:
    with pytest.raises(TypeError, match="square takes 1 words"):
        square(1, 2)
