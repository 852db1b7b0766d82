"""Many updates in one compiled call. Seeds and tasks are leading axes.

    for every seed:
        for every step: rows <- sampled once for all tasks; policy <- one gradient step     (a lesson per step)
        for every task: for every step: value <- one gradient step on the step's lesson

A value never teaches a policy, so the policy may walk up to `LESSONS` steps ahead: one network at a time stays in a
CPU's cache. Nothing depends on how the steps are cut into lessons or calls, so a run that is killed and resumed ends
bit-identical, and a seed or task trains as it would alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from evor.agents.registry import AGENTS
from evor.data.columns import Columns
from evor.data.sampler import sample
from evor.nn.batching import each_network
from evor.nn.engine import key_of, pinned
from evor.training.config import RunConfig
from evor.types import Outcome, Spec, Transition

LESSONS = 32  # steps that a policy may be ahead of its values
Metrics = dict[str, Array]


class State(NamedTuple):
    """All that training carries from step to step. Policies lead with S seeds, values with S seeds and K tasks."""

    policy: Any
    value: Any
    policy_sums: Metrics  # since the last log line, [S]
    value_sums: Metrics  # [S, K]
    step: Int[Array, ""]


class Lesson(NamedTuple):
    """What one step of a seed's policy hands to the values of its tasks."""

    batch: Transition  # [B, ...]
    actions: Array  # candidates where targets bootstrap [B, C, H]
    outcomes: Outcome  # [K, B]


@pinned
def initial_state(config: RunConfig, spec: Spec) -> State:
    """Fresh networks; seed s is the same whatever seeds and tasks train beside it."""
    return _compiled_state(_bare(config), spec, *_seeds_and_tasks(config))


@pinned
def state_shapes(config: RunConfig, spec: Spec) -> State:
    """Of `initial_state`, without making it."""
    return jax.eval_shape(functools.partial(_initial_state, _bare(config), spec), *_seeds_and_tasks(config))


def _initial_state(config: RunConfig, spec: Spec, seeds: Int[Array, " S"], tasks: Int[Array, " K"]) -> State:
    agent = AGENTS[type(config.agent)]

    def one_seed(seed: Array) -> tuple[Any, Any]:
        key = jax.random.fold_in(key_of(seed), 0)
        policy = agent.init_policy(config.agent, spec, jax.random.fold_in(key, 0))
        value = jax.vmap(lambda task: agent.init_value(config.agent, spec, jax.random.fold_in(key, task)))
        return policy, value(tasks)

    policy, value = jax.vmap(one_seed)(seeds)
    return State(policy, value, {}, {}, jnp.array(0))


# Runs once: what the compiler would spend on it, five seconds, it can't win back. The numbers are the same.
_compiled_state = jax.jit(_initial_state, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 0})


def _bare(config: RunConfig) -> RunConfig:
    """What an update depends on: runs that differ elsewhere share what is compiled."""
    return RunConfig(steps=config.steps, agent=config.agent)


def _seeds_and_tasks(config: RunConfig) -> tuple[Int[Array, " S"], Int[Array, " K"]]:
    return jnp.array(config.all_seeds), jnp.array(config.tasks)


def learning_rate(config: RunConfig, step: Array | int) -> Array | float:
    """From the agent's first rate to its final one, in a straight line over the run."""
    first, last = config.agent.learning_rate, config.agent.final_learning_rate
    made = step if isinstance(step, int) else step.astype(jnp.float32)
    return first + (last - first) * made / config.steps


@functools.partial(jax.jit, static_argnums=0, inline=True)  # traced once, for shapes and for the loop
def update_policy(
    config: RunConfig, columns: Columns, policy: Any, seed: Array, step: Array
) -> tuple[Any, Metrics, Lesson]:
    """One step of one seed's policy."""
    agent = AGENTS[type(config.agent)]
    sample_key, policy_key, action_key, _ = _keys(seed, step)
    batch, outcomes = sample(
        columns, sample_key, batch_size=config.agent.batch_size, chunk_length=config.agent.chunk_length
    )
    actions = agent.next_actions(policy, batch, config.agent, action_key)
    policy, metrics = agent.update_policy(policy, batch, config.agent, learning_rate(config, step), policy_key)
    return policy, metrics, Lesson(batch, actions, outcomes)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def update_value(
    config: RunConfig, value: Any, lesson: Lesson, outcome: Outcome, seed: Array, task: Array, step: Array
) -> tuple[Any, Metrics]:
    """One step of one task's value; `outcome` [B] is its own."""
    key = jax.random.fold_in(_keys(seed, step)[3], task)
    rate = learning_rate(config, step)
    return AGENTS[type(config.agent)].update_value(
        value, lesson.actions, lesson.batch, outcome, config.agent, rate, key
    )


