"""A base policy behind a server that speaks openpi's protocol: a websocket, a dict of arrays there, actions back."""

import contextlib
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError, why
from evor.policies.base_policy import TIMEOUT, row_of
from evor.runtime import arguments
from evor.runtime.wire import MAX_BYTES, msgpack, pack, unpack

KEY = "EVOR_BASE_KEY"  # environment variable with the key of the server
ATTEMPTS = 2  # at one request: a connection that broke is made anew once


class OpenpiPolicy:
    """A base policy at a uri such as ws://host:8000.

    The protocol knows neither batches nor seeds, so every proposal is a request of its own, one after the other, and
    proposals can't be repeated. A connection that broke is made anew. `api_key` is that of a server that asks for one,
    the environment's EVOR_BASE_KEY where it is left out. Raises EvorError where the server is not there, does not answer
    within `timeout` seconds, tells of an error, or speaks something else.
    """

    seeded = False

    def __init__(self, uri: str, *, api_key: str | None = None, timeout: float = TIMEOUT):
        if not uri.startswith(("ws://", "wss://")):
            raise EvorError(f"openpi server {arguments.shown(uri)} is no address; give one such as ws://host:8000.")
        msgpack()  # says what to install
        self.name, self._uri, self._timeout = f"openpi:{uri}", uri, timeout
        self._key = os.environ.get(KEY) if api_key is None else api_key
        self._connection: Any = None
        self._open = contextlib.ExitStack()
        self.metadata = self._connect()

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Float[np.ndarray, "B num horizon A"]:
        """Ask for each proposal."""
        rows = len(_first(observations))
        chunks = []
        for index in range(rows):
            frame = pack(_plain(row_of(observations, index)))
            chunks.append([self._ask(frame) for _ in range(num)])
        try:
            return np.array(chunks, np.float32)
        except ValueError as error:
            raise EvorError(f"{self._uri} returned chunks of different lengths; one horizon is needed.") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection = None
        with contextlib.suppress(Exception):
            self._open.close()

    def _connect(self) -> dict[str, Any]:
        """Open a connection, and return the metadata that the server sends first."""
        wrong = import_module("websockets.exceptions")
        headers = {"Authorization": f"Api-Key {self._key}"} if self._key else {}
        try:
            connection = import_module("websockets.sync.client").connect(
                self._uri,
                additional_headers=headers,
                compression=None,
                max_size=MAX_BYTES,
                open_timeout=self._timeout,
                ping_interval=None,  # a stock server answers none while it computes; the timeout is ours
                proxy=None,  # robots are near: no proxy of the environment is asked
            )
            self._connection = self._open.enter_context(connection)
            return self._received(self._connection.recv(timeout=self._timeout), "its metadata")
        except (wrong.InvalidHandshake, wrong.InvalidMessage) as error:
            self.close()
            refused = "401" in str(error) or "403" in str(error)
            remedy = f"give the server's key in {KEY}" if refused else "look at the address"
            raise EvorError(f"{self._uri} is no openpi server ({why(error)}); {remedy}.") from error
        except (OSError, TimeoutError, ValueError, wrong.WebSocketException) as error:
            self.close()
            raise EvorError(
                f"no policy server answers at {self._uri} ({why(error)}); start it, or mend the address."
            ) from error
        except EvorError:
            self.close()
            raise

    def _ask(self, frame: bytes) -> Float[np.ndarray, "horizon A"]:
        closed = import_module("websockets.exceptions").ConnectionClosed
        for attempt in range(ATTEMPTS):
            if self._connection is None:
                self._connect()
            try:
                self._connection.send(frame)
                return self._actions(self._connection.recv(timeout=self._timeout))
            except TimeoutError as error:
                self.close()  # an answer that comes later would be taken for that of the next request
                raise EvorError(
                    f"{self._uri} has not answered within {self._timeout:g} s; give it longer (--base-timeout, base_timeout=)."
                ) from error
            except (closed, OSError) as error:
                self.close()
                if attempt + 1 == ATTEMPTS:
                    raise EvorError(
                        f"{self._uri} closed the connection before it answered ({why(error)}); look at the server's log."
                    ) from error
        raise AssertionError

    def _actions(self, frame: Any) -> Float[np.ndarray, "horizon A"]:
        reply = self._received(frame, "actions")
        actions = reply.get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise EvorError(f"{self._uri} returned no actions [horizon, A] (its reply has {sorted(map(str, reply))}).")
        return actions.astype(np.float32)

    def _received(self, frame: Any, what: str) -> dict[str, Any]:
        if isinstance(frame, str):
            raise EvorError(
                f"{self._uri} tells of an error: {arguments.shown(frame, _last_line)}; look at the server's log."
            )
        content = unpack(frame)
        if not isinstance(content, dict):
            raise EvorError(f"{self._uri} sent {arguments.shown(content)} in place of {what}; is it an openpi server?")
        return content


def _last_line(text: str) -> str:
    """The line of a traceback that says what was wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "an empty text"


def _first(observations: Mapping[str, Any]) -> Any:
    """Any array of a batch."""
    value = next(iter(observations.values()))
    return _first(value) if isinstance(value, Mapping) else value


def _plain(observation: Mapping[str, Any]) -> dict[str, Any]:
    """An observation with texts of Python: numpy's own have no place in a message."""
    plain: dict[str, Any] = {}
    for key, value in observation.items():
        if isinstance(value, Mapping):
            plain[key] = _plain(value)
        else:
            plain[key] = str(value) if isinstance(value, np.str_) else value
    return plain
