"""The policy server: what its wire costs beside openpi's own server, whether it keeps a budget, and whether it lasts.

`make serve-bench` measures four things and writes docs/results/serve.json and serve.md:

* the wire, without a policy: openpi's own client against openpi's own server and against evor's, in turns;
* `evor serve --budget-ms 10` with networks as large as the demo's;
* a soak: four clients that ask without a pause and disconnect at random;
* random and mutated requests, and the valid ones after them.

Run it on a quiet machine. Each part may be run alone (`--parts wire`), and shorter.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

import evor
from evor.agents.evor import Evor
from evor.data.read import read_dataset
from evor.errors import EvorError
from evor.runtime.files import read_json, write_json, write_text
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.runtime.wire import pack, unpack
from evor.serving.decider import Decided, Decider, flat
from evor.serving.log import Log
from evor.serving.pace import Pace, Timing
from evor.serving.server import Server, bind
from evor.serving.service import Service
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.update import initial_state
from evor.types import ActionBounds

RESULTS = Path("docs/results/serve.json")
PARTS = ("wire", "budget", "soak", "frames")
BUDGET_MS, CLIENTS, ACTIONS = 10.0, 4, (10, 7)
OBSERVATION = {  # as LIBERO's
    "observation/state": np.zeros(8, np.float32),
    "observation/image": np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8),
    "observation/wrist_image": np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8),
    "prompt": "pick up the cup",
}


# The wire.


class Nothing(Decider):
    """A policy of zeros, as evor's server asks it."""

    keys = (("observation/state", 8),)
    action_bounds = ActionBounds.unit(ACTIONS[1])
    sizes, executed, horizon = (1,), ACTIONS[0], ACTIONS[0]

    def decide(self, observation: Any, *, number: int, seed: int) -> Decided:
        row = flat(observation, self.keys)
        return Decided(row=row, actions=np.zeros(ACTIONS, np.float32), value=0.0, quantiles=[0.0] * 5)


def serve_stock(port: int) -> None:
    """Start openpi's own server, with a policy of zeros as it asks one."""
    from openpi_client.base_policy import BasePolicy
    from openpi_server import WebsocketPolicyServer

    class Zeros(BasePolicy):
        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            return {"actions": np.zeros(ACTIONS, np.float32)}

    WebsocketPolicyServer(Zeros(), host="127.0.0.1", port=port).serve_forever()


def serve_ours(port: int) -> None:
    """Start evor's, with the same actions."""
    with open(os.devnull, "w") as nowhere:
        gc.collect()
        gc.freeze()  # as `evor serve` does
        service = Service(Nothing(), Pace([Timing(1, 0.0, 0.1, 0.1)], budget_ms=None), log=Log(nowhere))
        Server(service).serve(bind("127.0.0.1", port))


