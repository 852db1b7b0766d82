"""Networks: GELU, products of bfloat16 and their gradients, and how rows are cut into blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from evor.nn.batching import each_example, each_network
from evor.nn.nets import Mlp
from evor.nn.ops import gelu

ROWS = jax.random.normal(jax.random.key(1), (5, 3))


def mlp(precision, seed=0):
    return Mlp(3, (16, 16), 2, layer_norm=True, precision=precision, key=jax.random.key(seed))


def loss(network, rows):
    return (jax.vmap(network)(rows) ** 2).sum()


def test_gelu_and_its_slope():
    x = jnp.linspace(-9, 9, 5001)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(gelu(x), exact * norm.cdf(exact), atol=2e-5)
    slope = jax.vmap(jax.grad(gelu))(x)
    np.testing.assert_allclose(slope, norm.cdf(exact) + exact * norm.pdf(exact), atol=6e-4)


@pytest.mark.slow
def test_bfloat16_rounds_a_little():
    value, gradient = jax.value_and_grad(loss)(mlp("float32"), ROWS)
    rounded, rounded_gradient = jax.value_and_grad(loss)(mlp("bfloat16"), ROWS)
    assert rounded != value
    assert float(rounded) == pytest.approx(float(value), rel=0.02)
    for exact, near in zip(jax.tree.leaves(gradient), jax.tree.leaves(rounded_gradient), strict=True):
        assert near.dtype == jnp.float32
        assert np.linalg.norm(near - exact) <= 0.02 * np.linalg.norm(exact)


def test_every_product_of_a_bfloat16_gradient_has_bfloat16_operands():
    """A single float32 operand would have XLA run the product in float32."""
    found = list(operands(jax.make_jaxpr(jax.grad(loss))(mlp("bfloat16"), ROWS).jaxpr))
    assert len(found) == 2 * (3 + 3 + 3)  # forwards, and backwards to weights and to inputs
    assert {operand.aval.dtype.name for operand in found} == {"bfloat16"}


def operands(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield from equation.invars
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", None)
            if inner is not None:
                yield from operands(inner)


@pytest.mark.slow
def test_bfloat16_networks_side_by_side_are_each_alone():
    """An ensemble inside a batch, and networks outside it."""
    pair = jax.tree.map(lambda *leaves: jnp.stack(leaves), mlp("bfloat16", 0), mlp("bfloat16", 1))

    def ensemble(pair, rows):
        each = jax.vmap(lambda network, row: network(row), (0, None))
        return (jax.vmap(each, (None, 0))(pair, rows) ** 2).sum()

    outside = jax.vmap(jax.grad(loss), (0, None))(pair, ROWS)
    for joint in (jax.grad(ensemble)(pair, ROWS), outside):
        for seed in (0, 1):
            alone = jax.grad(loss)(mlp("bfloat16", seed), ROWS)
            for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(joint), strict=True):
                np.testing.assert_allclose(a, b[seed], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 200, 10_000])
def test_blocks_of_examples_are_all_of_them(rows):
    network = mlp("float32")
    blocks = each_example(lambda row, shift: network(row) + shift, ROWS, jnp.arange(5.0), rows=rows)
    np.testing.assert_allclose(blocks, jax.vmap(network)(ROWS) + jnp.arange(5.0)[:, None], rtol=1e-5, atol=1e-5)


def test_each_network_is_what_vmap_says():
    inputs = jnp.arange(6.0).reshape(3, 2), jnp.arange(3.0)
    found = each_network(lambda a, b: {"sum": a.sum() + b, "same": a}, *inputs)
    expected = jax.vmap(lambda a, b: {"sum": a.sum() + b, "same": a})(*inputs)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
