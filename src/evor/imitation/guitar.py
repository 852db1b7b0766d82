"""GUITAR's loop, and those of FILTER and MM, which differ in their resets alone.

repeat:
    repeat: act in all copies; begin ended episodes where the mixture of resets says; update the learner
    roll out the policy from the start, apart from what the learner learns
    update the discriminator on these rollouts and on the demonstrations
Every step of the simulator is counted: the learner's, those of rollouts, and those of a clone that rolls in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from evor.errors import EvorError
from evor.imitation.actor import Actor
from evor.imitation.config import ImitationConfig
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.discriminator import TrueReward, scale_of
from evor.imitation.learning import Networks, Pairs, Rows, initial, update_discriminator, update_learner
from evor.imitation.replay import Replay
from evor.imitation.resets import ExpertStates, OfflineStates, Reset, RollIn, Start, resets_of
from evor.imitation.worlds import Grounded, OnPlane, World
from evor.nn.engine import pinned

Policy = Callable[[Float[np.ndarray, "n O"], np.random.Generator], Float[np.ndarray, "n A"]]
ACTING, ROLLOUTS, PAIRS = range(3)  # streams of random numbers


@dataclass
class Counts:
    """Steps of the simulator by what they were for, and resets."""

    learner: int = 0
    rollouts: int = 0
    roll_in: int = 0
    resets: int = 0

    @property
    def all(self) -> int:
        """Every step of the simulator but those of evaluations."""
        return self.learner + self.rollouts + self.roll_in


@dataclass
class Copies:
    """Episodes under way, one in every copy of the world."""

    observations: Float[np.ndarray, "n O"]
    elapsed: Int[np.ndarray, " n"]  # on the episode's clock, which a reset sets
    age: Int[np.ndarray, " n"]  # steps since the reset, but for those of a clone
    elsewhere: Bool[np.ndarray, " n"]  # whether the episode began anywhere but at the start
    rolling: Int[np.ndarray, " n"]  # steps that a clone still takes


class Imitation:
    """A seed of an imitation that grows step by step. What is random is drawn anew for every call of updates."""

    def __init__(
        self,
        config: ImitationConfig,
        *,
        make_world: Callable[[int], World],
        expert: Demonstrations | None,
        offline: Demonstrations | None,
        clone: Policy | None = None,
        seed: int,
    ):
        self.config, self.seed, self.expert, self.offline, self._clone = config, seed, expert, offline, clone
        self.world, self._other = make_world(config.copies), make_world(config.rollouts)
        self.entries = config.discriminator_sees.entries(self.world.spec)
        self.scale = scale_of(expert, self.world.spec)
        self._resets: tuple[Reset, ...] = resets_of(config.method)
        self.networks: Networks = pinned(initial)(config, self.world.spec, seed=seed)
        self.counts, self.metrics = Counts(), {}
        # Where a clone acts in some copies, a round ends later than its steps say: at most by so many.
        beyond = config.update_every + config.copies
        self.replay = Replay(
            config.steps + config.reward_every + beyond,
            observation=self.world.spec.observation_dim,
            action=self.world.spec.action_dim,
        )
        self.copies = self._first_episodes()
        self.actor = Actor(self.networks.learner.actor.network)

    # Random numbers of a call are known by its number: what is resumed draws the same.

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, self.counts.learner])

    def _key(self, stream: int) -> Any:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), stream), self.counts.learner)

    def _first_episodes(self) -> Copies:
        count, spec = self.world.count, self.world.spec
        zeros = np.zeros(count, np.int64)
        self.copies = Copies(
            observations=np.zeros((count, spec.observation_dim), np.float32),
            elapsed=zeros.copy(),
            age=zeros.copy(),
            elsewhere=zeros > 0,
            rolling=zeros.copy(),
        )
        self._begin(np.arange(count), np.random.default_rng([self.seed, PAIRS + 1]))
        return self.copies

    def _begin(self, copies: Int[np.ndarray, " k"], generator: np.random.Generator) -> None:
        """Begin new episodes in these copies, where the mixture says."""
        now, weights = self.copies, np.array([reset.weight for reset in self._resets])
        drawn = generator.choice(len(weights), len(copies), p=weights / weights.sum())
        for number, reset in enumerate(self._resets):
            mine = copies[drawn == number]
            if not len(mine):
                continue
            now.age[mine], now.rolling[mine], now.elapsed[mine] = 0, 0, 0
            now.elsewhere[mine] = not isinstance(reset, Start)
            if isinstance(reset, ExpertStates | OfflineStates):
                data = self.expert if isinstance(reset, ExpertStates) else self.offline
                assert data is not None
                assert data.states is not None
                rows = generator.integers(0, len(data), len(mine))
                now.elapsed[mine] = data.elapsed[rows]
                now.observations[mine] = self.world.restore(
                    mine, data.states[rows], observations=data.observations[rows]
                )
            else:
                now.observations[mine] = self.world.reset(mine, generator)
            if isinstance(reset, RollIn):
                now.rolling[mine] = generator.integers(0, reset.most_steps + 1, len(mine))
        self.counts.resets += len(copies)

    def restore(
        self, networks: Networks, copies: dict[str, Any], *, states: Float[np.ndarray, "n S"], counts: Counts
    ) -> None:
        """Go on from what was saved."""
        self.networks, self.counts, self.copies = networks, counts, Copies(**copies)
        self.world.resume(states, observations=self.copies.observations)
        self.actor = Actor(networks.learner.actor.network)

    # One round.

    @pinned
    def advance(self) -> None:
        """Take `reward_every` steps of the learner, then let the discriminator learn."""
        until = self.counts.learner + self.config.reward_every
        sums: list[dict[str, float]] = []
        while self.counts.learner < until:
            before = self.counts.learner
            generator = self._generator(ACTING)
            key = self._key(ACTING)
            while self.counts.learner < before + self.config.update_every:
                self._step(generator)
            if self.counts.learner > self.config.warm_up:
                number = self.config.update_every // self.config.steps_per_update
                batches = self.replay.batches(number, self.config.learner.learning.batch_size, generator=generator)
                self.networks, metrics = update_learner(
                    self.networks, batches, scale=self.scale, config=self.config, entries=self.entries, key=key
                )
                self.actor = Actor(self.networks.learner.actor.network)
                sums.append({name: float(value) for name, value in metrics.items()})
        if isinstance(self.world, Grounded) and not self.world.touched:
            raise EvorError(
                f"no body has touched the ground until step {self.counts.learner} of the learner, so there is nothing to learn; "
                "choose a --body that reaches it. The last checkpoint is kept."
            )
        self.metrics = {name: float(np.mean([each[name] for each in sums])) for name in (sums[0] if sums else {})}
        self._discriminate()

    def _step(self, generator: np.random.Generator) -> None:
        """Act once in every copy. Steps of a clone are not learned from."""
        now = self.copies
        actions = (
            self.actor.draw(now.observations, generator)
            if self.counts.learner >= self.config.warm_up
            else generator.uniform(-1, 1, (self.world.count, self.world.spec.action_dim)).astype(np.float32)
        )
        cloned = now.rolling > 0
        if cloned.any():
            assert self._clone is not None
            actions = np.where(cloned[:, None], self._clone(now.observations, generator), actions)
        before = now.observations
        stepped = self.world.step(actions, generator)
        after = stepped.observations.astype(np.float32)
        if not np.isfinite(after).all():
            raise EvorError(
                f"{self.world.name} gave an observation that is not finite at step {self.counts.learner} of the learner; the "
                "body explodes, or its model is wrong. The last checkpoint is kept."
            )
        mine = ~cloned
        rows = Rows(before, actions, after, stepped.rewards, stepped.terminated)
        self.replay.add(Rows(*(column[mine] for column in rows)))
        self.counts.learner += int(mine.sum())
        self.counts.roll_in += int(cloned.sum())
        now.observations, now.elapsed, now.age = after.copy(), now.elapsed + 1, now.age + mine
        now.rolling = np.maximum(now.rolling - 1, 0)
        cut = now.elapsed >= self.world.horizon
        if self.config.search_horizon is not None:
            cut |= now.elsewhere & (now.age >= self.config.search_horizon)
        ended = np.flatnonzero(stepped.terminated | cut)
        if len(ended):
            self._begin(ended, generator)

    def _discriminate(self) -> None:
        """Roll out the policy from the start, and train the discriminator on it."""
        generator, kind = self._generator(ROLLOUTS), self.config.reward
        if isinstance(kind, TrueReward):
            return
        played = roll_out(self._other, lambda o: self.actor.draw(o, generator), generator=generator)
        self.counts.rollouts += int(played.lengths.sum())
        shape = (kind.steps, kind.pairs)
        assert self.expert is not None
        assert self.expert.actions is not None
        of_learner = generator.integers(0, len(played.pairs.action), shape)
        of_expert = generator.integers(0, len(self.expert), shape)
        self.networks, metrics = update_discriminator(
            self.networks,
            learner=Pairs(*(array[of_learner] for array in played.pairs)),
            expert=Pairs(self.expert.observations[of_expert], self.expert.actions[of_expert]),
            lived=(float(played.lengths.mean()) / self.world.horizon, self.expert.lived(self.world.horizon)),
            scale=self.scale,
            config=self.config,
            entries=self.entries,
            key=self._key(ROLLOUTS),
        )
        self.metrics |= {name: float(value) for name, value in metrics.items()}
        self.metrics |= {"rollouts/length": float(played.lengths.mean())}

    def evaluate(self, world: World, episodes: int) -> "Played":
        """Play episodes from the start, without noise."""
        generator = np.random.default_rng([self.seed, PAIRS, self.counts.learner])
        return roll_out(world, self.actor.mean, generator=generator, episodes=episodes)


@dataclass
class Played:
    """Episodes from the start: their pairs, and of each its true return and length. Positions are of worlds on a plane."""

    pairs: Pairs
    returns: Float[np.ndarray, " E"]
    lengths: Int[np.ndarray, " E"]
    positions: Float[np.ndarray, "T E 2"] | None = None  # of the first episodes, one in each copy


def roll_out(
    world: World,
    act: Callable[[Float[np.ndarray, "n O"]], Float[np.ndarray, "n A"]],
    *,
    generator: np.random.Generator,
    episodes: int | None = None,
) -> Played:
    """Play an episode in every copy, again and again until there are so many. Steps after an end are not counted."""
    episodes = world.count if episodes is None else episodes
    observations, actions, returns, lengths = [], [], [], []
    positions: list[np.ndarray] = []
    for _ in range(-(-episodes // world.count)):
        now = world.reset(np.arange(world.count), generator).astype(np.float32)
        alive, total, lived = np.full(world.count, True), np.zeros(world.count), np.zeros(world.count, np.int64)
        for _ in range(world.horizon):
            taken = act(now)
            observations.append(now[alive])
            actions.append(taken[alive])
            if isinstance(world, OnPlane) and not returns:
                positions.append(world.positions())
            stepped = world.step(taken, generator)
            total, lived = total + alive * stepped.rewards, lived + alive
            now, alive = stepped.observations.astype(np.float32), alive & ~stepped.terminated
            if not alive.any():
                break
        returns.append(total)
        lengths.append(lived)
    pairs = Pairs(np.concatenate(observations), np.concatenate(actions))
    return Played(
        pairs,
        returns=np.concatenate(returns)[:episodes],
        lengths=np.concatenate(lengths)[:episodes],
        positions=np.stack(positions)[:, :episodes] if positions else None,
    )
