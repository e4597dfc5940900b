#!/usr/bin/env bash
# Everything that only a GPU can say about this package, in one command and less than nine minutes: the tests that need one, then
# the speed of Video-FocalNet there beside what the machine could do, then that of VideoMAE with fewer tokens. See docs/gpu.md.
#
#   bash examples/gpu_check.sh [FOLDER]
#
# Writes FOLDER (default: gpu_check): tests.log, speed.log, gpu.json in the one result format. PYTHON names the interpreter; it
# needs this package's dependencies, a CUDA build of PyTorch with Triton, pytest and, for compiled models, a C compiler.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=${1:-gpu_check}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

"$PYTHON" - <<'PYTHON_END' || exit 2
import sys
import torch

if not torch.cuda.is_available():
    sys.exit("gpu_check: no CUDA device, so nothing to check here.")
import triton

print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
PYTHON_END

mkdir -p "$OUT"
failed=0
# numbers of the kernels first: what follows means nothing without them
timeout 170 "$PYTHON" -m pytest -m gpu -rs tests/models/test_focal_triton_gpu.py tests/models/test_token_selection_gpu.py \
    tests/evaluation/test_benchmark_execution.py \
    2>&1 | tee "$OUT/tests.log"
[ "${PIPESTATUS[0]}" -eq 0 ] || failed=1

run_speed() {
    timeout "$1" "$PYTHON" -m tests.literal.gpu_speed --results "$OUT/gpu.json" "${@:2}" 2>&1 | tee -a "$OUT/speed.log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
}
: >"$OUT/speed.log"
run_speed 90 --sizes tiny,base --batch-sizes 1,8 --rounds 10
run_speed 170 --sizes tiny --batch-sizes 8 --rounds 10 --compile default
timeout 90 "$PYTHON" examples/bench_token_selection.py --device cuda --batch-sizes 1 32 --dtypes bfloat16 --rounds 10 --check \
    --results "$OUT/gpu.json" 2>&1 | tee -a "$OUT/speed.log"
[ "${PIPESTATUS[0]}" -eq 0 ] || failed=1

[ "$failed" -eq 0 ] && echo "gpu_check: passed, results in $OUT" || echo "gpu_check: something failed, see $OUT"
exit "$failed"
