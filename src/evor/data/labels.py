"""Labels of imported episodes: which step finished the task, and the rewards. They are said by the user, never guessed."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evor.data.formats.recording import Episode, Recording
from evor.errors import EvorError
from evor.runtime.files import expand, read_csv

SUCCESS = (
    "column:NAME (a column of 0 and 1), reward (above 0) or reward:THRESHOLD, all, none, or file:CSV with the columns episode "
    "and success"
)
REWARD = "the name of a column, steps (-1 per step until success) or none (for behaviour cloning)"


@dataclass(frozen=True)
class RecordedTerminations:
    """The recording's own terminations."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "the recording's own terminations"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        assert episode.terminations is not None
        return episode.terminations


@dataclass(frozen=True)
class SuccessColumn:
    """A column of 0 and 1."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def __str__(self) -> str:
        return f"the first row of an episode where {self.name} is 1"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        column = episode.columns[self.name]
        if len(odd := np.flatnonzero(~np.isin(column, (0, 1)))):
            raise EvorError(
                f"episode {episode.name}: {self.name} is {column[odd[0]]:g} in row {odd[0]}, and a column of success holds 0 and 1; "
                "name another one."
            )
        return column == 1


@dataclass(frozen=True)
class RewardAbove:
    """A recorded reward above a threshold."""

    threshold: float = 0.0
    name: str = ""  # of the column

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def __str__(self) -> str:
        return f"the first row of an episode with {self.name} above {self.threshold:g}"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        rewards = episode.columns[self.name]
        if len(odd := np.flatnonzero(np.isnan(rewards))):
            raise EvorError(
                f"episode {episode.name}: {self.name} is nan in row {odd[0]}, so that it does not say whether that step "
                "succeeds; repair it, or remove the episode."
            )
        return rewards > self.threshold


@dataclass(frozen=True)
class EveryEpisode:
    """All episodes succeed, in their last row."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "the last row of every episode"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        return np.arange(len(episode.actions)) == len(episode.actions) - 1


@dataclass(frozen=True)
class NoEpisode:
    """No episode succeeds."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "nowhere: every episode is cut"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        return np.zeros(len(episode.actions), bool)


@dataclass(frozen=True)
class SuccessFile:
    """A CSV file that says of every episode whether it succeeded."""

    path: Path
    succeeded: tuple[tuple[str, bool], ...]
    columns: tuple[str, ...] = ()

    @staticmethod
    def read(path: Path) -> "SuccessFile":
        """Read the columns episode and success. Raises EvorError."""
        if not path.is_file():
            raise EvorError(f"{path} does not exist; give a CSV file with the columns episode and success.")
        rows = read_csv(path, ("episode", "success"), remedy="give the columns episode and success.")
        for row in rows:
            if row["success"].strip() not in ("0", "1"):
                raise EvorError(f"{path}: success of episode {row['episode']} is {row['success']!r}; give 0 or 1.")
        names = [row["episode"].strip() for row in rows]
        if len(set(names)) != len(names):
            raise EvorError(f"{path} names an episode twice; name each one once.")
        return SuccessFile(path, tuple(zip(names, (row["success"].strip() == "1" for row in rows), strict=True)))

    def __str__(self) -> str:
        return f"the last row of the episodes that {self.path.name} calls successful"

    def successes(self, episode: Episode) -> np.ndarray:
        """Whether the task is finished at each row."""
        succeeded = dict(self.succeeded)
        if episode.name not in succeeded:
            raise EvorError(f"{self.path} says nothing of episode {episode.name}; add a line for it.")
        return EveryEpisode().successes(episode) & succeeded[episode.name]


Success = RecordedTerminations | SuccessColumn | RewardAbove | EveryEpisode | NoEpisode | SuccessFile


@dataclass(frozen=True)
class RewardColumn:
    """Rewards as a column has them."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def __str__(self) -> str:
        return f"the column {self.name}"


@dataclass(frozen=True)
class StepReward:
    """-1 for every step, 0 for the one that succeeds."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-1 per step, 0 for the step that succeeds"


@dataclass(frozen=True)
class NoReward:
    """No rewards: for behaviour cloning."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "none"


Reward = RewardColumn | StepReward | NoReward


class LabelRule(NamedTuple):
    """Rules that label episodes."""

    reward: Reward
    success: Success

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the rule reads."""
        return tuple(dict.fromkeys((*self.reward.columns, *self.success.columns)))

    def __str__(self) -> str:
        return f"rewards: {self.reward}; terminations: {self.success}"


class Labelled(NamedTuple):
    """Labels of the rows of an episode that are kept: none after a finish."""

    rows: int
    rewards: np.ndarray | None  # [rows]
    is_finished: bool  # by the last row
    dropped: int


def parse_success(text: str) -> Success:
    """The rule that `--success` names. Raises EvorError, naming the choices."""
    kind, colon, value = text.partition(":")
    if kind == "column" and value:
        return SuccessColumn(value)
    if kind == "file" and value:
        return SuccessFile.read(expand(value))
    if kind == "reward" and not (colon and not value):
        try:
            threshold = float(value) if colon else 0.0
        except ValueError:
            threshold = math.nan
        if math.isnan(threshold):
            raise EvorError(f"success (--success) is {text!r}, and {value!r} is no number; give reward:0.5.")
        return RewardAbove(threshold)
    if not colon and kind in (plain := {"all": EveryEpisode(), "none": NoEpisode()}):
        return plain[kind]
    raise EvorError(f"success (--success) is {text!r}; give {SUCCESS}.")


def label_rule(recording: Recording, *, reward: str | None, success: str | None) -> LabelRule:
    """The rule for a recording. Raises EvorError where the user must say more."""
    if success is None and not recording.has_terminations:
        raise EvorError(
            f"{recording.path} is {recording.kind}, which does not say which episodes succeed (the end of a recording is no "
            f"success); give success (--success): {SUCCESS}."
        )
    finish = RecordedTerminations() if success is None else parse_success(success)
    column = recording.reward_key if reward is None else reward
    if column is None:
        raise EvorError(f"{recording.path} has no rewards; give reward (--reward): {REWARD}.")
    words: dict[str, Reward] = {"steps": StepReward(), "none": NoReward()}
    chosen = words.get(column) or RewardColumn(column)
    if isinstance(finish, RewardAbove):
        recorded = chosen.name if isinstance(chosen, RewardColumn) else recording.reward_key
        if recorded is None:
            raise EvorError(
                f"success (--success) {success} needs recorded rewards, and {recording.path} has none; name a column of rewards "
                "in reward (--reward), or another rule of success."
            )
        finish = replace(finish, name=recorded)
    return LabelRule(chosen, finish)


def label(rule: LabelRule, episode: Episode) -> Labelled:
    """Label one episode: it ends at the first row that succeeds."""
    recorded = episode.columns[rule.reward.name] if isinstance(rule.reward, RewardColumn) else None
    finished = np.flatnonzero(rule.success.successes(episode))
    steps = len(episode.actions)
    rows = int(finished[0]) + 1 if len(finished) else steps
    rewards = recorded
    if isinstance(rule.reward, StepReward):
        rewards = np.full(steps, -1.0, np.float32)
        rewards[finished] = 0.0
    return Labelled(
        rows=rows,
        rewards=None if rewards is None else rewards[:rows],
        is_finished=bool(len(finished)),
        dropped=steps - rows,
    )
