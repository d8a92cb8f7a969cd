import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from influence_problems import network, network_gradients, network_matrix, network_problem
from jaxsci.curvature.influence import pbrf


@functools.cache
def solved(epsilon):
    params, (x, labels), _ = network_problem()
    return pbrf(
        network, "softmax", params, (x, labels), (x[0], labels[0]), damping=0.05, epsilon=epsilon
    )


def bregman_objective(params, trained, data, example, damping, epsilon):
    """The objective written out, with the divergence of each example."""
    x, labels = data
    loss = lambda f, y: -jax.nn.log_softmax(f)[y]

    def divergence(xi, y):
        h, g = network(params, xi), network(trained, xi)
        return loss(h, y) - loss(g, y) - jax.grad(loss)(g, y) @ (h - g)

    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), params, trained)
    return (
        jnp.mean(jax.vmap(divergence)(x, labels))
        + epsilon * loss(network(params, example[0]), example[1])
        + damping / 2 * sum(jax.tree.leaves(squares))
    )


def test_finite_difference_equals_the_influence_formula():
    _, gradients = network_gradients()
    matrix = network_matrix() + 0.05 * np.eye(len(network_matrix()))
    formula = -np.linalg.solve(matrix, gradients[0])
    response = ravel_pytree(solved(1e-5).response)[0]
    error = np.linalg.norm(response - formula) / np.linalg.norm(formula)
    assert 0 < error < 1e-3


@pytest.mark.slow
def test_a_large_weight_is_solved_to_a_stationary_point_of_the_objective():
    params, (x, labels), _ = network_problem()
    solution = solved(0.05)
    gradient = jax.jit(jax.grad(bregman_objective))(
        solution.params, params, (x, labels), (x[0], labels[0]), 0.05, 0.05
    )
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) < 1e-9
    assert 1 < solution.stats["num_steps"] < 10


@pytest.mark.slow
def test_one_step_that_does_not_suffice_is_reported():
    params, (x, labels), _ = network_problem()
    run = functools.partial(
        pbrf,
        network,
        "softmax",
        params,
        (x, labels),
        (x[0], labels[0]),
        damping=0.05,
        epsilon=0.5,
        max_steps=1,
    )
    with pytest.raises(RuntimeError, match="maximum number of steps"):
        run()
    assert run(throw=False).stats["num_steps"] == 1


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    params, (x, labels), _ = network_problem()
    for options, name in (
        ({"damping": 0.0}, "damping"),
        ({"damping": 0.1, "epsilon": 0.0}, "epsilon"),
    ):
        with pytest.raises(ValueError, match=name):
            pbrf(network, "softmax", params, (x, labels), (x[0], labels[0]), **options)
