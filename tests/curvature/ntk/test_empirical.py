import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci._base import NonTrainable
from jaxsci.curvature import ntk

METHODS = ("structured", "vp", "jacobian", "auto")


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.LayerNorm()(nn.Conv(3, (3, 3))(x)))
        return nn.Dense(2)(nn.relu(nn.Conv(4, (3, 3), strides=2)(x)).mean((0, 1)))


class Tied(nn.Module):
    """One table used to look tokens up and to score them."""

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(5, 3)
        return table.attend(nn.tanh(nn.Dense(3)(table(tokens)).mean(0)))


class Normed(eqx.Module):
    mlp: eqx.nn.MLP
    mean: NonTrainable
    name: str

    def __call__(self, x):
        return self.mlp(x - self.mean.value)


def scanned(params, x):
    """Three stacked layers in a scan, a weight used twice, a bias on its own."""
    x = x @ params["shared"]
    x, _ = jax.lax.scan(lambda h, w: (jnp.tanh(w @ h + params["lone"]), None), x, params["stack"])
    return jnp.sin(x) @ params["shared"]


def reference(fn, params, x):
    """J J^T from one dense Jacobian by `jacrev`."""
    arrays, rest = eqx.partition(params, eqx.is_inexact_array)
    jacobian = jax.vmap(jax.jacrev(lambda p, x: fn(eqx.combine(p, rest), x).ravel()), (None, 0))
    leaves = jax.tree.leaves(jacobian(arrays, x))
    flat = jnp.concatenate([j.reshape(*j.shape[:2], -1) for j in leaves], -1)
    return jnp.einsum("nip,mjp->nmij", flat, flat)


def flax_case(model, x):
    params = jax.tree.map(lambda p: p.astype(float), model.init(jax.random.key(1), x[0]))
    return model.apply, params, x


@functools.cache
def case(name):
    key = jax.random.key(0)
    if name == "equinox mlp":
        return (lambda m, x: m(x)), eqx.nn.MLP(4, 3, 6, 2, key=key), jax.random.normal(key, (5, 4))
    if name == "flax cnn":
        return flax_case(CNN(), jax.random.normal(key, (5, 4, 4, 2)))
    if name == "tied table":
        return flax_case(Tied(), jax.random.randint(key, (5, 4), 0, 5))
    keys = jax.random.split(key, 3)
    params = {
        "shared": jax.random.normal(keys[0], (3, 3)),
        "stack": jax.random.normal(keys[1], (3, 3, 3)),
        "lone": jax.random.normal(keys[2], (3,)),
    }
    return scanned, params, jax.random.normal(key, (5, 3))


@functools.cache
def truth(name):
    fn, params, x = case(name)
    return np.asarray(eqx.filter_jit(reference)(fn, params, x))


@functools.cache
def computed(name, method, outputs="full", batch_size=None, skip=0):
    fn, params, x = case(name)

    @eqx.filter_jit
    def kernel(params, x):
        x2 = x[skip:] if skip else None
        return ntk.empirical_ntk(fn, params, x, x2, outputs, method, batch_size)

    return np.asarray(kernel(params, x))


def assert_equal(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max(), rtol=1e-12)


CASES = [(name, "structured") for name in ("flax cnn", "scan")]
CASES += [("equinox mlp", method) for method in METHODS]
SLOW = [(name, method) for name in ("flax cnn", "tied table", "scan") for method in METHODS]


@pytest.mark.parametrize(
    ("name", "method"),
    CASES + [pytest.param(*c, marks=pytest.mark.slow) for c in SLOW if c not in CASES],
)
def test_every_method_gives_the_product_of_jacobians(name, method):
    assert_equal(computed(name, method), truth(name))


FORMS = [(name, method) for name in ("flax cnn", "tied table", "scan") for method in METHODS[:3]]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("equinox mlp", "structured"),
        pytest.param("equinox mlp", "vp", marks=pytest.mark.slow),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in FORMS),
    ],
)
def test_traces_diagonals_and_tiles_are_parts_of_the_full_kernel(name, method):
    full = truth(name)
    diagonal = np.einsum("nmii->nmi", full)
    assert_equal(computed(name, method, "diag"), diagonal)
    assert_equal(computed(name, method, "trace", 3), diagonal.mean(-1))
    assert_equal(computed(name, method, "full", 2), full)
    assert_equal(computed(name, method, "full", 2, 1), full[:, 1:])


def test_the_kernel_is_symmetric_and_positive_semidefinite():
    kernel = computed("flax cnn", "structured")
    matrix = kernel.transpose(0, 2, 1, 3).reshape(10, 10)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12 * np.abs(matrix).max()


def test_a_scalar_function_has_a_kernel_without_output_axes():
    weights = jnp.asarray([1.0, 2.0, -1.0])
    x = jnp.arange(6.0).reshape(2, 3)
    for outputs in ("full", "diag", "trace"):
        kernel = ntk.empirical_ntk(lambda p, x: p @ x, weights, x, outputs=outputs)
        np.testing.assert_allclose(kernel, x @ x.T)


def test_output_axes_are_kept():
    fn = lambda p, x: p * x
    x = jnp.arange(12.0).reshape(2, 2, 3)
    kernel = ntk.empirical_ntk(fn, jnp.ones((2, 3)), x)
    assert kernel.shape == (2, 2, 2, 3, 2, 3)
    expected = np.einsum("nij,mij,ik,jl->nmijkl", x, x, np.eye(2), np.eye(3))
    np.testing.assert_allclose(kernel, expected)


