from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import (
    as_likelihood,
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    LikelihoodObjective,
)

RNG = np.random.default_rng(0)
CASES = {
    "classes": (CategoricalLikelihood(), RNG.normal(size=4), np.asarray(2)),
    "positions": (CategoricalLikelihood(), RNG.normal(size=(3, 4)), np.asarray([1, 0, 3])),
    "gaussian": (GaussianLikelihood(), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))),
    "bernoulli": (BernoulliLikelihood(), RNG.normal(size=3), np.asarray([0, 1, 1])),
}


@partial(jax.jit, static_argnums=0)
def columns(likelihood, outputs):
    indices = jnp.arange(likelihood.num_columns(outputs))
    root = jax.vmap(lambda k: likelihood.root_column(outputs, k))(indices)
    return root.reshape(len(indices), outputs.size)


@pytest.mark.parametrize("case", CASES)
def test_the_root_squares_to_the_hessian_of_the_loss(case):
    likelihood, outputs, labels = CASES[case]
    outputs, labels = jnp.asarray(outputs), jnp.asarray(labels)
    root = columns(likelihood, outputs)
    hessian = jax.jit(jax.hessian(likelihood.loss))(outputs, labels)
    np.testing.assert_allclose(
        np.asarray(root).T @ root, hessian.reshape(2 * (outputs.size,)), atol=1e-14
    )


def test_the_root_has_one_column_less_than_there_are_classes_and_the_expected_outer_product():
    logits = jnp.asarray(RNG.normal(size=5))
    root = columns(CategoricalLikelihood(), logits)
    p = np.exp(logits) / np.sum(np.exp(logits))
    want = sum(q * np.outer(p - e, p - e) for q, e in zip(p, np.eye(5), strict=True))
    assert root.shape == (4, 5)
    np.testing.assert_allclose(root.T @ root, want, atol=1e-15)


def test_extreme_logits_give_a_finite_root():
    for logits in ([1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]):
        assert jnp.all(jnp.isfinite(columns(CategoricalLikelihood(), jnp.asarray(logits))))
    assert jnp.all(jnp.isfinite(columns(BernoulliLikelihood(), jnp.asarray([1e4, -1e4]))))


def test_losses_are_sums_over_positions_of_the_closed_forms():
    logits, labels = jnp.asarray(RNG.normal(size=(3, 4))), jnp.asarray([1, -1, 3])
    log_p = np.log(np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True))
    got = as_likelihood("softmax").loss(logits, labels)
    np.testing.assert_allclose(got, -log_p[0, 1] - log_p[2, 3], rtol=1e-14)
    f, y = jnp.asarray([0.5, -1.0]), jnp.asarray([1, 0])
    p = 1 / (1 + np.exp(-np.asarray(f)))
    got = as_likelihood("bernoulli").loss(f, y)
    np.testing.assert_allclose(got, -np.log(p[0]) - np.log(1 - p[1]), rtol=1e-14)
    got = as_likelihood("mse").loss(f, jnp.asarray([1.0, 1.0]))
    np.testing.assert_allclose(got, 0.5 * (0.25 + 4), rtol=1e-14)


@pytest.mark.parametrize("case", ["classes", "gaussian", "bernoulli"])
def test_gradients_at_sampled_labels_have_mean_zero_and_the_hessian_as_covariance(case):
    likelihood, outputs, _ = CASES[case]
    outputs = jnp.asarray(outputs)

    @jax.jit
    def draws(keys):
        draw = lambda k: jax.grad(likelihood.loss)(outputs, likelihood.sample(k, outputs))
        return jax.vmap(draw)(keys).reshape(len(keys), -1)

    grads = np.asarray(draws(jax.random.split(jax.random.key(1), 20000)))
    root = np.asarray(columns(likelihood, outputs))
    np.testing.assert_allclose(np.mean(grads, 0), 0, atol=0.03)
    np.testing.assert_allclose(grads.T @ grads / 20000, root.T @ root, atol=0.04)


def test_an_objective_is_the_mean_over_examples_and_keeps_it_under_new_parameters():
    x, y = jnp.asarray(RNG.normal(size=(6, 3))), jnp.asarray(RNG.normal(size=(6, 2)))
    w = jnp.asarray(RNG.normal(size=(2, 3)))
    objective = LikelihoodObjective(lambda p, x: p @ x, "mse", x, y)
    want = np.mean(0.5 * np.sum((x @ w.T - y) ** 2, axis=1))
    np.testing.assert_allclose(objective(w), want, rtol=1e-14)
    moved = objective.precompose(lambda q: q["w"])
    np.testing.assert_allclose(moved({"w": w}), want, rtol=1e-14)
    np.testing.assert_allclose(jax.grad(objective)(w), (x @ w.T - y).T @ x / 6, rtol=1e-12)


def test_any_object_that_samples_and_scores_is_a_likelihood():
    class Poisson:
        def loss(self, outputs, labels):
            return jnp.sum(jnp.exp(outputs) - labels * outputs)

        def sample(self, key, outputs):
            return jax.random.poisson(key, jnp.exp(outputs))

    poisson = Poisson()
    assert as_likelihood(poisson) is poisson


@pytest.mark.bad_input
def test_a_loss_that_is_no_likelihood_is_refused():
    with pytest.raises(ValueError, match="`loss` must be one of 'softmax'"):
        as_likelihood("hinge")
    with pytest.raises(TypeError, match="methods `sample"):
        as_likelihood(lambda f, y: 0.0)
    with pytest.raises(ValueError, match=r"must have shape \(3,\)"):
        as_likelihood("softmax").loss(jnp.zeros((3, 4)), jnp.zeros((), int))
