from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci.curvature import fit_kronecker
from simulated_devices import on_eight_devices

from .kronecker_oracles import dense_fisher, dense_operator, in_matrix_order, mlp, mlp_params

RNG = np.random.default_rng(1)
PARAMS = mlp_params(RNG)
X = jnp.asarray(RNG.normal(size=(10, 3)))
Y = jnp.asarray(RNG.integers(0, 3, 10))


def linear(p, x):
    return p["w"] @ x + p["b"]


LINEAR = {"w": jnp.asarray(RNG.normal(size=(2, 3))), "b": jnp.asarray(RNG.normal(size=2))}


@cache
def fitted() -> Any:
    return fit_kronecker(mlp, "softmax", PARAMS, (X, None))


def assert_same(a: Any, b: Any, **tolerance):
    """The same matrix; eigenvectors may differ in sign."""
    for x, y in zip(a.blocks, b.blocks, strict=True):
        np.testing.assert_allclose(x.input_factor, y.input_factor, **tolerance)
        np.testing.assert_allclose(x.output_factor, y.output_factor, **tolerance)
        np.testing.assert_allclose(x.eigenvalues, y.eigenvalues, **tolerance)
    for path, x in a.leaves.items():
        np.testing.assert_allclose(x, b.leaves[path], **tolerance)


def check_against_fisher(curvature, fisher, params):
    """The diagonal of the Fisher matrix in the basis, for every matrix of every stack."""
    blocks = iter(in_matrix_order(curvature.layers, params, fisher))
    for b in curvature.blocks:
        for i in range(b.block.stack):
            a_basis = np.eye(b.eigenvalues.shape[2]) if b.input_basis is None else b.input_basis[i]
            q = np.kron(np.asarray(b.output_basis[i]), np.asarray(a_basis))
            want = np.diag(q.T @ next(blocks) @ q)
            np.testing.assert_allclose(np.ravel(b.eigenvalues[i]), want, rtol=1e-9, atol=1e-12)
    flat = ravel_pytree(params)[1](jnp.asarray(np.diag(fisher)))
    _, rest = curvature.layers.to_matrices(flat)
    for path, want in rest.items():
        np.testing.assert_allclose(curvature.leaves[path], want, rtol=1e-9, atol=1e-14)


def test_one_linear_layer_with_squared_loss_is_fitted_exactly():
    homogeneous = np.concatenate([X, np.ones((10, 1))], axis=1)
    a = homogeneous.T @ homogeneous / 10
    gradient = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), LINEAR)
    for factors in ("kfac", "ekfac"):
        c: Any = fit_kronecker(linear, "mse", LINEAR, (X, None), factors=factors)
        np.testing.assert_allclose(c.blocks[0].input_factor[0], a, rtol=1e-13)
        np.testing.assert_allclose(c.blocks[0].output_factor[0], np.eye(2), rtol=1e-13)
        got = c.precondition(gradient, 0.0)
        g = np.concatenate([gradient["w"], gradient["b"][:, None]], axis=1)
        want = np.linalg.solve(a, g.T).T
        np.testing.assert_allclose(got["w"], want[:, :3], rtol=1e-10)
        np.testing.assert_allclose(got["b"], want[:, 3], rtol=1e-10)


def test_positions_of_a_linear_layer_add_up_in_kfac_too():
    x = jnp.asarray(RNG.normal(size=(6, 5, 3)))
    model = lambda p, x: x @ p["w"].T + p["b"]
    want = dense_fisher(model, "mse", LINEAR, x)
    for factors in ("kfac", "ekfac"):
        c: Any = fit_kronecker(model, "mse", LINEAR, (x, None), factors=factors)
        np.testing.assert_allclose(dense_operator(c.multiply, LINEAR), want, atol=1e-12)
        a = np.mean(np.sum(np.asarray(x)[..., None] * np.asarray(x)[..., None, :], 1), 0) / 5
        np.testing.assert_allclose(c.blocks[0].input_factor[0, :3, :3], a, rtol=1e-12)


def test_the_order_and_the_size_of_batches_do_not_matter():
    order = RNG.permutation(10)
    stream = ((X[rows], None) for rows in (order[:5], order[5:]))
    one: Any = fit_kronecker(mlp, "softmax", PARAMS, stream, microbatch=2)
    assert_same(one, fitted(), rtol=1e-9, atol=1e-12)
    assert float(one.num_examples) == 10


def test_one_example_gives_ranks_of_one_and_of_the_classes_less_one():
    c: Any = fit_kronecker(mlp, "softmax", PARAMS, (X[:1], None))
    for b in c.blocks:
        assert np.linalg.matrix_rank(b.input_factor[0], tol=1e-12) == 1
        assert np.linalg.matrix_rank(b.output_factor[0], tol=1e-12) == 2
        assert np.sum(np.asarray(b.eigenvalues) > 1e-12) == 2
    assert np.all(np.isfinite(ravel_pytree(c.precondition(PARAMS, 1e-6))[0]))


