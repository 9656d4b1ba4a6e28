"""The benchmark command runs, checks what it times, and leaves out what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import formulas, table
from tests.benchmarks import with_graphc as ours
from tests.benchmarks.__main__ import interpreters_of
from tests.benchmarks.oracle import Oracle
from tests.benchmarks.peers import Peer
from tests.benchmarks.worker import leaves
from tests.benchmarks.workloads import BY_NAME, ROWS

ROOT = Path(__file__).resolve().parents[1]


def benchmarks(*args: str, module: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks{module}", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("target", ROWS)
def test_list_names_every_workload(target):
    done = benchmarks("--list", "--target", target)
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == [w.name for w in ROWS[target]] and set(names) <= set(BY_NAME)


def test_a_row_is_timed_by_every_peer_that_is_there(tmp_path):
    report = tmp_path / "report.json"
    done = benchmarks(
        *("--quick", "--only", "xent_10", "--json", str(report)),
        *("--python", "torch=/nowhere/python", "--python", "jax=/nowhere/python"),
    )
    assert done.returncode == 0, done.stderr
    for name in ("torch", "inductor", "jax"):
        assert f"{name}: left out:" in done.stderr
    (row,) = json.loads(report.read_text("utf-8"))["rows"]
    assert set(row["seconds"]) == {"graphc", "numpy"} and not row["failed"]
    assert all(len(times) == 3 and min(times) > 0 for times in row["rounds"].values())
    assert "| cross-entropy, forward and backward, 4096x10 |" in done.stdout


def test_first_calls_are_timed_cold_and_from_the_cache():
    missing = [f"--python={peer}=/nowhere/python" for peer in ("torch", "jax")]
    done = benchmarks("--only=product", "--rounds=1", *missing, module=".first_calls")
    assert done.returncode == 0, done.stderr
    assert "product: jax: " in done.stderr
    head, _, row = done.stdout.splitlines()
    assert "| graphc, cached |" in head
    title, cold, by_inductor, by_jax, cached, ratio = row.strip("| ").split(" | ")
    assert title == "tanh(x @ y)" and by_inductor == by_jax == ratio == "–"
    assert cold.endswith("s") and cached.endswith("s")


@pytest.mark.parametrize("choice", ["jax", "jax=", "jaxx=/bin/python"])
def test_an_interpreter_belongs_to_a_peer(choice):
    assert interpreters_of([choice]) is None
    assert interpreters_of(["jax=/a=b"]) == {"jax": "/a=b"}


def test_a_name_that_no_workload_has_is_said():
    done = benchmarks("--only", "nothing")
    assert done.returncode == 2 and "no workload" in done.stderr


@pytest.mark.parametrize("workload", BY_NAME.values(), ids=lambda w: w.name)
def test_graphc_computes_every_workload(workload, tmp_path):
    results = ours.build(workload)(*workload.make(True).values())
    np.savez(tmp_path / "results.npz", *leaves(results))
    assert Oracle(workload, True).problem(tmp_path / "results.npz") is None


def test_a_wrong_result_is_no_time(tmp_path):
    """The oracle sees one wrong element, a NaN, a wrong shape, and a missing result."""
    workload = BY_NAME["xent_10"]
    oracle = Oracle(workload, True)
    loss, grad = formulas.xent_10(*workload.make(True).values())
    wrong, nan = grad.copy(), grad.copy()
    wrong[3, 4] += 0.01 * abs(grad).max()
    nan[0, 0] = np.nan

    def problem(*results):
        np.savez(tmp_path / "results.npz", *results)
        return oracle.problem(tmp_path / "results.npz")

    assert problem(loss, grad) is None
    assert "off by" in problem(loss, wrong)
    assert "off by" in problem(loss, nan)
    assert "shape" in problem(loss, grad[1:])
    assert "1 results" in problem(loss)


def test_a_peer_that_fails_says_why_and_goes_on(tmp_path):
    peer = Peer("numpy", {})
    try:
        reply = peer.ask(do="build", workload="softmax", quick=True, results="/nowhere/a.npz")
        assert "FileNotFoundError" in reply["error"]
        results = str(tmp_path / "a.npz")
        reply = peer.ask(do="build", workload="softmax", quick=True, results=results)
        assert reply["first"] > 0
    finally:
        peer.close()


def test_the_table():
    report = {
        "when": "2026-01-31",
        "quick": False,
        "load": 0.5,
        "machine": "a machine",
        "peers": {"graphc": "graphc 1", "numpy": "numpy 2", "jax": "jax 3"},
        "rows": [
            {"name": "ten_kernels", "title": "ten", "seconds": {"graphc": 4e-6, "jax": 8e-6}},
            {"name": "twenty_kernels", "title": "twenty", "seconds": {"graphc": 7e-6}},
        ],
        "cold": {"graphc": 2.5, "jax": 0.5},
    }
    assert table.markdown(report).splitlines() == [
        "2026-01-31, a machine, load 0.5 before; graphc 1, numpy 2, jax 3.",
        "",
        "|  | graphc | NumPy | JAX | best peer / graphc |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| ten | 4 µs | – | 8 µs | 2.00 |",
        "| twenty | 7 µs | – | – | – |",
        "| MLP step, first call in a fresh process (compiles) | 2.5 s | – | 500 ms | 0.20 |",
        "",
        "A graphc call costs 1 µs over its kernels.",
    ]
