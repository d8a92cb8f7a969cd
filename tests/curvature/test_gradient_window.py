import functools
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci.curvature import EmpiricalFisherInverse, GradientWindow

M, DAMPING = 12, 0.3
SHAPES = {"a": (3, 4), "b": (17,), "c": ()}
D = 30


def stack(seed=0, m=M, dtype: Any = np.float64):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(m, *s)), dtype) for k, s in SHAPES.items()}


def matrix(tree):
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(tree)], 1)


def tree_of(flat):
    zeros = {k: jnp.zeros(s) for k, s in SHAPES.items()}
    return ravel_pytree(zeros)[1](jnp.asarray(flat))


def flat_of(tree):
    return np.asarray(ravel_pytree(tree)[0])


def dense_inverse(g, damping=DAMPING, total=None):
    return np.linalg.inv(damping * np.eye(g.shape[1]) + g.T @ g / (total or len(g)))


def recursion(g, damping):
    """F^-1 by the rank-one updates of Sherman and Morrison."""
    inverse = np.eye(g.shape[1]) / damping
    for row in g:
        h = inverse @ row
        inverse = inverse - np.outer(h, h) / (len(g) + row @ h)
    return inverse


def dynamic(g, damping, x):
    """F^-1 x by the triangular factors D and B of the authors' optimizer."""
    m = len(g)
    upper = np.linalg.cholesky(g @ g.T / damping + m * np.eye(m)).T
    upper = np.diag(np.diag(upper)) @ upper  # the U of the LU factorisation without pivoting
    c, d = np.diag(upper), upper - m * np.eye(m)
    b = np.zeros((m, m))
    for i in range(m):
        b[i, i] = 1 / damping
        b[i] -= sum((d[j, i] / c[j] * b[j] for j in range(i)), np.zeros(m))
    h = b @ g
    return x / damping - h.T @ ((h @ x) / c)


@functools.cache
def operator():
    return EmpiricalFisherInverse.from_gradients(stack(), DAMPING)


@functools.cache
def pushed(capacity, count, normalize: Any = "capacity", dtype=None):
    window = GradientWindow(capacity, DAMPING, normalize, dtype)
    grads = stack(3, count)
    first = window.init(jax.tree.map(lambda x: x[0], grads))
    return jax.jit(
        lambda s: jax.lax.scan(lambda s, g: (window.push(s, g), s.rejected), s, grads)[0]
    )(first)


def test_products_diagonal_and_elements_are_those_of_the_dense_inverse():
    op, want = operator(), dense_inverse(matrix(stack()))
    x = np.random.default_rng(1).normal(size=D)
    np.testing.assert_allclose(flat_of(op.mv(tree_of(x))), want @ x, atol=1e-10)
    np.testing.assert_allclose(flat_of(op.diagonal()), np.diag(want), atol=1e-10)
    np.testing.assert_allclose(op.as_matrix(), want, atol=1e-10)
    element = jax.jit(lambda i, j: op.element(i, j))
    for i, j in [(0, 0), (3, 17), (27, 28), (29, 2), (12, 29)]:
        np.testing.assert_allclose(element(i, j), want[i, j], atol=1e-10)
    np.testing.assert_allclose(op.element(28), want[28, 28], atol=1e-10)


def test_rows_and_their_combinations_agree_with_the_dense_inverse():
    op, g = operator(), matrix(stack())
    want = dense_inverse(g)
    a = np.random.default_rng(2).normal(size=M)
    np.testing.assert_allclose(flat_of(op.combination(jnp.asarray(a))), want @ g.T @ a, atol=1e-10)
    np.testing.assert_allclose(flat_of(op.apply_to_row(5)), want @ g[5], atol=1e-10)
    np.testing.assert_allclose(op.inner(tree_of(g[2])), g @ g[2], atol=1e-10)


def test_both_recursions_of_the_paper_give_the_same_operator():
    g, op = matrix(stack()), operator()
    np.testing.assert_allclose(op.as_matrix(), recursion(g, DAMPING), atol=1e-10)
    np.testing.assert_allclose(flat_of(op.apply_to_row(4)), dynamic(g, DAMPING, g[4]), atol=1e-10)


def test_the_order_of_the_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(M)
    shuffled = EmpiricalFisherInverse.from_gradients(
        jax.tree.map(lambda x: x[order], stack()), DAMPING
    )
    np.testing.assert_allclose(shuffled.as_matrix(), operator().as_matrix(), atol=1e-10)


