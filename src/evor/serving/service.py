"""Answers to requests: frames in, frames out. It knows no sockets, and is asked by one thread at a time."""

import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from evor.errors import EvorError, above
from evor.runtime import arguments
from evor.runtime.provenance import versions
from evor.runtime.user_code import traceback_inside
from evor.runtime.wire import MAX_BYTES, pack, unpack
from evor.serving.decider import Decided, Decider
from evor.serving.log import Log
from evor.serving.pace import Pace
from evor.serving.record import Episode, Recorder

INTERNAL = "internal error, see the server's log."
LONGEST = 600  # characters of a sentence: it may quote what a client sent
LONGEST_TRACEBACK = 20_000
OWN = "evor/"  # begins the keys of a request that are no observation
KNOWN = ("evor/num_candidates", "evor/budget_ms", "evor/seed", "evor/reset")


class Session:
    """State of a connection."""

    def __init__(self) -> None:
        self.decisions = 0
        self.number: int | None = None  # candidates of the last decision; None after an error
        self.previous_ms: float | None = None  # of the last reply, from its request to where it was sent
        self.episode: Episode = []


class Service:
    """A policy that answers frames of openpi's protocol.

    A reply is bytes: actions [horizon, A], `server_timing`, and `search` in plain numbers. An error is one sentence. What is
    no EvorError goes to the log alone.
    """

    def __init__(
        self,
        decider: Decider,
        pace: Pace,
        *,
        log: Log,
        recorder: Recorder | None = None,
        max_bytes: int = MAX_BYTES,
        seed: int = 0,
    ):
        self.decider, self.pace, self.log, self.recorder = decider, pace, log, recorder
        self.max_bytes, self._seed = max_bytes, seed

    def metadata(self) -> dict[str, Any]:
        """The first message to a client."""
        return {
            "server": "evor",
            "version": versions()["evor"],
            "observation_keys": [key for key, _ in self.decider.keys],
            "action_dim": len(self.decider.action_bounds.low),
            "horizon": self.decider.horizon,
            "num_candidates": self.pace.number,
        }

    def answer(self, frame: bytes | str, session: Session) -> bytes | str:
        """Answer a request: bytes, or the sentence that says what is wrong with it. Raises nothing."""
        session.number = None
        try:
            return self._reply(frame, session)
        except EvorError as error:
            sentence, told = _short(str(error)), traceback_inside(error)
            self.log.error(sentence, **({"traceback": told[-LONGEST_TRACEBACK:]} if told else {}))
            return sentence
        except BaseException as error:  # a user's base policy may raise KeyboardInterrupt
            told = "".join(traceback.format_exception(error))
            self.log.write("internal error", error=_short(repr(error)), traceback=told[-LONGEST_TRACEBACK:])
            return INTERNAL

    def sent(self, session: Session, milliseconds: float) -> None:
        """Note how long a reply took, from its request to where it was sent."""
        session.previous_ms = milliseconds
        self.log.latency(milliseconds)
        if session.number is not None and (change := self.pace.note(session.number, milliseconds)):
            self.log.write("candidates", before=change[0], now=change[1])

    def end(self, session: Session) -> None:
        """End a connection."""
        if self.recorder:
            self.recorder.end(session.episode)

    def _reply(self, frame: bytes | str, session: Session) -> bytes:
        started = time.perf_counter()
        observation, options = self._request(frame)
        number = self.pace.lowered(options.get("num_candidates"), options.get("budget_ms"))
        seed = options.get("seed", (self._seed + session.decisions) % 2**32)
        if options.get("reset"):
            self.end(session)
        decided = self.decider.decide(observation, number=number, seed=seed)
        session.decisions += 1
        session.number = number
        if self.recorder:
            self.recorder.add(session.episode, decided, number=number)
        return pack(_content(decided, number, timing=_timing(started, decided, session=session)))

    def _request(self, frame: bytes | str) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """The observation of a request, and its options. Raises EvorError."""
        if isinstance(frame, str):
            raise EvorError(
                "a text came, and requests are binary frames of msgpack; send them as openpi's client does."
            )
        request = unpack(frame, max_bytes=self.max_bytes)
        if not isinstance(request, dict):
            raise EvorError(f"a request is {arguments.shown(request)}; send a dict of observations by their keys.")
        own = {key: value for key, value in request.items() if isinstance(key, str) and key.startswith(OWN)}
        if unknown := [key for key in own if key not in KNOWN]:
            raise EvorError(f"the key {arguments.shown(unknown[0])} is unknown; this server knows {', '.join(KNOWN)}.")
        options: dict[str, Any] = {}
        for key, value in own.items():
            name = key.removeprefix(OWN)
            if name == "num_candidates":
                options[name] = arguments.count(1, **{key: value})
            elif name == "budget_ms":
                options[name] = arguments.real(**{key: value})
                above(0, **{key: options[name]})
            elif name == "seed":
                options[name] = int(arguments.seeds(value, 1)[0])
            else:
                options[name] = bool(arguments.count(0, **{key: value}))
        return {key: value for key, value in request.items() if key not in own}, options


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST - 3]}..."


def _timing(started: float, decided: Decided, *, session: Session) -> dict[str, float]:
    timing = {"infer_ms": 1e3 * (time.perf_counter() - started)}
    if decided.base_seconds:
        timing["base_ms"] = 1e3 * decided.base_seconds
    if session.previous_ms is not None:
        timing["prev_total_ms"] = session.previous_ms
    return timing


def _content(decided: Decided, number: int, *, timing: dict[str, float]) -> dict[str, Any]:
    """A reply. Clients cut every array of it along its first axis, so the actions are the only one."""
    return {
        "actions": np.ascontiguousarray(decided.actions, np.float32),
        "server_timing": timing,
        "search": {"candidates": number, "value": decided.value, "quantiles": decided.quantiles},
    }
