"""The lowest PTX version that a text can state, against `ptxas`, which knows the rules."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import graphc
from graphc._lazy import load
from graphc.codegen import ptx_version
from graphc.codegen.ptx_version import FIRST_VERSIONS, Version, needed, restated, stated, target
from graphc.device import CUDA_CAPABILITIES, H100, ptx_target
from graphc.errors import TargetError
from graphc.lowered import lower_graph
from graphc.numpy import exp
from graphc.options import Options
from tests.codegen_harness import skip_without_numba_cuda

# A statement of each kind that is younger than the oldest target, and that target's number or
# the least that has it.
YOUNGER: dict[str, tuple[Version, int]] = {
    "abs.f16 %h1, %h2;": ((6, 5), 75),
    "max.NaN.f32 %f1, %f2, %f3;": ((7, 0), 80),
    "min.NaN.f16 %h1, %h2, %h3;": ((7, 0), 80),
    "cvt.rn.bf16x2.f32 %r1, %f1, %f2;": ((7, 0), 80),
    "cvt.rn.bf16.f32 %h1, %f1;": ((7, 0), 80),
    "tanh.approx.f32 %f1, %f2;": ((7, 0), 75),
    "redux.sync.max.s32 %r1, %r2, -1;": ((7, 0), 80),
    "cp.async.ca.shared.global [%r1], [%rd1], 16;": ((7, 0), 80),
    "red.global.add.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};": ((8, 1), 90),
    "add.rn.f32.f16 %f1, %h1, %f2;": ((8, 6), 100),
    "fma.rn.f32x2 %rd1, %rd2, %rd3, %rd4;": ((8, 6), 100),
    "max.f32 %f1, %f2, %f3, %f4;": ((8, 8), 100),
    "min.NaN.f32 %f1, %f2, %f3, %f4;": ((8, 8), 100),
    "ld.global.nc.v4.b64 {%rd1, %rd2, %rd3, %rd4}, [%rd5];": ((8, 8), 100),
    "ld.global.v8.f32 {%f1, %f2, %f3, %f4, %f5, %f6, %f7, %f8}, [%rd5];": ((8, 8), 100),
    "st.global.v4.f64 [%rd5], {%fd1, %fd2, %fd3, %fd4};": ((8, 8), 100),
    "st.global.v8.b32 [%rd5], {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8};": ((8, 8), 100),
}
OLD = (
    "add.s32 %r1, %r2, %r3;", "mul.wide.u32 %rd1, %r2, %r3;", "mad.lo.s64 %rd1, %rd2, %rd3, 4;",
    "div.u16 %h1, %h2, %h3;", "abs.s64 %rd1, %rd2;", "xor.pred %p1, %p2, %p3;",
    "shl.b64 %rd1, %rd2, %r3;", "shr.u16 %h1, %h2, 3;", "shf.l.wrap.b32 %r1, %r2, %r3, %r4;",
    "bfe.u64 %rd1, %rd2, 3, 4;", "bfi.b32 %r1, %r2, %r3, 4, 5;", "lop3.b32 %r1, %r2, %r3, 4, 1;",
    "add.rn.ftz.f32 %f1, %f2, %f3;", "fma.rn.f16x2 %r1, %r2, %r3, %r4;",
    "fma.rz.f64 %fd1, %fd2, %fd3, %fd4;", "div.full.f32 %f1, %f2, %f3;",
    "rsqrt.approx.f32 %f1, %f2;", "ex2.approx.ftz.f32 %f1, %f2;", "min.f64 %fd1, %fd2, %fd3;",
    "neg.f16 %h1, %h2;", "copysign.f32 %f1, %f2, %f3;", "mov.b32 %r1, {%h1, %h2};",
    "mov.u32 %r1, %nctaid.z;", "selp.b16 %h1, %h2, %h3, %p1;", "setp.nan.f16 %p1, %h1, %h2;",
    "setp.gtu.and.f32 %p1, %f1, %f2, %p2;", "cvt.rpi.f16.f16 %h1, %h2;",
    "cvt.rzi.sat.u8.f32 %h1, %f1;", "cvta.to.global.u64 %rd1, %rd2;",
    "ld.volatile.global.s8 %h1, [%rd1];", "ld.global.nc.v2.f64 {%fd1, %fd2}, [%rd1];",
    "ld.global.v4.u16 {%h1, %h2, %h3, %h4}, [%rd1];", "st.shared.v2.u64 [%r1], {%rd1, %rd2};",
    "st.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};", "red.global.add.f32 [%rd1], %f1;",
    "atom.relaxed.gpu.global.cas.b64 %rd1, [%rd2], %rd3, %rd4;", "@%p1 trap;",
    "bar.sync 0;", "bar.warp.sync -1;", "membar.gl;", "fence.acq_rel.gpu;",
    "shfl.sync.idx.b32 %r1|%p1, %r2, 1, 31, -1;", "vote.sync.ballot.b32 %r1, %p1, -1;",
    "match.any.sync.b32 %r1, %r2, -1;", "activemask.b32 %r1;",
)  # fmt: skip
# Not in the tables: a directive, registers and instructions, all of them younger than 6.3.
UNKNOWN = (
    ".noreturn;",
    '.pragma "frequency 9";',
    "mov.u32 %r1, %clusterid.x;",
    "ld.global.nc.L1::no_allocate.b32 %r1, [%rd1];",
    "szext.clamp.s32 %r1, %r2, %r3;",
    "fma.rn.relu.f16 %h1, %h2, %h3, %h4;",
    "setp.lt.bf16 %p1, %h1, %h2;",
    "max.s16x2 %r1, %r2, %r3;",
    "mul.rn.f32x4 %rd1, %rd2, %rd3;",
)
REGISTERS = {"pred": "p", "b16": "h", "b32": "r", "b64": "rd", "f32": "f", "f64": "fd"}


def text_of(statement: str, version: Version, number: int, parameters: int = 1) -> str:
    """A kernel of one statement, for a target by its number."""
    declared = "".join(f"\t.reg .{kind} \t%{name}<9>;\n" for kind, name in REGISTERS.items())
    given = ",\n".join(f"\t.param .u64 k_param_{n}" for n in range(parameters))
    return (
        f".version {version[0]}.{version[1]}\n.target sm_{number}\n.address_size 64\n\n"
        f".visible .entry k(\n{given}\n)\n{{\n{declared}\n\t{statement}\n\tret;\n}}\n"
    )


def before(version: Version) -> Version:
    """The PTX version before one."""
    known = (
        *((6, n) for n in range(6)),
        *((7, n) for n in range(9)),
        *((8, n) for n in range(9)),
    )
    return max(v for v in known if v < version)


@cache
def has_ptxas() -> bool:
    try:
        return bool(load("graphc.codegen.numba_cuda").find_ptxas())
    except TargetError:
        return False


def refusal(ptx: str, folder: Path) -> str:
    """What `ptxas` says against a text; empty where it takes it."""
    if not has_ptxas():
        pytest.skip("there is no ptxas on this machine")
    source, cubin = folder / "k.ptx", folder / "k.cubin"
    source.write_text(ptx)
    find = load("graphc.codegen.numba_cuda").find_ptxas
    command = [find(), f"-arch={target(ptx)}", str(source), "-o", str(cubin)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr if run.returncode else ""


@pytest.mark.parametrize("name", FIRST_VERSIONS)
def test_first_version_of_each_target(name: str, tmp_path: Path) -> None:
    version, number = FIRST_VERSIONS[name], int(name.removeprefix("sm_"))
    everything = "\n\t".join(OLD)
    assert needed(text_of(everything, (9, 5), number)) == version
    assert not refusal(text_of(everything, version, number), tmp_path)
    assert "does not support" in refusal(text_of("", before(version), number), tmp_path)


def test_every_target_that_is_compiled_for_has_a_first_version() -> None:
    assert {f"sm_{a}{b}" for a, b in CUDA_CAPABILITIES} == set(FIRST_VERSIONS)


@pytest.mark.parametrize("statement", YOUNGER)
def test_younger_instructions(statement: str, tmp_path: Path) -> None:
    """Refused below the version that is stated, unless the target is as young."""
    version, number = YOUNGER[statement]
    first = FIRST_VERSIONS[f"sm_{number}"]
    wanted = max(version, first)
    ptx = text_of(statement, (9, 5), number)
    assert needed(ptx) == wanted and stated(restated(ptx)) == wanted
    assert not refusal(restated(ptx), tmp_path)
    said = refusal(text_of(statement, before(wanted), number), tmp_path)
    assert re.search(r"requires PTX ISA|does not support|requires .*\.version", said), said


def test_every_row_of_the_table_has_a_statement() -> None:
    pieces = {
        piece
        for statement in (*OLD, *YOUNGER, "ret;")
        for piece in ptx_version._pieces(statement)
    }
    for version, form in ptx_version._forms():
        firsts = [p for p in pieces if form.fullmatch(p) and ptx_version._since(p) == version]
        assert firsts, form.pattern


@pytest.mark.parametrize("statement", UNKNOWN)
def test_what_is_not_known_keeps_the_version_of_the_toolkit(statement: str) -> None:
    assert needed(text_of(statement, (9, 5), 75)) == (9, 5)


def test_many_parameters_keep_the_version_of_the_toolkit(tmp_path: Path) -> None:
    assert needed(text_of("", (9, 5), 75, parameters=512)) == (6, 3)
    assert not refusal(text_of("", (6, 3), 75, parameters=512), tmp_path)
    assert needed(text_of("", (9, 5), 75, parameters=600)) == (9, 5)
    assert refusal(text_of("", (6, 3), 75, parameters=600), tmp_path)


def test_an_unknown_target_keeps_its_version_and_none_is_raised() -> None:
    assert needed(text_of("", (9, 5), 107)) == (9, 5)
    assert needed(text_of("", (6, 2), 75)) == (6, 2)
    with pytest.raises(ValueError, match="without a version"):
        needed(".target sm_75")


def test_the_version_changes_no_machine_code(tmp_path: Path) -> None:
    x = graphc.f32[64, 1000]
    graph = graphc.trace(lambda x: exp(x - x.max(axis=1, keepdims=True)), x)
    (kernel,) = lower_graph(graph, H100, Options()).kernels
    try:
        made = kernel.assemble(CUDA_CAPABILITIES)
    except TargetError as error:
        skip_without_numba_cuda(error)
    for ptx in made.values():
        assert stated(ptx) == FIRST_VERSIONS[target(ptx)]
        assert not refusal(ptx, tmp_path)
        code = (tmp_path / "k.cubin").read_bytes()
        newest = re.sub(r"\.version .*", ".version 8.8", ptx)
        assert not refusal(newest, tmp_path)
        assert (tmp_path / "k.cubin").read_bytes() == code


@pytest.mark.parametrize(
    ("cc", "found"),
    [
        ((7, 5), (7, 5)), ((8, 0), (8, 0)), ((8, 7), (8, 6)), ((8, 8), (8, 6)), ((9, 0), (9, 0)),
        ((10, 3), (10, 0)), ((11, 0), (10, 0)), ((12, 1), (12, 0)), ((13, 0), (12, 0)),
    ],
)  # fmt: skip
def test_a_device_gets_the_newest_target_that_it_runs(
    cc: tuple[int, int], found: tuple[int, int]
) -> None:
    assert ptx_target(cc) == found
    (kernel,) = lower_graph(
        graphc.trace(lambda x: x * 2, graphc.f32[9]), H100, Options()
    ).kernels
    try:
        assert target(kernel.ptx(cc)) == f"sm_{found[0]}{found[1]}"
    except TargetError as error:
        skip_without_numba_cuda(error)


def test_a_device_that_is_too_old_is_said() -> None:
    with pytest.raises(TargetError, match=r"no kernels for compute capability 7\.0"):
        ptx_target((7, 0))