@pytest.mark.slow
def test_sampled_labels_approach_the_exact_ones():
    many = jnp.tile(X, (400, 1))
    key = jax.random.key(0)
    got: Any = fit_kronecker(mlp, "softmax", PARAMS, (many, None), key, "sampled")
    want = fitted()
    np.testing.assert_allclose(got.trace(), want.trace(), rtol=0.05)
    for a, b in zip(got.blocks, want.blocks, strict=True):
        np.testing.assert_allclose(a.input_factor, b.input_factor, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.output_factor, b.output_factor, atol=0.01)


def test_empirical_labels_give_the_mean_outer_product_of_the_gradients():
    flat, unravel = ravel_pytree(PARAMS)

    def loss(v, x, y):
        return -jax.nn.log_softmax(mlp(unravel(v), x))[y]

    grads = jax.jit(jax.vmap(lambda x, y: jax.grad(loss)(flat, x, y)))(X, Y)
    c: Any = fit_kronecker(mlp, "softmax", PARAMS, (X, Y), labels="empirical", factors="diagonal")
    want = np.mean(np.asarray(grads) ** 2, axis=0)
    np.testing.assert_allclose(ravel_pytree(c.diagonal())[0], want, rtol=1e-10, atol=1e-15)


@pytest.mark.slow
def test_a_custom_likelihood_is_used_with_sampled_and_empirical_labels():
    class Poisson:
        def loss(self, outputs, labels):
            return jnp.sum(jnp.exp(outputs) - labels * outputs)

        def sample(self, key, outputs):
            return jax.random.poisson(key, jnp.exp(outputs)).astype(outputs.dtype)

    p = jax.tree.map(lambda x: 0.3 * x, LINEAR)
    many = jnp.tile(X, (2000, 1))
    c: Any = fit_kronecker(
        linear, Poisson(), p, (many, None), jax.random.key(2), "sampled", "diagonal"
    )
    rate = np.exp(np.asarray(X @ p["w"].T + p["b"]))
    np.testing.assert_allclose(c.diagonal()["b"], np.mean(rate, axis=0), rtol=0.05)
    want = np.mean(rate[:, :, None] * np.asarray(X)[:, None] ** 2, axis=0)
    np.testing.assert_allclose(c.diagonal()["w"], want, rtol=0.1)


def shared(p, x):
    for _ in range(2):
        x = jnp.tanh(p["w"] @ x + p["b"])
    return x


def conv(p, x):
    h = jax.lax.conv_general_dilated(x[None], p["k"], (1,), "SAME")[0]
    return jnp.mean(jnp.tanh(h + p["b"][:, None]), axis=1)


def attention(p, x):
    q, k, v = (jnp.einsum("td,dhe->the", x, p[n]) for n in "qkv")
    weights = jax.nn.softmax(jnp.einsum("the,she->hts", q, k), axis=-1)
    return jnp.einsum("hts,she,hed->td", weights, v, p["o"])


def scanned(p, x):
    layer = lambda h, wb: (jnp.tanh(wb[0] @ h + wb[1]), None)
    return jax.lax.scan(layer, x, (p["w"], p["b"]))[0]


def embedded(p, x):
    return p["head"] @ jnp.sum(jnp.tanh(p["table"][x]), axis=0)


def normalized(p, x):
    h = p["w"] @ x
    h = (h - jnp.mean(h)) / jnp.std(h)
    return p["v"] @ jnp.tanh(h * p["scale"] + p["shift"])


def draw(**shapes):
    rng = np.random.default_rng(2)
    return {k: jnp.asarray(0.7 * rng.normal(size=n)) for k, n in shapes.items()}


NETWORKS = {
    "shared weight": (shared, draw(w=(3, 3), b=(3,)), X[:4], 1),
    "convolution": (conv, draw(k=(3, 2, 3), b=(3,)), RNG.normal(size=(4, 2, 5)), 1),
    "attention": (
        attention,
        draw(q=(3, 2, 2), k=(3, 2, 2), v=(3, 2, 2), o=(2, 2, 3)),
        RNG.normal(size=(3, 3, 3)),
        4,
    ),
    "scan over layers": (scanned, draw(w=(3, 3, 3), b=(3, 3)), X[:4], 1),
    "embedding": (
        embedded,
        draw(table=(5, 3), head=(3, 3)),
        np.asarray([[0, 1, 1], [2, 1, 2], [4, 4, 4]]),
        2,
    ),
    "normalisation": (normalized, draw(w=(3, 3), v=(3, 3), scale=(3,), shift=(3,)), X[:4], 2),
}


_FAST = ("embedding",)


