#!/usr/bin/env bash
# The paper's protocol on a machine with an NVIDIA GPU, in slices of some minutes: each goes on where the last one stopped.
#
#   scripts/gpu.sh OUT MINUTES [OPTIONS of evor reproduce ...]
#
# `evor bench` measures the GPU, in BENCH minutes of a slice at most (6; 0 for none). `evor reproduce` has the rest of the time:
# it trains and plays cells in the order of ROUNDS (src/evor/experiments/reproduce/matrices.py), and makes their datasets.
# OUT gets results.tar.gz: bench.json, results.csv and its page, and the logs of training. Unpack it into
# docs/results/gpu-SCALE and commit it. Another machine goes on from there, without the checkpoints of unfinished cells, and
# `make gpu-page` makes docs/results/gpu.md of it. Datasets stay in data/gpu, runs in runs/gpu.
#
# SCALE is full-300k (300,000 updates, as labelled), full (1M) or full-300k-tf32 (what bfloat16 costs). smoke rehearses all of it
# on any machine. SUITE=ablations plays the trained agents with every search.
#
# Needs Python 3.12 with CUDA JAX. What else that Python lacks (mujoco, ogbench, gymnasium, dm_control, tyro, cattrs and what
# they import) is installed from the wheels in .whl/, without a network. Where there is no git, EVOR_COMMIT names the commit.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$2" -gt 0 ] 2>/dev/null; then
  echo 'usage: scripts/gpu.sh OUT MINUTES [OPTIONS of evor reproduce ...] (the top of this file says more)' >&2
  exit 2
fi
out=$(realpath -m "$1") minutes=$2
cd "$(dirname "$0")/.."
shift 2
scale=${SCALE:-full-300k} suite=${SUITE:-paper} python=${PYTHON:-python3}
work=runs/gpu/$scale before=docs/results/gpu-$scale site=$PWD/runs/gpu/site
mkdir -p "$out" "$work/paper"

if compgen -G '.whl/*.whl' >/dev/null && [ ! -e "$site/installed" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  touch "$site/installed"
fi
export PYTHONPATH=$PWD/src:$site PYTHONUNBUFFERED=1
measures=(--repeats 3 --seconds 1 --sizes paper --presets without-search default qc-1)
measures+=(--parts limits networks decisions unshared profile updates)
if [ "$scale" = smoke ]; then
  measures=(--repeats 1 --seconds 0.1 --sizes demo --presets without-search --parts networks)
else
  export JAX_PLATFORMS=cuda,cpu             # without a GPU evor stops
  export PJRT_NPROC=${PJRT_NPROC:-$(nproc)} # evor's own default of one thread is for networks on a CPU
fi
"$python" -c 'from evor.runtime.provenance import commit; assert commit(), "Nothing tells the commit; set EVOR_COMMIT."'
if [ -e "$before/manifest.json" ] && [ ! -e "$work/paper/manifest.json" ]; then
  cp "$before"/{manifest.json,results.csv,timings.csv} "$work/paper/"
fi

bring() {  # what there is, whatever happened
  (cd "$work" && find bench paper \( -name '*.csv' -o -name '*.json' -o -name '*.jsonl' -o -name '*.md' -o -name '*.png' \
    -o -name '*log.txt' \) -not -path '*/rows/*.json' -print 2>/dev/null || true) |
    tar -czf "$out/.partial" -C "$work" --transform 's,^\(paper\|bench\)/,,' -T -
  mv "$out/.partial" "$out/results.tar.gz"
}
trap bring EXIT

# Run evor, which stops by itself after so many seconds. At the end of the slice it is interrupted, and has a minute to save.
evor() {
  local end=$((60 * minutes - SECONDS - 70)) hours
  if [ "$end" -le 40 ]; then return; fi
  hours=$(awk "BEGIN { print ($1 < $end - 30 ? $1 : $end - 30) / 3600 }")
  timeout --foreground --signal=INT --kill-after=60 "$end" "$python" -m evor "${@:2}" --hours "$hours"
}

bench=${BENCH:-6}
if [ "$bench" -gt 0 ]; then
  evor $((60 * bench)) bench --out "$work/bench" --resume "${measures[@]}" || failed=$?
  bring
fi
evor 86400 reproduce "$suite" --scale "$scale" --data data/gpu --out "$work/paper" "$@" || failed=$?
exit "${failed:-0}"
