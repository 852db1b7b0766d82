"""The agents that a config may name. A new agent is a file in this folder and its lines here."""

import typing
from typing import Any

from evor.agents import bc, evor, fql, ifql, iql, qc, rebrac, scalar, sorl, value_flows
from evor.agents.bc import Bc
from evor.agents.contract import Agent
from evor.agents.environments import row_of
from evor.agents.evor import Evor
from evor.agents.fql import Fql
from evor.agents.ifql import Ifql
from evor.agents.iql import Iql
from evor.agents.qc import Qc
from evor.agents.rebrac import Rebrac
from evor.agents.scalar import Scalar
from evor.agents.sorl import Sorl
from evor.agents.value_flows import ValueFlows
from evor.errors import EvorError, nearest
from evor.runtime.records import replace

ALL: list[Agent] = [
    evor.AGENT,
    scalar.AGENT,
    qc.AGENT,
    fql.AGENT,
    ifql.AGENT,
    iql.AGENT,
    rebrac.AGENT,
    value_flows.AGENT,
    sorl.AGENT,
    bc.AGENT,
]
AgentConfig = (
    Evor | Scalar | Qc | Fql | Ifql | Iql | Rebrac | ValueFlows | Sorl | Bc
)  # in the order of ALL, which is the order in help texts and tables


def _by_name() -> dict[str, Any]:
    """Every preset by its name.

    Raises EvorError where two agents share the name of a class or of a preset, or where `ALL` and `AgentConfig` differ.
    """
    if different := {agent.config for agent in ALL} ^ set(typing.get_args(AgentConfig)):
        name = different.pop().__name__
        raise EvorError(f"agents/registry.py has {name} in only one of ALL and AgentConfig; add it to the other.")
    for names in ([agent.config.__name__ for agent in ALL], [name for agent in ALL for name in agent.presets]):
        if repeated := [name for name in names if names.count(name) > 1]:
            raise EvorError(f"two agents are called {repeated[0]!r}; rename the class or the preset of one.")
    return {name: preset for agent in ALL for name, preset in agent.presets.items()}


AGENTS: dict[type, Agent] = {agent.config: agent for agent in ALL}
PRESETS: dict[str, Any] = _by_name()


def preset(name: str, dataset: str | None = None) -> Any:
    """The named agent config, with the settings of a dataset's environment where a paper has such.

    Raises EvorError on an unknown name.
    """
    if name not in PRESETS:
        raise EvorError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    row = row_of(name, dataset)
    return replace(PRESETS[name], **row.settings) if row else PRESETS[name]
