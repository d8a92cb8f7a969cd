"""Operators against dense matrices of `jax.hessian` and per-example gradients."""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxsci.curvature import (
    CategoricalLikelihood,
    damped_operator,
    empirical_fisher_operator,
    fisher_operator,
    ggn_operator,
    hessian_operator,
)

N, D, C = 12, 3, 4
rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(N, D)))
Y = jnp.asarray(rng.integers(0, C, N))
PARAMS = {
    "v": jnp.asarray(rng.normal(size=(D, 2))),
    "w": jnp.asarray(rng.normal(size=(2, C))),
    "b": jnp.asarray(0.1 * rng.normal(size=C)),
}
FLAT, unravel = ravel_pytree(PARAMS)


def model(p, x):
    return jnp.tanh(x @ p["v"]) @ p["w"] + p["b"]


def losses(p, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(p, x), y)


def mean_ce(z, y):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, y))


def split(x, parts=3):
    return x.reshape(parts, -1, *x.shape[1:])


MX, MY = split(X), split(Y)
TARGETS = jnp.where(jnp.arange(N) < 5, Y, -1)
OUTPUTS = lambda p: model(p, X)


def operators():
    """By what they must equal."""
    return {
        "hessian": [
            hessian_operator(lambda p: jnp.mean(losses(p, X, Y)), PARAMS),
            hessian_operator(
                lambda p, batch: jnp.mean(losses(p, *batch)), PARAMS, batches=(MX, MY)
            ),
        ],
        "fisher": [
            ggn_operator(OUTPUTS, lambda z: mean_ce(z, Y), PARAMS),
            ggn_operator(
                lambda p, batch: model(p, batch[0]),
                lambda z, batch: mean_ce(z, batch[1]),
                PARAMS,
                batches=(MX, MY),
            ),
            fisher_operator(OUTPUTS, PARAMS, "softmax"),
            fisher_operator(OUTPUTS, PARAMS, CategoricalLikelihood(), targets=Y),
            fisher_operator(model, PARAMS, "softmax", batches=MX),
        ],
        "mse": [fisher_operator(OUTPUTS, PARAMS, "mse")],
        "masked": [fisher_operator(OUTPUTS, PARAMS, "softmax", targets=TARGETS)],
        "empirical": [
            empirical_fisher_operator(lambda p: losses(p, X, Y), PARAMS),
            empirical_fisher_operator(lambda p, batch: losses(p, *batch), PARAMS, batches=(MX, MY)),
        ],
    }


@pytest.fixture(scope="module")
def dense():
    """What the operators must be, from whole Jacobians."""

    @jax.jit
    def derivatives(q):
        hessian = jax.hessian(lambda q: jnp.mean(losses(unravel(q), X, Y)))(q)
        grads = jax.jacrev(lambda q: losses(unravel(q), X, Y))(q)
        return hessian, jax.jacfwd(lambda q: model(unravel(q), X))(q), grads

    hessian, jacobian, grads = derivatives(FLAT)
    p = jax.nn.softmax(model(PARAMS, X))
    middle = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
    each = jnp.einsum("ncp,ncd,ndq->npq", jacobian, middle, jacobian)
    return {
        "hessian": hessian,
        "fisher": each.mean(0),
        "mse": jnp.einsum("ncp,ncq->pq", jacobian, jacobian) / N,
        "masked": each[:5].sum(0) / N,
        "empirical": grads.T @ grads / N,
    }


@pytest.fixture(scope="module")
def built():
    """The matrices of the operators, and what lineax takes these for."""
    kinds = {}

    @jax.jit
    def build():
        made = operators()
        kinds.update(
            (name, [(lx.is_symmetric(op), lx.is_positive_semidefinite(op)) for op in ops])
            for name, ops in made.items()
        )
        return {name: [op.as_matrix() for op in ops] for name, ops in made.items()}

    return build(), kinds


@pytest.mark.parametrize("name", ["hessian", "fisher", "mse", "masked", "empirical"])
def test_an_operator_is_the_matrix_of_its_name_however_it_is_made(name, dense, built):
    for matrix in built[0][name]:
        np.testing.assert_allclose(matrix, dense[name], atol=1e-13)


def test_all_are_symmetric_and_all_but_the_hessian_positive(built):
    for name, kinds in built[1].items():
        assert set(kinds) == {(True, name != "hessian")}


def test_sampled_labels_are_unbiased(dense):
    @jax.jit
    def mean(key):
        def one(k):
            return fisher_operator(OUTPUTS, PARAMS, "softmax", key=k).as_matrix()

        many = jax.lax.map(one, jax.random.split(key, 3000), batch_size=500)
        return jnp.mean(many, axis=0), jnp.std(many, axis=0), many[0]

    average, std, first = mean(jax.random.key(0))
    assert np.all(np.abs(average - dense["fisher"]) < 5 * std / 3000**0.5 + 1e-12)
    assert np.linalg.matrix_rank(first) <= N


def test_damping_keeps_the_tag_that_cg_asks_for(dense):
    op = damped_operator(fisher_operator(OUTPUTS, PARAMS, "softmax"), 0.1)
    assert lx.is_positive_semidefinite(op)
    solve = jax.jit(lambda v: lx.linear_solve(op, v, lx.CG(rtol=1e-12, atol=1e-12)).value)
    want = np.linalg.solve(dense["fisher"] + 0.1 * np.eye(FLAT.size), FLAT)
    np.testing.assert_allclose(ravel_pytree(solve(PARAMS))[0], want, rtol=1e-8)
    symmetric = lx.MatrixLinearOperator(-jnp.eye(2), lx.symmetric_tag)
    assert not lx.is_positive_semidefinite(damped_operator(symmetric, 2.0))
    claimed = damped_operator(symmetric, 2.0, positive_semidefinite=True)
    assert lx.is_positive_semidefinite(claimed)
    np.testing.assert_allclose(claimed.as_matrix(), np.eye(2))


