"""Which kernels a driver takes, and what is said of those that it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from graphc.codegen.ptx_version import FIRST_VERSIONS, Version
from graphc.errors import TargetError
from graphc.runtime import loading

pytest.importorskip("cuda.bindings.utils")

NEWEST = (13, 5)
FIRST_DRIVERS = {
    "sm_75": (10, 0), "sm_80": (11, 0), "sm_86": (11, 1), "sm_89": (11, 8), "sm_90": (11, 8),
    "sm_100": (12, 7), "sm_120": (12, 8),
}  # fmt: skip


def text_of(version: Version, target: str) -> str:
    return (
        "// Cuda compilation tools, release 13.5, V13.5.37\n\n"
        f".version {version[0]}.{version[1]}\n.target {target}\n\n.visible .entry add()\n"
    )


def loaded(monkeypatch: pytest.MonkeyPatch, driver: Version | None, ptx: str) -> object:
    code = SimpleNamespace(get_kernel=lambda name: ("loaded", name))
    core = SimpleNamespace(ObjectCode=SimpleNamespace(from_ptx=lambda text: code))
    monkeypatch.setattr(loading, "driver_version", lambda: driver)
    monkeypatch.setattr(loading, "_installed", lambda package: "0.30.4")
    return loading.load_kernel(core, "key", ptx)


@pytest.mark.parametrize("driver", [(12, 2), (12, 8), (13, 0), NEWEST])
@pytest.mark.parametrize("target", FIRST_VERSIONS)
def test_drivers_and_capabilities(
    monkeypatch: pytest.MonkeyPatch, driver: Version, target: str
) -> None:
    ptx = text_of(FIRST_VERSIONS[target], target)
    if driver >= FIRST_DRIVERS[target]:
        assert loaded(monkeypatch, driver, ptx) == ("loaded", "add")
    else:
        with pytest.raises(TargetError, match="the driver is too old for kernel add"):
            loaded(monkeypatch, driver, ptx)


def test_a_driver_that_is_older_than_the_device_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(TargetError) as caught:
        loaded(monkeypatch, (12, 2), text_of((8, 6), "sm_100"))
    assert str(caught.value) == (
        "the driver is too old for kernel add\n"
        "    driver    CUDA 12.2\n"
        "    kernel    PTX 8.6 for sm_100, by drivers from CUDA 12.7 on\n"
        "    toolkit   numba-cuda 0.30.4, NVVM of CUDA 13.5\n"
        "  help: install a driver for CUDA 12.7 or newer; nvidia-smi shows this one's"
    )


@pytest.mark.parametrize(
    ("driver", "helps"), [((12, 9), True), ((13, 0), True), ((12, 8), False)]
)
def test_an_older_toolkit_is_named_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, driver: Version, helps: bool
) -> None:
    """The kernel uses what keeps the toolkit's version; that of CUDA 12.9 is the last of 12."""
    with pytest.raises(TargetError) as caught:
        loaded(monkeypatch, driver, text_of((9, 5), "sm_90"))
    assert ('pip install "graphc[cuda12]"' in str(caught.value)) is helps
    assert "install a driver for CUDA 13.5 or newer" in str(caught.value)


@pytest.mark.parametrize("version", [(99, 0), None])
def test_what_is_not_known_is_left_to_the_driver(
    monkeypatch: pytest.MonkeyPatch, version: Version | None
) -> None:
    ptx = text_of(version, "sm_90") if version else ".visible .entry add()"
    assert loaded(monkeypatch, (12, 2), ptx) == ("loaded", "add")
    assert loaded(monkeypatch, None, ptx) == ("loaded", "add")


def test_ptx_without_an_entry_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the PTX of kernel key has no entry"):
        loaded(monkeypatch, NEWEST, ".version 8.0")


def test_the_version_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(answer: object) -> Version | None:
        monkeypatch.setattr(loading, "_lazy", SimpleNamespace(load=lambda name: answer))
        loading.driver_version.cache_clear()
        return loading.driver_version()

    assert asked(SimpleNamespace(cuDriverGetVersion=lambda: (0, 12080))) == (12, 8)
    assert asked(SimpleNamespace(cuDriverGetVersion=lambda: (1, 0))) is None
    assert asked(None) is None
    loading.driver_version.cache_clear()
