# Everything a newcomer or the CI types. Each target creates and fills .venv by itself.
PYTHON ?= python3
SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
PYTHON312 ?= python3.12
LEROBOT := .venv-lerobot
# One thread for XLA: the fastest for networks of this size (docs/performance.md).
export PJRT_NPROC ?= 1

.PHONY: setup demo demo-results check docs test test-slow test-lerobot bench sorl-update quadrature calibration law-or-mean learner-study acting-study imitate-results checkpoints shards data-memory reproduce reproduce-sorl time-to-solve verify gpu-page serve-bench lock clean

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "evor needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python"; exit 2; }
	@echo "Installing the packages of requirements.lock into $(VENV), once: about 450 MB to download (Linux), some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/evor demo --seed $(SEED)

# Of the tests, whether calls fit what they call: most of the slow ones run rarely.
CALLS := --ignore all --error missing-argument --error unknown-argument --error too-many-positional-arguments --error unresolved-reference
check: setup
	$(BIN)/ruff format --check src tests benchmarks examples scripts
	$(BIN)/ruff check src tests benchmarks examples scripts
	$(BIN)/ty check --python $(VENV) src benchmarks examples scripts
	$(BIN)/ty check --python $(VENV) $(CALLS) --exclude tests/version_0_1_0 tests
	$(BIN)/lint-imports

# The documentation into site/; a dead link is an error. `make test` builds it, too (tests/test_docs.py).
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 1

# The LeRobot adapter against the real LeRobot, in an environment of its own. It downloads some GB, once: PyPI's PyTorch brings CUDA.
# (PIP_EXTRA_INDEX_URL may name an index that has PyTorch for CPUs.)
test-lerobot: $(LEROBOT)/installed
	HF_HUB_OFFLINE=1 $(LEROBOT)/bin/python -m pytest --noconftest -W default tests/with_lerobot

# JAX and what reads files are those of requirements.lock; LeRobot asks for an older numpy.
$(LEROBOT)/installed: tests/lerobot.in requirements.lock pyproject.toml
	$(PYTHON312) -m venv $(LEROBOT)
	grep -oE '^(jax|jaxlib|equinox|jaxtyping|optax|h5py|pyarrow|pytest)==[^ ]+' requirements.lock > $(LEROBOT)/constraints.txt
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LEROBOT)/constraints.txt \
	  --requirement tests/lerobot.in --editable '.[data]' pytest
	touch $@

# Three seeds of the demo: README's first table and its picture (docs/results/demo-seed*.json, demo.gif).
demo-results: setup
	for seed in 0 1 2; do \
	  $(BIN)/evor demo --seed $$seed --out runs/demo-seed$$seed && \
	  cp runs/demo-seed$$seed/summary.json docs/results/demo-seed$$seed.json || exit 1; \
	done
	$(BIN)/python benchmarks/picture.py runs/demo-seed0 docs/results/demo.gif
	$(BIN)/python benchmarks/readme.py

# Every objective on every problem with a known distribution, half an hour (docs/results/verify.md); and as long again for the one
# problem whose close atoms small networks can't follow without sines, with networks of the default's size.
verify: setup
	$(BIN)/evor verify --out runs/verify
	$(BIN)/evor verify --problems chain-10 --methods default --hidden 256 256 256 --updates 10000 --out runs/verify-wide
	$(BIN)/python benchmarks/verify.py

# Error of Q* against the number of evaluations, on exact distributions (docs/results/quadrature.md).
quadrature: setup
	$(BIN)/python benchmarks/quadrature.py

# Held-out returns under every objective and two other heads (docs/results/calibration.md).
calibration: setup
	$(BIN)/python benchmarks/calibration.py

# Objectives x next actions x readings, played on a maze and a cube (docs/results/law-or-mean.md). Hours; it resumes.
law-or-mean: setup
	$(BIN)/python benchmarks/law_or_mean.py

# Recipes of one change each beside the baselines, on mazes, cubes and a scene, and on the ant's mazes with
# its expert (docs/results/learner-study.md). Days; it resumes. `make learner-study ARGS='--cells stitch --seeds 0'` runs a part.
learner-study: setup
	$(BIN)/python benchmarks/learner_study.py $(ARGS)

# One trained value searched in many ways (docs/results/acting-study.md); it plays the runs of `make learner-study`. An hour; it resumes.
acting-study: setup
	$(BIN)/python benchmarks/acting_study.py

# Imitation on the ledge and of a hopper with other bodies (docs/results/imitate-results.md). Hours; it resumes.
imitate-results: setup
	$(BIN)/python benchmarks/imitate_results.py

# Processor time and memory of saving a training state of 1 GiB (docs/results/checkpoints.json).
checkpoints: setup
	$(BIN)/python benchmarks/checkpoints.py

# A folder of 20 shards, in memory and under a cap (docs/results/shards.md).
shards: setup
	$(BIN)/python benchmarks/shards.py

# Memory that a row takes while data are opened without a cap (docs/results/data-memory.md). Minutes.
data-memory: setup
	$(BIN)/python benchmarks/data_memory.py

# The paper's matrix at the scale of two cores (docs/results/paper-small). Hours; it resumes.
reproduce: setup
	$(BIN)/evor reproduce paper --scale small --out docs/results/paper-small
	$(BIN)/evor reproduce ablations --scale small --out docs/results/paper-small
	$(BIN)/python benchmarks/readme.py

# SORL's experiment at the scale of two cores, where its data can be generated without an expert (docs/results/sorl-small). It resumes.
reproduce-sorl: setup
	$(BIN)/evor reproduce sorl --scale small --out docs/results/sorl-small --only cube-single-play-v0

# Minutes of training until a maze is solved, by agent (docs/results/time-to-solve.json). Two hours at most.
time-to-solve: setup
	$(BIN)/python benchmarks/time_to_solve.py

# Fifteen minutes: docs/performance.md, and one line per bound.
bench: setup
	$(BIN)/python benchmarks/bench.py

# The policy server: its wire beside openpi's own server, a budget, a soak of half an hour, mutated requests (docs/results/serve.md).
serve-bench: setup
	$(BIN)/python benchmarks/serve.py

# SORL's update at the paper's size, beside products and beside a loop as the field writes it. Five minutes.
sorl-update: setup
	$(BIN)/python benchmarks/sorl_update.py

# What scripts/gpu.sh left in docs/results/gpu-SCALE as a page (docs/results/gpu.md); measures nothing.
gpu-page: setup
	$(BIN)/python benchmarks/gpu.py

# dm_control asks for labmaze, which has no wheel for Python 3.13 and which nothing here imports. One version of JAX
# for all Pythons ("fewest"). The lock is whole, so it is installed without asking for dependencies again. openpi's client
# and server are added without their dependencies: all are there, and the client asks for a numpy below 2 without need.
lock:
	echo "labmaze>=1.0.6 ; python_version < '3.13'" | \
	  uv pip compile --universal --python-version 3.11 --fork-strategy fewest --override /dev/stdin --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --extra data --extra dev --extra docs --extra ogbench --extra ray --extra serve --quiet pyproject.toml --output-file requirements.lock
	uv pip compile --universal --python-version 3.11 --no-deps --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --quiet tests/openpi.in >> requirements.lock

clean:
	rm -rf $(VENV) $(LEROBOT) runs data
