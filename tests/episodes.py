"""Small episodes whose sums can be written out by hand, and how they are laid out."""

import numpy as np

from evor.data.columns import Arranged, arrange
from evor.types import DataSpec, Episodes, NoBounds


def make(rewards, masks, ends, bootstrap_only, action_known=None) -> Episodes:
    """Episodes of one task, in which a row's observation is its number."""
    n = len(rewards)
    return Episodes(
        observations=np.arange(n, dtype=np.float32)[:, None],
        actions=np.linspace(-1, 1, n, dtype=np.float32)[:, None],
        rewards=np.array([rewards], np.float32),
        masks=np.array([masks], np.float32),
        ends=np.array(ends, bool),
        bootstrap_only=np.array(bootstrap_only, bool),
        action_known=np.ones(n, bool) if action_known is None else np.array(action_known, bool),
        tasks=(1,),
    )


# Rows 0-3: an episode cut at row 3. Rows 4-6: an episode finished at row 6.
TWO = make([1, 2, 4, 8, 1, 1, 5], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0])


def random_episodes(seed=0, length=60) -> Episodes:
    """Three episodes of as many rows, all cut."""
    generator = np.random.default_rng(seed)
    ends = np.arange(3 * length) % length == length - 1
    return make(generator.normal(-5, 2, 3 * length), np.ones(3 * length), ends, ends)


def data_spec(**changes) -> DataSpec:
    """Sums of three steps at discount 0.9, everything standardised."""
    options = {
        "discount": 0.9,
        "num_steps": 3,
        "chunk_length": 1,
        "next_action_known": True,
        "next_action_taken": True,
        "full_returns": False,
    }
    options |= {"standardise_observations": True, "standardise_returns": True, "return_bounds": NoBounds()}
    return DataSpec(**(options | changes))


def lay(episodes, **changes) -> Arranged:
    """Episodes laid out for these needs."""
    return arrange(episodes, data_spec(**changes))
