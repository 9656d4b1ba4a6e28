"""Native functions of the driver's own, in the form of a kernel: copy and matrix product.

Loads LLVM, so it is itself loaded on first use; each function is compiled on first use.
"""

from __future__ import annotations

from functools import cache

from graphc.runtime.machine import Compiled, compiled
from graphc.runtime.native import call_kernel, cblas_gemm, move_bytes, word
from graphc.runtime.rows import (
    GEMM_A,
    GEMM_B,
    GEMM_BLOCK,
    GEMM_BY_COLUMNS,
    GEMM_C,
    GEMM_EPILOGUE,
    GEMM_FUNCTION,
    GEMM_K,
    GEMM_M,
    GEMM_N,
    GEMM_STRIDE_A,
    GEMM_STRIDE_B,
    GEMM_STRIDE_C,
    GEMM_TRANS_A,
    GEMM_TRANS_B,
    GEMM_WORDS,
    SEVERAL_WORDS,
)


@cache
def copy() -> Compiled:
    """The compiled copy of bytes lo..hi from the address in word 1 to that in word 0."""

    @compiled
    def copy_bytes(data, lo, hi):
        move_bytes(word(data, 0) + lo, word(data, 1) + lo, hi - lo)

    return copy_bytes


@cache
def gemm(itemsize: int, index_bits: int) -> Compiled:
    """The compiled product of rows lo..hi of all batches, or of columns lo..hi of the only one.

    Its words are the GEMM words of `rows`; strides are in bytes. If there is an epilogue, its
    own words follow, and it runs on the same rows as soon as they are there.
    """
    call = cblas_gemm(itemsize == 8, index_bits)

    @compiled
    def product(data, lo, hi):
        m = word(data, GEMM_M)
        n = word(data, GEMM_N)
        k = word(data, GEMM_K)
        trans_a = word(data, GEMM_TRANS_A)
        trans_b = word(data, GEMM_TRANS_B)
        lda = max(m if trans_a else k, 1)
        ldb = max(k if trans_b else n, 1)
        function = word(data, GEMM_FUNCTION)
        a = word(data, GEMM_A)
        b = word(data, GEMM_B)
        c = word(data, GEMM_C)
        if word(data, GEMM_BY_COLUMNS):
            b += itemsize * lo * (ldb if trans_b else 1)
            c += itemsize * lo
            call(function, trans_a, trans_b, m, hi - lo, k, a, lda, b, ldb, c, max(n, 1))
            return
        at = lo
        while at < hi:
            batch = at // m
            row = at - batch * m
            rows = min(hi - at, m - row)
            a_rows = a + batch * word(data, GEMM_STRIDE_A)
            a_rows += itemsize * row * (1 if trans_a else lda)
            b_here = b + batch * word(data, GEMM_STRIDE_B)
            c_rows = c + batch * word(data, GEMM_STRIDE_C) + itemsize * row * n
            call(
                function,
                trans_a,
                trans_b,
                rows,
                n,
                k,
                a_rows,
                lda,
                b_here,
                ldb,
                c_rows,
                max(n, 1),
            )
            at += rows
        if word(data, GEMM_EPILOGUE) != 0:
            block = word(data, GEMM_BLOCK)
            last = (hi + block - 1) // block
            call_kernel(word(data, GEMM_EPILOGUE), data + 8 * GEMM_WORDS, lo // block, last)

    return product


@cache
def several() -> Compiled:
    """The compiled run of pieces lo..hi of several kernels, their pieces numbered through.

    Word 0 is their number; SEVERAL_WORDS words follow for each: its address, where its own words
    begin (counted from here), the size of a piece, its extent, the number of its first piece, and
    how many pieces it has.
    """

    @compiled
    def pieces_of_several(data, lo, hi):
        at = lo
        for entry in range(word(data, 0)):
            own = data + 8 * (1 + SEVERAL_WORDS * entry)
            size, extent, first = word(own, 2), word(own, 3), word(own, 4)
            end = first + word(own, 5)
            if at < hi and first <= at and at < end:
                stop = min(hi, end)
                call_kernel(
                    word(own, 0),
                    data + 8 * word(own, 1),
                    (at - first) * size,
                    extent if stop == end else (stop - first) * size,
                )
                at = stop

    return pieces_of_several
