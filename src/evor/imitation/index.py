"""The tightrope index: does a good policy of the learner's body survive where the expert was, and where offline data were?

It is computed before methods are compared. Equal shares mean that there is no tightrope, and no reason for GUITAR to win.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from evor.imitation.demonstrations import Demonstrations
from evor.imitation.worlds import World

STEPS = 100  # that a policy must survive
STATES = 200  # from which it is started, of each kind


def tightrope_index(
    world: World,
    act: Callable[[Float[np.ndarray, "n O"]], Float[np.ndarray, "n A"]],
    *,
    expert: Demonstrations,
    offline: Demonstrations,
    seed: int,
) -> dict[str, float]:
    """Shares of states of the expert, and of offline data, from which a policy survives STEPS steps."""
    generator = np.random.default_rng(seed)
    shares = {
        name: _survival(world, act, data=data, generator=generator)
        for name, data in (("expert", expert), ("offline", offline))
    }
    return shares | {"steps": STEPS, "states": STATES}


def _survival(
    world: World,
    act: Callable[[Float[np.ndarray, "n O"]], Float[np.ndarray, "n A"]],
    *,
    data: Demonstrations,
    generator: np.random.Generator,
) -> float:
    assert data.states is not None
    survived: list[bool] = []
    while len(survived) < STATES:
        rows = generator.integers(0, len(data), world.count)
        now = world.restore(np.arange(world.count), data.states[rows], observations=data.observations[rows])
        alive = np.full(world.count, True)
        for _ in range(STEPS):
            stepped = world.step(act(now.astype(np.float32)), generator)
            now, alive = stepped.observations, alive & ~stepped.terminated
            if not alive.any():
                break
        survived += alive.tolist()
    return float(np.mean(survived[:STATES]))
