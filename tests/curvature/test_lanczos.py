"""Lanczos and its quadrature against spectra that are chosen, then hidden in a matrix."""

import itertools
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxsci.curvature import (
    extremal_eigs,
    hessian_operator,
    hutchinson_trace,
    lanczos,
    slq,
    spectral_density,
)

rng = np.random.default_rng(0)


def with_spectrum(values, seed=0):
    values = np.asarray(values)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(values.size, values.size)))
    return jnp.asarray((q * values) @ q.T)


def symmetric(matrix):
    return lx.MatrixLinearOperator(matrix, lx.symmetric_tag)


@partial(jax.jit, static_argnames=("k", "reorthogonalize"))
def run(matrix, v0, k, reorthogonalize=True):
    t = lanczos(symmetric(matrix), v0, k, reorthogonalize)
    return t, t.ritz(), t.quadrature()


def dense(t):
    return np.diag(t.alpha) + np.diag(t.beta, 1) + np.diag(t.beta, -1)


def test_all_steps_on_a_diagonal_matrix_give_its_entries_and_the_weights_of_the_start():
    n = 20
    v = rng.normal(size=n)
    t, (values, _), (nodes, weights) = run(jnp.diag(jnp.arange(1.0, n + 1)), jnp.asarray(v), n)
    assert t.num_valid == n
    np.testing.assert_allclose(values, np.arange(1, n + 1), atol=1e-10)
    np.testing.assert_allclose(nodes, values)
    np.testing.assert_allclose(weights, v**2 / np.sum(v**2), atol=1e-10)
    np.testing.assert_allclose(np.linalg.eigvalsh(dense(t)), values, atol=1e-10)


def test_moments_are_exact_up_to_degree_twice_the_steps_minus_one_and_no_further():
    n, k = 40, 5
    d = np.linspace(0.1, 1.5, n)
    q = rng.normal(size=n)
    q /= np.linalg.norm(q)
    _, _, (nodes, weights) = run(jnp.diag(d), jnp.asarray(q), k)
    got = [np.sum(weights * nodes**p) for p in range(2 * k + 1)]
    want = [np.sum(q**2 * d**p) for p in range(2 * k + 1)]
    np.testing.assert_allclose(got[:-1], want[:-1], rtol=1e-8)
    assert abs(got[-1] / want[-1] - 1) > 1e-6


def test_ritz_values_interlace_and_the_largest_rises_towards_the_largest_eigenvalue():
    matrix = with_spectrum(np.linspace(-1, 3, 60) ** 3)
    v = jnp.asarray(rng.normal(size=60))
    t, *_ = run(matrix, v, 12)
    ritz = [np.linalg.eigvalsh(dense(t)[:k, :k]) for k in range(1, 13)]
    for few, more in itertools.pairwise(ritz):
        assert np.all(more[:-1] <= few + 1e-10)
        assert np.all(few <= more[1:] + 1e-10)
        assert more[-1] >= few[-1] - 1e-10
        assert more[-1] <= 27 + 1e-10


def test_in_float32_the_basis_is_orthonormal_and_no_eigenvalue_comes_twice():
    values = np.concatenate([[10.0], np.random.default_rng(1).uniform(0, 1, 299)])
    matrix = with_spectrum(values).astype(jnp.float32)
    v = jnp.asarray(rng.normal(size=300), jnp.float32)
    t, (ritz, _), _ = run(matrix, v, 60)
    assert t.alpha.dtype == t.basis.dtype == jnp.float32
    q = np.asarray(t.basis, np.float64)
    assert np.linalg.norm(q @ q.T - np.eye(60), 2) <= 1e-5
    assert np.sum(ritz > 9.9) == 1
    _, (ghosts, _), _ = run(matrix, v, 60, False)
    assert np.sum(ghosts > 9.9) > 1