def _keys(seed: Array, step: Array) -> PRNGKeyArray:
    """For the rows, the policy, the next actions and the values."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(key_of(seed), 1), step), 4)


@pinned
def make_runner(
    config: RunConfig, columns: Columns, state: State
) -> tuple[State, Callable[[State, Columns, int], State]]:
    """A state with room for metrics, and `run(state, columns, count)`: `count` updates in one compiled call, any count."""
    bare, (seeds, tasks) = _bare(config), _seeds_and_tasks(config)
    policy_metrics, value_metrics, _ = _shapes(bare, columns, state, seeds, tasks)
    # A fresh value and its moving average share arrays; donated buffers may not.
    state = jax.tree.map(jnp.copy, state)
    state = state._replace(
        policy_sums=_room(policy_metrics, len(seeds)), value_sums=_room(value_metrics, len(seeds), len(tasks))
    )
    return state, pinned(lambda state, columns, count: _run(bare, state, columns, seeds, tasks, count))


def _shapes(config: RunConfig, columns: Columns, state: State, seeds: Array, tasks: Array) -> tuple[Any, Any, Any]:
    """Of the metrics of a policy and of a value, and of a lesson."""

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def once(columns: Columns, state: State, seed: Array, task: Array) -> tuple[Metrics, Metrics, Lesson]:
        _, policy_metrics, lesson = update_policy(config, columns, first(state.policy), seed, state.step)
        value, outcome = first(first(state.value)), first(lesson.outcomes)
        _, value_metrics = update_value(config, value, lesson, outcome, seed, task, state.step)
        return policy_metrics, value_metrics, lesson

    return jax.eval_shape(once, columns, state, seeds[0], tasks[0])


def _room(tree: Any, *axes: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape), leaf.dtype), tree)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run(config: RunConfig, state: State, columns: Columns, seeds: Array, tasks: Array, count: int) -> State:
    end = state.step + count
    return jax.lax.while_loop(
        lambda state: state.step < end,
        lambda state: _block(config, state, columns, seeds, tasks, jnp.minimum(LESSONS, end - state.step)),
        state,
    )


def _block(config: RunConfig, state: State, columns: Columns, seeds: Array, tasks: Array, count: Array) -> State:
    """At most LESSONS steps: of all policies, then of all values."""
    *_, one_lesson = _shapes(config, columns, state, seeds, tasks)
    add = functools.partial(jax.tree.map, jnp.add)

    def one_seed(seed: Array, policy: Any, sums: Metrics, values: Any, value_sums: Metrics) -> tuple:
        def teach(index: Array, carry: tuple[Any, Metrics, Lesson]) -> tuple[Any, Metrics, Lesson]:
            policy, sums, lessons = carry
            policy, metrics, lesson = update_policy(config, columns, policy, seed, state.step + index)
            lessons = jax.tree.map(lambda all_, new: all_.at[index].set(new), lessons, lesson)
            return policy, add(sums, metrics), lessons

        policy, sums, lessons = jax.lax.fori_loop(0, count, teach, (policy, sums, _room(one_lesson, LESSONS)))

        def one_task(place: Array, task: Array, value: Any, sums: Metrics) -> tuple[Any, Metrics]:
            def learn(index: Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
                value, sums = carry
                lesson = jax.tree.map(lambda leaf: leaf[index], lessons)
                outcome = jax.tree.map(lambda leaf: leaf[place], lesson.outcomes)
                value, metrics = update_value(config, value, lesson, outcome, seed, task, state.step + index)
                return value, add(sums, metrics)

            return jax.lax.fori_loop(0, count, learn, (value, sums))

        values, value_sums = each_network(one_task, jnp.arange(len(tasks)), tasks, values, value_sums)
        return policy, sums, values, value_sums

    policy, sums, values, value_sums = each_network(
        one_seed, seeds, state.policy, state.policy_sums, state.value, state.value_sums
    )
    return State(policy, values, sums, value_sums, state.step + count)
