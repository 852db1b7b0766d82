"""Columns on the device -> a batch, inside the compiled update."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from evor.data.columns import Columns
from evor.types import Outcome, Transition


def sample(
    columns: Columns, key: PRNGKeyArray, *, batch_size: int, chunk_length: int, seed_index: Int[Array, ""] | int = 0
) -> tuple[Transition, Outcome]:
    """Draw rows uniformly, with replacement: transitions [B, ...] and their outcomes under every task [K, B].

    Stored proposals are those of the seed with this index, or the same for all seeds.
    """
    places = jax.random.randint(key, (batch_size,), 0, columns.count)
    rows = columns.sampled_rows[places]
    bootstrap = columns.bootstrap[rows]
    actions, mask = _chunks(columns, rows, length=chunk_length)
    next_actions, _ = _chunks(columns, bootstrap, length=chunk_length)
    batch = Transition(
        observation=columns.observations[rows],
        action=actions,
        action_mask=mask,
        next_observation=columns.observations[bootstrap],
        next_action=next_actions,
        next_proposals=jnp.zeros((batch_size, 0, actions.shape[1]))
        if columns.proposals is None
        else columns.proposals[jnp.minimum(seed_index, len(columns.proposals) - 1), places],
    )
    reward, discount, weight, reward_to_go = (
        jnp.full(columns.rewards.shape[:1] + rows.shape, jnp.nan) if column is None else jnp.asarray(column)[:, rows]
        for column in (columns.rewards, columns.discounts, columns.weights, columns.rewards_to_go)
    )
    assert columns.return_bounds is not None
    return_min, return_max = (jnp.broadcast_to(bound[:, None], reward.shape) for bound in columns.return_bounds)
    return batch, Outcome(
        reward=reward,
        discount=discount,
        weight=weight,
        reward_to_go=reward_to_go,
        return_min=return_min,
        return_max=return_max,
    )


def _chunks(columns: Columns, rows: Array, *, length: int) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """Flattened chunks of actions starting at rows, repeating the episode's last action past its end (mask 0 there)."""
    steps = rows[:, None] + jnp.arange(length)[None]
    last = columns.last_action_row[rows][:, None]
    chunks = columns.actions[jnp.minimum(steps, last)]
    mask = jnp.broadcast_to((steps <= last)[..., None], chunks.shape)
    return chunks.reshape(len(rows), -1), mask.reshape(len(rows), -1).astype(jnp.float32)
