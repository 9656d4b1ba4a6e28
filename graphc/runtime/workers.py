"""The compiled half of the thread pool: dealing pieces of a kernel to whoever is free.

Loads LLVM, so it is itself loaded on first use. The threads share one block of memory, of
64-byte lines. The pieces of a job lie in windows, one for each thread as a rule: a thread takes
those of its own window from the front, as memory is read fastest, and then helps in the others.

A job is published in four moves: its words; the count of pieces not done; the tickets (of each
window, generation and pieces left in one int64); the generation on which idle workers watch. A
worker reads a ticket, then the words, and takes a piece by a compare-and-swap of that ticket. If
that succeeds, the job was not over and its words were whole, and they stay until every piece is
done; one that reads the words of a job that is being dealt fails there. Windows that a job does not
have hold no pieces, and a generation comes again only after 2**32 jobs. Nobody waits for a worker
that has taken no piece.
"""

from __future__ import annotations

from graphc.runtime.block import (
    CORE,
    CORE_FUNCTION,
    COUNT,
    DATA,
    ENDED,
    EVERYBODY,
    EXTENT,
    FUNCTION,
    FUTEX_NUMBER,
    FUTEX_WAIT,
    FUTEX_WAKE,
    GENERATION,
    JOBS_BETWEEN_MOVES,
    LEFT,
    LINE,
    MODE,
    MOST_WINDOWS,
    OWNER,
    PENDING,
    SIZE,
    SLEEPERS,
    SPINS,
    STOP,
    SYSCALL,
    THREADS,
    TICKETS,
    TO_MOVE,
    TO_SLEEP,
    WAITING,
    WINDOWS,
    YIELD,
)
from graphc.runtime.machine import compiled
from graphc.runtime.native import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_futex,
    call_kernel,
    call_plain,
    float_mode,
    pause,
    set_float_mode,
    set_word,
    swapped,
    word,
)


@compiled
def futex(block, offset, operation, value):
    """Sleep while the word at `offset` is `value`, or wake up to `value` threads that do."""
    call_futex(
        word(block, SYSCALL), word(block, FUTEX_NUMBER), block + offset, operation, value
    )


@compiled
def window_end(window, windows, count):
    """The piece behind a window's last, which is the first of the next."""
    return count * (window + 1) // windows


@compiled
def run_piece(function, data, extent, size, count, piece):
    """Run one of `count` pieces; the last takes the rest of the extent."""
    lo = piece * size
    call_kernel(function, data, lo, extent if piece == count - 1 else lo + size)


@compiled
def take_pieces(block, rank):
    """Run pieces of the job under way until none is left; rank 0 dealt it."""
    mode = float_mode()
    turn = 0
    while True:
        windows = word(block, WINDOWS)
        if turn >= windows:
            return
        window = (rank + turn) % windows
        ticket = atomic_load(block + TICKETS + LINE * window)
        left = ticket & LEFT
        if left == 0:
            turn += 1
            continue
        if rank >= word(block, THREADS):
            return
        function = word(block, FUNCTION)
        data = word(block, DATA)
        extent = word(block, EXTENT)
        size = word(block, SIZE)
        count = word(block, COUNT)
        wanted = word(block, MODE)
        windows = word(block, WINDOWS)
        if not swapped(block + TICKETS + LINE * window, ticket, ticket - 1):
            continue
        if mode != wanted:
            set_float_mode(wanted)
            mode = wanted
        piece = window_end(window, windows, count) - left
        run_piece(function, data, extent, size, count, piece)
        last = atomic_add(block + PENDING, -1) == 1
        if last and atomic_load(block + WAITING) != 0:
            futex(block, PENDING, FUTEX_WAKE, EVERYBODY)


