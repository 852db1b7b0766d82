"""The gradient step: its schedule and its clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.errors import EvorError
from evor.nn.learner import Learner, Learning, Progress

START = Progress(0, 1)


def test_the_rate_is_a_straight_line_over_the_run():
    learning = Learning(learning_rate=4e-3, final_learning_rate=1e-3)
    rates = [learning.rate(Progress(step, 30)) for step in (0, 10, 30)]
    np.testing.assert_allclose(rates, [4e-3, 3e-3, 1e-3])


def test_a_traced_step_has_the_rate_of_a_plain_one():
    learning = Learning(learning_rate=4e-3, final_learning_rate=1e-3)
    traced = jax.jit(lambda step: learning.rate(Progress(step, 30)))(jnp.array(7))
    assert float(traced) == pytest.approx(learning.rate(Progress(7, 30)), rel=1e-6)


def two_steps(factor: float, learning: Learning):
    """A network after a step along a long gradient and one along a short, and the norm of the first."""
    learner = Learner({"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)})
    learner, metrics = learner.step(
        lambda network: factor * (3 * network["a"].sum() + 4 * network["b"]), learning=learning, progress=START
    )
    learner, _ = learner.step(lambda network: 0.1 * network["a"][0] ** 2, learning=learning, progress=START)
    return learner, float(metrics["gradient_norm"])


def test_a_clipped_gradient_is_the_gradient_of_the_scaled_loss():
    """The norm of (3, 3, 4) is sqrt(34): clipped to 1 it is the gradient of the loss over sqrt(34)."""
    learning = Learning(learning_rate=0.1)
    clipped, norm = two_steps(1.0, dataclasses.replace(learning, max_gradient_norm=1.0))
    scaled, _ = two_steps(1 / np.sqrt(34), learning)
    plain, _ = two_steps(1.0, learning)
    assert norm == pytest.approx(np.sqrt(34))  # before the clip
    for one, other in zip(jax.tree.leaves(clipped), jax.tree.leaves(scaled), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert not np.allclose(clipped.network["a"][0], plain.network["a"][0], rtol=1e-4)


def test_a_gradient_below_the_bound_is_left_alone():
    learning = Learning(learning_rate=0.1)
    clipped, _ = two_steps(1.0, dataclasses.replace(learning, max_gradient_norm=6.0))
    plain, _ = two_steps(1.0, learning)
    for one, other in zip(jax.tree.leaves(clipped), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_may_tell_its_parts():
    """They are logged; the step is that of the loss alone."""
    learning, start = Learning(learning_rate=0.1), jnp.array([1.0, -2.0])
    plain, _ = Learner(start).step(lambda x: (x**2).sum(), learning=learning, progress=START)
    told, metrics = Learner(start).step(
        lambda x: ((x**2).sum(), {"first": 7 * x[0]}), learning=learning, progress=START
    )
    np.testing.assert_array_equal(told.network, plain.network)
    assert {name: float(value) for name, value in metrics.items()} == {
        "loss": 5.0,
        "gradient_norm": pytest.approx(np.sqrt(20)),
        "first": 7.0,
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden": ()}, r"hidden is \(\); it must be a tuple of whole numbers"),
        ({"hidden": "wide"}, "hidden is 'wide'; it must be a tuple"),
        ({"hidden": [8, 8]}, r"hidden is \[8, 8\]; it must be a tuple"),
        ({"hidden": (8, "x")}, "hidden is 'x'; it must be at least 1, a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm is 0.0; it must be above 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes, sentence):
    with pytest.raises(EvorError, match=sentence):
        Learning(**changes)
