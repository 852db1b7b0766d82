"""The sockets of a policy server: websockets that speak openpi's protocol, and GET /healthz."""

import asyncio
import errno
import functools
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

from evor.errors import EvorError, why
from evor.runtime.wire import pack
from evor.serving.access import is_allowed
from evor.serving.log import logger_into
from evor.serving.service import Service, Session
from evor.serving.worker import Worker

CONNECTIONS = 8
REMEDIES = {
    errno.EADDRNOTAVAIL: "give an address of this machine (--host)",
    errno.EACCES: "choose a --port above 1023",
}
GOING_AWAY, TRY_LATER = 1001, 1013  # codes that close a connection


class Limits(NamedTuple):
    """Limits of a server: connections at a time, and seconds in which a client must take its reply."""

    connections: int = CONNECTIONS
    write_seconds: float = 10.0


def websockets() -> Any:
    """The servers of the library of that name. Raises EvorError where it is not installed."""
    try:
        return import_module("websockets.asyncio.server")
    except ImportError as error:
        raise EvorError(
            "a policy server needs websockets 15 or newer; install it: pip install 'evor[serve]'."
        ) from error


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet. Raises EvorError where it can't be used."""
    if not 0 <= port < 2**16:
        raise EvorError(f"--port is {port}; give one from 1 to 65535, or 0 for any that is free.")
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise EvorError(f"--host {host!r} --port {port} is no address ({why(error)}); correct it.") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _taken(host, port, error=error) from error
    return bound


def _taken(host: str, port: int, *, error: OSError) -> EvorError:
    remedy = REMEDIES.get(error.errno or 0, "stop its server, or choose another --port")
    return EvorError(f"port {port} of {host} can't be used ({why(error)}); {remedy}.")


