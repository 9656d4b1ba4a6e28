"""Run a Python program on the software GPU: `python -m tests.softgpu PROGRAM [ARGUMENTS...]`."""

from __future__ import annotations

import argparse
import os
import sys

from tests.softgpu import environment, unavailable

FLAGS = {
    "strict": "abort at a driver function that is not implemented",
    "skip": "let kernels do nothing, to see what the host costs",
    "eager": "run everything when it is enqueued",
    "recycle": "use freed memory again at once, as a real pool does",
    "quiet": "write no reports to stderr",
    "blocking": "let launches wait for their kernel (CUDA_LAUNCH_BLOCKING)",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.softgpu", description=__doc__)
    made.add_argument("--driver", help="the release of CUDA of the driver: 12.2")
    made.add_argument("--cc", help="the compute capability of the devices: 9.0")
    made.add_argument("--devices", type=int, help="how many there are")
    made.add_argument("--memory", type=int, help="bytes of each device")
    made.add_argument("--log", help="a file to which every driver call is written")
    for flag, help in FLAGS.items():
        made.add_argument(f"--{flag}", action="store_true", help=help)
    made.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module")
    made.add_argument("program", help="a Python file, or with -m a module")
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    return made


def main() -> None:
    """Replace this process by the program; ends with code 3 where there is no software GPU."""
    options = parser().parse_args()
    reason = unavailable()
    if reason is not None:
        print(reason, file=sys.stderr)
        raise SystemExit(3)
    variables = environment(
        driver=options.driver,
        cc=options.cc,
        devices=options.devices,
        memory=options.memory,
        log=options.log,
        **{flag: True for flag in FLAGS if getattr(options, flag)},
    )
    how = ["-m"] if options.module else []
    command = [sys.executable, *how, options.program, *options.arguments]
    os.execve(sys.executable, command, {**os.environ, **variables})


if __name__ == "__main__":
    main()
