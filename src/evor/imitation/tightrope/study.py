"""Every method on the tightrope: exact returns beside their closed forms, the theory's errors, and sampled searches."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from evor.errors import integer
from evor.imitation.tightrope import page
from evor.imitation.tightrope.sampled import NoResets, sampled_search
from evor.imitation.tightrope.search import (
    ROUNDS,
    EveryState,
    ExpertAndOfflineStates,
    ExpertStates,
    Game,
    Resets,
    completeness_errors,
    crossing_rounds,
    play,
)
from evor.imitation.tightrope.world import (
    SEEN_BIT,
    TRUE_U,
    Settings,
    Tightrope,
    cloned,
    cloned_crossing,
    completeness_error,
    crossing,
    expected_return,
    expert,
    make,
    on_the_rope,
    over_the_bridge,
    recorded,
    threshold,
)
from evor.runtime.files import check_ours, hold_own, write_json
from evor.runtime.progress import console, progress_bar, screen
from evor.runtime.provenance import provenance

REPORT = "tightrope.json"
EPISODES = 300  # of sampled PSDP, for every time
MORE = 10  # times as many for MM, which has no resets
SAMPLED_HORIZONS = (12, 20)


def study(settings: Settings, *, repeats: int, out: Path) -> dict[str, Any]:
    """Compute everything, and write OUT/tightrope.json and OUT/index.html."""
    integer(0, repeats=repeats)
    check_ours(out, out / REPORT, kind="study of the tightrope")
    out.mkdir(parents=True, exist_ok=True)
    with hold_own(out, "evor imitate tightrope"):
        report = measure(settings)
        report["by_u_max"] = _by_u_max(settings)
        report["sampled"] = _sampled(settings, repeats)
        report |= provenance()
        write_json(out / REPORT, report)
        page.write_page(report, out / "index.html")
    console.print(f"wrote {out / 'index.html'}")
    return report


def measure(settings: Settings) -> dict[str, Any]:
    """Compute all that is exact. Returns are under the true reward."""
    world, tremble = make(settings), settings.tremble
    offline = ExpertAndOfflineStates(tremble)
    games = {
        name: play(world, resets, u_max=settings.u_max, true_u=TRUE_U)
        for name, resets in {"filter": ExpertStates(), "guitar": offline, "mm": EveryState()}.items()
    }
    clones = {
        "bc": cloned(world, [expert(world)]),
        "bc_union": cloned(world, [expert(world), crossing(world, tremble)]),
        "bc_offline": cloned(world, [crossing(world, tremble)]),
    }
    returns = {name: expected_return(world, actions, u=TRUE_U) for name, actions in clones.items()}
    returns |= {name: expected_return(world, game.last, u=TRUE_U) for name, game in games.items()}
    return {
        "settings": dataclasses.asdict(settings),
        "code": list(world.code),
        "true_u": TRUE_U,
        "rounds": ROUNDS,
        "threshold": threshold(world.horizon),
        "expert": expected_return(world, expert(world), u=TRUE_U),
        **returns,
        "mean_over_rounds": {name: game.mean_return for name, game in games.items()},
        "closed_form": closed_form(settings),
        "completeness": _completeness(world),
        "ipm": _ipm(games["guitar"], settings),
        "realisable": _realisable(world, settings),
    }


def closed_form(settings: Settings) -> dict[str, Any]:
    """Returns of the methods by formulas alone."""
    horizon, rope, bridge = settings.horizon, on_the_rope(settings.horizon), over_the_bridge(settings.horizon, TRUE_U)
    rounds = crossing_rounds(horizon, u_max=settings.u_max, limit=threshold(horizon))
    offline = cloned_crossing(horizon, tremble=settings.tremble, u=TRUE_U)
    last = bridge if rounds == ROUNDS else rope
    mean = (rounds * bridge + (ROUNDS - rounds) * rope) / ROUNDS
    return {
        "expert": float(horizon),
        "bc": rope,
        "bc_union": (rope + offline) / 2,
        "bc_offline": offline,
        "filter": rope,
        "guitar": last,
        "mm": last,
        "mean_over_rounds": {"filter": rope, "guitar": mean, "mm": mean},
    }


def _completeness(world: Tightrope) -> dict[str, Any]:
    """The errors under the expert's states, and the bound that FILTER attains with them."""
    learned = play(world, ExpertStates(), u_max=0.5, true_u=TRUE_U).last
    errors = completeness_errors(
        world, recorded(world, expert(world)), policy=learned, rewards=world.rewards(TRUE_U)
    ).tolist()
    gap = expected_return(world, expert(world), u=TRUE_U) - expected_return(world, learned, u=TRUE_U)
    return {
        "errors": errors,
        "closed_form": [completeness_error(world.horizon, time) for time in range(world.horizon)],
        "sum": sum(errors),
        "expert_minus_filter": gap,
    }