class Server:
    """A service behind a socket.

    Each connection has one request in flight, and one worker thread decides for all of them, so that the loop answers
    pings and /healthz meanwhile. Quick decisions are made by the loop itself: handing them over would take as long.
    Whoever does not take a reply in time is disconnected, and no other client waits for it.
    """

    def __init__(self, service: Service, *, key: str | None = None, limits: Limits | None = None):
        self._service, self._key, self._limits = service, key, limits or Limits()
        self._log = service.log
        self._busy: dict[Any, bool] = {}  # connections, and whether a request of theirs is in flight
        self._sending: dict[Any, float] = {}  # connections that a reply goes to, and since when
        self._worker, self._is_quick = Worker("evor-decides"), service.pace.is_quick
        self._writer = ThreadPoolExecutor(1, "evor-records")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._ended = threading.Event()

    def serve(self, sock: socket.socket, *, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, Ctrl-C or `stop`. Requests in flight are answered first."""
        websockets()
        try:
            try:
                sock.listen()
            except OSError as error:  # another server began to listen meanwhile
                raise _taken(*sock.getsockname()[:2], error=error) from error
            asyncio.run(self._serve(sock, ready))
        finally:
            self._worker.close()
            self._writer.shutdown()
            if self._service.recorder:
                self._service.recorder.close()
            self._log.write("stopped")
            self._ended.set()

    def stop(self) -> None:
        """Stop from another thread, and wait until the server has ended."""
        if self._loop and self._stopped:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._ended.wait()

    async def _serve(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._handle_signals(self._loop, self._stopped)
        serving = websockets().serve(
            self._connection,
            sock=sock,
            compression=None,
            max_size=self._service.max_bytes,
            max_queue=1,
            origins=[None],  # browsers always name theirs
            process_request=self._gate,
            server_header=None,
            logger=logger_into(self._log),
        )
        async with serving as server:
            ready()
            periodic = asyncio.create_task(self._periodically())
            await self._stopped.wait()
            server.close(close_connections=False)  # no new ones
            await asyncio.gather(*(self._away(connection) for connection, busy in [*self._busy.items()] if not busy))
            await server.wait_closed()  # those with a request in flight close when it is answered
            periodic.cancel()
        self._log.summarise(num_candidates=self._service.pace.number)

    def _handle_signals(self, loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
        """Stop at the first signal; a second one ends the process as if there were no server."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop() -> None:
            stopped.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

    def _gate(self, connection: Any, request: Any) -> Any:
        """Answer what is no websocket of a client that may connect; None lets it in."""
        if request.path == "/healthz":
            return connection.respond(200, "OK\n")
        if not is_allowed(_header(request), self._key):
            self._log.error("a client without the key was refused", peer=_peer(connection))
            return connection.respond(401, "the key is missing or wrong\n")
        if len(self._busy) >= self._limits.connections:
            self._log.error("a client was refused: there are too many", peer=_peer(connection))
            return connection.respond(503, f"there are {self._limits.connections} clients already\n")
        return None

    async def _connection(self, connection: Any) -> None:
        assert self._stopped
        if self._stopped.is_set():
            return await self._away(connection)
        if len(self._busy) >= self._limits.connections:  # of several that came at the same moment
            return await connection.close(TRY_LATER, "there are too many clients")
        session, peer = Session(), _peer(connection)
        self._busy[connection] = False
        self._log.write("connected", peer=peer, connections=len(self._busy))
        closed = import_module("websockets.exceptions").ConnectionClosed
        try:
            if await self._send(connection, pack(self._service.metadata())):
                await self._converse(connection, session)
        except closed:
            pass
        finally:
            del self._busy[connection]
            self._service.end(session)
            self._log.write("disconnected", peer=peer, connections=len(self._busy), decisions=session.decisions)

    async def _converse(self, connection: Any, session: Session) -> None:
        """Answer one request after the other."""
        assert self._stopped is not None
        async for frame in connection:
            started = time.perf_counter()
            self._busy[connection] = True
            answer = self._service.answer
            reply = answer(frame, session) if self._is_quick else await self._worker.run(answer, frame, session)
            if not await self._send(connection, reply):
                return
            self._service.sent(session, 1e3 * (time.perf_counter() - started))
            self._busy[connection] = False
            if self._stopped.is_set():
                await self._away(connection)
                return

    async def _send(self, connection: Any, reply: bytes | str) -> bool:
        """Send a reply. Returns False where the client did not take it in time, and was disconnected."""
        self._sending[connection] = time.monotonic()
        try:
            await connection.send(reply)
        finally:
            late = self._sending.pop(connection, None) is None
        return not late

    def _disconnect_who_does_not_read(self) -> None:
        """End connections whose reply waits for too long. A timer for every reply would cost more than the reply."""
        now = time.monotonic()
        for connection, since in [*self._sending.items()]:
            if now - since > self._limits.write_seconds:
                del self._sending[connection]
                self._log.error("a client does not read its replies; it was disconnected", peer=_peer(connection))
                connection.transport.abort()

    async def _away(self, connection: Any) -> None:
        await connection.close(GOING_AWAY, "the server stops")

    async def _periodically(self) -> None:
        """Write the log's percentiles and recorded episodes when they are due, and disconnect who does not read."""
        assert self._loop
        while True:
            await asyncio.sleep(min(1.0, self._limits.write_seconds))
            self._disconnect_who_does_not_read()
            if self._log.due():
                self._log.summarise(num_candidates=self._service.pace.number, connections=len(self._busy))
            if (recorder := self._service.recorder) and recorder.due():
                await self._loop.run_in_executor(self._writer, recorder.flush)


def _header(request: Any) -> str | None:
    """The header Authorization of a request, None where there is none, or several."""
    given = request.headers.get_all("Authorization")
    return given[0] if len(given) == 1 else None


@functools.lru_cache(maxsize=64)
def _text(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) and len(address) > 1 else str(address)


def _peer(connection: Any) -> str:
    return _text(connection.remote_address)
