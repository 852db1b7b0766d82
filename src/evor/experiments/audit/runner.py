"""Does a value rank? One trained value against held-out episodes: measurements, a verdict and a page."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from evor.errors import EvorError
from evor.experiments.audit.measure import Audit, AuditSettings, discount_of
from evor.experiments.audit.page import write_page
from evor.experiments.audit.playing import environment_for
from evor.experiments.audit.recorded import compared_rows, read_held_out
from evor.policies.base_policy import TIMEOUT, open_base
from evor.policies.exports import is_export
from evor.policies.load import Run, load, open_run
from evor.policies.policy import Policy
from evor.policies.searched import SearchedPolicy
from evor.report.statistics import Estimate
from evor.runtime import arguments
from evor.runtime.files import check_ours, hold_own, read_json, write_json
from evor.runtime.progress import console, hushed
from evor.runtime.provenance import provenance
from evor.runtime.words import counted
from evor.training.config import differences

SETTINGS = "settings.json"


def audit(
    run: str | os.PathLike[str],
    data: Any,
    *,
    out: str | os.PathLike[str],
    base: Any = None,
    base_timeout: float = TIMEOUT,
    step: int | None = None,
    settings: AuditSettings | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure on held-out episodes whether a value ranks well, and write audit.json and index.html into `out`.

    `run` is a run folder or an exported policy, `data` and `base` are as in `evor.label`. Returns what audit.json holds.
    Raises EvorError, before anything is written, where there is no value, no base policy, or no data that it can be
    audited on, and where `out` holds something else.
    """
    settings = settings or AuditSettings()
    folder, place = arguments.folder(run), arguments.folder(out)
    with hushed(quiet):
        check_ours(place, place / SETTINGS, kind="audit")
        policy, opened = _open(folder, settings, base=base, timeout=base_timeout, step=step)
        held_out = read_held_out(data, policy, run=opened, sparse_rewards=settings.sparse_rewards)
        recorded = compared_rows(held_out, discount=discount_of(policy), chunk_length=policy.config.chunk_length)
        environment = environment_for(policy, settings.env) if settings.episodes else None
        wanted = {
            "run": str(folder),
            "data": held_out.title,
            "base": policy.origin.get("base") if base is not None else None,
        }
        wanted |= {"updates": policy.origin["updates"], **dataclasses.asdict(settings)}
        _check_same(place, wanted)
        place.mkdir(parents=True, exist_ok=True)
        with hold_own(place, "evor audit"):
            measured = Audit(policy, opened, held_out=held_out, recorded=recorded, settings=settings)
            report, drawn = measured.report(environment)
            report = {"settings": wanted, **report, **provenance()}
            write_json(
                place / SETTINGS, wanted
            )  # an audit that fails leaves none: the next one may ask for something else
            write_json(place / "audit.json", _plain(report))
            write_page(report, drawn, path=place / "index.html")
        console.print(f"wrote {place / 'index.html'}")
    return _plain(report)


def _open(
    folder: Path, settings: AuditSettings, *, base: Any, timeout: float, step: int | None
) -> tuple[Policy, Run | None]:
    """The policy, and the run it is of; None for an export. Raises EvorError where nothing can be audited."""
    opened = None if base is None else open_base(base, timeout=timeout)
    policy = load(folder, settings.task, seed=settings.seed, step=step, base=opened)
    if not policy.has_value:
        raise EvorError(f"a {type(policy.config).__name__} policy has no value to audit; train another agent.")
    if isinstance(policy, SearchedPolicy):
        policy.require_base()
    return policy, None if is_export(folder) else open_run(folder, step)


def _check_same(place: Path, wanted: dict[str, Any]) -> None:
    """Raise EvorError where another audit is in this folder."""
    path = place / SETTINGS
    if path.exists() and (changed := differences(read_json(path), json.loads(json.dumps(wanted)))):
        raise EvorError(f"{place} holds another audit ({'; '.join(changed)}); choose another folder (--out).")


def _plain(content: Any) -> Any:
    """Plain JSON values: estimates become objects, and numbers that JSON lacks null."""
    if isinstance(content, Estimate):
        return _plain(content._asdict())
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def summary(report: dict[str, Any]) -> str:
    """The verdict for the terminal, and what was compared."""
    return (
        f"{report['verdict']['sentence']}\n{counted(report['rows'], 'row')} of "
        f"{counted(report['episodes_compared'], 'episode')}, {counted(report['decisions'], 'decision')} among "
        f"{report['num_candidates']} candidates."
    )
