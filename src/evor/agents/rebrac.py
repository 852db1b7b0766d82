"""ReBRAC: TD3 with behaviour penalties of its own for actor and critics (Tarasov et al. 2023).

repeat:
    a'      <- clip(target_actor(x') + clipped noise)
    critics <- regress on reward + discount mask (min_i target_i(x', a') - critic_penalty |a' - a'_data|^2)
    every actor_every updates:
        actor   <- descend actor_penalty |actor(x) - a|^2 - min_i critics_i(x, actor(x)) / mean |min_i critics_i|
        targets <- exponential moving averages of actor and critics
act: actor(x)
"""

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Agent, Head, one_chunk
from evor.errors import at_least, fraction
from evor.nn.critics import critics_loss, init_critics, least_returns, least_value, normalised
from evor.nn.learner import Learning, Loss, Metrics, Progress, Tracked, named, track, weighted_mean
from evor.nn.nets import Mlp, scale_last_layer
from evor.runtime.records import INLINED
from evor.search.extraction import Prior
from evor.types import DataSpec, Outcome, Spec, Transition

LAST_LAYER = 0.1  # of the actor at the start: the official code takes a hundredth of the variance

# 1. What can be set.


@dataclass(frozen=True)
class Rebrac:
    """TD3 whose actor and critics are held to the data, each by a penalty of its own."""

    # Networks, rates and noise are the official code's, which has no penalties for all datasets: those here are ours.

    actor_penalty: float = 0.1  # Weight of the actor's squared distance from the dataset's action.
    critic_penalty: float = 0.0  # Weight of the next action's squared distance from the dataset's, in targets.
    actor_every: int = 2  # Updates from one step of the actor, and of all moving averages, to the next.
    # Learning rate of the actor, in learning rates of the critics.
    actor_rate: float = 1.4
    target_noise: float = 0.2  # Standard deviation of the noise on the next action of a target.
    target_noise_bound: float = 0.5  # Largest such noise.
    num_critics: int = 2  # Number of critics. The least of them counts.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(
        default=Learning(hidden=(512, 512, 512, 512), final_learning_rate=3e-4), metadata=INLINED
    )  # a constant rate
    target_rate: float = 5e-3  # Rate of the moving averages, each time that they move.
    discount: float = 0.99  # Discount of rewards, per environment step.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        at_least(1, actor_every=self.actor_every, num_critics=self.num_critics, chunk_length=self.chunk_length)
        at_least(0, actor_penalty=self.actor_penalty, critic_penalty=self.critic_penalty, actor_rate=self.actor_rate)
        at_least(0, target_noise=self.target_noise, target_noise_bound=self.target_noise_bound)
        fraction(target_rate=self.target_rate, discount=self.discount)

    @property
    def actor_learning(self) -> Learning:
        """The settings of the actor's own optimiser."""
        # In the official code, one Adam of both takes a step of momentum where the actor waits, so that over two updates
        # the actor moves about sqrt(2) as far as with an Adam that waits, too.
        shared = self.learning
        return dataclasses.replace(
            shared,
            learning_rate=self.actor_rate * shared.learning_rate,
            final_learning_rate=self.actor_rate * shared.final_learning_rate,
        )


def data_spec(config: Rebrac) -> DataSpec:
    """Sums over one chunk, and the dataset's next chunk of the same episode."""
    return one_chunk(config)._replace(next_action_known=True)


# 2. What is learned.


class ActorCritics(NamedTuple):
    """An actor and critics, each with its moving average."""

    actor: Tracked
    critics: Tracked


def init_head(config: Rebrac, spec: Spec, *, key: PRNGKeyArray) -> ActorCritics:
    """An actor of an observation [O], and critics of an observation and an action [O + H]."""
    actor_key, critics_key = jax.random.split(key)
    learning, width = config.learning, spec.action_dim * config.chunk_length
    options = {"precision": learning.precision}
    actor = Mlp(spec.observation_dim, learning.hidden, width, layer_norm=False, key=actor_key, **options)
    critics = init_critics(
        spec.observation_dim + width, learning.hidden, number=config.num_critics, key=critics_key, **options
    )
    return ActorCritics(actor=Tracked(scale_last_layer(actor, LAST_LAYER)), critics=Tracked(critics))


# 3. The mathematics, one transition at a time.


def action_of(actor: Mlp, observation: Float[Array, " O"]) -> Float[Array, " H"]:
    """The actor's action, in [-1, 1]."""
    return jnp.tanh(actor(observation))


