"""The thread pool: the same bits for any number of threads; forks, exits, many callers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from graphc.codegen.plan import Extent, Gemm, Place, Plan
from graphc.dtypes import f32
from graphc.runtime.block import MOST_WINDOWS
from graphc.runtime.execute import Executable
from graphc.runtime.pieces import MOST_PIECES, gemm_grain, pieces
from graphc.runtime.pool import ThreadPool
from tests.runtime_kernels import buffers, chain, chain_by_numpy, kernel, kernels

N = 4096


@pytest.fixture(params=[True, False], ids=["futex", "portable"])
def pool(request):
    made = ThreadPool(futex=request.param)
    yield made
    made.stop()


def inputs(n: int = N, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(np.float32) for _ in range(4)]


def same(got, expected) -> bool:
    return all(np.array_equal(g, e) for g, e in zip(got, expected, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_bits_do_not_depend_on_threads(pool, threads):
    run = Executable(chain(N, 128), kernels(), threads=threads, pool=pool)
    arrays = inputs()
    for _ in range(30):
        assert same(run(arrays), chain_by_numpy(arrays))
    assert pool.size == threads


def test_one_thread_needs_no_pool(pool):
    Executable(chain(N, 128), kernels(), threads=1, pool=pool)(inputs())
    assert pool.cell[0] == 0


def test_a_plan_of_single_pieces_starts_no_threads(pool):
    Executable(chain(N, N), kernels(), threads=4, pool=pool)(inputs())
    assert pool.cell[0] == 0


def test_fewer_threads_than_the_pool_has(pool):
    arrays = inputs()
    for threads in (4, 2, 3):
        run = Executable(chain(N, 128), kernels(), threads=threads, pool=pool)
        assert same(run(arrays), chain_by_numpy(arrays))
    assert pool.size == 4


@pytest.mark.parametrize("threads", [3, 7, MOST_WINDOWS + 8])
def test_each_piece_is_run_once_whatever_the_windows(pool, threads):
    table = buffers(
        x=(Place.INPUT, 0, f32[N]), w=(Place.INPUT, 1, f32[N]), y=(Place.OUTPUT, 0, f32[N])
    )
    runs = []
    for grain in (64, 1024):
        # A piece that is run twice adds twice: the second kernel works in place.
        steps = [kernel("mix", a, 1, 2, extent=N, grain=grain) for a in (0, 2)]
        plan = Plan("twice", "cpu", table, tuple(steps), (0, 1), (2,), 0)
        runs.append(Executable(plan, kernels(), threads=threads, pool=pool))
    for turn in range(20):  # 64 pieces and 4, by turns: other windows for every job
        x, w, *_ = inputs(seed=turn)
        half = w * np.float32(0.5)
        assert same(runs[turn % 2]([x, w]), [x + half + half])


def test_eight_callers_share_the_pool(pool):
    runs = [Executable(chain(N, 128), kernels(), threads=3, pool=pool) for _ in range(2)]
    wrong = []

    def call(seed: int) -> None:
        arrays = inputs(seed=seed)
        expected = chain_by_numpy(arrays)
        for turn in range(40):
            if not same(runs[(seed + turn) % 2](arrays), expected):
                wrong.append((seed, turn))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


def test_stops_and_starts_again(pool):
    run = Executable(chain(N, 128), kernels(), threads=3, pool=pool)
    arrays = inputs()
    for _ in range(3):
        assert same(run(arrays), chain_by_numpy(arrays))
        workers = list(pool._threads)
        assert len(workers) == 2
        pool.stop()
        assert not any(worker.is_alive() for worker in workers)


def test_stopping_while_others_call_loses_nothing(pool):
    runs = [Executable(chain(N, 128), kernels(), threads=t, pool=pool) for t in (2, 4)]
    failed = []

    def call(seed: int) -> None:
        arrays = inputs(seed=seed)
        expected = chain_by_numpy(arrays)
        for turn in range(20):
            try:
                if not same(runs[turn % 2](arrays), expected):
                    failed.append((seed, turn))
            except Exception as error:
                failed.append(error)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(2)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        pool.stop()
    assert not failed


def test_a_floating_point_mode_reaches_the_workers():
    """Flush-to-zero in the calling thread holds for every piece, and is there afterwards."""
    from graphc.runtime.machine import compiled
    from graphc.runtime.native import float_mode, set_float_mode

    @compiled
    def mode():
        return float_mode()

    @compiled
    def set_mode(value):
        set_float_mode(value)

    before = mode()
    flush = before | 0x8040 if before else 1 << 24
    pool = ThreadPool()
    run = Executable(chain(N, 64), kernels(), threads=4, pool=pool)
    tiny = [np.full(N, 1e-40, np.float32) for _ in range(4)]
    kept = chain_by_numpy(tiny)
    set_mode(flush)
    try:
        for _ in range(20):
            flushed = run(tiny)
            assert mode() == flush
            assert not any(np.any(out) for out in flushed)
    finally:
        set_mode(before)
    assert same(run(tiny), kept)
    pool.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own_workers(pool):
    run = Executable(chain(N, 128), kernels(), threads=3, pool=pool)
    arrays = inputs()
    expected = chain_by_numpy(arrays)
    assert same(run(arrays), expected)
    child = os.fork()
    if child == 0:
        alone = pool.cell[0] == 0
        good = all(same(run(arrays), expected) for _ in range(5))
        os._exit(0 if alone and good and pool.size == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same(run(arrays), expected)


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "os.kill(os.getpid(), 2)"])
def test_the_interpreter_ends_with_the_pool_asleep(ending):
    script = f"""
        import os, time
        from graphc.runtime.execute import Executable
        from tests.runtime_kernels import chain, kernels
        from tests.test_pool import inputs
        run = Executable(chain(4096, 128), kernels(), threads=3)
        try:
            run(inputs())
            time.sleep(0.02)
            {ending}
        except KeyboardInterrupt:
            run(inputs())
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("done" in done.stdout) == ("SystemExit" not in ending)


