#!/usr/bin/env bash
# The paper's protocol on a machine with an NVIDIA GPU, in slices: each call resumes what the last one left unfinished.
#
#   scripts/gpu.sh OUT MINUTES ["DATASET AGENT ..." ...]
#
# The GPU is measured first. Then each argument is one step: what `evor reproduce --only` takes, its dataset first. Without
# arguments, the steps are those of the plan below. Meanwhile other cores generate the datasets of the steps, in their order.
# After every step, OUT gets results.tar.gz (bench.json, results.csv and its page, the logs of training) and an archive per
# dataset with one policy of `evor`, a few megabytes each. Unpack results.tar.gz into docs/results/gpu-SCALE and commit it:
# another machine resumes from there, and `make gpu-page` makes docs/results/gpu.md of it. Datasets stay in data/gpu, runs in
# runs/gpu.
#
# SCALE is full-300k (300,000 updates, as labelled), full (1M) or full-300k-tf32 (what bfloat16 costs). smoke rehearses all of it
# on any machine. SUITE=ablations plays the trained agents with every search. EXPERT is the ant's navigation policy.
#
# Needs Python 3.12 with CUDA JAX. What else that Python lacks (mujoco, ogbench, gymnasium, dm_control, tyro, cattrs and what
# they import) is installed from the wheels in .whl/, without a network. Where there is no git, EVOR_COMMIT names the commit.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$2" -gt 0 ] 2>/dev/null; then
  echo 'usage: scripts/gpu.sh OUT MINUTES ["DATASET AGENT ..." ...] (the top of this file says more)' >&2
  exit 2
