"""What each verb of the command line accepts, and the station it calls."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.choices import kebab, options, take
from evor.errors import EvorError, nearest
from evor.runtime.progress import console, screen

STEP = "Checkpoints to play, by their updates; the newest where left out."
PARALLEL = "Episodes played at once; as many as fit into half of the free memory where left out."
RESUME = "Don't play again what is there: tasks and seeds with all their episodes."


def generate_data(arguments: list[str]) -> None:
    from evor.data.scripted.generate import generate
    from evor.runtime.parallel import default_workers

    @dataclass(frozen=True)
    class Generate:
        """Write NAME.npz and NAME-val.npz in OGBench's format. The same seed gives the same file, whatever WORKERS is.

        Interrupted, the same command goes on.
        """

        name: Positional[str]
        transitions: int = 1_000_000
        seed: int = 0
        workers: int = default_workers()
        out: Path = Path("data")
        expert: Annotated[Path | None, arg(help="antmaze only: the npz of a walker, layers w0 b0 w1 b1 w2 b2.")] = None

    a = options("evor data generate", arguments, Generate(tyro.MISSING))
    path = generate(a.name, a.transitions, a.seed, a.workers, a.out, a.expert)
    console.print(f"wrote {path} and {path.stem}-val.npz")


def check_data(arguments: list[str]) -> None:
    from evor.check import check
    from evor.config import RunConfig

    @dataclass(frozen=True)
    class Check:
        """Say what is in a data set: an OGBench name, or --data with a file or folder of your own."""

        dataset: Positional[str | None] = None
        data: Annotated[str | None, arg(help="An npz file or a folder of them; with a name, where that file lies.")] = (
            None
        )
        tasks: Annotated[tuple[int, ...], arg(help="Tasks of an OGBench data set; all five where none is named.")] = ()
        preset: str = "default"
        memory_gb: Annotated[
            float | None,
            arg(help="Cap on the data in memory: larger data are laid out for training, a file at a time."),
        ] = None
        cache: Annotated[str | None, arg(help="Folder for what is laid out; beside the data where left out.")] = None

    a = options("evor data check", arguments, Check())
    tasks = a.tasks or ((1, 2, 3, 4, 5) if a.dataset else (1,))
    config = RunConfig(a.dataset, a.data, a.memory_gb, tasks, cache=a.cache, agent=preset(a.preset))
    check(config)


def download_data(arguments: list[str]) -> None:
    from evor.data.download import download

    @dataclass(frozen=True)
    class Download:
        """Fetch NAME.npz and NAME-val.npz from OGBench into ~/.ogbench/data."""

        name: Positional[str]

    download(options("evor data download", arguments, Download(tyro.MISSING)).name)


def train(arguments: list[str]) -> None:
    from evor.config import AGENTS, PRESETS, RunConfig
    from evor.runtime.files import check_ours
    from evor.train import train as station

    name, arguments = take(arguments, "--preset", "")
    agent = preset(name or "default")
    kind = take(arguments, "--agent", "")[0]
    if name and kind not in ("", kebab(type(agent).__name__)):
        raise EvorError(f"--preset {name} is an agent of its own and --agent {kind} another; give one of the two.")

    names = [kind.__name__ for kind in AGENTS]

    @dataclass(frozen=True, kw_only=True)
    class Train(RunConfig):
        __doc__ = f"""Train on an OGBench DATASET, or on your own --data FILE_OR_FOLDER.

        --preset {" | ".join(PRESETS)} fills in the agent, or --agent {" | ".join(map(kebab, names))} with its defaults.
        Choices made by name, their fields follow as options: --agent.objective sample-backup | flow-td | monte-carlo,
        --agent.objective.z1 model-return | dataset-return (of flow-td), --agent.next-action dataset-action |
        policy-action | searched, --agent.acting-value ema-value | online-value, --agent.solver euler | adams-bashforth.
        """

        dataset: Positional[str | None] = None
        out: Annotated[Path, arg(help="The run folder.")]
        resume: Annotated[bool, arg(help="Continue the run in --out; start it where there is none.")] = False

    a = options("evor train", arguments, Train(agent=agent, out=tyro.MISSING))
    config = RunConfig(**{item.name: getattr(a, item.name) for item in dataclasses.fields(RunConfig)})
    check_ours(a.out, a.out / "config.json", "run")
    station(config, a.out, a.resume)


def evaluate(arguments: list[str]) -> None:
    from evor.evaluate import evaluate as station
    from evor.run import open_run
    from evor.search.extraction import Extraction, SoftmaxOf

    @dataclass(frozen=True)
    class Evaluate:
        """Play RUN's tasks, with the agent's own search unless --extraction prior | best-of | softmax-of chooses one.

        --extraction.* are its options. Rows are written as episodes end; several processes may play one run.
        """

        run: Positional[Path]
        episodes: int = 50
        evaluation_seed: int = 0
        tasks: Annotated[tuple[int, ...], arg(help="Of the run's tasks; all where left out.")] = ()
        seeds: Annotated[tuple[int, ...], arg(help="Of the run's seeds, by their numbers; all where left out.")] = ()
        step: Annotated[tuple[int, ...], arg(help=STEP)] = ()
        parallel: Annotated[int | None, arg(help=PARALLEL)] = None
        resume: Annotated[bool, arg(help=RESUME)] = False
        extraction: Extraction = field(default_factory=SoftmaxOf)

    a = options("evor evaluate", arguments, Evaluate(tyro.MISSING))
    flags = {word.split("=", 1)[0] for word in arguments if word.startswith("--extraction")}
    if flags and "--extraction" not in flags:  # dials of the agent's own search
        a = options("evor evaluate", arguments, Evaluate(tyro.MISSING, extraction=open_run(a.run).default_search))
    chosen = a.extraction if flags else None
    limits = (a.episodes, a.evaluation_seed, a.tasks or None, a.seeds or None, a.step or None, a.parallel, a.resume)
    rows = station(a.run, chosen, *limits)
    _print_rows([(f"{rows[0]['extraction']} {rows[0]['num_candidates']}", rows)])


def sweep(arguments: list[str]) -> None:
    from evor.evaluate import sweep as station
    from evor.evaluate import sweep_grid

    @dataclass(frozen=True)
    class Sweep:
        """Cross num_candidates x return_temperature x action_temperature on one trained RUN."""

        run: Positional[Path]
        episodes: int = 50
        evaluation_seed: int = 0
        tasks: tuple[int, ...] = ()
        seeds: tuple[int, ...] = ()
        step: Annotated[tuple[int, ...], arg(help=STEP)] = ()
        parallel: Annotated[int | None, arg(help=PARALLEL)] = None
        resume: Annotated[bool, arg(help=RESUME)] = False
        num_candidates: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
        return_temperature: tuple[float, ...] = (1.0,)
        action_temperature: tuple[float, ...] = (1e-3,)

    a = options("evor sweep", arguments, Sweep(tyro.MISSING))
    grid = sweep_grid(a.num_candidates, a.return_temperature, a.action_temperature)
    limits = (a.episodes, a.evaluation_seed, a.tasks or None, a.seeds or None, a.step or None, a.parallel, a.resume)
    labels = [f"{e.num_candidates}, tau_R {e.return_temperature:g}, tau_Q {e.action_temperature:g}" for e in grid]
    _print_rows(list(zip(labels, station(a.run, grid, *limits), strict=True)))


def report(arguments: list[str]) -> None:
    from evor.report.run import write_report

    @dataclass(frozen=True)
    class Report:
        """Write report/index.html into the first RUN, from the evaluations of all of them."""

        runs: Positional[tuple[Path, ...]]

    a = options("evor report", arguments, Report(tyro.MISSING))
    console.print(f"wrote {write_report(list(a.runs))}")


def verify(arguments: list[str]) -> None:
    from evor.data.toy import PROBLEMS
    from evor.runtime.parallel import default_workers
    from evor.verify import METHODS, Settings, print_table
    from evor.verify import verify as station

    @dataclass(frozen=True)
    class Verify(Settings):
        """Learned return laws against exact ones: a table, OUT/verify.json and OUT/index.html. Run again, it resumes."""

        problems: tuple[str, ...] = tuple(PROBLEMS)
        methods: tuple[str, ...] = tuple(METHODS)
        workers: int = default_workers()
        out: Path = Path("runs/verify")

    a = options("evor verify", arguments, Verify())
    settings = Settings(**{f.name: getattr(a, f.name) for f in dataclasses.fields(Settings)})
    print_table(station(a.problems, a.methods, settings, a.workers, a.out))


def reproduce(arguments: list[str]) -> None:
    from evor.matrix import ENTRIES, SCALES, SUITES
    from evor.reproduce import reproduce as station

    @dataclass(frozen=True)
    class Reproduce:
        """Train, play and tabulate every cell of a suite. Run again, it resumes; finished cells stay.

        paper: all agents. ablations: the last checkpoints of `evor` under other searches, one dial at a time. --scale smoke
        takes minutes, small half a day of two cores (docs/results/paper-small tells each cell's cost), full a card.
        """

        suite: Annotated[Positional[str], arg(help=f"One of {', '.join(SUITES)}.")]
        out: Annotated[
            Path, arg(help="Holds manifest.json, cells/, results.csv, timings.csv and the page, results.md.")
        ]
        scale: Annotated[str, arg(help=f"One of {', '.join(SCALES)}.")] = "small"
        only: Annotated[
            tuple[str, ...],
            arg(
                help=f"Data sets, agents ({', '.join(ENTRIES)}) and tasks (task3) to keep: those of all that is named."
            ),
        ] = ()
        seeds: Annotated[int | None, arg(help="Fewer or more than the scale's own.")] = None
        hours: Annotated[float, arg(help="Stop cleanly before so much time has passed.")] = math.inf
        data: Annotated[
            Path,
            arg(help="Holds NAME.npz, or a folder NAME of shards; what is in neither place is generated below it."),
        ] = Path("data")
        expert: Annotated[Path | None, arg(help="The ant's walker, see `evor data generate`.")] = None
        memory_gb: Annotated[float | None, arg(help="Cap on a run's data in memory, for data sets in shards.")] = None
        workers: Annotated[int | None, arg(help="Processes; one per core where left out, one at scale full.")] = None

    a = options("evor reproduce", arguments, Reproduce(tyro.MISSING, tyro.MISSING))
    station(a.suite, a.scale, a.out, a.data, a.only, a.hours, a.seeds, a.expert, a.memory_gb, a.workers)


def bench(arguments: list[str]) -> None:
    from evor.bench import PARTS
    from evor.bench import bench as station
    from evor.config import PRESETS
    from evor.timings import SIZES

    @dataclass(frozen=True)
    class Bench:
        """Time updates, decisions, data, files and environments; print tables and write OUT/bench.json.

        About twelve minutes on two cores with all presets; decisions and many networks are those of `default`, and are
        left out where --presets leaves it out.
        """

        out: Path = Path("runs/bench")
        repeats: int = 5
        seconds: Annotated[float, arg(help="Of each measure, about.")] = 2.0
        sizes: tuple[str, ...] = tuple(SIZES)
        presets: tuple[str, ...] = tuple(PRESETS)
        parts: tuple[str, ...] = PARTS
        hours: Annotated[float, arg(help="No measure begins after them.")] = math.inf
        resume: Annotated[bool, arg(help="Keep what OUT holds already.")] = False

    a = options("evor bench", arguments, Bench())
    station(a.out, a.repeats, a.seconds, a.sizes, a.presets, a.parts, a.hours, a.resume)


def demo(arguments: list[str]) -> None:
    from evor.demo import demo as station

    @dataclass(frozen=True)
    class Demo:
        """Generate pointmaze-medium-navigate, train on task 1, search with 4, 16 and 32 candidates, write the report."""

        seed: int = 0
        out: Path = Path("runs/demo")
        transitions: int = 1_000_000
        steps: int = 10_000
        episodes: int = 20
        num_candidates: tuple[int, ...] = (4, 16, 32)
        data: Annotated[Path, arg(help="Where the generated data is kept.")] = Path("data/demo")

    a = options("evor demo", arguments, Demo())
    station(a.out, a.data, a.seed, a.transitions, a.steps, a.episodes, a.num_candidates)


# Helpers.


def preset(name: str) -> Any:
    """The named agent config. Raises EvorError on an unknown name."""
    from evor.config import PRESETS

    if name not in PRESETS:
        raise EvorError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]


def _print_rows(results: list[tuple[str, list[dict[str, Any]]]]) -> None:
    from rich.table import Table

    table = Table("search", "updates", "task", "seeds x episodes", "success", "mean length")
    for label, rows in results:
        for updates, task in sorted({(row["updates"], row["task"]) for row in rows}):
            part = [row for row in rows if (row["updates"], row["task"]) == (updates, task)]
            num_seeds = len({row["seed"] for row in part})
            success, length = (sum(row[key] for row in part) / len(part) for key in ("success", "length"))
            counts = f"{num_seeds} x {len(part) // num_seeds}"
            table.add_row(label, str(updates), str(task), counts, f"{success:.3f}", f"{length:.1f}")
    screen.print(table)
