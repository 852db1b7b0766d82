"""Environments that a run is evaluated in: that of its OGBench dataset, or a user's own."""

from collections.abc import Generator
from contextlib import closing, contextmanager

from evor.envs.ogbench import REWARD_RULE
from evor.envs.own import OwnEnvironments
from evor.errors import EvorError
from evor.policies.inputs import keys_in
from evor.policies.load import Run
from evor.report.evaluations import ORIGIN, Row
from evor.runtime.provenance import commit, versions
from evor.runtime.user_code import import_function

OWN_RULE = "own"  # reward rule of a user's environments


def dataset_played(run: Run, env: str | None) -> str:
    """Name of the dataset in the rows of a run. Raises EvorError where there is nothing to play, or it is not clear what."""
    dataset = run.config.dataset
    if dataset is None and env is None:
        raise EvorError(
            f"{run.folder} was trained on data of your own, so there is no environment to play; give --env module:make_env, "
            "or use evor.load."
        )
    if dataset is not None and env is not None:
        raise EvorError(f"{run.folder} plays the environment of {dataset}; leave --env out, or use evor.evaluate.")
    return dataset or env or ""


@contextmanager
def environment_of(run: Run, env: str | None, *, num_envs: int | None = None) -> Generator[str | OwnEnvironments]:
    """Open what `play` plays: OGBench's environments by the name of the dataset, or those that `env` makes."""
    if env is None:
        yield run.config.dataset or ""
        return
    own = OwnEnvironments(
        import_function(env, option="--env", example="my_robot:make_env"),
        spec=run.spec,
        action_bounds=run.standardisation.action_bounds,
        observation_keys=keys_in({"imported": run.imported}),
        num_envs=num_envs,
        command=env,
    )
    with closing(own):
        yield own


def origin_of(run: Run) -> Row:
    """Provenance of every row."""
    installed, sparse = versions(), ", trained on sparse rewards" if run.config.sparse_rewards else ""
    told = {
        "reward_rule": OWN_RULE if run.config.dataset is None else REWARD_RULE + sparse,
        "ogbench": installed["ogbench"],
        "mujoco": installed["mujoco"],
        "commit": commit() or "",
    }
    return {name: told[name] for name in ORIGIN}
