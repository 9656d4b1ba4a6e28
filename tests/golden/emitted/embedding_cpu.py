"""take_mul

Computes
    model.py:30: return np.take(table, words, axis=0) * 2
Reads    table f32[50, 16], words i64[8]
Writes   out0 f32[8, 16]
Checks   that indices are in bounds; status[0] is the code of a check that fails
Launch   take_mul for lo..hi in pieces of range(8)
"""
import numpy as np

from graphc.codegen.device_lib import check, f32, i64, kernel, run_alone


@kernel("cpu", literals=f32)
def take_mul(
    table: f32[50, 16],
    words: i64[8],
    out0: f32[8, 16],
    status: i64[1],
    cols: i64,
    lo: i64,
    hi: i64,
):
    for row in range(lo, hi):
        for col in range(cols):
            at = words[row]
            at_wrapped = at if at >= 0 else at + i64(50)
            check(at_wrapped >= 0 and at_wrapped < 50, 1)
            # model.py:30: return np.take(table, words, axis=0) * 2
            out0[row, col] = (table[at_wrapped, col] if at_wrapped >= 0 and at_wrapped < 50 else 0.0) * 2.0


LAUNCHES = (("take_mul", 8, {
    "table": "input",
    "words": range(50),
    "out0": "output",
    "status": "output",
    "cols": 16,
}),)


def reference(table, words):
    """What the kernel computes, by NumPy; floats are float64."""
    return np.take(table, words, axis=0) * 2.0


if __name__ == "__main__":
    run_alone(take_mul, LAUNCHES, reference)
