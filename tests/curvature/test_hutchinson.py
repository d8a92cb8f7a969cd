import itertools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.curvature import (
    hutchinson_diag,
    hutchinson_trace,
    hvp,
    rademacher_like,
    value_grad_and_diag,
)

N = 6


@pytest.fixture(scope="module")
def matrix():
    a = np.random.default_rng(0).normal(size=(N, N))
    return jnp.asarray(a + a.T)


def test_over_all_probes_the_mean_is_the_diagonal_and_the_mean_square_the_squared_row_norm(matrix):
    f = lambda x: 0.5 * x @ matrix @ x
    probes = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=N)))
    d = jax.vmap(lambda v: v * hvp(f, jnp.zeros(N), v))(probes)
    np.testing.assert_allclose(d.mean(0), jnp.diag(matrix), atol=1e-14)
    np.testing.assert_allclose((d**2).mean(0), (matrix**2).sum(1), rtol=1e-14)


def test_the_estimate_averages_the_products_with_the_documented_probes(matrix, key):
    f = lambda p: 0.5 * p["x"] @ matrix @ p["x"]
    p = {"x": jnp.ones(N)}
    expected = 0
    for k in jax.random.split(key, 5):
        v = rademacher_like(k, p)["x"]
        expected += v * (matrix @ v) / 5
    np.testing.assert_allclose(hutchinson_diag(f, p, key, 5)["x"], expected, rtol=1e-13)
    (k,) = jax.random.split(key, 1)
    v = rademacher_like(k, p)["x"]
    np.testing.assert_allclose(hutchinson_diag(f, p, key)["x"], v * (matrix @ v), rtol=1e-13)


def test_a_diagonal_hessian_is_estimated_exactly_by_one_probe(key):
    x = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([[0.5, 3.0]])}
    f = lambda p: jnp.sum(p["a"] ** 4) + jnp.sum(jnp.exp(p["b"]))
    d = hutchinson_diag(f, x, key)
    np.testing.assert_allclose(d["a"], 12 * x["a"] ** 2, rtol=1e-14)
    np.testing.assert_allclose(d["b"], jnp.exp(x["b"]), rtol=1e-14)


