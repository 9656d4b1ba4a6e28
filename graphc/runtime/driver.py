"""The compiled driver: one native function that runs the program of any plan.

Loads LLVM, so it is itself loaded on first use; compiled once a process, in the language of
`machine`. `rows` says what its words mean.
"""

from __future__ import annotations

from graphc.runtime.buffers import LAYOUT
from graphc.runtime.machine import compiled, together
from graphc.runtime.native import (
    byte_at,
    float_mode,
    int_at,
    set_float_mode,
    set_word,
    word,
)
from graphc.runtime.rows import (
    ADDRESSES,
    BRANCH,
    BUMPS,
    BY_OBJECT,
    DONE,
    END,
    GIVEN,
    GIVEN_COUNT,
    INPUTS,
    LINK_COUNT,
    LINKS,
    LOOP,
    OUTPUTS,
    POOL_CELL,
    POOL_THREADS,
    PROGRAM,
    REFUSED,
    ROW,
    SIGNATURE,
    SIZES,
    STATE,
    STATUS,
    STOP,
    SWAP,
    TABLE,
    TURNS,
)
from graphc.runtime.rows import COPY as LAST_NATIVE
from graphc.runtime.workers import deal, spin, work

TYPE, POINTER, NDIM, DIMS, DESCR, FLAGS, ITEMS = LAYOUT or (0,) * 7
"""Where NumPy keeps things; unused where the layout is not known (the context has addresses)."""


@compiled
def misfit(context, inputs, outputs):
    """The number of the first input that is not, as it stands, what its signature says; or -1.

    Where all are, their addresses and those of the outputs behind them are written down.
    """
    addresses = word(context, ADDRESSES)
    count = word(context, INPUTS)
    at = word(context, SIGNATURE)
    for number in range(count):
        array = word(inputs + ITEMS, number)
        flags, ndim = word(at, 3), word(at, 4)
        if word(array + TYPE, 0) == word(at, 0):
            set_word(addresses, number, array + POINTER)
        else:
            if word(array + TYPE, 0) != word(at, 1) or word(array + DESCR, 0) != word(at, 2):
                return number
            if int_at(array + NDIM) != ndim or (int_at(array + FLAGS) & flags) != flags:
                return number
            dims = word(array + DIMS, 0)
            for axis in range(ndim):
                if word(dims, axis) != word(at, 5 + axis):
                    return number
            set_word(addresses, number, word(array + POINTER, 0))
        at += 8 * (5 + ndim)
    for number in range(word(context, OUTPUTS)):
        array = word(outputs + ITEMS, number)
        set_word(addresses, count + number, word(array + POINTER, 0))
    return -1


@compiled
def shared(context):
    """The number of the first input to be overwritten that has memory of another one; or -1."""
    addresses = word(context, ADDRESSES)
    sizes = word(context, SIZES)
    given = word(context, GIVEN)
    for which in range(word(context, GIVEN_COUNT)):
        number = word(given, which)
        first = word(addresses, number)
        last = first + word(sizes, number)
        for other in range(word(context, INPUTS)):
            start = word(addresses, other)
            stop = start + word(sizes, other)
            if other != number and max(start, first) < min(stop, last):
                return number
    return -1


@compiled
def link(context):
    """Write the addresses of inputs and outputs into the table."""
    addresses = word(context, ADDRESSES)
    table = word(context, TABLE)
    links = word(context, LINKS)
    for number in range(word(context, LINK_COUNT)):
        address = word(addresses, word(links, 3 * number + 1))
        set_word(table, word(links, 3 * number), address + word(links, 3 * number + 2))


@compiled
def bump(context, first, last, times):
    """Advance table words by their strides, `times` times."""
    table = word(context, TABLE)
    bumps = word(context, BUMPS)
    for pair in range(first, last):
        at = word(bumps, 2 * pair)
        set_word(table, at, word(table, at) + times * word(bumps, 2 * pair + 1))


@compiled
def swap(context, first, last, one, other):
    """Exchange two buffers: table words of the first become those of the other, and the reverse."""
    table = word(context, TABLE)
    bumps = word(context, BUMPS)
    distance = word(table, other) - word(table, one)
    for pair in range(first, last):
        at = word(bumps, 2 * pair)
        set_word(table, at, word(table, at) + distance * word(bumps, 2 * pair + 1))


@compiled
def execute(context, start):
    """Run rows from row `start` on; returns DONE or the row at which Python has to act.

    That is a row for Python, or after many turns the end of one: Python looks for signals then.
    A failed check is the end: no later row overwrites an input.
    """
    program = word(context, PROGRAM)
    table = word(context, TABLE)
    state = word(context, STATE)
    threads = word(context, POOL_THREADS)
    status = word(context, STATUS)
    block = word(word(context, POOL_CELL), 0)
    left_turns = word(context, TURNS)
    pc = start
    while True:
        row = program + 8 * ROW * pc
        code = word(row, 0)
        if code <= LAST_NATIVE:
            data = table + 8 * word(row, 2)
            deal(block, threads, word(row, 1), data, word(row, 3), word(row, 4), word(row, 5))
            pc += 1
            if status != 0 and word(status, 0) != 0:
                return DONE
        elif code == LOOP:
            set_word(state, word(row, 1), word(row, 2))
            pc = pc + 1 if word(row, 2) > 0 else word(row, 3)
        elif code == END and left_turns == 0:
            return pc
        elif code == END:
            left_turns -= 1
            left = word(state, word(row, 1)) - 1
            set_word(state, word(row, 1), left)
            if left > 0:
                bump(context, word(row, 3), word(row, 4), 1)
                pc = word(row, 2)
            else:
                trips = word(program + 8 * ROW * (word(row, 2) - 1), 2)
                bump(context, word(row, 3), word(row, 4), 1 - trips)
                pc += 1
        elif code == SWAP:
            swap(context, word(row, 1), word(row, 2), word(row, 3), word(row, 4))
            pc += 1
        elif code == BRANCH and left_turns == 0:
            return pc
        elif code == BRANCH:
            left_turns -= 1
            at = word(row, 1)
            holds = at >= 0 and byte_at(word(table, at)) != 0
            pc = pc + 1 if holds else word(row, 2)
        elif code == STOP:
            return DONE
        else:
            return pc


@compiled
def run(context, start, *tuples):
    """Run a plan from row `start`; row 0 first checks the inputs and binds the arrays.

    These come in two tuples, inputs and outputs.

    Leaves the thread's floating-point mode and flags as they were.
    """
    if start == 0:
        if word(context, BY_OBJECT) != 0:
            number = misfit(context, word(tuples, 0), word(tuples, 1))
            if number < 0:
                number = shared(context)
            if number >= 0:
                return REFUSED - number
        link(context)
        if word(context, STATUS) != 0:
            set_word(word(context, STATUS), 0, 0)
    mode = float_mode()
    row = execute(context, start)
    set_float_mode(mode)
    return row


together(run, work, spin)
enter = run.entrance
