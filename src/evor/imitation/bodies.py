"""Named changes of a body, so that the learner can't do what the expert did. A changed MuJoCo model is written as XML."""

from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError, above, fraction, integer


@dataclass(frozen=True, kw_only=True)
class Body:
    """Differences of the learner's body from the expert's. Without any it is the same."""

    gear: float = 1.0  # Factor of the strength of every actuator.
    limb: float = 1.0  # Factor of the length of every part below the torso.
    mass: float = 1.0  # Factor of every mass.
    action_range: float = 1.0  # Largest action that is executed. Larger ones are clipped.
    hidden: tuple[int, ...] = ()  # Entries of the observation that are always 0, counted from 0.
    delay: int = 0  # Steps until an action is executed.
    tremble: float = 0.0  # Share of steps whose action is random, in evaluations, too.

    def __post_init__(self):
        above(0, gear=self.gear, limb=self.limb, mass=self.mass)
        fraction(action_range=self.action_range, tremble=self.tremble)
        integer(0, delay=self.delay, hidden=min(self.hidden, default=0))

    @property
    def changes_model(self) -> bool:
        """Whether the simulator's model is another one."""
        return (self.gear, self.limb, self.mass) != (1.0, 1.0, 1.0)

    @property
    def changes_shape(self) -> bool:
        """Whether a pose of the expert may lie in the ground for this body."""
        return self.limb != 1.0

    @property
    def differences(self) -> dict[str, Any]:
        """The settings that are not those of the expert's body."""
        default = Body()
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in named.items() if value != getattr(default, name)}


def changed_model(path: Path, body: Body) -> str:
    """The XML of a MuJoCo model file with the changes of a body. Raises EvorError where it has no torso to begin from."""
    mujoco: Any = import_module("mujoco")
    spec = mujoco.MjSpec.from_file(str(path))
    for actuator in spec.actuators:
        actuator.gear = np.array(actuator.gear) * body.gear
    roots = list(spec.worldbody.bodies)
    if body.limb != 1.0 and not roots:
        raise EvorError(f"{path} has no body below the world, so there are no limbs; leave --body.limb out.")
    for root in roots:
        for part in root.bodies:
            _scale(part, body.limb)
    for each in spec.bodies:
        each.mass = each.mass * body.mass if np.isfinite(each.mass) else each.mass
    for geom in spec.geoms:
        geom.density *= body.mass
        if np.isfinite(geom.mass):
            geom.mass *= body.mass
    spec.compile()
    return spec.to_xml()


def _scale(part: Any, factor: float) -> None:
    """Scale a part and all below it along its length: places of parts, and long shapes. Thickness stays."""
    part.pos = np.array(part.pos) * factor
    for geom in part.geoms:
        fromto = np.array(geom.fromto)
        if np.isfinite(fromto).all():
            geom.fromto = fromto * factor
        else:
            geom.pos = np.array(geom.pos) * factor
            size = np.array(geom.size)
            size[1] *= factor  # half the length of a capsule or a cylinder
            geom.size = size
    for joint in part.joints:
        joint.pos = np.array(joint.pos) * factor
    for below in part.bodies:
        _scale(below, factor)
