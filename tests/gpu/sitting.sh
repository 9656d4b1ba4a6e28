#!/usr/bin/env bash
# Ten minutes at a machine with an NVIDIA GPU: its tests, then the benchmarks, kept in a folder.
#
#   tests/gpu/sitting.sh [FOLDER]
#
# Needs the checkout, a driver, and an environment with `.[cuda,samples,test]`; PYTHON=... names its
# interpreter. What was measured until the time was up is in FOLDER. Ends with 1 if either failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python}
folder=${1:-gpu-sitting}
mkdir -p "$folder"
failed=0

# The seconds that a command may take, and its log; an INT lets pytest say what it knows.
within() {
  local seconds=$1 log=$2
  shift 2
  timeout --signal=INT --kill-after=15 "$seconds" "$@" 2>&1 | tee "$folder/$log" || failed=1
}

within 10 machine.txt nvidia-smi
GRAPHC_REQUIRE_GPU=1 within 225 tests.txt \
  "$python" -m pytest tests/gpu -q -n 8 --maxfail 40 --durations 20
within 330 benchmarks.txt \
  "$python" -m tests.benchmarks --target cuda --quick --json "$folder/benchmarks.json"
exit "$failed"