def test_one_gradient_is_divided_by_its_damped_square():
    rng = np.random.default_rng(4)
    g, x = rng.normal(size=(2, D))
    op = EmpiricalFisherInverse.from_gradients(jax.tree.map(lambda v: v[None], tree_of(g)), 0.7)
    np.testing.assert_allclose(flat_of(op.mv(tree_of(g))), g / (0.7 + g @ g), atol=1e-12)
    np.testing.assert_allclose(flat_of(op.apply_to_row(0)), g / (0.7 + g @ g), atol=1e-12)
    x -= g * (g @ x) / (g @ g)
    np.testing.assert_allclose(flat_of(op.mv(tree_of(x))), x / 0.7, atol=1e-12)


def test_large_and_small_damping_have_their_limits():
    big = EmpiricalFisherInverse.from_gradients(stack(), 1e9)
    np.testing.assert_allclose(1e9 * big.as_matrix(), np.eye(D), atol=1e-7)
    g = stack(5, 80)
    small = EmpiricalFisherInverse.from_gradients(g, 1e-9)
    full = matrix(g)
    np.testing.assert_allclose(
        small.as_matrix(), np.linalg.inv(full.T @ full / 80), atol=1e-6, rtol=1e-6
    )


def test_a_ring_buffer_holds_the_last_gradients():
    m = 7
    state = pushed(m, 3 * m + 5)
    last = matrix(stack(3, 3 * m + 5))[-m:]
    op = EmpiricalFisherInverse(state)
    np.testing.assert_allclose(op.as_matrix(), dense_inverse(last), atol=1e-10)
    np.testing.assert_allclose(
        flat_of(op.apply_to_row(state.latest)), dense_inverse(last) @ last[-1], atol=1e-10
    )
    rows = matrix(state.rows)
    np.testing.assert_allclose(state.gram, rows @ rows.T, atol=1e-12)
    assert int(state.count) == 3 * m + 5


@pytest.mark.parametrize(("normalize", "total"), [("capacity", 7), ("filled", 3)])
def test_an_unfilled_window_is_divided_as_asked(normalize, total):
    op = EmpiricalFisherInverse(pushed(7, 3, normalize))
    g = matrix(stack(3, 3))
    np.testing.assert_allclose(op.as_matrix(), dense_inverse(g, total=total), atol=1e-10)


def test_an_empty_window_divides_by_the_damping():
    state = GradientWindow(3, 0.5, "filled").init({"w": jnp.ones(4)})
    x = {"w": jnp.arange(4.0)}
    np.testing.assert_allclose(EmpiricalFisherInverse(state).mv(x)["w"], 2 * x["w"])


def test_a_gradient_that_is_not_finite_is_left_out_with_a_flag():
    window = GradientWindow(3, 0.5)
    push = jax.jit(window.push)
    state = push(window.init({"w": jnp.ones(4)}), {"w": jnp.arange(4.0)})
    assert not bool(state.rejected)
    for bad in (jnp.nan, jnp.inf, 1e200):  # the square of the last overflows
        after = push(state, {"w": jnp.array([0.0, bad, 1.0, 0.0])})
        assert bool(after.rejected)
        for x, y in zip(after[:-1], state[:-1], strict=True):
            jax.tree.map(np.testing.assert_array_equal, x, y)
    again = push(after, {"w": jnp.ones(4)})
    assert not bool(again.rejected)
    assert int(again.count) == 2


def ill_conditioned(scale, damping, m=64, d=500):
    g = np.random.default_rng(6).normal(size=(m, d)) * scale / np.sqrt(d)
    g32 = g.astype(np.float32)
    op = EmpiricalFisherInverse.from_gradients(jnp.asarray(g32), jnp.float32(damping))
    exact = g32.astype(np.float64)
    k = exact @ exact.T + m * float(np.float32(damping)) * np.eye(m)
    want = m * exact.T @ np.linalg.solve(k, np.eye(m)[3])
    error = lambda x: np.linalg.norm(np.asarray(x, np.float64) - want) / np.linalg.norm(want)
    return error(op.apply_to_row(3)), error(op.mv(jnp.asarray(g32[3])))


@pytest.mark.parametrize("damping", [1e-1, 1e-3, 1e-5, 1e-7])
def test_the_range_form_keeps_float32_accuracy_for_every_damping(damping):
    ours, generic = ill_conditioned(1.0, damping)
    assert ours <= 1e-6
    if damping <= 1e-5:
        assert generic > 20 * ours
    large, _ = ill_conditioned(70.0, damping)
    assert large <= 1e-6


