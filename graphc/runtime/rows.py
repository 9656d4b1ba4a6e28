"""The driver's machine: what a row, a context and an argument's signature are made of.

A program is rows of `ROW` int64 words. The table is int64 words that kernels read: buffer
addresses and sizes. The context is int64 words that the driver reads; one context serves one
call at a time.

    KERNEL, GEMM, COPY   function, table word, extent, size, count: run on `count` pieces
    LOOP                 state, trips, row after END
    END                  state, row after LOOP, first bump, bump after the last
    SWAP                 first bump, bump after the last, table words of the two buffers
    BRANCH               table word of the boolean or -1, row: go there unless it is true
    LIBRARY, COLLECTIVE, CALLBACK   step: leave; Python does it
    STOP
"""

from __future__ import annotations

ROW = 6
KERNEL, GEMM, COPY, LOOP, END, SWAP, BRANCH, LIBRARY, COLLECTIVE, CALLBACK, STOP = range(11)
NAMES = "KERNEL GEMM COPY LOOP END SWAP BRANCH LIBRARY COLLECTIVE CALLBACK STOP".split()

PROGRAM, TABLE, BUMPS, STATE = range(4)
ADDRESSES, BY_OBJECT, INPUTS, SIGNATURE, LINKS, LINK_COUNT = range(4, 10)
POOL_CELL, POOL_THREADS, STATUS = range(10, 13)
SIZES, GIVEN, GIVEN_COUNT, OUTPUTS, TURNS = range(13, 18)
CONTEXT_WORDS = 18
"""Words of a context.

`ADDRESSES` points to where the elements of the inputs and then the outputs are: written from the
two tuples that a call comes with, or before it where BY_OBJECT is 0. `LINKS` points to triples
(table word, array number, bytes behind its start), `SIGNATURE` to the inputs' types: the class of
such scalars or 0, ndarray, the dtype, the flags, ndim, and the sizes; objects are told by their
addresses. `SIZES` points to the inputs' bytes, `GIVEN` to the numbers of those that are results
too. After `TURNS` turns of loops the driver leaves, at a row where it is to be entered again.
"""

DONE, REFUSED = -1, -2
"""What `run` returns if not the row at which it left.

An argument that does not fit at once is REFUSED - its number.
"""

(
    GEMM_A,
    GEMM_B,
    GEMM_C,
    GEMM_M,
    GEMM_N,
    GEMM_K,
    GEMM_TRANS_A,
    GEMM_TRANS_B,
    GEMM_STRIDE_A,
    GEMM_STRIDE_B,
    GEMM_STRIDE_C,
    GEMM_BY_COLUMNS,
    GEMM_FUNCTION,
    GEMM_EPILOGUE,
    GEMM_BLOCK,
    GEMM_WORDS,
) = range(16)
"""Words of a gemm in the table."""

SEVERAL_WORDS = 6
"""Words of one of several kernels that run in one row."""