def test_points_may_be_pytrees():
    fn = lambda p, x: p["a"] * x["u"] + p["b"] @ x["v"]
    params = {"a": jnp.asarray(2.0), "b": jnp.ones(3)}
    x = {"u": jnp.arange(4.0), "v": jnp.arange(12.0).reshape(4, 3)}
    expected = np.outer(x["u"], x["u"]) + x["v"] @ x["v"].T
    np.testing.assert_allclose(ntk.empirical_ntk(fn, params, x), expected)
    np.testing.assert_allclose(ntk.empirical_ntk(fn, params, x, batch_size=3), expected)


def test_fixed_tables_and_other_leaves_are_not_parameters():
    key = jax.random.key(2)
    mlp = eqx.nn.MLP(2, 1, 3, 1, key=key)
    x = jax.random.normal(key, (3, 2))
    model = Normed(mlp, NonTrainable(jnp.ones(2)), "model")
    call = lambda m, x: m(x)
    np.testing.assert_allclose(
        ntk.empirical_ntk(call, model, x), ntk.empirical_ntk(call, mlp, x - 1), rtol=1e-12
    )


def test_float32_parameters_give_a_float32_kernel():
    fn, params, x = case("equinox mlp")
    as_float32 = lambda tree: jax.tree.map(
        lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v, tree
    )
    kernel = eqx.filter_jit(ntk.empirical_ntk)(fn, as_float32(params), as_float32(x))
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(kernel, truth("equinox mlp"), rtol=1e-4, atol=1e-5)


def test_the_kernel_is_differentiable_in_the_points():
    fn = lambda p, x: jnp.tanh(p @ x)
    p, x = jnp.asarray([0.3, -0.4]), jnp.asarray([[1.0, 2.0], [0.5, -1.0]])
    total = lambda x: ntk.empirical_ntk(fn, p, x).sum()
    # grad f = (1 - tanh^2(p.x)) x
    closed = lambda x: jnp.sum(jnp.sum((1 - jnp.tanh(x @ p) ** 2)[:, None] * x, 0) ** 2)
    np.testing.assert_allclose(jax.grad(total)(x), jax.grad(closed)(x), rtol=1e-12)


ACTIVATIONS = {"erf": jax.scipy.special.erf, "relu": jax.nn.relu}


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_empirical_kernel_approaches_the_limit_as_one_over_the_root_of_the_width(activation):
    angles = jnp.linspace(0, 2 * jnp.pi, 8, endpoint=False)
    x = jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
    limit = ntk.mlp_kernels(x, depth=3, activation=activation).ntk
    sigma = ACTIVATIONS[activation]

    def apply(params, x):
        for w, b in params[:-1]:
            x = sigma(w @ x / np.sqrt(w.shape[1]) + 0.1 * b)
        w, b = params[-1]
        return (w @ x / np.sqrt(w.shape[1]) + 0.1 * b)[0]

    def init(key, width):
        sizes = ((width, 2), (width, width), (1, width))
        keys = jax.random.split(key, 6)
        return [
            (jax.random.normal(keys[2 * i], s), jax.random.normal(keys[2 * i + 1], s[:1]))
            for i, s in enumerate(sizes)
        ]

    errors, widths = [], (64, 256, 1024)
    for width in widths:
        kernel = jax.jit(lambda k, w=width: ntk.empirical_ntk(apply, init(k, w), x))
        samples = np.stack([kernel(k) for k in jax.random.split(jax.random.key(5), 8)])
        deviations = np.sqrt(np.mean((samples - limit) ** 2)) / np.sqrt(np.mean(limit**2))
        errors.append(deviations)
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.2
    assert errors[-1] < 0.15
    assert np.abs(samples.mean(0) - limit).max() < 4 * errors[-1] / np.sqrt(8) * limit.max()


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    fn, x = (lambda p, x: p * x), jnp.ones((3, 2))
    p = jnp.ones(2)
    with pytest.raises(ValueError, match="`outputs` must be one of 'full'"):
        ntk.empirical_ntk(fn, p, x, outputs="all")
    with pytest.raises(ValueError, match="`method` must be one of 'auto'"):
        ntk.empirical_ntk(fn, p, x, method="fast")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        ntk.empirical_ntk(fn, p, x, batch_size=0)
    with pytest.raises(ValueError, match="points of one shape"):
        ntk.empirical_ntk(fn, p, x, jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="`x1` must be points stacked"):
        ntk.empirical_ntk(fn, p, {"a": jnp.ones((3, 2)), "b": jnp.ones(2)})
    with pytest.raises(TypeError, match="is complex"):
        ntk.empirical_ntk(fn, p * 1j, x)
    with pytest.raises(ValueError, match="no floating-point array leaves"):
        ntk.empirical_ntk(fn, jnp.ones(2, int), x)
    with pytest.raises(TypeError, match="batch normalisation"):
        ntk.empirical_ntk(lambda p, x: (p * x, p), p, x)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="real floating numbers"):
        ntk.empirical_ntk(lambda p, x: jnp.argmax(p * x), p, x)


@pytest.mark.bad_input
def test_a_kernel_that_would_not_fit_into_memory_is_refused_before_it_is_computed():
    x = jax.ShapeDtypeStruct((10**6, 2), jnp.float32)
    with pytest.raises(ValueError, match=r"GiB.*smaller `batch_size`"):
        jax.eval_shape(lambda x: ntk.empirical_ntk(lambda p, x: p * x, jnp.ones(2), x), x)
