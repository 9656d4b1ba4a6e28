"""The tests of CUDA that run on any device, taken from where they are written.

A test module of this folder is `globals().update(shared("tests.test_x"))`. On a real device those
are left out that ask the software GPU for something, or a second device where there is one only.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

REQUIRED = os.environ.get("GRAPHC_REQUIRE_GPU", "0") not in ("", "0")
"""Whether tests run on the driver that is there, and may not be skipped."""

SOFTWARE = {
    "tests.test_cuda_calls": (
        # They count calls of the driver.
        "test_a_call_waits_for_nothing",
        "test_foreign_arrays_are_ordered_by_their_streams",
        "test_pageable_arguments_may_change_after_the_call",
        "test_calls_overlap_in_one_arena",
        "test_a_call_of_one_kernel_is_a_launch",
        "test_launches_are_one_graph",
        "test_a_loop_with_donated_state_replays_without_an_update",
        "test_the_training_step_of_the_sample_is_one_launch",
    ),
    "tests.test_cuda_plans": ("test_a_table_is_copied_only_where_an_address_changed",),
    "tests.test_cuda_faults": (
        # They set the device's memory, and how long a kernel may run.
        "test_a_kernel_that_hangs_is_ended",
        "test_memory_that_is_full_is_said_and_the_rest_goes_on",
        "test_memory_that_is_full_of_constants_is_said",
    ),
    # It tells the CPU from a device by there being no driver.
    "tests.test_device_programs": ("test_readmes_example_prints_the_same",),
    "tests.test_device_exchange": (
        "test_the_consumers_stream_waits_for_ours_and_the_host_does_not",
        "test_where_the_driver_cannot_record_a_context_the_host_waits",
        "test_the_driver_is_asked_about_foreign_memory_alone",
    ),
}
"""What only the software GPU can show, by module."""

SECOND = (
    "test_the_callers_context_is_as_it_was",
    "test_arrays_of_another_device_are_refused",
    "test_a_function_runs_on_the_device_of_its_record",
    "test_arrays_of_another_device_compute_there",
)
"""Tests that want two devices."""


def shared(module: str) -> dict[str, Any]:
    """The tests of a module and its `pytestmark`, less what the device cannot show."""
    source = vars(importlib.import_module(module))
    left_out = {*SOFTWARE.get(module, ()), *(SECOND if _devices() < 2 else ())}
    missing = set(SOFTWARE.get(module, ())) - set(source)
    assert not missing, f"{module} has no {missing}"
    return {
        name: value
        for name, value in source.items()
        if name == "pytestmark"
        or (name.startswith("test_") and not (REQUIRED and name in left_out))
    }


@cache
def _devices() -> int:
    """How many devices a real driver has; two where tests run on the software GPU."""
    if not REQUIRED:
        return 2
    return len(importlib.import_module("graphc.runtime.devices").cuda_devices())