def test_a_product_runs_no_more_of_the_function_than_its_linear_part():
    op = hessian_operator(lambda p: jnp.mean(losses(p, X, Y)), PARAMS)
    text = str(jax.make_jaxpr(lambda v: op.mv(v))(PARAMS))
    assert "tanh" not in text
    assert "exp" not in text.replace("expand", "")


def test_an_operator_is_a_pytree_that_goes_into_compiled_functions():
    op = empirical_fisher_operator(lambda p: losses(p, X, Y), PARAMS)
    assert op.transpose() is op
    got = eqx.filter_jit(lambda op, v: op.mv(v))(op, PARAMS)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(op.mv(PARAMS)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


def test_products_keep_float32_and_differentiate_in_the_parameters():
    p32, x32 = jax.tree.map(lambda x: x.astype(jnp.float32), (PARAMS, X))

    def curvature_along(p, x):
        op = hessian_operator(lambda q: jnp.mean(losses(q, x, Y)), p)
        hv = op.mv(jax.tree.map(jnp.ones_like, p))
        return sum(jnp.sum(a) for a in jax.tree.leaves(hv))

    value, grad = jax.jit(jax.value_and_grad(curvature_along))(p32, x32)
    assert value.dtype == jnp.float32
    assert {g.dtype for g in jax.tree.leaves(grad)} == {jnp.dtype(jnp.float32)}
    plus, minus = (
        float(curvature_along({**PARAMS, "b": PARAMS["b"].at[0].add(h)}, X)) for h in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(grad["b"][0], (plus - minus) / 2e-5, rtol=2e-4)


@pytest.mark.slow
def test_on_sharded_data_a_product_reduces_once_and_gathers_nothing():
    from simulated_devices import on_eight_devices

    for kind, found in on_eight_devices(Path(__file__)).items():
        assert found["error"] < 1e-5, kind
        assert found["gathers"] == 0, (kind, found)
        assert found["reduces"] == 1, (kind, found)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"`params`.*int.*'n'"):
        hessian_operator(lambda p: 0.0, {"n": jnp.arange(3)})
    with pytest.raises(ValueError, match="`obj_fn` must return a real floating scalar"):
        hessian_operator(lambda p: p["v"], PARAMS)
    with pytest.raises(ValueError, match="one loss an example"):
        empirical_fisher_operator(lambda p: jnp.sum(p["v"]), PARAMS)
    with pytest.raises(ValueError, match=r"`damping`.*at least zero"):
        damped_operator(lx.MatrixLinearOperator(jnp.eye(2), lx.symmetric_tag), -1.0)
    with pytest.raises(ValueError, match=r"`operator`.*symmetric"):
        damped_operator(lx.MatrixLinearOperator(jnp.eye(2)), 1.0)
    with pytest.raises(ValueError, match=r"`batches`.*leading axis"):
        hessian_operator(lambda p, b: jnp.sum(p["v"]), PARAMS, batches=(X[:3], Y[:2]))
    with pytest.raises(ValueError, match="`loss`"):
        fisher_operator(lambda p: model(p, X), PARAMS, "hinge")
    with pytest.raises(ValueError, match="`targets`"):
        fisher_operator(model, PARAMS, "mse", targets=Y, batches=split(X))


def check_sharded():
    x = jnp.asarray(rng.normal(size=(64, D)), jnp.float32)
    y = jnp.asarray(rng.integers(0, C, 64))
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), PARAMS)
    labels = jax.nn.one_hot(y, C)

    def build(kind):
        def outputs(p, x):
            return model(p, x)

        def loss(p, x, labels):
            return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(model(p, x)), -1))

        if kind == "hessian":
            return lambda p, x, t: hessian_operator(lambda q: loss(q, x, t), p)
        if kind == "ggn":
            return lambda p, x, t: ggn_operator(
                lambda q: outputs(q, x),
                lambda z: -jnp.mean(jnp.sum(t * jax.nn.log_softmax(z), -1)),
                p,
            )
        each = lambda q, x, t: -jnp.sum(t * jax.nn.log_softmax(model(q, x)), -1)
        return lambda p, x, t: empirical_fisher_operator(lambda q: each(q, x, t), p)

    found = {}
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
        rows = NamedSharding(mesh, PartitionSpec("data"))
        for kind in ("hessian", "ggn", "empirical fisher"):

            def product(p, v, x, t, kind=kind):
                return build(kind)(p, x, t).mv(v)

            want = jax.jit(product)(params, params, x, labels)
            with jax.set_mesh(mesh):
                whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
                args = (whole, whole, jax.device_put(x, rows), jax.device_put(labels, rows))
                compiled = jax.jit(product).lower(*args).compile()
                got = compiled(*args)
            text = compiled.as_text()
            error = max(
                float(jnp.max(jnp.abs(jax.device_get(a) - jax.device_get(b))))
                for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
            )
            found[f"{kind}, {axis_type.name}"] = {
                "error": error,
                "reduces": text.count(" all-reduce("),
                "gathers": sum(
                    text.count(f" {name}(")
                    for name in ("all-gather", "all-to-all", "collective-permute")
                ),
            }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check_sharded()) + "\n")
