"""The time of an update of SAC beside two other libraries: `python benchmarks/sac_speed.py OTHER_PYTHON`.

OTHER_PYTHON is the Python of an environment that holds stable-baselines3 and sbx-rl; neither is needed by evor. Each library
runs in a process of its own, on one thread. Blocks of 64 updates are timed in turn, in seconds of CPU, so that all see the
same machine. Sizes are those of Hopper-v5. It writes docs/results/sac-speed.json.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path("docs/results/sac-speed.json")
OBSERVATION, ACTION, HIDDEN, BATCH, UPDATES, STORED = 11, 3, [256, 256], 256, 64, 20_000
BLOCKS = 30
ENVIRONMENT = os.environ | {"PJRT_NPROC": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


def ours(precision):
    """A function that makes UPDATES updates, minibatches drawn from a replay in numpy."""
    import jax
    import numpy as np

    from evor.agents.sac import Sac
    from evor.imitation.config import ImitationConfig
    from evor.imitation.discriminator import TrueReward, scale_of
    from evor.imitation.learning import Rows, initial, update_learner
    from evor.imitation.replay import Replay
    from evor.imitation.resets import Mm
    from evor.nn.engine import pinned
    from evor.nn.learner import Learning
    from evor.types import Spec

    learning = Learning(hidden=tuple(HIDDEN), batch_size=BATCH, precision=precision)
    config = ImitationConfig(method=Mm(), reward=TrueReward(), learner=Sac(learning=learning))
    spec, generator = Spec(OBSERVATION, ACTION), np.random.default_rng(0)
    entries, scale = config.discriminator_sees.entries(spec), scale_of(None, spec)
    replay = Replay(STORED, observation=OBSERVATION, action=ACTION)
    first, after = generator.normal(size=(2, STORED, OBSERVATION))
    replay.add(Rows(first, generator.uniform(-1, 1, (STORED, ACTION)), after, first[:, 0], np.zeros(STORED, bool)))
    networks = pinned(initial)(config, spec, seed=0)

    @pinned
    def block():
        nonlocal networks
        batches = replay.batches(UPDATES, BATCH, generator=generator)
        key = jax.random.key(int(generator.integers(2**31)))
        networks, metrics = update_learner(networks, batches, scale=scale, config=config, entries=entries, key=key)
        return float(metrics["critics/loss"])

    return block


def theirs(library):
    """The same of stable-baselines3 or sbx."""
    import gymnasium
    import numpy as np

    if library == "sbx-rl":
        from sbx import SAC  # ty: ignore[import-not-found] - of OTHER_PYTHON
    else:
        import torch  # ty: ignore[import-not-found] - of OTHER_PYTHON
        from stable_baselines3 import SAC  # ty: ignore[import-not-found] - of OTHER_PYTHON

        torch.set_num_threads(1)

    class Still(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.random.normal(size=OBSERVATION).astype(np.float32), {}

        def step(self, action):
            return self.reset()[0], 1.0, False, False, {}

    how = {"policy_kwargs": {"net_arch": HIDDEN}, "batch_size": BATCH, "train_freq": UPDATES, "gradient_steps": UPDATES}
    model = SAC("MlpPolicy", Still(), buffer_size=STORED, learning_starts=100, seed=0, **how)
    model.learn(UPDATES * 4)  # which fills the replay and compiles
    return lambda: model.train(UPDATES, BATCH)


def serve(library):
    """Time a block for every line of input."""
    name, _, precision = library.partition(", ")
    block = ours(precision) if name == "evor" else theirs(name)
    for _ in range(3):
        block()
    answer(json.dumps({"version": importlib.metadata.version(name)}))
    for _ in sys.stdin:
        started = time.process_time()
        block()
        answer(str((time.process_time() - started) / UPDATES * 1e3))


def answer(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(other):
    libraries = {
        "evor, float32": sys.executable,
        "evor, bfloat16": sys.executable,
        "sbx-rl": other,
        "stable-baselines3": other,
    }
    started = {
        name: subprocess.Popen(
            [python, __file__, "--serve", name], stdin=-1, stdout=-1, text=True, bufsize=1, env=ENVIRONMENT
        )
        for name, python in libraries.items()
    }
    pipes = {name: pipes_of(process) for name, process in started.items()}
    versions = {name: json.loads(output.readline())["version"] for name, (_, output) in pipes.items()}
    times = {name: [] for name in started}
    for _ in range(BLOCKS):
        for name, (lines, output) in pipes.items():
            lines.write("\n")
            times[name].append(float(output.readline()))
    for name, process in started.items():
        pipes[name][0].close()
        process.wait()
    write(versions, times)


def pipes_of(process):
    """The ends of a process: for the lines that it reads, and of its answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def write(versions, times):
    """Medians, and medians of the ratios of neighbours in time, into the file and the page."""
    import numpy as np
    import readme

    from evor.runtime.files import write_json
    from evor.runtime.provenance import provenance

    base = np.array(times["evor, float32"])
    libraries = {
        name: {
            "version": versions[name],
            "milliseconds": round(float(np.median(each)), 3),
            "ratio": round(float(np.median(base / np.array(each))), 3),  # evor in float32 takes so much of its time
        }
        for name, each in times.items()
    }
    sizes = {"observation": OBSERVATION, "action": ACTION, "hidden": HIDDEN, "batch": BATCH}
    timed = {"blocks": BLOCKS, "updates_of_a_block": UPDATES, "load": os.getloadavg()}
    write_json(RESULT, {"libraries": libraries, "sizes": sizes, **timed, **provenance()})
    readme.main()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    serve(sys.argv[2]) if sys.argv[1] == "--serve" else main(sys.argv[1])