def test_an_exhausted_space_ends_the_run_without_nan():
    d = jnp.asarray([1.0, 2.0, 2.0, 5.0, 5.0, 5.0, 1.0, 1.0])
    t, (values, vectors), (nodes, weights) = run(jnp.diag(d), jnp.ones(8), 6)
    assert t.num_valid == 3
    np.testing.assert_allclose(values, [1, 2, 5, 5, 5, 5], atol=1e-12)
    np.testing.assert_allclose(weights, [3 / 8, 2 / 8, 3 / 8, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(t.residual_norm, 0, atol=1e-12)
    assert not np.any(t.basis[3:])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((t, values, vectors, nodes)))
    zero, (values, _), _ = run(0 * jnp.diag(d), jnp.ones(8), 6)
    assert zero.num_valid == 1
    np.testing.assert_array_equal(values, np.zeros(6))


def test_it_works_on_pytrees_and_restricts_the_operator_to_the_basis():
    matrix = with_spectrum(np.arange(1.0, 13))

    def product(v):
        flat = jnp.concatenate([v["a"].ravel(), v["b"]])
        out = matrix @ flat
        return {"a": out[:6].reshape(2, 3), "b": out[6:]}

    v0 = {"a": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=6))}
    t = jax.jit(lambda v: lanczos(product, v, 5))(v0)
    assert t.basis["a"].shape == (5, 2, 3)
    q = np.concatenate([t.basis["a"].reshape(5, 6), t.basis["b"]], axis=1)
    np.testing.assert_allclose(q @ q.T, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(q @ matrix @ q.T, dense(t), atol=1e-12)
    residual = q[-1] @ matrix - q[-1] @ matrix @ q.T @ q
    np.testing.assert_allclose(np.linalg.norm(residual), t.residual_norm, rtol=1e-10)


def test_both_ends_of_a_spectrum_come_with_vectors_and_bounds_that_hold():
    matrix = with_spectrum(np.concatenate([[-4.0, 9.0], np.linspace(-1, 1, 48)]))
    found = jax.jit(lambda k: extremal_eigs(symmetric(matrix), k, 10))(jax.random.key(0))
    for value, vector, bound, true in (
        (found.smallest, found.smallest_vector, found.smallest_residual, -4.0),
        (found.largest, found.largest_vector, found.largest_residual, 9.0),
    ):
        np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
        np.testing.assert_allclose(
            np.linalg.norm(matrix @ vector - value * vector), bound, rtol=1e-5, atol=1e-12
        )
        assert abs(value - true) <= bound + 1e-12
        assert abs(value - true) < 1e-4


@partial(jax.jit, static_argnames=("f", "probes", "k"))
def run_slq(matrix, key, f, probes, k):
    return slq(symmetric(matrix), f, key, probes, k)


def identity(x):
    return x


def test_the_trace_of_the_matrix_itself_is_hutchinsons_with_the_same_probes():
    matrix = with_spectrum(np.linspace(-2, 5, 30))
    key = jax.random.key(3)
    want = hutchinson_trace(symmetric(matrix), key, 4)
    np.testing.assert_allclose(run_slq(matrix, key, identity, 4, 1), want, rtol=1e-12)
    np.testing.assert_allclose(run_slq(matrix, key, identity, 4, 6), want, rtol=1e-12)


def test_the_log_determinant_is_within_three_standard_errors():
    values = np.random.default_rng(2).uniform(0.5, 6, 200)
    matrix = with_spectrum(values)
    got = run_slq(matrix, jax.random.key(0), jnp.log, 30, 25)
    # Hutchinson's variance a probe is twice the squared off-diagonal entries of log A.
    w, v = np.linalg.eigh(matrix)
    log = (v * np.log(w)) @ v.T
    error = np.sqrt(2 * (np.sum(log**2) - np.sum(np.diag(log) ** 2)) / 30)
    assert abs(got - np.sum(np.log(values))) < 3 * error


def test_the_density_integrates_to_one_and_smooths_the_spectrum():
    values = np.concatenate([[8.0], np.random.default_rng(3).uniform(0, 2, 299)])
    matrix = with_spectrum(values)
    got = jax.jit(
        lambda k: spectral_density(symmetric(matrix), k, num_probes=8, num_steps=40, width=0.25)
    )(jax.random.key(1))
    mass = np.trapezoid(got.values, got.grid)
    np.testing.assert_allclose(mass, 1, atol=1e-5)
    grid = np.asarray(got.grid)
    want = np.mean(
        np.exp(-0.5 * ((grid[:, None] - values) / 0.25) ** 2) / 0.25 / np.sqrt(2 * np.pi), axis=1
    )
    assert np.trapezoid(np.abs(got.values - want), grid) < 0.1
    np.testing.assert_allclose(got(got.grid[::100]), got.values[::100], rtol=1e-10)
    np.testing.assert_allclose(np.sum(got.ritz_weights, axis=1), 1, rtol=1e-10)
    np.testing.assert_allclose(got.mean(identity), np.mean(values), rtol=0.1)


def test_ritz_values_differentiate_also_when_the_space_is_exhausted():
    d = jnp.asarray([1.0, 2.0, 2.0, 5.0])

    def largest(d):
        return lanczos(symmetric(jnp.diag(d)), jnp.ones(4), 4).ritz()[0][-1]

    grad = jax.jit(jax.grad(largest))(d)
    np.testing.assert_allclose(grad, [0, 0, 0, 1], atol=1e-8)


@pytest.mark.slow
def test_on_sharded_parameters_the_basis_is_laid_out_like_them_and_nothing_is_gathered():
    from simulated_devices import on_eight_devices

    for mesh, found in on_eight_devices(Path(__file__)).items():
        assert found["error"] < 1e-5, mesh
        assert found["gathers"] == 0, mesh
        assert found["basis"] == [None, "data", "model"], mesh


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    op = symmetric(jnp.eye(3))
    with pytest.raises(ValueError, match=r"`op`.*symmetric"):
        lanczos(lx.MatrixLinearOperator(jnp.eye(3)), jnp.ones(3), 2)
    with pytest.raises(ValueError, match=r"`num_steps`.*at most.*3.*got 4"):
        lanczos(op, jnp.ones(3), 4)
    with pytest.raises(ValueError, match=r"`num_steps`.*at least 1"):
        lanczos(op, jnp.ones(3), 0)
    with pytest.raises(ValueError, match=r"`v0`.*non-zero"):
        lanczos(op, jnp.zeros(3), 2)
    with pytest.raises(TypeError, match=r"`v0`.*int"):
        lanczos(op, jnp.ones(3, int), 2)
    with pytest.raises(ValueError, match=r"`num_probes`"):
        slq(op, jnp.log, jax.random.key(0), 0, 2)
    with pytest.raises(ValueError, match=r"`width`.*positive"):
        spectral_density(op, jax.random.key(0), width=-1.0)


def check_sharded():
    def objective(p):
        coupled = jnp.sum(p["w"] ** 2) * jnp.sum(jnp.cosh(p["b"])) / 1000
        return jnp.sum(jnp.cosh(p["w"])) + coupled

    def steps(p, v):
        t = lanczos(hessian_operator(objective, p), v, 5)
        return t.ritz()[0], t.basis

    host = {k: rng.normal(size=n).astype("float32") for k, n in (("w", (16, 24)), ("b", (8,)))}
    want = jax.device_get(jax.jit(steps)(host, host)[0])
    found = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
        layout = {"w": PartitionSpec("data", "model"), "b": PartitionSpec("data")}
        with jax.set_mesh(mesh):
            p = {k: jax.device_put(host[k], NamedSharding(mesh, layout[k])) for k in host}
            compiled = jax.jit(steps).lower(p, p).compile()
            values, basis = compiled(p, p)
        collectives = ("all-gather(", "all-to-all(", "collective-permute(")
        found[kind.name] = {
            "error": float(np.max(np.abs(jax.device_get(values) - want)) / np.max(want)),
            "gathers": sum(compiled.as_text().count(name) for name in collectives),
            "basis": list(basis["w"].sharding.spec),
        }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check_sharded()) + "\n")