def measure_wire(requests: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of round trips to both servers, in turns."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    spawn = multiprocessing.get_context("spawn")
    clients, processes = {}, []
    for name, target in (("stock", serve_stock), ("evor", serve_ours)):
        with bind("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        processes.append(spawn.Process(target=target, args=(port,), daemon=True))
        processes[-1].start()
        clients[name] = _patiently(lambda port=port: WebsocketClientPolicy("127.0.0.1", port))
    times: dict[str, list[list[float]]] = {name: [] for name in clients}
    with progress_bar("wire", rounds, unit="rounds") as advance:
        for number in range(rounds):
            for name in list(clients) if number % 2 else reversed(list(clients)):
                _round_trips(clients[name].infer, 20)
                times[name].append(_round_trips(clients[name].infer, max(1, requests // rounds)))
            advance(1)
    for client, process in zip(clients.values(), processes, strict=True):
        client._ws.close()
        process.terminate()
        process.join()
    return {name: percentiles(np.concatenate(parts)) for name, parts in times.items()} | {
        "p99_by_round": {name: [float(np.percentile(part, 99)) for part in parts] for name, parts in times.items()}
    }


def _round_trips(infer: Callable[[dict[str, Any]], Any], number: int) -> list[float]:
    times = []
    for _ in range(number):
        started = time.perf_counter()
        infer(OBSERVATION)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def _patiently(call: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Call until the server is there."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (OSError, EvorError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def percentiles(milliseconds: Any) -> dict[str, float]:
    """Percentiles of times."""
    values = np.asarray(milliseconds)
    return {f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)} | {
        "max": float(values.max()),
        "requests": len(values),
    }


# Servers of a policy.


def export_like_the_demo(folder: Path) -> None:
    """Write a policy with untrained networks of the demo's sizes: a decision takes as long as a trained one."""
    generator = np.random.default_rng(0)
    rows = 1000
    episodes = read_dataset(
        {
            "observations": generator.normal(size=(rows, 2)).astype(np.float32),
            "actions": generator.uniform(-1, 1, (rows, 2)).astype(np.float32),
            "rewards": -np.ones(rows, np.float32),
            "terminations": np.zeros(rows, bool),
            "truncations": np.arange(rows) % 100 == 99,
        }
    )
    config = RunConfig(data="-", updates=1, agent=Evor())
    _, scale = prepare(config, episodes)
    state = initial_state(config, episodes.spec)
    run = evor.Run(config=config, spec=episodes.spec, step=1, base=state.base, head=state.head, standardisation=scale)
    run.policy().export(folder)


@contextlib.contextmanager
def served(*options: str) -> Generator[dict[str, Any]]:
    """A process of `evor serve`. Yields what it told when it began to listen, its uri and its process."""
    with tempfile.TemporaryDirectory() as folder:
        export_like_the_demo(Path(folder) / "policy")
        words = [sys.executable, "-m", "evor", "serve", str(Path(folder) / "policy"), "--port", "0", *options]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        lines: list[dict[str, Any]] = []
        reading = threading.Thread(target=lambda: lines.extend(json.loads(line) for line in process.stdout or ()))
        reading.start()
        try:
            yield told | {"uri": f"ws://127.0.0.1:{told['port']}", "pid": process.pid, "lines": lines}
        finally:
            process.terminate()
            process.wait(60)
            reading.join(60)


def memory_mib(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure_budget(requests: int) -> dict[str, Any]:
    """Milliseconds of replies under a budget, asked without a pause."""
    with served("--budget-ms", f"{BUDGET_MS:g}") as told, evor.Client(told["uri"]) as client:
        times, candidates = [], []
        observation = np.zeros(2, np.float32)
        client.act(observation)
        for _ in range(requests):
            started = time.perf_counter()
            client.act(observation)
            times.append(1e3 * (time.perf_counter() - started))
            candidates.append(client.reply["search"]["candidates"])
    changes = sum(line["event"] == "candidates" for line in told["lines"])
    return percentiles(times) | {
        "budget_ms": BUDGET_MS,
        "candidates_at_start": told["num_candidates"],
        "candidates_mean": float(np.mean(candidates)),
        "changes": changes,
    }


def measure_soak(seconds: float) -> dict[str, Any]:
    """Four clients without a pause, which leave at random: between requests, and in the middle of one."""
    with served("--budget-ms", "50") as told:
        deadline, times, errors, left = time.monotonic() + seconds, [], [], [0]

        def drive(number: int) -> None:
            chance, observation = random.Random(number), np.zeros(2, np.float32)
            client = evor.Client(told["uri"])
            while time.monotonic() < deadline:
                try:
                    if chance.random() < 0.002:
                        client.close()
                        left[0] += 1
                    if chance.random() < 0.001:  # asks, and does not wait for the reply
                        client._server._connection.send(pack({"observation": observation}))
                        client._server._connection.socket.shutdown(2)
                        client.close()
                        left[0] += 1
                    started = time.perf_counter()
                    client.act(observation)
                    times.append(1e3 * (time.perf_counter() - started))
                except AttributeError:  # closed just before
                    continue
                except Exception as error:
                    errors.append(repr(error))
            client.close()

        threads = [threading.Thread(target=drive, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        memory, step = [], max(seconds / 60, 1.0)
        with progress_bar("soak", round(seconds / step), unit="samples of memory") as advance:
            while time.monotonic() < deadline:
                time.sleep(step)
                memory.append(memory_mib(told["pid"], "VmRSS"))
                advance(1)
        for thread in threads:
            thread.join()
    warm = memory[len(memory) // 6 :]  # after the first buffers
    bad = [line for line in told["lines"] if line["event"] in ("error", "internal error")]
    return percentiles(times) | {
        "seconds": seconds,
        "clients": CLIENTS,
        "disconnects": left[0],
        "errors": len(errors) + len(bad),
        "first_errors": errors[:3] + [line.get("error") for line in bad[:3]],
        "memory_mib": warm,
        "memory_growth": warm[-1] / warm[0] - 1,
    }


def measure_frames(number: int) -> dict[str, Any]:
    """Random and mutated requests over the wire; after every hundred a valid one."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    generator = np.random.default_rng(0)
    valid = pack({"observation": np.zeros(2, np.float32), "image": OBSERVATION["observation/image"], "prompt": "go"})
    with served("--num-candidates", "1", "--max-mb", "1") as told, contextlib.ExitStack() as stack:

        def connected() -> Any:
            connection = stack.enter_context(connect(told["uri"], compression=None, proxy=None))
            connection.recv()
            return connection

        connection = connected()
        connection.send(valid)
        connection.recv()
        before, sentences, tracebacks, closed, served_after = memory_mib(told["pid"], "VmRSS"), 0, 0, 0, 0
        for index in range(number):
            try:
                connection.send(mutated(valid, generator))
                reply = connection.recv(timeout=30)
                sentences += isinstance(reply, str)
                tracebacks += isinstance(reply, str) and ("Traceback" in reply or "internal error" in reply)
            except ConnectionClosed:
                closed += 1
                connection = connected()
            if index % 100 == 99:
                connection.send(valid)
                served_after += unpack(connection.recv(timeout=30))["actions"].shape == (1, 2)
        peak = memory_mib(told["pid"], "VmHWM")
        connection.close()
    return {
        "frames": number,
        "sentences": sentences,
        "tracebacks": tracebacks,
        "connections_lost": closed,
        "valid_after": served_after,
        "valid_sent": number // 100,
        "peak_above_start_mib": peak - before,
    }


def mutated(valid: bytes, generator: np.random.Generator) -> bytes:
    """A valid frame with bytes flipped, cut, doubled or replaced, or bytes of nothing."""
    frame, kind = bytearray(valid), generator.integers(5)
    if kind == 0:
        return generator.integers(0, 256, generator.integers(0, 5000), np.uint8).tobytes()
    if kind == 1:
        return bytes(frame[: generator.integers(len(frame))])
    if kind == 2:
        start = generator.integers(len(frame))
        frame[start:start] = frame[start : start + generator.integers(1, 2000)]
    for place in generator.integers(0, 200 if kind == 3 else len(frame), generator.integers(1, 8)):
        frame[place] = generator.integers(256)
    return bytes(frame)


# The page.


def page(report: dict[str, Any]) -> str:
    """The page, from what serve.json holds."""
    wire, budget, soak, frames = (report[part] for part in PARTS)
    ratio = wire["evor"]["p99"] / wire["stock"]["p99"]
    rows = [
        ("p99 of the wire, against openpi's own server", f"{ratio:.2f} times", "1.2 times", ratio <= 1.2),
        (f"p99 of a reply with `--budget-ms {BUDGET_MS:g}`", f"{budget['p99']:.1f} ms", "12 ms", budget["p99"] <= 12),
        ("soak: growth of memory", f"{soak['memory_growth']:.1%}", "5 %", soak["memory_growth"] <= 0.05),
        ("soak: p99 against p50", f"{soak['p99'] / soak['p50']:.1f} times", "4 times", soak["p99"] <= 4 * soak["p50"]),
        ("soak: errors", str(soak["errors"]), "0", not soak["errors"]),
        ("tracebacks and internal errors on the wire", str(frames["tracebacks"]), "0", not frames["tracebacks"]),
        (
            "valid requests served after mutated ones",
            f"{frames['valid_after']} of {frames['valid_sent']}",
            "all",
            frames["valid_after"] == frames["valid_sent"],
        ),
    ]
    lines = [
        "# Serving",
        "",
        "What does `evor serve` cost, and does it last? `make serve-bench` measures it. "
        f"{report['hardware']['cpu']}, commit {report['commit']}.{' ' + report['note'] if report['note'] else ''}",
        "",
        "| What | Measured | At most | |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {measured} | {limit} | {'holds' if holds else 'missed'} |"
            for name, measured, limit, holds in rows
        ),
        "",
        "## The wire",
        "",
        f"openpi's own client sends a state and two images of 224 x 224 to a policy of zeros, {wire['evor']['requests']:,} times to each "
        "server, in turns. Times are round trips in ms.",
        "",
        "| Server | p50 | p90 | p99 | max |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {' | '.join(format(wire[key][p], '.2f') for p in ('p50', 'p90', 'p99', 'max'))} |"
            for name, key in (("openpi's own", "stock"), ("evor", "evor"))
        ),
        "",
        "## A budget",
        "",
        f"Networks are as large as the demo's, and a client asks {budget['requests']:,} times without a pause. The server began with "
        f"{budget['candidates_at_start']} candidates, changed the number {budget['changes']} times, and took {budget['candidates_mean']:.1f} "
        f"on average. Replies took {budget['p50']:.1f} ms (p50), {budget['p99']:.1f} ms (p99) and {budget['max']:.1f} ms at most.",
        "",
        "## A soak",
        "",
        f"{soak['clients']} clients asked without a pause for {soak['seconds'] / 60:.0f} minutes, {soak['requests']:,} times in all. They "
        f"disconnected {soak['disconnects']} times, in part in the middle of a request. Replies took {soak['p50']:.1f} ms (p50) and "
        f"{soak['p99']:.1f} ms (p99), waiting for the other clients included. Memory went from {soak['memory_mib'][0]:.0f} to "
        f"{soak['memory_mib'][-1]:.0f} MiB.",
        "",
        "## Mutated requests",
        "",
        f"{frames['frames']:,} requests were random bytes, or a valid request with bytes flipped, cut or doubled. "
        f"{frames['sentences']:,} were answered with an error, the others were harmless. {frames['connections_lost']} connections were lost. "
        f"Memory rose by at most {frames['peak_above_start_mib']:.0f} MiB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--requests", type=int, default=10_000, help="of the wire, to each server; and under the budget"
    )
    parser.add_argument("--rounds", type=int, default=20, help="of the wire")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of the soak")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--note", default="", help="a sentence for the page, such as that the machine was busy")
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    a = parser.parse_args()
    if not a.page_only:
        report = read_json(RESULTS) if RESULTS.exists() else {}
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "wire": lambda: measure_wire(a.requests, a.rounds),
            "budget": lambda: measure_budget(a.requests),
            "soak": lambda: measure_soak(a.seconds),
            "frames": lambda: measure_frames(a.frames),
        }
        for part in a.parts:
            report[part] = measures[part]()
            console.print(
                f"{part}: {json.dumps({name: v for name, v in report[part].items() if name != 'memory_mib'})}"
            )
            write_json(RESULTS, report | {"note": a.note} | provenance())
    report = read_json(RESULTS)
    if missing := [part for part in PARTS if part not in report]:
        console.print(f"no page: {', '.join(missing)} not measured yet.")
    else:
        write_text(RESULTS.with_suffix(".md"), page(report))


if __name__ == "__main__":
    main()
