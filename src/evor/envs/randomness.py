"""NumPy's global generator, kept as the caller left it: OGBench draws from it, and so does JAX when it is imported."""

import contextlib
from collections.abc import Generator

import numpy as np
from numpy.random import mtrand


@contextlib.contextmanager
def own_generator() -> Generator[None]:
    """Set another global generator inside; afterwards the caller's is back, in its state."""
    generator, state = mtrand.get_bit_generator(), np.random.get_state(legacy=False)
    mtrand.set_bit_generator(np.random.MT19937(0))
    try:
        yield
    finally:
        mtrand.set_bit_generator(generator)
        if isinstance(generator, np.random.MT19937):  # of others only a cached normal draw is lost
            np.random.set_state(state)


with own_generator():
    import jax  # noqa: F401 - before any other module of evor imports it