fi
out=$(realpath -m "$1") minutes=$2
cd "$(dirname "$0")/.."
shift 2
scale=${SCALE:-full-300k} suite=${SUITE:-paper} python=${PYTHON:-python3}
maze=pointmaze-medium-navigate-v0 cube=cube-double-play-v0 scene=scene-play-v0
plan=("$@")
if [ ${#plan[@]} = 0 ]; then
  plan=("$maze evor" "$cube evor" "$maze evor-paper" "$cube evor-paper")
  plan+=("$maze qc-5" "$maze qc-1" "$cube qc-5" "$cube qc-1" "$scene evor")
  if [ -e "${EXPERT:-}" ]; then plan+=("antmaze-large-navigate-v0 evor" "antmaze-large-stitch-v0 evor"); fi
fi
started=$(date +%s)
work=runs/gpu/$scale

site=$PWD/.whl/site
if compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$site/installed" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  touch "$site/installed"
fi
export PYTHONPATH=$PWD/src:$site PYTHONUNBUFFERED=1 MUJOCO_GL=${MUJOCO_GL:-disable}
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/gpu/xla
# evor's own default of one thread is for networks on a CPU.
if [ "$scale" != smoke ]; then export PJRT_NPROC=${PJRT_NPROC:-$(nproc)}; fi
transitions=$("$python" - "$scale" <<'END'
import sys

import jax
import ogbench

from evor.experiments.reproduce.scales import find_scale
from evor.runtime.provenance import commit

scale = sys.argv[1]
print("jax", jax.__version__, jax.devices(), "commit", commit(), file=sys.stderr)
if scale != "smoke" and jax.default_backend() != "gpu":
    sys.exit("JAX sees no GPU; install its CUDA plugin, or rehearse with SCALE=smoke.")
if not commit():
    sys.exit("nothing tells the commit; set EVOR_COMMIT.")
print(find_scale(scale).transitions)
END
)
data=data/gpu/$transitions-seed0
mkdir -p "$out" "$work/paper"

evor() { "$python" -m evor.cli.main "$@"; }

seconds_left() { echo $((60 * minutes - ($(date +%s) - started))); }

hours_but() { "$python" -c "print(max(0.0001, ($(seconds_left) - $1) / 3600))"; }  # all that is left but so many seconds

bring() {  # whatever happened, what there is goes into OUT
  (cd "$work" && find . \( -name bench.json -o -name '*.csv' -o -name manifest.json -o -name results.md -o -name '*.png' \
    -o -name config.json -o -name provenance.json -o -name '*.jsonl' \) -print) |
    tar -czf "$out/.results.partial" -C "$work" --transform 's,^\./\(paper\|bench\)/,,' -T -
  mv "$out/.results.partial" "$out/results.tar.gz"
}

leave() {
  if [ -n "${generator:-}" ]; then kill -- "-$generator" 2>/dev/null || true; fi
  bring
}
trap leave EXIT

before=docs/results/gpu-$scale
if [ -e "$before/manifest.json" ] && [ ! -e "$work/paper/manifest.json" ]; then
  cp "$before"/{manifest.json,results.csv,timings.csv} "$work/paper/"
fi

generate() {  # every dataset of the plan once, a few cores left to the rest
  local workers=$(($(nproc) > 4 ? $(nproc) - 4 : 1)) step dataset expert
  for step in "${plan[@]}"; do
    dataset=${step%% *} expert=()
    case $dataset in antmaze*) expert=(--expert "$EXPERT") ;; esac
    if [ ! -e "$data/$dataset.npz" ]; then
      evor data generate "$dataset" --transitions "$transitions" --workers "$workers" --out "$data" "${expert[@]}"
    fi
  done
}
set -m  # a process group of its own, so that all of it can be stopped
generate &
generator=$!
set +m

generated() {  # wait until a step's dataset is there, while there is time for the step
  while [ ! -e "$data/$1.npz" ]; do
    if [ "$(seconds_left)" -lt 180 ] || ! kill -0 "$generator" 2>/dev/null; then return 1; fi
    sleep 1
  done
}

# The GPU: at most six minutes of it, and three are left to the steps.
if [ "$scale" = smoke ]; then
  evor bench --out "$work/bench" --resume --repeats 1 --seconds 0.1 --sizes demo --presets without-search --parts networks || failed=$?
elif [ "$scale" != full-300k-tf32 ] && [ ! -e "$before/bench.json" ]; then
  hours=$("$python" -c "print(max(0.0001, min(360, $(seconds_left) - 180) / 3600))")
  evor bench --out "$work/bench" --resume --hours "$hours" --repeats 3 --seconds 2 --sizes paper --presets without-search default qc-1 \
    --parts limits networks decisions unshared updates profile || failed=$?
fi
bring

for step in "${plan[@]}"; do
  dataset=${step%% *}
  if ! generated "$dataset" || [ "$(seconds_left)" -lt 180 ]; then
    echo "no time or no data for: $step" >&2
    continue
  fi
  # A hundred seconds are kept for what no deadline cuts short: a compilation, an evaluation, the page.
  evor reproduce "$suite" --scale "$scale" --data data/gpu --out "$work/paper" --hours "$(hours_but 100)" --only $step ||
    failed=$?  # some cell: the other steps go on
  "$python" - "$work/paper" "$work/policies" <<'END'
import sys
from pathlib import Path

from evor.policies.load import open_run

cells, out = Path(sys.argv[1]) / "cells", Path(sys.argv[2])
for run in sorted(cells.glob("*/evor/*")):
    folder = out / run.parts[-3]
    if folder.exists() or not any((run / "checkpoints").glob("*")):
        continue
    if (found := open_run(run)).step == found.config.updates:
        found.select(found.config.tasks[0], found.config.seed).export(folder)
END
  for folder in "$work"/policies/*/; do
    name=$(basename "$folder")
    if [ -e "$folder/policy.json" ] && [ ! -e "$out/policy-$name.tar.gz" ]; then
      tar -czf "$out/policy-$name.tar.gz" -C "$work/policies" "$name"
    fi
  done
  bring
done
du -sh "$out"
exit "${failed:-0}"