def backup(
    averages: tuple[Mlp, Mlp], transition: Transition, outcome: Outcome, noise: Float[Array, " H"], penalty: float
) -> Float[Array, ""]:
    """Bootstrap from the averaged actor's action with noise on it, less its distance from the dataset's next action."""
    actor, critics = averages
    action = jnp.clip(action_of(actor, transition.next_observation) + noise, -1, 1)
    distance = jnp.sum((action - transition.next_action) ** 2)
    after = least_value(critics, transition.next_observation, action) - penalty * distance
    return outcome.reward + outcome.discount * after


def distance_and_value(actor: Mlp, critics: Mlp, transition: Transition) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The squared distance of the actor's action from the dataset's, and the least of the critics there."""
    action = action_of(actor, transition.observation)
    distance = jnp.sum(transition.action_mask * (action - transition.action) ** 2)
    return distance, least_value(critics, transition.observation, action)


# 4. One gradient step.


def update_head(
    head: ActorCritics,
    batch: Transition,
    *,
    handed: tuple[()],
    outcomes: Outcome,
    config: Rebrac,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[ActorCritics, Metrics]:
    """Train the critics; every so many updates the actor, too, through the critics as they were before their step."""
    noise = config.target_noise * jax.random.normal(key, batch.action.shape)
    noise = jnp.clip(noise, -config.target_noise_bound, config.target_noise_bound)
    averages = (head.actor.target, head.critics.target)
    targets = jax.vmap(backup, (None, 0, 0, 0, None))(averages, batch, outcomes, noise, config.critic_penalty)
    critics = head.critics.learner.network

    def of_critics(critics: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(critics_loss, (None, 0, 0))(critics, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    def of_actor(actor: Mlp) -> Float[Array, ""]:
        distances, values = jax.vmap(distance_and_value, (None, None, 0))(actor, critics, batch)
        return config.actor_penalty * distances.mean() - normalised(values).mean()

    learner, about_critics = head.critics.learner.step(of_critics, learning=config.learning, progress=progress)
    head = head._replace(critics=eqx.tree_at(lambda critics: critics.learner, head.critics, learner))
    head, about_actor = _every(head, of_actor, config=config, progress=progress)
    return head, named("critic", about_critics | {"target": targets.mean()}) | named("actor", about_actor)


def _every(head: ActorCritics, of_actor: Loss, *, config: Rebrac, progress: Progress) -> tuple[ActorCritics, Metrics]:
    """Move the actor and all averages in every so many updates, and return its metrics.

    They are 0 where the actor waits, and as many times as large where it learns: the means of a log line are then means
    over the updates in which it learned.
    """

    def learn(head: ActorCritics) -> tuple[ActorCritics, Metrics]:
        rate = config.target_rate
        actor, metrics = head.actor.step(of_actor, learning=config.actor_learning, progress=progress, target_rate=rate)
        average = track(head.critics.target, head.critics.learner.network, rate)
        critics = eqx.tree_at(lambda critics: critics.target, head.critics, average)
        return ActorCritics(actor=actor, critics=critics), {k: config.actor_every * v for k, v in metrics.items()}

    def wait(head: ActorCritics) -> tuple[ActorCritics, Metrics]:
        return head, {"loss": jnp.zeros(()), "gradient_norm": jnp.zeros(())}

    # The number of the update is the same for all seeds and tasks, so one branch alone runs.
    learns = (jnp.asarray(progress.step) + 1) % config.actor_every == 0
    return jax.lax.cond(learns, learn, wait, head)


# 5. How it acts.


def inference_networks(base: tuple[()], head: ActorCritics, *, config: Rebrac) -> tuple[Mlp, Mlp]:
    """The online actor and the online critics."""
    return head.actor.learner.network, head.critics.learner.network


def propose(actor: Mlp, observation: Float[Array, " O"], *, flow_steps: int, key: PRNGKeyArray) -> Float[Array, " H"]:
    """The actor's action without noise, whatever the key."""
    return action_of(actor, observation)


def default_search(config: Rebrac) -> Prior:
    """The actor's one action: among equal candidates there is nothing to search."""
    return Prior(flow_steps=1)


AGENT = Agent(
    config=Rebrac,
    data_spec=data_spec,
    head=Head(init=init_head, update=update_head),
    inference_networks=inference_networks,
    propose=propose,
    returns=least_returns,
    default_search=default_search,
    presets={"rebrac": Rebrac()},
)