@pytest.mark.parametrize("extent", [0, 1, 15, 16, 31, 32, 33, 1000, 4096, 100_003])
@pytest.mark.parametrize("grain", [1, 16, 48, 5000])
def test_pieces_cover_the_range(extent, grain):
    size, count = pieces(extent, grain)
    bounds = [(i * size, extent if i == count - 1 else (i + 1) * size) for i in range(count)]
    assert sum(hi - lo for lo, hi in bounds) == extent
    assert [lo for lo, _ in bounds[1:]] == [hi for _, hi in bounds[:-1]]
    assert count <= MOST_PIECES
    assert all(hi - lo >= grain for lo, hi in bounds) or count == 1


@pytest.mark.parametrize(
    ("m", "n", "k", "batch", "cores", "expected"),
    [
        (32, 20, 10, 1, 2, (32, False)),
        (1024, 1024, 1024, 1, 2, (256, False)),
        (256, 128, 784, 1, 2, (128, False)),
        (64, 1024, 1024, 1, 2, (256, True)),
        (256, 64, 256, 32, 2, (256 * 8, False)),
        (512, 512, 512, 2, 2, (256, False)),
    ],
)
def test_products_are_cut_for_the_machine(m, n, k, batch, cores, expected):
    assert gemm_grain(Gemm(f32, m, n, k, 0, 1, 2, batch=batch), cores) == expected


def test_extent_arguments_are_words():
    """A size is a word of the table, not part of the kernel."""
    from dataclasses import replace

    plan = chain(N, N)
    step = plan.steps[0]
    more = replace(step, launch=replace(step.launch, args=(*step.launch.args, Extent(77))))
    run = Executable(replace(plan, steps=(more, *plan.steps[1:])), kernels())
    assert run.program.words[3] == 77