@pytest.mark.parametrize("damping", [1e-1, 1e-4, 1e-7])
def test_equal_gradients_in_float32_are_resolved_at_any_damping(damping):
    rng = np.random.default_rng(9)
    two = rng.normal(size=(2, 20)).astype(np.float32)
    g = np.concatenate([np.tile(two[0], (30, 1)), 1e-2 * np.tile(two[1], (10, 1))])
    op = EmpiricalFisherInverse.from_gradients(jnp.asarray(g), damping)
    want = dense_inverse(g.astype(np.float64), damping)
    for j in (0, 35):
        direction = want @ g[j]
        error = np.linalg.norm(op.apply_to_row(j) - direction) / np.linalg.norm(direction)
        assert error < (1e-3 if damping < 1e-6 else 5e-2)


@pytest.mark.slow
def test_bfloat16_rows_give_the_operator_of_the_rounded_gradients():
    m = 6
    state = pushed(m, 9, "capacity", jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(state.rows)} == {jnp.dtype(jnp.bfloat16)}
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float64), state.rows)
    want = dense_inverse(matrix(rounded))
    np.testing.assert_allclose(EmpiricalFisherInverse(state).as_matrix(), want, atol=1e-6)


def test_chunks_give_the_operator_of_all_gradients():
    whole = stack()
    chunks = (jax.tree.map(lambda x, s=s: x[s], whole) for s in (np.s_[:5], np.s_[5:6], np.s_[6:]))
    op = EmpiricalFisherInverse.from_chunks(chunks, DAMPING)
    np.testing.assert_allclose(op.as_matrix(), operator().as_matrix(), atol=1e-12)


@pytest.mark.slow
def test_lineax_solves_with_it_as_a_positive_operator():
    op, g = operator(), matrix(stack())
    assert lx.is_symmetric(op)
    assert lx.is_positive_semidefinite(op)
    x = np.random.default_rng(7).normal(size=D)
    solution = lx.linear_solve(op, tree_of(x), lx.CG(rtol=1e-12, atol=1e-12)).value
    fisher = DAMPING * np.eye(D) + g.T @ g / M
    np.testing.assert_allclose(flat_of(solution), fisher @ x, atol=1e-8)
    np.testing.assert_allclose(lx.diagonal(op), np.diag(dense_inverse(g)), atol=1e-10)
    np.testing.assert_allclose(lx.materialise(op).as_matrix(), op.as_matrix(), atol=1e-10)


def test_float32_gradients_stay_float32():
    op = EmpiricalFisherInverse.from_gradients(jnp.ones((3, 2), jnp.float32), DAMPING)
    x = jnp.ones(2, jnp.float32)
    outputs = jax.eval_shape(
        lambda: (op.mv(x), op.diagonal(), op.apply_to_row(0), op.element(1), op.as_matrix())
    )
    assert {v.dtype for v in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_it_differentiates_and_maps():
    g = jnp.asarray(matrix(stack()))
    x = jnp.linspace(-1, 1, D)

    def f(damping):
        return x @ EmpiricalFisherInverse.from_gradients(g, damping).mv(x)

    inverse = dense_inverse(np.asarray(g))
    np.testing.assert_allclose(jax.grad(f)(DAMPING), -x @ inverse @ inverse @ x, rtol=1e-9)
    batch = jnp.array([0.1, DAMPING])
    np.testing.assert_allclose(jax.vmap(f)(batch)[1], x @ inverse @ x, rtol=1e-10)


@pytest.mark.bad_input
def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`damping`"):
        GradientWindow(3, 0.0)
    with pytest.raises(ValueError, match="`capacity`"):
        GradientWindow(0, 0.1)
    with pytest.raises(ValueError, match="`normalize`"):
        GradientWindow(3, 0.1, "rows")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`dtype`"):
        GradientWindow(3, 0.1, dtype=jnp.int8)
    capacity: Any = jnp.asarray(3)
    with pytest.raises(TypeError, match="static_args"):
        GradientWindow(capacity, 0.1)
    with pytest.raises(ValueError, match="`damping`"):
        EmpiricalFisherInverse.from_gradients(jnp.ones((3, 2)), -1.0)
    with pytest.raises(ValueError, match="one leading size"):
        EmpiricalFisherInverse.from_gradients({"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2))}, 1.0)


@pytest.mark.bad_input
def test_gradients_of_another_tree_or_shape_are_refused():
    window = GradientWindow(3, 0.1)
    state = window.init({"w": jnp.ones(4)})
    with pytest.raises(ValueError, match="structure"):
        window.push(state, {"v": jnp.ones(4)})
    with pytest.raises(ValueError, match="shape"):
        window.push(state, {"w": jnp.ones(5)})
    with pytest.raises(TypeError, match="real floating"):
        window.init({"w": jnp.ones(4, jnp.complex64)})
    with pytest.raises(ValueError, match="structure"):
        EmpiricalFisherInverse(state).mv({"v": jnp.ones(4)})
