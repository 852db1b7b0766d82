#!/usr/bin/env bash
# The paper's protocol on a machine with an NVIDIA card, in slices: what one call leaves unfinished the next one resumes.
#
#   scripts/gpu.sh OUT MINUTES [options of `evor reproduce`, such as --only pointmaze-medium-navigate-v0 evor]
#
# Needs Python 3.12 with CUDA JAX. What else that Python lacks (mujoco, ogbench, gymnasium, dm_control, tyro, cattrs and what
# they import) is installed from the wheels in .whl/, without a network. Where there is no git, EVOR_COMMIT names the commit.
# Data sets are generated on the spot by all cores (data/gpu), runs stay in runs/gpu. OUT gets a few megabytes: bench.json,
# results.csv and its page, and one exported policy per finished data set. Committed as docs/results/gpu-SCALE, these are
# where a bare machine goes on: what they hold is not run again. SCALE=smoke rehearses all of it on any machine;
# SUITE=ablations plays what is trained under every setting of the dials.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 minutes=$2
shift 2
scale=${SCALE:-full} suite=${SUITE:-paper}
python=${PYTHON:-python3}
started=$(date +%s)
work=runs/gpu/$scale

site=$PWD/.whl/site
if compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$site/installed" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  touch "$site/installed"
fi
export PYTHONPATH=$PWD/src:$site PYTHONUNBUFFERED=1 MUJOCO_GL=${MUJOCO_GL:-disable}
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/gpu/xla
mkdir -p "$out" "$work"
"$python" -c 'import jax, ogbench, evor.bench, evor.reproduce; print("jax", jax.__version__, jax.devices())'

evor() { "$python" -m evor.cli "$@"; }

before=docs/results/gpu-$scale
if [ -e "$before/manifest.json" ] && [ ! -e "$work/paper" ]; then
  mkdir "$work/paper"
  cp "$before"/{manifest.json,results.csv,timings.csv} "$work/paper/"
fi

bring() {  # whatever happened, what there is goes into OUT
  for file in "$work"/bench/bench.json "$work"/paper/{results.csv,timings.csv,manifest.json,results.md} "$work"/paper/*.png; do
    if [ -e "$file" ]; then cp "$file" "$out/"; fi
  done
}
trap bring EXIT

if [ ! -e "$work/bench/bench.json" ]; then
  if [ "$scale" = smoke ]; then evor bench --out "$work/bench" --repeats 1 --seconds 0.1 --sizes demo --presets default bc
  else evor bench --out "$work/bench" --repeats 3 --seconds 1 --sizes paper --presets default qc-1; fi
fi

# A minute is kept for the end: the page, the exports, and what the last compiled call takes.
left=$((60 * minutes - ($(date +%s) - started) - 60))
if [ "$left" -gt 0 ]; then
  hours=$("$python" -c "print($left / 3600)")
  expert=()
  [ -e "${EXPERT:-}" ] && expert=(--expert "$EXPERT")
  evor reproduce "$suite" --scale "$scale" --data data/gpu --out "$work/paper" --hours "$hours" "${expert[@]}" "$@" ||
    failed=$?  # some cell: the others' policies are exported all the same
fi
"$python" - "$work/paper" "$out" <<'END'
import sys
from pathlib import Path

from evor.run import open_run

cells, out = Path(sys.argv[1]) / "cells", Path(sys.argv[2])
for run in sorted(cells.glob("*/evor/*")):
    folder = out / f"policy-{run.parts[-3]}"
    if folder.exists() or not any((run / "checkpoints").glob("*")):
        continue
    if (found := open_run(run)).step == found.config.steps:
        found.select(found.config.tasks[0], found.config.seed).export(folder)
END
du -sh "$out"
exit "${failed:-0}"
