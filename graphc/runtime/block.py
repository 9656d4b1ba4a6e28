"""The shared memory of the thread pool: where each word of it lies.

Words that threads contend for stand on 64-byte lines of their own and are named by byte offset;
the words of the job and of the set-up are named by index.
"""

from __future__ import annotations

LINE = 64
"""Bytes that two cores do not share without slowing each other down."""
MOST_WINDOWS = 32
"""A job is cut into no more windows, so that dealing it does not touch a line for every thread."""

# Contended words: byte offsets.
GENERATION = 0  # jobs so far; idle workers watch it
PENDING = 64  # pieces not done
WAITING = 128  # whether the dealing thread sleeps on PENDING
SLEEPERS = 192  # workers asleep
OWNER = 256  # whether a caller has the workers
STOP = 320  # whether workers are to end
TICKETS = 640  # of each window, a line apart: generation << 32 | pieces left to take
BYTES = TICKETS + LINE * MOST_WINDOWS

# The job: word indices.
FUNCTION, DATA, EXTENT, SIZE, COUNT, WINDOWS, THREADS, MODE, CORE = range(56, 65)

# Set once, before the first worker starts: word indices. An address of 0 means "not here".
SPINS, SYSCALL, FUTEX_NUMBER, YIELD, CORE_FUNCTION = range(72, 77)

# What a worker's life returns: the pool ends; sleep, it has no futex; move off this core.
ENDED, TO_SLEEP, TO_MOVE = range(3)

JOBS_BETWEEN_MOVES = 8
"""After so many jobs a worker looks whether it shares the core of the thread that it is to help."""
LEFT = (1 << 32) - 1
"""The low half of a ticket: pieces left to take."""
EVERYBODY = 1 << 30
"""More sleepers than any pool has."""
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # both private to the process
FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}
