"""`evor data check`: what is in a data set, and what training will make of it."""

import numpy as np
from rich.table import Table

from evor.config import RunConfig
from evor.data.ogbench import REWARD_RULE
from evor.data.transitions import complete, describe_short_episodes, memory_bytes
from evor.progress import screen
from evor.provenance import versions
from evor.source import load_episodes, needs, prepare
from evor.types import Episodes


def check(config: RunConfig) -> None:
    """Print a table of facts and a list of notes. Raises EvorError on what training would refuse."""
    episodes = load_episodes(config)
    columns, scale = prepare(config, episodes)
    facts = Table("what", "value", title=config.dataset or config.data, title_justify="left")
    for name, value in _facts(config, episodes).items():
        facts.add_row(name, value)
    facts.add_row("memory for training", f"{memory_bytes(columns) / 2**20:.1f} MiB")
    screen.print(facts)
    tasks = Table(
        "task", "rewards", "finished in episodes", "rows finished", "complete returns", "return mean", "return std"
    )
    usable = complete(episodes, needs(config).discount) & ~episodes.bootstrap_only
    for k, task in enumerate(episodes.tasks):
        finishing = np.unique(_episode_numbers(episodes)[episodes.masks[k] == 0])
        tasks.add_row(
            str(task),
            _values(episodes.rewards[k, ~episodes.bootstrap_only]),
            f"{len(finishing)} of {int(episodes.ends.sum())}",
            f"{(episodes.masks[k] == 0).mean():.3%}",
            f"{usable.mean():.1%}",
            f"{scale.return_mean[k]:.4g}",
            f"{scale.return_std[k]:.4g}",
        )
    screen.print(tasks)
    notes = [*episodes.notes, *describe_short_episodes(episodes, needs(config).num_steps)]
    if not usable.any():
        notes.append(
            "no episode is long enough for a complete reward-to-go (finished ones are held to the clock of those that were "
            "cut, or only the fast would count): returns are standardised by an estimate"
        )
    for note in notes or ["nothing wrong was found"]:
        screen.print(f"note: {note}")


def _facts(config: RunConfig, episodes: Episodes) -> dict[str, str]:
    lengths = _lengths(episodes)
    installed = versions()
    facts = {
        "observations": f"{list(episodes.observations.shape)}, {_range(episodes.observations)}",
        "actions": f"{list(episodes.actions.shape)}, {_range(episodes.actions)}",
        "transitions": f"{int((~episodes.bootstrap_only).sum()):,}",
        "episodes": f"{len(lengths)}: {lengths.min()} to {lengths.max()} rows, median {int(np.median(lengths))}",
        "ends": f"{int((~episodes.bootstrap_only[episodes.ends]).sum())} finished, "
        f"{int(episodes.bootstrap_only[episodes.ends].sum())} cut",
        "versions": ", ".join(f"{name} {installed[name]}" for name in ("evor", "ogbench", "mujoco")),
    }
    if config.dataset is not None:
        facts["reward timing"] = f"{REWARD_RULE!r}: from the state before the step, in data and environment"
    return facts


def _lengths(episodes: Episodes) -> np.ndarray:
    return np.diff(np.flatnonzero(episodes.ends), prepend=-1)


def _episode_numbers(episodes: Episodes) -> np.ndarray:
    return np.cumsum(episodes.ends) - episodes.ends


def _range(array: np.ndarray) -> str:
    return f"from {array.min():.4g} to {array.max():.4g}"


def _values(rewards: np.ndarray) -> str:
    values = np.unique(rewards)
    return ", ".join(f"{value:g}" for value in values) if len(values) <= 6 else _range(rewards)
