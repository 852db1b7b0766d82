"""A trained policy: act, query its return distribution, export."""

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from evor.agents.registry import AGENTS, AgentConfig
from evor.envs.observations import Observation
from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.policies import decision
from evor.policies.decision import Choice, Decision, Networks, freeze, noises_of, note_work, read_returns
from evor.policies.exports import Description, write_export
from evor.policies.inputs import (
    Batch,
    actions_of,
    batch_of,
    candidates_of,
    keys_in,
    keys_of,
    own_actions,
    require_value,
    search_of,
)
from evor.runtime import arguments
from evor.search.extraction import Extraction, Guided, Prior
from evor.search.readings import Quadrature, RandomSamples
from evor.types import Spec

_counting = threading.Lock()  # of decisions without a seed


class Policy:
    """One trained policy: a base policy that proposes actions and, of one seed and task, the value that ranks them.

    Temperatures are in units of the stored return standard deviation (1 where standardisation was off).

    Batches are padded to 1, 2, 4, 8, ... rows, and each of these sizes is compiled when it is first met (`warm_up`
    does so ahead of time). What the methods return is the caller's own, to write into. All of them may be called from
    several threads, but not in a process that was forked after evor had computed.
    """

    def __init__(self, config: AgentConfig, spec: Spec, *, networks: Networks, origin: dict[str, Any]):
        self.config, self.spec = config, spec
        self.origin = origin  # dataset, task, seed, updates; what `evor data import` said of the data
        self.observation_keys = keys_in(origin)  # of a dict that is taken in place of an observation [O]
        self.action_bounds = networks.standardisation.action_bounds  # of what it returns and takes
        self._networks, self._frozen = networks, freeze(networks)
        self._decided = 0  # rows that `act` has drawn seeds for

    @property
    @pinned
    def return_std(self) -> float:
        """The unit of return temperatures, in the reward's own units."""
        return float(self._networks.standardisation.return_std)

    @property
    def has_value(self) -> bool:
        """Whether there is a value to search with."""
        return AGENTS[type(self.config)].returns is not None

    @functools.cached_property
    def default_search(self) -> Extraction:
        """The search used when none is given."""
        return AGENTS[type(self.config)].default_search(self.config)

    def __repr__(self) -> str:
        return f"Policy({', '.join(f'{name}={value}' for name, value in self.origin.items() if name != 'imported')})"

    @pinned
    def act(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        seed: int | Int[np.ndarray, " B"] | None = None,
        *,
        extraction: Extraction | None = None,
    ) -> Float[np.ndarray, "*B A"]:
        """Choose an action [A] for an observation [O], or [B, A] for [B, O]; [chunk, A] where the agent chunks.

        `seed` says which noise a decision draws:

        * None: a fresh one in every call and row. Rows are counted from 0 since the policy was loaded, and a row's number
          is its seed, so that a program that runs again acts again in the same way.
        * An int: the same noise in every row, and in every call with this seed. A loop that gives one seed to all of its
          steps repeats one draw, and may get stuck.
        * An array [B] of ints: a seed per row.

        A row gets what it would get alone. The default search is the agent's own (`SoftmaxOf()` for EVOR). Batches are
        padded to 1, 2, 4, 8, ... rows, and the first call of each size compiles. Raises EvorError on another width, on
        values that are not finite, on a search where the agent has no value, and where the agent's own `propose` returned
        an action outside [-1, 1], in which networks see actions. What this returns is in the units of the data, inside
        `action_bounds`.
        """
        extraction, batch, keys = self._asked(observation, seed, extraction=extraction)
        note_work(extraction, self.default_search)
        chosen = decision.act(self.config, self._frozen, extraction, batch.rows, keys, batch.count)
        return self._own(batch.result(self._shaped(chosen)))

    @pinned
    def decide(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        seed: int | Int[np.ndarray, " B"] | None = None,
        *,
        extraction: Extraction | None = None,
    ) -> Decision:
        """Decide as `act` does, and tell what was decided among.

        Returns the action, the index of the candidate that it is, all candidates [C, A] ([C, chunk, A] where the agent
        chunks) and their scores [C], in the reward's own units as `value` gives them; of a batch [B, O] each with a
        leading axis. The base policy, `Prior`, has one candidate and no scores (None). `Guided` with `AfterChoice` moves
        the action off its candidate, whose score stays. Raises EvorError as `act` does.
        """
        extraction, batch, keys = self._asked(observation, seed, extraction=extraction)
        note_work(extraction, self.default_search)
        decided = decision.decide(self.config, self._frozen, extraction, batch.rows, keys, batch.count)
        decided = batch.results(
            Decision(
                action=self._shaped(decided.action),
                index=np.array(decided.index),
                candidates=self._shaped(decided.candidates),
                scores=None if decided.scores is None else self._in_reward_units(decided.scores),
            )
        )
        return decided._replace(candidates=self._own(decided.candidates), action=self._own(decided.action))

    @pinned
    def choose(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        candidates: Float[np.ndarray, "*B C A"],
        *,
        seed: int | Int[np.ndarray, " B"] | None = None,
        extraction: Extraction | None = None,
    ) -> Choice:
        """Choose among candidates [C, A] that anybody made, [C, chunk, A] where the agent chunks; [B, C, ...] for [B, O].

        Returns the index of the one that is taken and the scores [C] of all, in the reward's own units as `value` gives
        them. The search says how they are read and which is taken; its `num_candidates` is ignored, and `Guided` moves
        none of them. `seed` is as in `act`: on the candidates of `decide` and with its seed, the choice is the same.
        Numbers of candidates are padded to 1, 2, 4, 8, ..., as those of rows are; the padding changes nothing. Raises
        EvorError on the base policy `Prior`, which scores nothing, on no candidates, and on one that is no action.
        """
        extraction, batch, keys = self._asked(observation, seed, extraction=extraction)
        if isinstance(extraction, Prior):
            raise EvorError("extraction is Prior, which scores no candidates; give a search such as evor.SoftmaxOf().")
        return batch.results(self._chosen(candidates, batch, keys=keys, search=extraction))

    def _chosen(self, candidates: Any, batch: Batch, *, keys: Key[Array, " S"], search: Any) -> Choice:
        """The choice among given candidates at every row of a padded batch."""
        wide, number = candidates_of(candidates, self._action_shape, batch=batch, bounds=self.action_bounds)
        search = replace(search.unguided if isinstance(search, Guided) else search, num_candidates=1)
        padded = batch.rows, batch.pad(wide)
        chosen = decision.choose(self.config, self._frozen, search, *padded, keys, number, batch.count)
        return Choice(index=np.array(chosen.index), scores=self._in_reward_units(chosen.scores)[:, :number])

    def _asked(self, observation: Any, seed: Any, *, extraction: Any) -> tuple[Extraction, Batch, Key[Array, " S"]]:
        """Check the inputs of a decision: its search, padded observations and a key for each. Raises EvorError."""
        extraction = self._search(extraction)
        batch = batch_of(observation, self.observation_keys, width=self.spec.observation_dim)
        seeds = self._fresh_seeds(batch.number) if seed is None else arguments.seeds(seed, batch.number)
        return extraction, batch, keys_of(batch.pad(seeds))

    def _search(self, extraction: Any) -> Extraction:
        """The search that is meant, the default one for None. Raises EvorError where it is none, or the agent can't search so."""
        return search_of(extraction, self.config, usual=self.default_search)

    def _shaped(self, flat: Any) -> np.ndarray:
        """Actions [..., H] of a network as a caller sees them, in an array of the caller's own."""
        return np.array(flat).reshape(*flat.shape[:-1], *self._action_shape)

    def _own(self, scaled: np.ndarray) -> np.ndarray:
        return own_actions(scaled, self.config, bounds=self.action_bounds)

    @np.errstate(over="ignore", invalid="ignore")  # as JAX has it
    def _in_reward_units(self, standardised: Any) -> np.ndarray:
        scale = self._networks.standardisation
        mean, std = (np.asarray(part, np.float32) for part in (scale.return_mean, scale.return_std))
        return mean + std * np.asarray(standardised)

    def _fresh_seeds(self, number: int) -> UInt32[np.ndarray, " B"]:
        with _counting:
            first = self._decided
            self._decided += number
        return (np.arange(first, first + number, dtype=np.uint64) % 2**32).astype(np.uint32)

    @pinned
    def _act_with_keys(self, rows: np.ndarray, keys: Key[Array, " B"], *, extraction: Any, given: Any) -> np.ndarray:
        """Actions of all rows. Compiles for this number of rows. `given` matters to base policies of the user's own."""
        # With count=None, as `act` has it: what `warm_up` compiled serves here, too.
        extraction = self._search(extraction)
        note_work(extraction, self.default_search)
        return self._own(self._shaped(decision.act(self.config, self._frozen, extraction, rows, keys, None)))

    @property
    def _action_shape(self) -> tuple[int, ...]:
        chunk = (self.config.chunk_length,) if self.config.chunk_length > 1 else ()
        return *chunk, self.spec.action_dim

    def warm_up(self, batch_sizes: Sequence[int] = (1,), extraction: Extraction | None = None) -> dict[int, float]:
        """Compile what `act` needs for batches of these sizes with this search.

        Returns the seconds that each size took: little where it was compiled already, as 3 is after 4. Temperatures
        compile nothing anew. Leaves the counting of decisions as it is.
        """
        if np.ndim(batch_sizes) != 1:
            raise EvorError(f"batch_sizes is {arguments.shown(batch_sizes)}; give a list of whole numbers.")
        seconds = {}
        for size in [arguments.count(1, batch_size=size) for size in batch_sizes]:
            started = time.perf_counter()
            self.act(np.zeros((size, self.spec.observation_dim), np.float32), 0, extraction=extraction)
            seconds[size] = time.perf_counter() - started
        return seconds

    @pinned
    def returns(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        action: Float[np.ndarray, "*B A"],
        *,
        num_samples: int = 50,
        seed: int = 0,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B Z"]:
        """Samples of the discounted reward-to-go, in the reward's own units. Rows share their noises."""
        samples = RandomSamples(arguments.count(1, num_samples=num_samples))
        (key,) = keys_of(arguments.seeds(seed, 1))
        return self._read(observation, action, noises=samples.nodes(key, 1.0).noises, flow_steps=flow_steps)

    @pinned
    def quantiles(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        action: Float[np.ndarray, "*B A"],
        *,
        num_nodes: int = 64,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B Z"]:
        """Quantiles of the learned return distribution at (i + 1/2) / num_nodes, in the reward's own units."""
        num_nodes = arguments.count(1, num_nodes=num_nodes)
        return self._read(observation, action, noises=noises_of(num_nodes), flow_steps=flow_steps)

    @pinned
    def value(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        action: Float[np.ndarray, "*B A"],
        *,
        return_temperature: float = 1.0,
        num_nodes: int = 32,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B"]:
        """Q*(x, a) = tau log mean exp(Z / tau) in the reward's own units, by quadrature; 0 is max, infinity the mean."""
        temperature = arguments.temperature(return_temperature=return_temperature)
        nodes = Quadrature(num_nodes).nodes(jax.random.key(0), temperature)

        def q(returns: Array) -> Array:
            return decision.read_values(returns, nodes.weights, temperature)

        return self._read(observation, action, noises=nodes.noises, flow_steps=flow_steps, reduce=q)

    @pinned
    def export(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write policy.safetensors and policy.json, which `evor.load(folder)` reads without the run folder.

        `~` is the home folder. With `overwrite` a policy that is there is replaced. Raises EvorError where the folder holds
        a policy or a run, is in use, or can't be written.
        """
        description = Description(config=self.config, spec=self.spec, origin=self.origin)
        write_export(arguments.folder(folder), description, networks=self._networks, overwrite=overwrite)

    def _read(
        self,
        observation: Float[np.ndarray, "*B O"] | Observation,
        action: Float[np.ndarray, "*B A"],
        *,
        noises: Float[Array, " Z"],
        flow_steps: int,
        reduce: Callable[[Array], Array] = lambda returns: returns,
    ) -> np.ndarray:
        """Returns [B, Z] of the rows at the noises, or what `reduce` makes of them, in the reward's own units."""
        require_value(self.config)
        flow_steps = arguments.count(1, flow_steps=flow_steps)
        batch = batch_of(observation, self.observation_keys, width=self.spec.observation_dim)
        actions = actions_of(action, self._action_shape, bounds=self.action_bounds)
        if len(actions) != batch.number:
            raise EvorError(f"{batch.number} observations but {len(actions)} actions; give one action per observation.")
        flat = batch.pad(actions.reshape(batch.number, math.prod(self._action_shape)))
        standard = read_returns(self.config, self._frozen, batch.rows, flat, noises, flow_steps, batch.count)
        return batch.results(self._in_reward_units(reduce(standard)))
