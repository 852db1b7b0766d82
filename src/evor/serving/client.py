"""The client of a policy server: it acts as a policy does, and imports no JAX."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from evor.envs.observations import Observation
from evor.errors import EvorError, above
from evor.runtime import arguments
from evor.runtime.remote import Remedies, Remote, actions_in

TIMEOUT = 30.0  # seconds of one request
REMEDIES = Remedies("give the server's key (key=)", "give it more time (timeout=)")


class Client:
    """A policy behind `evor serve`, or behind any server that speaks openpi's protocol.

        client = evor.Client("ws://robot:8000", key="...")
        action = client.act(observation)

    `key` is that of a server that asks for one. A connection that broke is made anew. One client is for one thread. Raises
    EvorError where the server is not there, does not answer within `timeout` seconds, or reports an error.
    """

    def __init__(self, uri: str, key: str | None = None, *, timeout: float = TIMEOUT):
        above(0, timeout=timeout)
        self._server = Remote(uri, key=key, timeout=timeout, remedies=REMEDIES)
        self.reply: dict[str, Any] = {}  # to the last request: its search and its server_timing
        self._begins = False

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the server: observation_keys, action_dim, horizon, num_candidates, version."""
        return self._server.metadata

    def act(
        self,
        observation: Float[np.ndarray, " O"] | Observation,
        seed: int | None = None,
        *,
        num_candidates: int | None = None,
        budget_ms: float | None = None,
    ) -> Float[np.ndarray, "*horizon A"]:
        """Choose an action [A] for an observation, as `Policy.act` does; [horizon, A] where the policy chunks.

        An observation is a dict of the server's `observation_keys`, or an array [O] where there is one key. Images and
        prompts pass through to a base policy. Without a seed, the server counts the decisions of a connection.
        `num_candidates` and `budget_ms` make the server search less than it would. They never make it search more.
        """
        request = dict(self._by_key(observation))
        if seed is not None:
            request["evor/seed"] = int(arguments.seeds(seed, 1)[0])
        if num_candidates is not None:
            request["evor/num_candidates"] = arguments.count(1, num_candidates=num_candidates)
        if budget_ms is not None:
            above(0, budget_ms=budget_ms)
            request["evor/budget_ms"] = float(budget_ms)
        if self._begins:
            request["evor/reset"] = True
        self.reply = self._server.ask(request)
        self._begins = False
        actions = actions_in(self.reply, self._server.uri)
        return actions[0] if len(actions) == 1 else actions

    def reset(self) -> None:
        """Begin an episode: a server that records ends the one before."""
        self._begins = True

    def close(self) -> None:
        """Close the connection. The next `act` opens another one."""
        self._server.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _by_key(self, observation: Any) -> Mapping[str, Any]:
        if isinstance(observation, Mapping):
            return observation
        keys = self.metadata.get("observation_keys")
        if not isinstance(keys, list) or len(keys) != 1:
            told = (
                f"keys {', '.join(map(str, keys))}" if isinstance(keys, list) and keys else "keys that it does not tell"
            )
            raise EvorError(f"{self._server.uri} takes observations with {told}; give a dict of them.")
        row = arguments.array(observation=observation)
        if row.ndim != 1:
            raise EvorError(
                f"observation has shape {list(row.shape)}; a server decides for one observation [O] at a time."
            )
        return {keys[0]: row}