@compiled
def finish(block):
    """Wait until the pieces that others took are done: spin for a while, then sleep."""
    spins = 0
    limit = word(block, SPINS)
    while atomic_load(block + PENDING) != 0:
        if spins < limit:
            spins += 1
            pause()
        elif word(block, SYSCALL) != 0:
            atomic_store(block + WAITING, 1)
            left = atomic_load(block + PENDING)
            if left != 0:
                futex(block, PENDING, FUTEX_WAIT, left)
            atomic_store(block + WAITING, 0)
        elif word(block, YIELD) != 0:
            call_plain(word(block, YIELD))
        else:
            pause()


@compiled
def run_here(function, data, extent, size, count):
    """The same pieces, one after the other."""
    for piece in range(count):
        run_piece(function, data, extent, size, count, piece)


@compiled
def publish(block, threads, function, data, extent, size, count):
    """Make a job known to the workers, of which the caller is the owner."""
    set_word(block, FUNCTION, function)
    set_word(block, DATA, data)
    set_word(block, EXTENT, extent)
    set_word(block, SIZE, size)
    set_word(block, COUNT, count)
    windows = min(min(threads, count), MOST_WINDOWS)
    set_word(block, WINDOWS, windows)
    set_word(block, THREADS, threads)
    set_word(block, MODE, float_mode())
    if word(block, CORE_FUNCTION) != 0:
        set_word(block, CORE, call_plain(word(block, CORE_FUNCTION)))
    generation = atomic_load(block + GENERATION) + 1
    atomic_store(block + PENDING, count)
    begin = 0
    for window in range(windows):
        end = window_end(window, windows, count)
        ticket = ((generation & LEFT) << 32) | (end - begin)
        atomic_store(block + TICKETS + LINE * window, ticket)
        begin = end
    atomic_add(block + GENERATION, 1)
    if atomic_load(block + SLEEPERS) != 0 and word(block, SYSCALL) != 0:
        futex(block, GENERATION, FUTEX_WAKE, EVERYBODY)


@compiled
def deal(block, threads, function, data, extent, size, count):
    """Run a kernel on `count` pieces of `size` (the last takes the rest) of range(extent).

    Up to `threads` threads share them; if another caller has the workers, this one does
    without.
    """
    if count == 1 or threads <= 1 or block == 0 or not swapped(block + OWNER, 0, 1):
        run_here(function, data, extent, size, count)
        return
    publish(block, threads, function, data, extent, size, count)
    take_pieces(block, 0)
    finish(block)
    atomic_store(block + OWNER, 0)


@compiled
def work(block, rank, slept):
    """A worker's life; returns ENDED, TO_SLEEP or TO_MOVE.

    `slept` is 1 when it comes back from the sleep that it was sent to. A scheduler that packs
    threads onto few cores may leave a worker on the very core of the thread that it is to help.
    """
    seen = 0
    jobs = 0
    limit = word(block, SPINS)
    atomic_add(block + SLEEPERS, -slept)
    while True:
        spins = 0
        woken = False
        while atomic_load(block + GENERATION) == seen:
            spins += 1
            if spins < limit:
                pause()
                continue
            atomic_add(block + SLEEPERS, 1)
            if word(block, SYSCALL) == 0:
                return TO_SLEEP
            if atomic_load(block + GENERATION) == seen:
                futex(block, GENERATION, FUTEX_WAIT, seen)
            atomic_add(block + SLEEPERS, -1)
            spins = 0
            woken = True
        seen = atomic_load(block + GENERATION)
        if atomic_load(block + STOP) != 0:
            return ENDED
        jobs += 1
        core_function = word(block, CORE_FUNCTION)
        due = woken or jobs % JOBS_BETWEEN_MOVES == 0
        if due and core_function != 0 and call_plain(core_function) == word(block, CORE):
            return TO_MOVE
        take_pieces(block, rank)


@compiled
def stop(block):
    """Tell all workers to end, those asleep too."""
    atomic_store(block + STOP, 1)
    atomic_add(block + GENERATION, 1)
    if word(block, SYSCALL) != 0:
        futex(block, GENERATION, FUTEX_WAKE, EVERYBODY)


@compiled
def spin(count):
    """Pause `count` times: how the length of a pause is measured."""
    for _ in range(count):
        pause()

