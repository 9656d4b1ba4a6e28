"""Native functions of the driver's own, in the form of a kernel: copy and matrix product.

Loads Numba, so it is itself loaded on first use; each function is compiled on first use.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cfunc

from graphc.runtime.native import call_kernel, cblas_gemm, move_bytes, word
from graphc.runtime.rows import (
    GEMM_A,
    GEMM_B,
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
)

_native = cfunc("void(int64, int64, int64)", nopython=True, error_model="numpy", _nrt=False)


@cache
def copy() -> Any:
    """The compiled copy of bytes lo..hi from the address in word 1 to that in word 0."""

    @_native
    def copy_bytes(data, lo, hi):
        move_bytes(word(data, 0) + lo, word(data, 1) + lo, hi - lo)

    return copy_bytes


@cache
def gemm(itemsize: int, index_bits: int) -> Any:
    """The compiled product of rows lo..hi of all batches, or of columns lo..hi of the only one.

    Its words are the GEMM words of `rows`; strides are in bytes. If there is an epilogue, its
    own words follow, and it runs on the same rows as soon as they are there.
    """
    call = cblas_gemm(itemsize == 8, index_bits)

    @_native
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
            call_kernel(word(data, GEMM_EPILOGUE), data + 8 * GEMM_WORDS, lo, hi)

    return product
