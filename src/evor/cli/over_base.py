"""The options of commands that may search among the actions of the user's own base policy."""

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from evor.errors import EvorError


@dataclass(frozen=True, kw_only=True)
class OverBase:
    """Options of a base policy of one's own."""

    # A base policy of your own, which proposes the actions: python:module:function, openpi:ws://host:8000 or lerobot:FOLDER.
    base: str | None = None
    # Seconds that one call of it may take.
    base_timeout: Annotated[float | None, arg(help_behavior_hint="(default: 120)")] = None

    def given_base(self) -> dict[str, Any]:
        """The arguments `base` and, where it is given, `base_timeout`. Raises EvorError on a limit of no base policy."""
        if self.base_timeout is None:
            return {"base": self.base}
        if self.base is None:
            raise EvorError("--base-timeout goes with --base, which is not given; leave it out, or give --base too.")
        return {"base": self.base, "base_timeout": self.base_timeout}


def base_argument(name: str | None) -> str:
    """The argument `base` of evor.load in a line that is printed: the text that opens the policy, or a word for one without a name."""
    return f"base={name!r}" if name else "base=POLICY"
