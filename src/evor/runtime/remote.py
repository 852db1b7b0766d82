"""A connection to a server that speaks openpi's protocol: a dict of arrays there, a dict of arrays back."""

import contextlib
import itertools
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError, why
from evor.runtime import arguments
from evor.runtime.wire import MAX_BYTES, msgpack, pack, unpack

TOO_BIG = 1009  # code of websockets that closes a connection
ATTEMPTS = 2  # at one request: a connection that broke is made anew once
LONGEST = 400  # characters of a server's error in a message


class Remedies(NamedTuple):
    """Words of error messages: what a user gives where a key is missing, and where the time is too short."""

    key: str
    timeout: str


class Remote:
    """A server at a uri such as ws://host:8000, asked by one thread at a time.

    A connection that broke is made anew. Raises EvorError where the server is not there, does not answer within `timeout`
    seconds, reports an error, or speaks something else.
    """

    def __init__(self, uri: Any, *, key: str | None, timeout: float, remedies: Remedies):
        if not isinstance(uri, str) or not uri.startswith(("ws://", "wss://")):
            raise EvorError(f"openpi server {arguments.shown(uri)} is no address; give one such as ws://host:8000.")
        msgpack()  # says what to install
        self.uri, self._key, self._timeout, self._remedies = uri, key, timeout, remedies
        self._connection: Any = None
        self._open = contextlib.ExitStack()
        self.metadata = self._connect()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and return the answer. Arrays of it are read-only."""
        return self.ask_frame(pack(plain(request)))

    def ask_frame(self, frame: bytes) -> dict[str, Any]:
        """Send a request that is packed already."""
        closed = import_module("websockets.exceptions").ConnectionClosed
        for attempt in range(ATTEMPTS):
            if self._connection is None:
                self.metadata = self._connect()
            try:
                self._connection.send(frame)
                answer = self._connection.recv(timeout=self._timeout)
            except TimeoutError as error:
                self.close()  # an answer that comes later would be taken for that of the next request
                raise EvorError(
                    f"{self.uri} has not answered within {self._timeout:g} s; {self._remedies.timeout}."
                ) from error
            except (closed, OSError) as error:
                self.close()
                if TOO_BIG in (_code(error, "sent"), _code(error, "rcvd")):
                    raise EvorError(
                        f"a message to or from {self.uri} is too large ({why(error)}); send smaller images, or let the server "
                        "accept more (--max-mb of evor serve)."
                    ) from error
                if attempt + 1 == ATTEMPTS:
                    raise EvorError(
                        f"{self.uri} closed the connection before it answered ({why(error)}); look at the server's log."
                    ) from error
            except BaseException:  # Ctrl-C, after which a program may go on and ask again: as after a timeout
                self.close()
                raise
            else:
                return self._received(answer, "actions")
        raise AssertionError

    def close(self) -> None:
        """Close the connection. The next request opens another one."""
        self._connection = None
        with contextlib.suppress(Exception):
            self._open.close()

    def _connect(self) -> dict[str, Any]:
        """Open a connection, and return the metadata that the server sends first."""
        wrong = import_module("websockets.exceptions")
        headers = {"Authorization": f"Api-Key {self._key}"} if self._key else {}
        try:
            connection = import_module("websockets.sync.client").connect(
                self.uri,
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
            status = getattr(getattr(error, "response", None), "status_code", None)
            what, remedy = {
                401: ("asks for another key", self._remedies.key),
                403: ("asks for another key", self._remedies.key),
                503: ("takes no more clients", "close another one, or ask again later"),
            }.get(status, ("is no openpi server", "look at the address"))
            raise EvorError(f"{self.uri} {what} ({why(error)}); {remedy}.") from error
        except (OSError, TimeoutError, ValueError, wrong.WebSocketException) as error:
            self.close()
            raise EvorError(
                f"no policy server answers at {self.uri} ({why(error)}); start it, or correct the address."
            ) from error
        except BaseException:
            self.close()
            raise

    def _received(self, frame: Any, what: str) -> dict[str, Any]:
        if isinstance(frame, str):
            raise EvorError(f"{self.uri} reports an error: {_raised(frame)}.")
        try:
            content = unpack(frame)
        except EvorError as error:
            raise EvorError(f"{self.uri} sent something that is no answer: {error}") from error
        if not isinstance(content, dict):
            raise EvorError(f"{self.uri} sent {arguments.shown(content)} in place of {what}; is it an openpi server?")
        return content


def actions_in(reply: Mapping[str, Any], uri: str) -> np.ndarray:
    """The actions [horizon, A] of an answer. Raises EvorError where there are none."""
    actions = reply.get("actions")
    if "actions" not in reply:
        raise EvorError(
            f"{uri} returned no actions [horizon, A] (its reply has {sorted(map(str, reply))}); is it a policy server?"
        )
    if not isinstance(actions, np.ndarray) or actions.ndim != 2:
        told = f"of shape {list(actions.shape)}" if isinstance(actions, np.ndarray) else arguments.shown(actions)
        raise EvorError(f"{uri} returned actions {told}; an array [horizon, A] is needed.")
    return actions.astype(np.float32)


def plain(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with texts of Python: numpy's own have no place in a message."""

    def one(value: Any) -> Any:
        if isinstance(value, Mapping):
            return plain(value)
        return str(value) if isinstance(value, np.str_) else value

    return {key: one(value) for key, value in request.items()}


def _code(error: BaseException, side: str) -> int | None:
    """Code of the close frame that a side sent; None where there is none."""
    return getattr(getattr(error, side, None), "code", None)


def _raised(text: str) -> str:
    """Text of a server's error in one line, without its full stop. Of a traceback the exception alone, and where to look."""
    lines = text.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    if frames:  # the last one is followed by its code, which is indented, and by the exception
        lines = list(itertools.dropwhile(lambda line: line.startswith(" "), lines[frames[-1] + 1 :]))
    told = " ".join(" ".join(lines).split()).rstrip(".") or "an empty text"
    told = told if len(told) <= LONGEST else f"{told[: LONGEST - 3]}..."
    return f"{told}; look at the server's log" if frames or not text.strip() else told  # else it says what to do
