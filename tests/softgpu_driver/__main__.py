"""Run cases in this process: `python -m tests.softgpu_driver NAME...`."""

from __future__ import annotations

import json
import sys
import traceback

from cuda.bindings import driver as cu

from tests import softgpu
from tests.softgpu_driver import CASES
from tests.softgpu_driver.harness import do, fresh, launch, lib, load, unload


def main(names: list[str]) -> None:
    """Run cases and print, as the last line, a JSON object of those that failed."""
    lib().softgpu_register(load, unload, launch)
    do(cu.cuInit, 0)
    failed = {}
    for name in names:
        try:
            with fresh():
                CASES[name]()
        except Exception:
            failed[name] = traceback.format_exc() + "\n".join(softgpu.reports())
        print(name, "failed" if name in failed else "passed", flush=True)
    print(json.dumps(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