def test_the_error_decays_like_one_over_the_root_of_the_number_of_probes():
    x = jnp.linspace(-1, 1, N)
    mix = jnp.asarray(np.random.default_rng(1).normal(size=(N, N)))
    f = lambda x: jnp.sum(jnp.cosh(mix @ x))
    hessian = jax.hessian(f)(x)
    exact = jnp.diag(hessian)
    variance = jnp.sum(hessian**2, 1) - exact**2
    counts, errors = [16, 64, 256, 1024, 4096], []
    keys = jax.random.split(jax.random.key(3), 24)
    for n in counts:
        d = jax.jit(jax.vmap(lambda k, n=n: hutchinson_diag(f, x, k, n)))(keys)
        errors.append(float(jnp.sqrt(jnp.mean((d - exact) ** 2))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.1
    n = 4
    many = jax.random.split(jax.random.key(4), 10000)
    d = jax.jit(jax.vmap(lambda k: hutchinson_diag(f, x, k, n)))(many)
    np.testing.assert_allclose(d.var(0), variance / n, rtol=0.1)
    np.testing.assert_allclose(d.mean(0), exact, atol=5 * float(jnp.sqrt(variance.max() / n / 1e4)))


@pytest.mark.parametrize("n", [1, 3])
def test_value_gradient_and_diagonal_agree_with_separate_computations(matrix, key, n):
    f = lambda x: jnp.sum(jnp.sin(matrix @ x))
    x = jnp.linspace(0, 1, N)
    value, grad, diag = value_grad_and_diag(f, x, key, n)
    np.testing.assert_allclose(value, f(x), rtol=1e-14)
    np.testing.assert_allclose(grad, matrix.T @ jnp.cos(matrix @ x), rtol=1e-12)
    np.testing.assert_allclose(diag, hutchinson_diag(f, x, key, n), rtol=1e-12)


def test_jit_vmap_and_grad_go_through(matrix, key):
    f = lambda x: jnp.sum(jnp.cosh(matrix @ x))
    x = jnp.linspace(0, 0.2, N)
    eager = hutchinson_diag(f, x, key, 2)
    np.testing.assert_allclose(jax.jit(lambda x, k: hutchinson_diag(f, x, k, 2))(x, key), eager)
    batch = jax.vmap(lambda x: hutchinson_diag(f, x, key, 2))(jnp.stack([0 * x, x]))
    np.testing.assert_allclose(batch[1], eager, rtol=1e-12)
    derivative = jax.grad(lambda s: jnp.sum(hutchinson_diag(lambda y: s * f(y), x, key, 2)))(2.0)
    np.testing.assert_allclose(derivative, jnp.sum(eager), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 4])
def test_float32_stays_and_less_than_32_bits_are_averaged_in_float32(key, n):
    p = {"single": jnp.ones(3, jnp.float32), "half": jnp.full(3, 1.5, jnp.bfloat16)}
    f = lambda p: jnp.sum(p["single"] ** 2) + jnp.sum(p["half"] ** 2).astype(jnp.float32)
    value, grad, diag = value_grad_and_diag(f, p, key, n)
    assert value.dtype == jnp.float32
    assert grad["half"].dtype == jnp.bfloat16
    assert diag["single"].dtype == diag["half"].dtype == jnp.float32
    np.testing.assert_array_equal(diag["half"], 2)


def test_half_precision_probes_do_not_accumulate_in_half_precision(key):
    # A running sum of ones in bfloat16 stops at 256.
    f = lambda x: jnp.sum(0.5 * jnp.bfloat16(1.0) * x * x)
    d = hutchinson_diag(f, jnp.ones(2, jnp.bfloat16), key, 1000)
    np.testing.assert_allclose(d, 1, rtol=1e-6)


def test_the_trace_of_a_lineax_operator_and_of_its_product_agree_and_are_unbiased(matrix, key):
    operator = lx.MatrixLinearOperator(matrix)
    struct = jax.ShapeDtypeStruct((N,), matrix.dtype)
    one = hutchinson_trace(operator, key, 7)
    np.testing.assert_allclose(
        one, hutchinson_trace(lambda v: matrix @ v, key, 7, structure=struct), rtol=1e-14
    )
    by_hand = [
        v @ matrix @ v for v in (rademacher_like(k, struct) for k in jax.random.split(key, 7))
    ]
    np.testing.assert_allclose(one, np.mean(by_hand), rtol=1e-13)
    n = 4000
    estimate = jax.jit(lambda k: hutchinson_trace(operator, k, n))(jax.random.key(5))
    off = matrix - jnp.diag(jnp.diag(matrix))
    error = jnp.sqrt(2 * jnp.sum(off**2) / n)
    assert abs(estimate - jnp.trace(matrix)) < 4 * error


def test_the_trace_of_a_diagonal_operator_on_a_tree_is_exact_and_keeps_float32(key):
    tree = {"a": jnp.ones(3, jnp.float32), "b": jnp.ones((), jnp.float32)}
    matvec = lambda v: {"a": 2 * v["a"], "b": 5 * v["b"]}
    trace = hutchinson_trace(matvec, key, 2, structure=tree)
    assert trace.dtype == jnp.float32
    assert trace == 11


@pytest.mark.bad_input
def test_misuse_names_the_argument(key):
    f = lambda x: jnp.sum(x**2)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got 0"):
        hutchinson_diag(f, jnp.ones(2), key, 0)
    with pytest.raises(ValueError, match=r"`obj_fn` must return .* shape \(2,\)"):
        value_grad_and_diag(lambda x: x, jnp.ones(2), key)
    with pytest.raises(TypeError, match="real floating"):
        hutchinson_diag(f, jnp.ones(2, complex), key)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got -1"):
        hutchinson_trace(lambda v: v, key, -1, structure=jnp.ones(2))
    with pytest.raises(ValueError, match="`structure` is needed"):
        hutchinson_trace(lambda v: v, key)
    with pytest.raises(ValueError, match="must be square"):
        hutchinson_trace(lx.MatrixLinearOperator(jnp.ones((3, 2))), key)
