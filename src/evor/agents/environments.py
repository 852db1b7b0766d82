"""Settings that differ between environments, for presets that have some.

A preset takes the row of its dataset's environment, or the one in ELSEWHERE, or else stays as it is. A row is `published`,
`unverified`, or `ours`, and as good as its worst number. To add those of another agent, write its preset into the environments
and, if its own settings don't suit all others, into ELSEWHERE.

The baselines' numbers are from FQL's paper and code. Where the code has no command for one, it is from Table 7 of "Learning
Multimodal One-step Flow Policy via Value-weighted Optimal Transport" (Shon et al.), whose baselines have FQL's settings.
"""

import re
from typing import Any, NamedTuple

from evor.agents.fql import Normalised, Raw
from evor.nn.critics import Mean, Minimum


class Row(NamedTuple):
    """Fields of an agent's config, and where their values are from."""

    settings: dict[str, Any]
    source: str


def published(**settings: Any) -> Row:
    """A row as the paper, its code or a later paper gives it, which took its settings from there."""
    return Row(settings, "published")


def unverified(**settings: Any) -> Row:
    """A row with a number that sources give differently, or that is of the online variant."""
    return Row(settings, "unverified")


def ours(**settings: Any) -> Row:
    """A row of this library."""
    return Row(settings, "ours")


# By environment, which is a dataset's name without its version, and by preset. FQL's alpha is per unit of reward, hence Raw.
ENVIRONMENTS: dict[str, dict[str, Row]] = {
    "antmaze-large-navigate": {
        "fql": published(alpha=10.0, q_scale=Raw(), discount=0.99, aggregation=Minimum()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=10.0, discount=0.99),
        "rebrac": unverified(
            actor_penalty=0.003, critic_penalty=0.01, discount=0.99
        ),  # actor_penalty 0.001 in that Table 7
        # of the list of offline-to-online commands alone
        "value-flows": unverified(bootstrapped=10.0, temperature=0.01, choice_aggregation=Minimum(), discount=0.99),
        "sorl": published(improvement_weight=500.0, discount=0.99, aggregation=Minimum()),
    },
    "antmaze-giant-navigate": {
        "fql": published(alpha=10.0, q_scale=Raw(), discount=0.995, aggregation=Minimum()),
        "ifql": published(num_candidates=32, discount=0.995),
        "iql": published(alpha=10.0, discount=0.995),
        "rebrac": unverified(actor_penalty=0.003, critic_penalty=0.01, discount=0.995),  # 0.001 there, too
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Minimum()),
    },
    "humanoidmaze-medium-navigate": {
        "fql": published(alpha=30.0, q_scale=Raw(), discount=0.995, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.995),
        "iql": published(alpha=10.0, discount=0.995),
        "rebrac": published(actor_penalty=0.01, critic_penalty=0.01, discount=0.995),
        # of the list of offline-to-online commands alone
        "value-flows": unverified(bootstrapped=3.0, choice_aggregation=Minimum(), discount=0.995),
        "sorl": published(improvement_weight=100.0, discount=0.995, aggregation=Mean()),
    },
    "humanoidmaze-large-navigate": {
        "fql": published(alpha=30.0, q_scale=Raw(), discount=0.995, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.995),
        "iql": published(alpha=10.0, discount=0.995),
        "rebrac": published(actor_penalty=0.01, critic_penalty=0.01, discount=0.995),
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Mean()),
    },
    "antsoccer-arena-navigate": {
        "fql": published(alpha=10.0, q_scale=Raw(), discount=0.995, aggregation=Mean()),
        "ifql": published(num_candidates=64, discount=0.995),
        "iql": published(alpha=1.0, discount=0.995),
        "rebrac": published(actor_penalty=0.01, critic_penalty=0.01, discount=0.995),
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Mean()),
    },
    "cube-single-play": {
        "fql": published(alpha=300.0, q_scale=Raw(), discount=0.99, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=1.0, discount=0.99),
        "rebrac": published(actor_penalty=1.0, critic_penalty=0.0, discount=0.99),
        "sorl": published(improvement_weight=10.0, discount=0.99, aggregation=Mean()),
    },
    "cube-double-play": {
        "fql": published(alpha=300.0, q_scale=Raw(), discount=0.99, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=0.3, discount=0.99),
        "rebrac": published(actor_penalty=0.1, critic_penalty=0.0, discount=0.99),
        "value-flows": published(temperature=3.0, discount=0.995),
        "sorl": published(improvement_weight=50.0, discount=0.99, aggregation=Mean()),
    },
    "scene-play": {
        "fql": published(alpha=300.0, q_scale=Raw(), discount=0.99, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=10.0, discount=0.99),
        "rebrac": published(actor_penalty=0.1, critic_penalty=0.01, discount=0.99),
        "value-flows": published(aggregation=Minimum(), discount=0.99),
        "sorl": published(improvement_weight=100.0, discount=0.99, aggregation=Mean()),
    },
    "puzzle-3x3-play": {
        "fql": published(alpha=1000.0, q_scale=Raw(), discount=0.99, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=10.0, discount=0.99),
        "rebrac": published(actor_penalty=0.3, critic_penalty=0.01, discount=0.99),
        "value-flows": published(bootstrapped=0.5, aggregation=Minimum(), discount=0.99),
    },
    "puzzle-4x4-play": {
        "fql": published(alpha=1000.0, q_scale=Raw(), discount=0.99, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.99),
        "iql": published(alpha=3.0, discount=0.99),
        "rebrac": published(actor_penalty=0.3, critic_penalty=0.01, discount=0.99),
        "value-flows": published(bootstrapped=3.0, temperature=100.0, choice_aggregation=Minimum(), discount=0.99),
    },
    "cube-triple-play": {
        "fql": published(alpha=300.0, q_scale=Raw(), discount=0.995, aggregation=Mean()),
        "ifql": published(num_candidates=32, discount=0.995),
        "iql": published(alpha=10.0, discount=0.995),
        "rebrac": published(actor_penalty=0.03, critic_penalty=0.0, discount=0.995),
        "value-flows": published(bootstrapped=3.0, temperature=0.03, discount=0.995),
    },
}
# Environments of which nothing is published, and data of one's own. IFQL's and Value Flows' presets are for all of them.
ELSEWHERE: dict[str, Row] = {
    "fql": ours(alpha=1.0, q_scale=Normalised(), discount=0.99, aggregation=Mean()),
    "iql": ours(alpha=10.0, discount=0.99),
    "rebrac": ours(actor_penalty=0.1, critic_penalty=0.0, discount=0.99),
    "sorl": ours(improvement_weight=100.0, discount=0.99, aggregation=Mean()),
}


