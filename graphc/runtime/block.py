"""The shared memory of the thread pool: where each word of it lies.

Words that threads contend for stand on 64-byte lines of their own and are named by byte offset;
the words of the job and of the set-up are named by index.
"""

from __future__ import annotations

BYTES = 640

# Contended words: byte offsets.
GENERATION = 0  # jobs so far; idle workers watch it
TICKET = 64  # generation << 32 | pieces left to take
PENDING = 128  # pieces not done
WAITING = 192  # whether the dealing thread sleeps on PENDING
SLEEPERS = 256  # workers asleep
OWNER = 320  # whether a caller has the workers
STOP = 384  # whether workers are to end

# The job: word indices.
FUNCTION, DATA, EXTENT, SIZE, COUNT, THREADS, MODE, CORE = range(56, 64)

# Set once, before the first worker starts: word indices. An address of 0 means "not here".
SPINS, SYSCALL, FUTEX_NUMBER, YIELD, CORE_FUNCTION = range(64, 69)

# What a worker's life returns: the pool ends; sleep, it has no futex; move off this core.
ENDED, TO_SLEEP, TO_MOVE = range(3)
JOBS_BETWEEN_MOVES = 8

LEFT = (1 << 32) - 1
EVERYBODY = 1 << 30
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # both private to the process
FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}
