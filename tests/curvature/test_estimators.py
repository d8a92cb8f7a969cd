import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import (
    CompositeObjective,
    EmpiricalFisherDiagonal,
    GaussNewtonDiagonal,
    Hutchinson,
    hutchinson_diag,
    MeanObjective,
)

X = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)))
Y = jnp.asarray(np.random.default_rng(1).normal(size=7))
P = {"w": jnp.asarray([0.3, -0.7, 1.1]), "b": jnp.asarray(0.2)}


def model(p):
    return jnp.tanh(X @ p["w"] + p["b"])


def losses(p):
    return 0.5 * (model(p) - Y) ** 2


MEAN = MeanObjective(losses)
COMPOSITE = CompositeObjective(model, lambda out: jnp.mean(0.5 * (out - Y) ** 2))


def jacobian():
    s = (1 - model(P) ** 2)[:, None]
    return np.concatenate([s * X, s], axis=1)


def flat(d):
    return np.append(d["w"], d["b"])


def test_hutchinson_is_hutchinson_diag(key):
    d = Hutchinson(num_samples=3).diagonal(MEAN, P, key)
    np.testing.assert_allclose(flat(d), flat(hutchinson_diag(MEAN, P, key, 3)))


def test_the_exact_empirical_fisher_is_the_mean_of_squared_example_gradients(key):
    gradients = jacobian() * np.asarray(model(P) - Y)[:, None]
    d = jax.jit(lambda p: EmpiricalFisherDiagonal().diagonal(MEAN, p, key))(P)
    np.testing.assert_allclose(flat(d), np.mean(gradients**2, 0), rtol=1e-12)


def test_the_sketched_empirical_fisher_is_unbiased(key):
    exact = flat(EmpiricalFisherDiagonal().diagonal(MEAN, P, key))
    sketch = EmpiricalFisherDiagonal(num_samples=2)
    samples = jax.jit(jax.vmap(lambda k: sketch.diagonal(MEAN, P, k)))(jax.random.split(key, 4000))
    values = np.concatenate([samples["w"], samples["b"][:, None]], axis=1)
    error = values.std(0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(0) - exact) < 4 * error)


def test_the_gauss_newton_diagonal_is_unbiased_for_the_closed_form(key):
    exact = np.mean(jacobian() ** 2, 0)
    estimator = GaussNewtonDiagonal(num_samples=2)
    d = jax.jit(jax.vmap(lambda k: estimator.diagonal(COMPOSITE, P, k)))(
        jax.random.split(key, 4000)
    )
    values = np.concatenate([d["w"], d["b"][:, None]], axis=1)
    error = values.std(0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(0) - exact) < 4 * error)


def test_for_a_linear_model_the_gauss_newton_diagonal_is_the_hessian_estimate(key):
    linear = CompositeObjective(lambda p: X @ p["w"] + p["b"], lambda out: jnp.mean(jnp.cosh(out)))
    for n in (1, 3):
        gn = GaussNewtonDiagonal(n).diagonal(linear, P, key)
        np.testing.assert_allclose(
            flat(gn), flat(Hutchinson(n).diagonal(linear, P, key)), rtol=1e-12
        )


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [
        (Hutchinson(2), MEAN),
        (GaussNewtonDiagonal(2), COMPOSITE),
        (EmpiricalFisherDiagonal(), MEAN),
        (EmpiricalFisherDiagonal(2), MEAN),
    ],
    ids=["hutchinson", "gauss_newton", "fisher", "fisher_sketch"],
)
def test_every_estimator_keeps_structure_and_accumulates_in_float32(estimator, objective, key):
    p = jax.tree.map(lambda x: x.astype(jnp.bfloat16), P)
    d = estimator.diagonal(objective, p, key)
    assert jax.tree.structure(d) == jax.tree.structure(p)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(d))
    assert not callable(estimator)


def test_over_all_sign_sketches_the_empirical_fisher_is_exact():
    gradients = jacobian() * np.asarray(model(P) - Y)[:, None]
    signs = np.asarray(list(itertools.product([-1, 1], repeat=7)))
    mean = np.mean((signs @ gradients) ** 2, 0) / 7
    exact = EmpiricalFisherDiagonal().diagonal(MEAN, P, jax.random.key(0))
    np.testing.assert_allclose(flat(exact), mean, rtol=1e-12)


@pytest.mark.bad_input
def test_misuse_names_the_argument(key):
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got 0"):
        Hutchinson(0)
    with pytest.raises(TypeError, match=r"`num_samples` must be a Python int, got 1\.5"):
        Hutchinson(1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`num_samples` must be a Python int, got True"):
        GaussNewtonDiagonal(True)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got -2"):
        EmpiricalFisherDiagonal(-2)
    with pytest.raises(TypeError, match="`CompositeObjective"):
        GaussNewtonDiagonal().diagonal(lambda p: 0.0, P, key)
    with pytest.raises(TypeError, match="`MeanObjective"):
        EmpiricalFisherDiagonal().diagonal(COMPOSITE, P, key)
    with pytest.raises(ValueError, match=r"`losses_fn` must return .* got shape \(\)"):
        EmpiricalFisherDiagonal().diagonal(MeanObjective(lambda p: jnp.sum(losses(p))), P, key)