def row_of(preset: str, dataset: str | None) -> Row | None:
    """The row of a preset on a dataset, which is None for data of one's own; None where the preset has no rows at all."""
    environment = re.sub(r"-v\d+$", "", dataset or "")
    return ENVIRONMENTS.get(environment, {}).get(preset, ELSEWHERE.get(preset))


def told(preset: str, dataset: str | None, *, config: Any, sparse_rewards: bool = False) -> str:
    """Settings that a config has from the row of a preset, in a line; "" where it has none of one.

    All rows with a source are of the environment's default rewards, which the line says of sparse ones.
    """
    row = row_of(preset, dataset)
    kept = {name: value for name, value in row.settings.items() if _of(config, name) == value} if row else {}
    if not row or not kept:
        return ""
    values = ", ".join(f"{name} {_shown(value)}" for name, value in kept.items())
    source = f"{row.source} for its default rewards" if sparse_rewards and row.source != "ours" else row.source
    return f"{preset} on {dataset or 'your own data'}: {values} ({source})."


def _of(config: Any, name: str) -> Any:
    """A field of a config, or of its inlined `learning`."""
    return getattr(config, name) if hasattr(config, name) else getattr(config.learning, name)


def _shown(value: Any) -> str:
    """A number as it is read, and the name of a choice."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str | tuple) else type(value).__name__