@pytest.mark.parametrize(
    "name", [n if n in _FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_layers_of_every_kind_get_the_diagonal_of_their_fisher_block_in_the_basis(name):
    model, params, inputs, count = NETWORKS[name]
    inputs = jnp.asarray(inputs)
    c: Any = fit_kronecker(model, "softmax", params, (inputs, None))
    assert len(c.blocks) == count
    check_against_fisher(c, dense_fisher(model, "softmax", params, inputs), params)
    again = jax.jit(lambda c, v: c.precondition(c.multiply(v, 0.1), 0.1))(c, params)
    np.testing.assert_allclose(ravel_pytree(again)[0], ravel_pytree(params)[0], rtol=1e-8)


def test_tokens_with_negative_labels_do_not_count():
    model = lambda p, x: jnp.tanh(x @ p["w"].T + p["b"]) @ p["v"]
    params = {**LINEAR, "v": jnp.asarray(RNG.normal(size=(2, 3)))}
    x, y = jnp.asarray(RNG.normal(size=(4, 5, 3))), jnp.asarray(RNG.integers(0, 3, (4, 5)))
    fit = lambda x, y: fit_kronecker(model, "softmax", params, (x, y), factors="kfac")
    got, want = fit(x, y.at[:, 3:].set(-1)), fit(x[:, :3], y[:, :3])
    assert_same(got, want, rtol=1e-9, atol=1e-12)
    everything: Any = fit_kronecker(
        model,
        "softmax",
        params,
        (x, y.at[:, 3:].set(-1)),
        factors="kfac",
        mask=lambda x, y: jnp.ones(5, bool),
    )
    a = np.mean(np.asarray(x)[..., None] * np.asarray(x)[..., None, :], axis=(0, 1))
    np.testing.assert_allclose(everything.blocks[-1].input_factor[0, :3, :3], a, rtol=1e-10)


def test_the_diagonal_of_a_model_without_layers_is_exact():
    scale = lambda p, x: x * p
    p = jnp.asarray([0.5, 1.0, -0.3])
    c: Any = fit_kronecker(scale, "mse", p, X, factors="diagonal")
    np.testing.assert_allclose(c.diagonal(), np.mean(np.asarray(X) ** 2, axis=0), rtol=1e-13)


def test_float32_stays_and_agrees():
    p32, x32 = jax.tree.map(lambda x: x.astype(jnp.float32), (PARAMS, X))
    c: Any = fit_kronecker(mlp, "softmax", p32, (x32, None))
    assert {x.dtype for x in jax.tree.leaves(c)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(c.trace(), fitted().trace(), rtol=1e-5)
    got, want = c.precondition(p32, 0.01)["w"], fitted().precondition(PARAMS, 0.01)["w"]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_it_can_be_fitted_inside_compiled_code():
    inside = jax.jit(lambda p, x: fit_kronecker(mlp, "softmax", p, (x, None)).precondition(p, 0.1))
    got, want = inside(PARAMS, X), fitted().precondition(PARAMS, 0.1)
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-7)


def test_a_second_fit_of_the_same_function_compiles_nothing(monkeypatch):
    fitted()
    traces = []
    original = jax.eval_shape
    monkeypatch.setattr(jax, "eval_shape", lambda *a, **k: traces.append(1) or original(*a, **k))
    fit_kronecker(mlp, "softmax", PARAMS, (X + 1, None))
    assert not traces


@pytest.mark.bad_input
def test_misuse_is_refused_by_name():
    data = (X, Y)
    for match, kwargs in {
        "`labels` must be one of": {"labels": "true"},
        "`factors` must be one of": {"factors": "shampoo"},
        "`microbatch` must be at least 1": {"microbatch": 0},
        "`key` is needed": {"labels": "sampled"},
    }.items():
        with pytest.raises(ValueError, match=match):
            fit_kronecker(mlp, "softmax", PARAMS, data, **kwargs)
    with pytest.raises(ValueError, match="`targets` are needed"):
        fit_kronecker(mlp, "softmax", PARAMS, (X, None), labels="empirical")
    with pytest.raises(ValueError, match="one leading axis over examples"):
        fit_kronecker(mlp, "softmax", PARAMS, (X, Y[:3]))
    with pytest.raises(ValueError, match="at least one batch"):
        fit_kronecker(mlp, "softmax", PARAMS, [])


@pytest.mark.bad_input
def test_a_model_without_layers_and_factors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="a layer that can be captured, got none"):
        fit_kronecker(lambda p, x: x * p, "mse", jnp.ones(3), (X, None))
    with pytest.raises(ValueError, match="holds NaN"):
        fit_kronecker(mlp, "softmax", PARAMS, (X.at[0, 0].set(jnp.nan), None))


@pytest.mark.bad_input
def test_complex_parameters_are_refused():
    with pytest.raises(TypeError, match="complex"):
        fit_kronecker(lambda p, x: jnp.real(p @ x), "mse", jnp.ones((2, 3), complex), (X, None))


@pytest.mark.slow
def test_batches_sharded_over_devices_give_the_same_factors_and_gather_nothing():
    report = on_eight_devices(Path(__file__).with_name("sharded_kronecker.py"))
    assert set(report) == {"Auto", "Explicit"}
    for kind in report.values():
        assert kind["error"] < 1e-5
        assert kind["gathers"] == 0
