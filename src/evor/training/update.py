"""Many updates in one compiled call. Seeds and tasks are leading axes.

    for every seed:
        for every step: rows <- sampled once for all tasks; base <- one gradient step       (a Step each)
        for every task: for every step: head <- one gradient step on the Step

A head never changes a base, so the base may be up to `STEPS_AHEAD` steps ahead: one network at a time stays in a CPU's
cache. Nothing depends on how the steps are cut into blocks or calls, so a run that is killed and resumed ends
bit-identical, and a seed or task trains as it would alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, PRNGKeyArray

from evor.agents.registry import AGENTS, AgentConfig
from evor.data.columns import Columns
from evor.data.sampler import sample
from evor.errors import EvorError
from evor.nn.batching import each_network
from evor.nn.engine import key_of, pinned
from evor.nn.learner import Metrics, Progress
from evor.training.config import RunConfig
from evor.training.sharding import SEEDS, TASKS, column_specs, over_networks, put, shardings, share_batch
from evor.types import Outcome, Spec, Transition

STEPS_AHEAD = 32  # that a base may be ahead of its heads


class State(NamedTuple):
    """All that training carries from step to step. Bases lead with S seeds, heads with S seeds and K tasks."""

    base: Any
    head: Any
    base_sums: Metrics  # since the last log line, [S]
    head_sums: Metrics  # [S, K]
    step: Int[Array, ""]


_SPECS = State._make((P(SEEDS), P(SEEDS, TASKS), P(SEEDS), P(SEEDS, TASKS), P()))  # on which devices they lie


class Step(NamedTuple):
    """Everything that one step of a seed's base hands to the heads of its tasks."""

    batch: Transition  # [B, ...]
    handed: Any  # what `hand_over` returned
    outcomes: Outcome  # [K, B]


@pinned
def initial_state(config: RunConfig, spec: Spec) -> State:
    """Fresh networks; seed s is the same whatever seeds and tasks train beside it."""
    return _compiled_state(config.agent, spec, *_seeds_and_tasks(config))


@pinned
def state_shapes(config: RunConfig, spec: Spec) -> State:
    """Shapes of what `initial_state` returns, without making it."""
    return jax.eval_shape(functools.partial(_initial_state, config.agent, spec), *_seeds_and_tasks(config))


def _initial_state(config: AgentConfig, spec: Spec, seeds: Int[Array, " S"], tasks: Int[Array, " K"]) -> State:
    agent = AGENTS[type(config)]

    def one_seed(seed: Array) -> tuple[Any, Any]:
        key = jax.random.fold_in(key_of(seed), 0)
        base = agent.base.init(config, spec, key=jax.random.fold_in(key, 0))
        head = jax.vmap(lambda task: agent.head.init(config, spec, key=jax.random.fold_in(key, task)))
        return base, head(tasks)

    base, head = jax.vmap(one_seed)(seeds)
    return State(base=base, head=head, base_sums={}, head_sums={}, step=jnp.int32(0))


# Runs once: what the compiler would spend on it, five seconds, it can't win back. The numbers are the same.
_compiled_state = jax.jit(_initial_state, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 0})


def _seeds_and_tasks(config: RunConfig) -> tuple[Int[Array, " S"], Int[Array, " K"]]:
    return jnp.array(config.all_seeds), jnp.array(config.tasks)


@functools.partial(jax.jit, static_argnums=0, inline=True)  # traced once, for shapes and for the loop
def step_base(
    config: AgentConfig, columns: Columns, base: Any, seed: Array, index: Array, progress: Progress
) -> tuple[Any, Metrics, Step]:
    """One step of one seed's base. `index` is the seed's place among those of the run."""
    agent = AGENTS[type(config)]
    sample_key, base_key, handed_key, _ = _keys(seed, progress)
    sampled = sample(
        columns,
        sample_key,
        batch_size=config.learning.batch_size,
        chunk_length=config.chunk_length,
        seed_index=index,
    )
    batch, outcomes = share_batch(*sampled)
    handed = agent.hand_over(base, batch, config=config, key=handed_key)
    given = Step(batch=batch, handed=handed, outcomes=outcomes)
    if agent.base_first(config):  # it was trained before
        return base, {}, given
    base, metrics = agent.base.update(base, batch, config=config, progress=progress, key=base_key)
    return base, metrics, given


