"""The Python API: a trained policy that acts, tells the law of its returns, and exports itself."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int, Key

from evor import checkpoint
from evor.config import AGENTS, AgentConfig, to_json
from evor.data.transitions import Standardisation
from evor.errors import EvorError, at_least, whole
from evor.extract import Extraction, Prior, choose, rows
from evor.files import expand, write_json
from evor.layout import each_example
from evor.measures import midpoints
from evor.nets import Mlp
from evor.provenance import versions
from evor.types import Spec
from evor.value import Quadrature, RandomSamples, log_mean_exp


class Networks(NamedTuple):
    """What acts: the two networks and the standardisation of one seed and task."""

    policy: Any
    value: Any
    standardisation: Standardisation


# Compiled once per agent config, batch size and extraction structure; networks and temperatures are arguments.


@functools.partial(jax.jit, static_argnums=0)
def _act(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observations: Float[Array, "B O"],
    keys: Key[Array, " B"],
) -> Float[Array, "B H"]:
    agent = AGENTS[type(config)]

    def one(observation: Array, key: Array) -> Array:
        observation = _standardise(networks.standardisation, observation)

        def propose(key: Array) -> Array:
            return agent.propose(networks.policy, observation, extraction.flow_steps, key)

        def returns(action: Array, noises: Array) -> Array:
            assert agent.returns is not None
            assert not isinstance(extraction, Prior)
            scale = networks.standardisation
            found = agent.returns(networks.value, observation, action, noises, config, extraction.flow_steps)
            return jnp.minimum(found, (extraction.max_return - scale.return_mean) / scale.return_std)

        return choose(extraction, propose, returns, key)

    return each_example(one, observations, keys, rows=rows(extraction))


@functools.partial(jax.jit, static_argnums=(0, 5))
def _returns(
    config: AgentConfig,
    networks: Networks,
    observations: Float[Array, "B O"],
    actions: Float[Array, "B H"],
    noises: Float[Array, " Z"],
    flow_steps: int,
) -> Float[Array, "B Z"]:
    """In standardised units; all rows share their noises."""
    returns = AGENTS[type(config)].returns
    assert returns is not None

    def one(observation: Array, action: Array) -> Array:
        observation = _standardise(networks.standardisation, observation)
        return returns(networks.value, observation, action, noises, config, flow_steps)

    return each_example(one, observations, actions, rows=len(noises))


@jax.jit
def keys_of(seeds: Int[Array, " B"]) -> Key[Array, " B"]:
    """A key per seed. Compiled: outside of it these few operations cost more than a small decision."""
    return jax.vmap(jax.random.key)(seeds.astype(jnp.uint32))


def _freeze(networks: Networks) -> Networks:
    def one(part: Any) -> Any:
        return part.frozen() if isinstance(part, Mlp) else part

    return jax.tree.map(one, networks, is_leaf=lambda part: isinstance(part, Mlp))


def _standardise(scale: Standardisation, observation: Float[Array, " O"]) -> Float[Array, " O"]:
    return (observation - scale.observation_mean) / scale.observation_std


class Policy:
    """One trained policy: a base policy that proposes and the value of one seed and task that judges.

    Temperatures are in units of the stored return standard deviation (1 where standardisation was off).
    """

    def __init__(self, config: AgentConfig, spec: Spec, networks: Networks, origin: dict[str, Any]):
        self.config = config
        self.spec = spec
        self.origin = origin  # dataset, task, seed, updates
        self._networks = networks
        self._frozen = _freeze(networks)

    @property
    def return_std(self) -> float:
        """The unit of return temperatures, in the reward's own units."""
        return float(self._networks.standardisation.return_std)

    @property
    def judges(self) -> bool:
        """Whether there is a value to search with."""
        return AGENTS[type(self.config)].returns is not None

    @property
    def default_search(self) -> Extraction:
        """How it acts where nobody says."""
        return AGENTS[type(self.config)].default_search(self.config)

    def _require_value(self) -> None:
        if not self.judges:
            name = type(self.config).__name__
            raise EvorError(f"a {name} policy has no value to judge actions with; act with the base policy, `Prior`.")

    def __repr__(self) -> str:
        return f"Policy({', '.join(f'{name}={value}' for name, value in self.origin.items())})"

    def act(
        self,
        observation: Float[np.ndarray, "*B O"],
        seed: int | Int[np.ndarray, " B"] = 0,
        extraction: Extraction | None = None,
    ) -> Float[np.ndarray, "*B A"]:
        """Choose an action [A] for an observation [O], or [B, A] for [B, O]; [chunk, A] where the agent chunks.

        `seed` is an int, used for every row, or one per row; a row gets what it would get alone. The default search
        is the agent's own (`SoftmaxOf()` for EVOR). Raises EvorError on another width, on values that are not finite,
        and on a search where nothing judges.
        """
        rows, single = self._rows(observation, "observation", self.spec.observation_dim)
        if not isinstance(extraction, Extraction | None):
            raise EvorError(f"extraction is {extraction!r}; give a search such as evor.SoftmaxOf(32).")
        seeds = np.asarray(seed)
        if seeds.dtype.kind not in "iu" or (seeds < 0).any() or seeds.shape not in ((), (len(rows),)):
            raise EvorError(f"seed is {seed!r}; give a non-negative int, or one per row.")
        seeds = np.broadcast_to(seeds, (len(rows),))
        actions = self._act_with_keys(rows, keys_of(seeds % 2**32), extraction)
        return actions[0] if single else actions

    def _act_with_keys(self, rows: np.ndarray, keys: Key[Array, " B"], extraction: Extraction | None) -> np.ndarray:
        extraction = extraction or self.default_search
        if not isinstance(extraction, Prior):
            self._require_value()
        actions = np.asarray(_act(self.config, self._frozen, extraction, rows, keys))
        if self.config.chunk_length > 1:
            return actions.reshape(len(actions), self.config.chunk_length, self.spec.action_dim)
        return actions

    def returns(
        self,
        observation: Float[np.ndarray, "*B O"],
        action: Float[np.ndarray, "*B A"],
        num_samples: int = 50,
        seed: int = 0,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B Z"]:
        """Samples of the discounted reward-to-go, in the reward's own units. Rows share their noises."""
        whole(1, num_samples=num_samples)
        whole(0, seed=seed)
        noises = RandomSamples(num_samples).nodes(jax.random.key(seed), 1.0).noises
        return self._read(observation, action, noises, flow_steps)

    def quantiles(
        self,
        observation: Float[np.ndarray, "*B O"],
        action: Float[np.ndarray, "*B A"],
        num_nodes: int = 64,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B Z"]:
        """The learned law's quantiles at (i + 1/2) / num_nodes, in the reward's own units."""
        whole(1, num_nodes=num_nodes)
        noises = ndtri(jnp.asarray(midpoints(num_nodes), jnp.float32))
        return self._read(observation, action, noises, flow_steps)

    def value(
        self,
        observation: Float[np.ndarray, "*B O"],
        action: Float[np.ndarray, "*B A"],
        return_temperature: float = 1.0,
        num_nodes: int = 32,
        flow_steps: int = 10,
    ) -> Float[np.ndarray, "*B"]:
        """Q*(x, a) = tau log mean exp(Z / tau) in the reward's own units, by quadrature; 0 is max, infinity the mean."""
        at_least(0, return_temperature=return_temperature)
        nodes = Quadrature(num_nodes).nodes(jax.random.key(0), return_temperature)

        def q(returns: Array) -> Array:
            return log_mean_exp(returns, nodes.weights, jnp.float32(return_temperature))

        return self._read(observation, action, nodes.noises, flow_steps, q)

    def export(self, folder: str | Path) -> None:
        """Write policy.safetensors and policy.json, which `evor.load(folder)` reads without the run folder."""
        folder = expand(folder)
        if (folder / "policy.json").exists():
            raise EvorError(f"{folder} already holds a policy; remove it or choose another folder.")
        if (folder / "config.json").exists():
            raise EvorError(f"{folder} holds a run; export into a folder of its own.")
        if folder.is_file():
            raise EvorError(f"{folder} is a file; export into a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save_arrays(folder / "policy.safetensors", self._networks, {})
        description = {
            "config": to_json(self.config, AgentConfig),
            "spec": self.spec._asdict(),
            "origin": self.origin,
            "versions": versions(),
        }
        write_json(folder / "policy.json", description)

    def _read(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        noises: Float[Array, " Z"],
        flow_steps: int,
        reduce: Callable[[Array], Array] = lambda returns: returns,
    ) -> np.ndarray:
        """Returns of each row at the noises, reduced row by row, in the reward's own units."""
        self._require_value()
        whole(1, flow_steps=flow_steps)
        rows, single = self._rows(observation, "observation", self.spec.observation_dim)
        actions = np.asarray(action, np.float32)
        if self.config.chunk_length > 1:
            actions = actions.reshape(*actions.shape[:-2], -1)
        actions, _ = self._rows(actions, "action", self.spec.action_dim * self.config.chunk_length)
        if len(actions) != len(rows):
            raise EvorError(f"{len(rows)} observations but {len(actions)} actions; give one action per observation.")
        standard = _returns(self.config, self._frozen, rows, actions, noises, flow_steps)
        scale = self._networks.standardisation
        found = np.asarray(scale.return_mean + scale.return_std * jax.vmap(reduce)(standard))
        return found[0] if single else found

    def _rows(self, array: np.ndarray, name: str, width: int) -> tuple[Float[np.ndarray, "B W"], bool]:
        try:
            array = np.asarray(array, np.float32)
        except (TypeError, ValueError) as error:
            raise EvorError(f"{name} is not an array of numbers ({error}).") from error
        if array.ndim not in (1, 2) or array.shape[-1] != width:
            raise EvorError(f"{name} has shape {list(array.shape)}; [{width}] or [B, {width}] is needed.")
        if not np.isfinite(array).all():
            raise EvorError(f"{name} holds {array[~np.isfinite(array)][0]}; only finite numbers are allowed.")
        return np.atleast_2d(array), array.ndim == 1
