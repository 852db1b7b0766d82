"""A base policy behind a server that speaks openpi's protocol: a websocket, a dict of arrays there, actions back."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError
from evor.policies.base_policy import TIMEOUT, row_of
from evor.runtime.remote import Remedies, Remote, actions_in, plain
from evor.runtime.wire import pack

KEY = "EVOR_BASE_KEY"  # environment variable with the key of the server


class OpenpiPolicy:
    """A base policy at a uri such as ws://host:8000.

    The protocol knows neither batches nor seeds, so every proposal is a request of its own, one after the other, and
    proposals can't be repeated. A connection that broke is made anew. `api_key` is that of a server that asks for one,
    the environment's EVOR_BASE_KEY where it is left out. Raises EvorError where the server is not there, does not answer
    within `timeout` seconds, reports an error, or speaks something else.
    """

    seeded = False

    def __init__(self, uri: str, *, api_key: str | None = None, timeout: float = TIMEOUT):
        key = os.environ.get(KEY) if api_key is None else api_key
        remedies = Remedies(f"give the server's key in {KEY}", "give it more time (--base-timeout, base_timeout=)")
        self._server = Remote(uri, key=key, timeout=timeout, remedies=remedies)
        self.name, self.metadata = f"openpi:{uri}", self._server.metadata

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Float[np.ndarray, "B num horizon A"]:
        """Ask for each proposal."""
        uri, chunks = self._server.uri, []
        for index in range(len(_first(observations))):
            frame = pack(plain(row_of(observations, index)))
            chunks.append([actions_in(self._server.ask_frame(frame), uri) for _ in range(num)])
        try:
            return np.array(chunks, np.float32)
        except ValueError as error:
            raise EvorError(f"{uri} returned chunks of different lengths; one horizon is needed.") from error

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


def _first(observations: Mapping[str, Any]) -> Any:
    """Any array of a batch."""
    value = next(iter(observations.values()))
    return _first(value) if isinstance(value, Mapping) else value