def _ipm(game: Game, settings: Settings) -> dict[str, float]:
    """GUITAR's largest gap to the expert, and the least that a policy of the class which the resets cover can have."""
    horizon = settings.horizon
    covered = horizon - max(on_the_rope(horizon), over_the_bridge(horizon, settings.u_max))
    return {"guitar": game.ipm, "best_covered": covered, "regret": game.regret}


def _realisable(world: Tightrope, settings: Settings) -> dict[str, float]:
    """Returns of a learner that sees the bit."""

    def last(resets: Resets) -> float:
        game = play(world, resets, u_max=settings.u_max, true_u=TRUE_U, sees=SEEN_BIT)
        return expected_return(world, game.last, u=TRUE_U)

    return {
        "bc": expected_return(world, cloned(world, [expert(world)], sees=SEEN_BIT), u=TRUE_U),
        "filter": last(ExpertStates()),
        "guitar": last(ExpertAndOfflineStates(settings.tremble)),
        "mm": last(EveryState()),
    }


def _by_u_max(settings: Settings) -> list[dict[str, float]]:
    """GUITAR's return by what the discriminator sees."""
    world, resets = make(settings), ExpertAndOfflineStates(settings.tremble)
    rows = []
    for u_max in np.linspace(0, 1, 21).round(2).tolist():
        game = play(world, resets, u_max=u_max, true_u=TRUE_U)
        rows.append({"u_max": u_max, "guitar": expected_return(world, game.last, u=TRUE_U)})
    return rows


def _sampled(settings: Settings, repeats: int) -> list[dict[str, Any]]:
    """Shares of sampled searches that cross the bridge, and the mean steps of each, for the true reward."""
    methods = {
        "guitar": (ExpertAndOfflineStates(settings.tremble), EPISODES),
        "filter": (ExpertStates(), EPISODES),
        "mm": (NoResets(), EPISODES * MORE),
    }
    rows = []
    total = repeats * len(methods) * len(SAMPLED_HORIZONS)
    with progress_bar("sampled searches", total, unit="searches") as advance:
        for horizon in SAMPLED_HORIZONS if repeats else ():
            world = make(dataclasses.replace(settings, horizon=horizon))
            for name, (resets, episodes) in methods.items():
                found = []
                for repeat in range(repeats):
                    generator = np.random.default_rng([settings.seed, horizon, repeat])
                    found.append(
                        sampled_search(
                            world, resets, rewards=world.rewards(TRUE_U), episodes=episodes, generator=generator
                        )
                    )
                    advance(1, f"{name}, horizon {horizon}")
                crosses = float(np.mean([each.crosses(world) for each in found]))
                steps = float(np.mean([each.steps for each in found]))
                rows.append(
                    {"method": name, "horizon": horizon, "episodes": episodes, "crosses": crosses, "steps": steps}
                )
    return rows


def print_table(report: dict[str, Any]) -> None:
    """Print returns and closed forms, then one line for each claim."""
    table = Table("method", "return", "closed form", "mean over rounds", "learner sees the bit")
    for name in page.METHODS:
        mean, realisable = report["mean_over_rounds"].get(name), report["realisable"].get(name)
        cells = (report[name], report["closed_form"][name], mean, realisable)
        table.add_row(page.METHODS[name], *("" if cell is None else f"{cell:.4f}" for cell in cells))
    screen.print(table)
    for line in page.claims(report):
        screen.print(line, soft_wrap=True)
