import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsci._base import (
    bind,
    body_of,
    equation_kind,
    evaluate,
    scan_sizes,
    trace,
    traceable_leaves,
    use_counts,
)


@jax.custom_vjp
def negated_gradient(x):
    return 2 * x


negated_gradient.defvjp(lambda x: (2 * x, None), lambda _, ct: (-2 * ct,))

KINDS = {
    "call": lambda x: jax.jit(jnp.sin)(x),
    "checkpoint": lambda x: jax.checkpoint(jnp.sin)(x),
    "custom": lambda x: negated_gradient(x),
    "scan": lambda x: lax.scan(lambda c, x: (c + x, c * x), x[0], x)[1],
    "while": lambda x: lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: 2 * x, x),
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "other": lambda x: jax.custom_batching.sequential_vmap(jnp.sin)(x),
    None: lambda x: jnp.sin(x),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equations_are_told_apart_by_what_they_hold(kind):
    jaxpr, _ = trace(KINDS[kind], jnp.ones(3))
    assert equation_kind(jaxpr.jaxpr.eqns[-1]) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_a_program_gives_what_the_function_gives(kind):
    x = jnp.array([0.3, 1.0, 2.0])
    jaxpr, _ = trace(KINDS[kind], x)
    (out,) = evaluate(jaxpr.jaxpr, jaxpr.consts, [x], lambda *_: None)
    np.testing.assert_allclose(out, KINDS[kind](x), rtol=1e-15)


def test_derivative_rules_survive_evaluation():
    jaxpr, _ = trace(negated_gradient, 1.0)
    run = lambda x: evaluate(jaxpr.jaxpr, jaxpr.consts, [x], lambda *_: None)[0]
    assert jax.grad(run)(1.0) == -2


def test_a_rule_replaces_equations_and_sees_where_they_stand():
    jaxpr, _ = trace(lambda x: jnp.sin(jax.jit(lambda x: jnp.cos(x) + 1)(x)), 1.0)
    seen = []

    def rule(eqn, values, path):
        seen.append((eqn.primitive.name, path))
        if equation_kind(eqn) == "call":
            body, consts = body_of(eqn)
            return evaluate(body, consts, values, rule, path)
        return [values[0] * 10] if eqn.primitive.name == "sin" else None

    (out,) = evaluate(jaxpr.jaxpr, jaxpr.consts, [0.0], rule)
    assert out == 20
    names, paths = zip(*seen)
    assert names[1:] == ("cos", "add", "sin")
    assert paths == ((0,), (0, 0), (0, 1), (1,))


def test_the_inputs_of_a_scan_are_split_into_constants_carries_and_the_rest():
    def fn(w, c, xs):
        step = lambda c, x: ({"a": c["a"] * w, "b": c["b"] + w}, x["u"] + x["v"])
        return lax.scan(step, c, xs)

    carry = {"a": jnp.ones(2), "b": jnp.ones(2)}
    jaxpr, _ = trace(fn, jnp.ones(2), carry, {"u": jnp.ones(5), "v": jnp.ones(5)})
    (eqn,) = [e for e in jaxpr.jaxpr.eqns if equation_kind(e) == "scan"]
    assert scan_sizes(eqn) == (1, 2, 5)


def test_results_count_as_uses():
    jaxpr, _ = trace(lambda x: (x, x + x, jnp.sin(x)), 1.0)
    assert use_counts(jaxpr.jaxpr)[jaxpr.jaxpr.invars[0]] == 4


def test_leaves_that_are_not_arrays_are_fixed():
    def fn(x, options):
        return options["activation"](x) * options["scale"]

    args = (jnp.ones(3), {"activation": jnp.sin, "scale": jnp.array(2.0), "name": "sine"})
    jaxpr, out = trace(fn, *args)
    assert len(jaxpr.jaxpr.invars) == len(traceable_leaves(*args)) == 2
    assert out.shape == (3,)


def test_described_arrays_can_be_traced():
    jaxpr, out = trace(jnp.sin, jax.ShapeDtypeStruct((4,), jnp.float32))
    assert (out.shape, out.dtype) == ((4,), jnp.float32)
    (value,) = bind(jaxpr.jaxpr.eqns[0], [jnp.zeros(4)])
    assert np.all(np.asarray(value) == 0)