@functools.partial(jax.jit, static_argnums=0, inline=True)
def step_head(
    config: AgentConfig, head: Any, given: Step, outcome: Outcome, seed: Array, task: Array, progress: Progress
) -> tuple[Any, Metrics]:
    """One step of one task's head; `outcome` [B] is its own."""
    return AGENTS[type(config)].head.update(
        head,
        given.batch,
        handed=given.handed,
        outcomes=outcome,
        config=config,
        progress=progress,
        key=jax.random.fold_in(_keys(seed, progress)[3], task),
    )


def _keys(seed: Array, progress: Progress) -> PRNGKeyArray:
    """Keys for the rows, the base, what it hands over, and the heads."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(key_of(seed), 1), progress.step), 4)


@pinned
def make_runner(
    config: RunConfig, columns: Columns, state: State, *, mesh: Mesh | None = None
) -> tuple[State, Callable[[State, Columns, int], State]]:
    """A state with room for metrics, and `run(state, columns, count)`: `count` updates in one compiled call, any count.

    With a mesh both lie on its devices, and `run` wants columns that `put_columns` has put there.
    """
    agent, updates, (seeds, tasks) = config.agent, jnp.array(config.updates), _seeds_and_tasks(config)
    base_metrics, head_metrics, _ = _metric_shapes(agent, columns, state=state, seeds=seeds, tasks=tasks)
    state = _copied(state)
    state = state._replace(
        base_sums=_zeros(base_metrics, len(seeds)), head_sums=_zeros(head_metrics, len(seeds), len(tasks))
    )
    run = _compiled_run if mesh is None else functools.partial(_sharded_run, mesh)
    state = put_state(state, mesh=mesh)
    return state, pinned(lambda state, columns, count: run(agent, state, columns, seeds, tasks, count, updates))


def put_state(state: State, *, mesh: Mesh | None) -> State:
    """A state, of arrays anywhere, on the devices of a run."""
    return put(state, _SPECS, mesh=mesh)


@jax.jit
def _copied(state: State) -> State:
    """The state in arrays of its own: a fresh network and its moving average share theirs, and donated buffers may not."""
    return jax.tree.map(jnp.copy, state)


def _metric_shapes(
    config: AgentConfig, columns: Columns, *, state: State, seeds: Array, tasks: Array
) -> tuple[Any, Any, Any]:
    """Shapes of the metrics of a base and of a head, and of a Step."""

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def once(columns: Columns, state: State, seed: Array, task: Array) -> tuple[Metrics, Metrics, Step]:
        base, head, progress = first(state.base), first(first(state.head)), Progress(state.step, state.step)
        new_base, base_metrics, given = step_base(config, columns, base, seed, jnp.array(0), progress)
        new_head, head_metrics = step_head(config, head, given, first(given.outcomes), seed, task, progress)
        if not AGENTS[type(config)].base_first(config):
            _check_update(config, "base", before=base, after=new_base, metrics=base_metrics)
        _check_update(config, "head", before=head, after=new_head, metrics=head_metrics)
        return base_metrics, head_metrics, given

    return jax.eval_shape(once, columns, state, seeds[0], tasks[0])


def _check_update(config: AgentConfig, part: str, *, before: Any, after: Any, metrics: Metrics) -> None:
    """Raise EvorError where an update breaks the agent contract (agents/contract.py)."""
    update = f"{part}.update of the agent {type(config).__name__}"

    def kinds(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    if kinds(before) != kinds(after):
        raise EvorError(f"{update} changes the structure, a shape or a type of the {part}; it must keep them.")
    if wrong := [name for name, value in metrics.items() if "/" not in name or value.shape]:
        raise EvorError(f"{update} returns the metric {wrong[0]!r}; metrics are scalars, named NETWORK/METRIC.")
    if jax.tree.leaves(before) and not any(name.endswith("/loss") for name in metrics):
        raise EvorError(f"{update} returns no loss; name one NETWORK/loss, which training checks to be finite.")


def _zeros(tree: Any, *axes: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape), leaf.dtype), tree)


def _run(
    config: AgentConfig, state: State, columns: Columns, seeds: Array, tasks: Array, count: int, updates: Array
) -> State:
    end = state.step + count

    def advance(state: State) -> State:
        at_most, progress = jnp.minimum(STEPS_AHEAD, end - state.step), Progress(state.step, updates)
        return _updates(config, state, columns=columns, seeds=seeds, tasks=tasks, count=at_most, progress=progress)

    return jax.lax.while_loop(lambda state: state.step < end, advance, state)


_compiled_run = jax.jit(_run, static_argnums=0, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _sharded_run(mesh: Mesh, config: AgentConfig, state: State, columns: Columns, *others: Any) -> State:
    """`_run` on the devices of a mesh, each with networks and columns of its own; `others` are its other arguments."""
    specs = (_SPECS, column_specs(columns), P(SEEDS), P(TASKS), P(), P())
    run = over_networks(functools.partial(_run, config), mesh, arguments=specs, results=_SPECS)
    return jax.lax.with_sharding_constraint(run(state, columns, *others), shardings(_SPECS, mesh))


def _updates(
    config: AgentConfig,
    state: State,
    *,
    columns: Columns,
    seeds: Array,
    tasks: Array,
    count: Array,
    progress: Progress,
) -> State:
    """Take at most STEPS_AHEAD steps: of all bases, then of all heads."""

    def one_seed(index: Array, seed: Array, base: Any, sums: Metrics, heads: Any, head_sums: Metrics) -> tuple:
        given = _zeros(_metric_shapes(config, columns, state=state, seeds=seeds, tasks=tasks)[2], STEPS_AHEAD)
        base, sums, given = _advance_base(
            config, columns, carry=(base, sums, given), seed=seed, index=index, count=count, progress=progress
        )

        def one_task(index: Array, task: Array, head: Any, sums: Metrics) -> tuple[Any, Metrics]:
            own = given._replace(outcomes=jax.tree.map(lambda leaf: leaf[:, index], given.outcomes))
            return _advance_head(config, own, carry=(head, sums), seed=seed, task=task, count=count, progress=progress)

        return base, sums, *each_network(one_task, jnp.arange(len(tasks)), tasks, heads, head_sums)

    base, sums, heads, head_sums = each_network(
        one_seed, jnp.arange(len(seeds)), seeds, state.base, state.base_sums, state.head, state.head_sums
    )
    return State(base=base, head=heads, base_sums=sums, head_sums=head_sums, step=state.step + count)


def _advance_base(
    config: AgentConfig,
    columns: Columns,
    *,
    carry: tuple[Any, Metrics, Step],
    seed: Array,
    index: Array,
    count: Array,
    progress: Progress,
) -> tuple[Any, Metrics, Step]:
    """`count` steps of a base from `progress` on, and what each hands to the heads."""

    def advance(place: Array, carry: tuple[Any, Metrics, Step]) -> tuple[Any, Metrics, Step]:
        base, sums, given = carry
        base, metrics, new = step_base(config, columns, base, seed, index, progress.after(place))
        given = jax.tree.map(lambda all_, one: all_.at[place].set(one), given, new)
        return base, jax.tree.map(jnp.add, sums, metrics), given

    return jax.lax.fori_loop(0, count, advance, carry)


def _advance_head(
    config: AgentConfig,
    given: Step,
    *,
    carry: tuple[Any, Metrics],
    seed: Array,
    task: Array,
    count: Array,
    progress: Progress,
) -> tuple[Any, Metrics]:
    """`count` steps of a task's head on what its base handed over; the outcomes are the task's own."""

    def advance(index: Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        head, sums = carry
        one = jax.tree.map(lambda leaf: leaf[index], given)
        head, metrics = step_head(config, head, one, one.outcomes, seed, task, progress.after(index))
        return head, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, count, advance, carry)
