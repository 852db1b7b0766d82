"""Sentences on what a run is: from its config, for a reader who has not seen the command. Imports no JAX."""

import html
import json
from typing import Any

from evor.report.config import has_own_base
from evor.report.html import paragraph, section
from evor.runtime.words import counted

SEEDS = 100  # that are listed
METHODS = {
    "Evor": "a flow-matching policy and the distribution of its returns (Evor)",
    "Scalar": "a flow-matching policy and a scalar critic (Scalar)",
    "Qc": "a flow-matching policy and scalar critics with action chunks (Qc)",
    "Fql": "a policy of one step, distilled from a flow and trained through scalar critics (Fql)",
    "Ifql": "a flow-matching policy and scalar critics by implicit Q-learning (Ifql)",
    "Iql": "a normal policy and scalar critics by implicit Q-learning (Iql)",
    "Rebrac": "a policy held to the data and trained through scalar critics (Rebrac)",
    "ValueFlows": "a flow-matching policy and flows over its returns, two of them (ValueFlows)",
    "Sorl": "a shortcut model as the actor, trained through its critics (Sorl)",
    "Bc": "a flow-matching policy by behaviour cloning, without a value (Bc)",
}
OVER_OWN = {  # of a base policy of the user's own
    "Evor": "the distribution of the returns of your own base policy (Evor)",
    "Scalar": "a scalar critic over your own base policy (Scalar)",
}
BEHAVIOUR = "the behaviour policy that recorded the data"
SEARCHED = "a small search over the base policy's actions"
# Whose actions come after the one that is scored, by the type of `next_action`; first those of a config without one.
FOLLOWED = {"Evor": BEHAVIOUR, "Scalar": BEHAVIOUR, "DatasetAction": BEHAVIOUR, "PolicyAction": "the base policy"}
OF_AGENT = {  # the same, of agents without a `next_action`
    "Qc": SEARCHED,
    "ValueFlows": SEARCHED,
    "Iql": "the better ones of the actions in the data",
    "Ifql": "the better ones of the actions in the data",
    "Fql": "the policy that was trained through it",
    "Rebrac": "the policy that was trained through it",
    "Sorl": "the actor",
}


RULES = {  # what the reward rule of the rows means; see docs/concepts/evaluation.md
    "pre": "In the environment, reward and success of a step are computed from the state before it (reward rule pre)",
    "own": "Reward and success are what your environment says of each step (reward rule own)",
}


def about(config: dict[str, Any], *, updates: int) -> str:
    """Say what was trained on what, and for how long."""
    agent = config["agent"]
    name = str(agent["type"])
    source = f"the OGBench dataset {config['dataset']}" if config["dataset"] else f"the data in {config['data']}"
    batch = f" on batches of {agent['batch_size']} transitions" if isinstance(agent.get("batch_size"), int) else ""
    learned = OVER_OWN.get(name, name) if has_own_base(agent) else METHODS.get(name, name)
    return paragraph(
        f"This run learned {learned} from {source} without touching an environment: "
        f"{counted(len(config['tasks']), 'task')} x {counted(config['num_seeds'], 'seed')}, {updates:,} updates (gradient steps{batch})."
    )


def facts(config: dict[str, Any], *, updates: int) -> str:
    """The run in one line."""
    agent = config["agent"]
    objective = agent.get("objective")
    objective = objective if isinstance(objective, dict) else {}
    n_steps = objective.get("n_steps", agent.get("n_steps"))
    how = ", ".join(map(str, filter(None, [agent["type"], objective.get("type"), n_steps and f"n = {n_steps}"])))
    parts = [
        config["dataset"] or config["data"] or "",
        f"task{'s' * (len(config['tasks']) > 1)} {', '.join(map(str, config['tasks']))}",
        counted(config["num_seeds"], "seed"),
        f"{updates:,} updates",
        how,
    ]
    return paragraph(" · ".join(parts), kind="facts")


def followed(config: dict[str, Any]) -> str:
    """Name whose actions a predicted return is of, after the first one."""
    agent = config["agent"]
    if agent["type"] in OF_AGENT:
        return OF_AGENT[agent["type"]]
    objective, choice = (agent.get(name) for name in ("objective", "next_action"))
    if isinstance(objective, dict) and objective.get("type") == "MonteCarlo":  # which bootstraps nowhere
        return BEHAVIOUR
    if not isinstance(choice, dict):
        return FOLLOWED.get(agent["type"], "the policy that its targets bootstrap from")
    return FOLLOWED.get(str(choice.get("type")), SEARCHED)


def discount(config: dict[str, Any]) -> float | None:
    """The discount of a run's returns, None where its agent has no returns."""
    number = config["agent"].get("discount")
    return float(number) if isinstance(number, int | float) and 0 <= number <= 1 else None


def provenance(config: dict[str, Any], origin: dict[str, Any], *, reward_rule: str) -> str:
    """Provenance of the numbers: seeds, versions, hardware, commit and the whole config.

    What is not known is left out: the commit of an installed evor, and the reward rule ("") where nothing was played.
    """
    installed = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    seeds = ", ".join(str(config["seed"] + i) for i in range(min(config["num_seeds"], SEEDS)))
    more = " and more" * (config["num_seeds"] > SEEDS)
    told = [f"Seeds {seeds}{more}", installed, f"{origin['hardware']['cpu']}, {origin['hardware']['device']}"]
    told += [f"Commit {origin['commit']}"] if origin["commit"] else []
    told += [_rule(reward_rule)] if reward_rule else []
    text = paragraph(". ".join(told) + ".")
    stored = html.escape(json.dumps(config, indent=2))
    details = f'<details><summary>The whole config</summary><pre tabindex="0">{stored}</pre></details>'
    return f"<footer>{section('Where these numbers come from', text, details)}</footer>"


def _rule(reward_rule: str) -> str:
    """The reward rule in a sentence, as `pre, trained on sparse rewards`."""
    name, _, more = reward_rule.partition(", ")
    return ", ".join(filter(None, [RULES.get(name, f"Reward rule {name}"), more]))
