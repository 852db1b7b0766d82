"""The log of a server: one JSON object per line, with percentiles of the latency now and then."""

import json
import logging
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any

import numpy as np

from evor.errors import why

LINES_PER_SECOND = 20  # of clients' errors; others are only counted
KEPT = 20_000  # latencies of a period
PERCENTILES = (50, 90, 99)


class Log:
    """Lines on a stream, stdout where none is given. All threads may write."""

    def __init__(self, stream: IO[str] | None = None, *, every: float = 60.0):
        self._stream, self._every = stream, every
        self._lock = threading.Lock()
        self._second, self._lines = 0, 0  # lines about errors in this second
        self._reset()

    def write(self, event: str, **fields: Any) -> None:
        """Write a line. A reader that has gone is no error."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | fields)
        with self._lock, suppress(OSError, ValueError):
            stream = self._stream or sys.stdout
            stream.write(line + "\n")
            stream.flush()

    def error(self, sentence: str, **fields: Any) -> None:
        """Count an error that a client was told of, and write it: a client that makes thousands doesn't fill the disk."""
        self._errors += 1
        now = int(time.monotonic())
        self._second, self._lines = now, self._lines + 1 if now == self._second else 1
        if self._lines <= LINES_PER_SECOND:
            self.write("error", error=sentence, **fields)

    def latency(self, milliseconds: float) -> None:
        """Take the latency of a reply into account."""
        self._replies += 1
        if len(self._latencies) < KEPT:
            self._latencies.append(milliseconds)

    def due(self) -> bool:
        """Whether a period is over in which something was asked."""
        return bool(self._replies or self._errors) and time.monotonic() - self._started >= self._every

    def summarise(self, **fields: Any) -> None:
        """Write the percentiles of the period, and begin another one."""
        if not self._replies and not self._errors:
            return
        told: dict[str, Any] = {"seconds": round(time.monotonic() - self._started, 1), "replies": self._replies}
        told["errors"] = self._errors
        if self._latencies:
            values = np.percentile(self._latencies, PERCENTILES)
            told |= {f"p{p}_ms": round(float(v), 3) for p, v in zip(PERCENTILES, values, strict=True)}
            told["max_ms"] = round(max(self._latencies), 3)
        self._reset()
        self.write("latency", **told, **fields)

    def _reset(self) -> None:
        self._started, self._replies, self._errors = time.monotonic(), 0, 0
        self._latencies: list[float] = []


def logger_into(log: Log) -> logging.Logger:
    """A logger for the library of websockets: what goes wrong with a connection is a line without a traceback."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            log.error(f"{record.getMessage()}{f': {why(error)}' if error else ''}")

    logger = logging.Logger("evor.serving", logging.ERROR)
    logger.addHandler(Handler())
    return logger
