"""A matrix-free L: functions of h L act on a state through a Krylov space.

A coefficient is a sum of phi functions, f = sum_j w_j phi_j(h L). With an orthonormal basis V of
span(u, L u, .., L^(m-1) u) and H = V^T L V, f u = |u| V f(H) e_1 up to an error that falls faster
than exponentially once m passes sqrt(|h L|) (Hochbruck and Lubich 1997). The small functions come
from the exponential of a bordered matrix (Sidje 1998), their derivatives from the exponential of a
block triangular one, so that gradients are as accurate as values.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._base import check_at_least, is_complex, real_dtype
from ._propagator import AbstractPropagator, pytree_function

_NUM_PHI = 7  # phi_0 to phi_6: moments M_0 to M_5


class KrylovPropagator(AbstractPropagator):
    """A constant linear L that is only known by its action, such as a(x) u_xx.

    Each action of a coefficient costs `krylov_dim` actions of L. For a decaying L, a dimension of a
    few times sqrt(|h L|) is enough; see `error_estimate`. L need only be linear over the real
    numbers: complex states are treated as pairs of real ones, so that products in physical space
    may act on the stored half of a real field's spectrum.

    Reverse-mode derivatives are those of the exact action, also where the Krylov space is invariant
    (a state with few modes). Forward mode is available on top of reverse mode only.

    **Arguments:**

    - `operator`: a linear function of the state, or a `lineax.AbstractLinearOperator`. To
        differentiate through `diffrax.diffeqsolve` with respect to its parameters, give an
        `equinox.Module` that holds them.
    - `krylov_dim`: dimension of the Krylov spaces, at most that of the state.
    - `rtol`, `max_steps`: relative tolerance and number of GMRES steps of `solve`, whose result is
        NaN if it does not converge.

    **Raises:** `ValueError` for a dimension below 1, `TypeError` for what is no function.
    """

    operator: Callable[[PyTree[Array]], PyTree[Array]] | lx.AbstractLinearOperator
    krylov_dim: int
    rtol: float
    max_steps: int

    def __init__(
        self,
        operator: Callable[..., PyTree[Array]] | lx.AbstractLinearOperator,
        *,
        krylov_dim: int = 32,
        rtol: float = 1e-8,
        max_steps: int = 1000,
    ):
        check_at_least("krylov_dim", krylov_dim, 1)
        if not isinstance(operator, lx.AbstractLinearOperator):
            operator = pytree_function("operator", operator)
        self.operator = operator
        self.krylov_dim = krylov_dim
        self.rtol = rtol
        self.max_steps = max_steps

    @property
    def constant(self) -> bool:
        """True."""
        return True

    def propagate(self, t0, t1):
        """exp(h L), h = t1 - t0, as weights of phi functions."""
        return _coefficient(t0, t1, 0, 0)

    def moments(self, t0, t1, num):
        """M_k = h^(k+1) phi_{k+1}(h L), as weights of phi functions."""
        check_at_least("num", _NUM_PHI - 1 - num, 0)
        return tuple(_coefficient(t0, t1, k + 1, k + 1) for k in range(num))

    def act(self, coefficient, u):
        """Apply sum_j w_j phi_j(h L) to a state."""
        x, operator, unravel = self._real(u)
        h, weights = _decoded(coefficient, x.dtype)
        return unravel(_action((operator, h, weights, x), min(self.krylov_dim, x.size)))

    def error_estimate(
        self, coefficient: Float[Array, "..."], u: PyTree[Array]
    ) -> Float[Array, ""]:
        """Estimate of the Euclidean norm of the error of `act`, from the size of its residual.

        |u| h H_{m+1,m} |e_m^T sum_j w_j phi_{j+1}(h H) e_1| (Saad 1992).
        """
        x, operator, _ = self._real(u)
        h, weights = _decoded(coefficient, x.dtype)
        dim = min(self.krylov_dim, x.size)
        _, hessenberg, size = _arnoldi(operator, x, dim)
        phis = _small_phis(h * hessenberg[:dim], _NUM_PHI + 1)
        return size * jnp.abs(h * hessenberg[dim, dim - 1] * (phis[dim - 1, 1:] @ weights))

    def apply(self, t, u):
        """L u."""
        if isinstance(self.operator, lx.AbstractLinearOperator):
            return self.operator.mv(u)
        return self.operator(u)

    def solve(self, t, a, rhs):
        """(I - a L)^{-1} rhs by GMRES."""
        x, operator, unravel = self._real(rhs)
        a = jnp.asarray(a, x.dtype)
        matrix = lx.FunctionLinearOperator(
            lambda v: v - a * operator(v), jax.ShapeDtypeStruct(x.shape, x.dtype)
        )
        solver = lx.GMRES(
            rtol=self.rtol,
            atol=0.0,
            restart=min(self.krylov_dim, x.size),
            stagnation_iters=min(self.krylov_dim, x.size),
            max_steps=self.max_steps,
        )
        solution = lx.linear_solve(matrix, x, solver, throw=False)
        failed = solution.result != lx.RESULTS.successful
        return unravel(jnp.where(failed, jnp.nan, solution.value))

    def _real(self, u):
        """The state as one real vector, L on such vectors, and the way back."""
        split = jax.tree.map(lambda x: (x.real, x.imag) if is_complex(x) else x, u)
        x, unravel = ravel_pytree(split)
        complex_leaves = jax.tree.map(is_complex, u)

        def back(x):
            return jax.tree.map(
                lambda c, part: jax.lax.complex(*part) if c else part, complex_leaves, unravel(x)
            )

        def on_vector(v):
            out = self.apply(0.0, back(v))
            if jax.tree.structure(out) != jax.tree.structure(u) or any(
                a.shape != b.shape for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(u))
            ):
                raise ValueError(
                    "`operator` must return the structure and shapes of the state, got "
                    f"{eqx.tree_pformat(out)} for {eqx.tree_pformat(u)}."
                )
            # A real operator may return a real array for a complex state, and in its own precision.
            parts = jax.tree.map(
                lambda a, c: (jnp.real(a), jnp.imag(a)) if c else a, out, complex_leaves
            )
            return ravel_pytree(parts)[0].astype(v.dtype)

        return x, eqx.filter_closure_convert(on_vector, x), back


def _coefficient(t0, t1, index, power):
    """Weights and weights times h: linear, so that coefficients of one h may be combined."""
    h = jnp.asarray(t1 - t0, real_dtype(t1 - t0))
    weight = h**power
    return jnp.zeros((2, _NUM_PHI), h.dtype).at[:, index].set(jnp.stack([weight, h * weight]))


def _decoded(coefficient, dtype):
    """h and the weights of a coefficient."""
    weights, scaled = coefficient.astype(dtype)
    largest = jnp.argmax(jnp.abs(weights))
    zero = weights[largest] == 0
    h = jnp.where(zero, 0, scaled[largest] / jnp.where(zero, 1, weights[largest]))
    return h, weights


def _normalised(w, threshold):
    """Norm and direction of w, both zero, with finite derivatives, below the threshold."""
    square = jnp.sum(w**2)
    kept = square > threshold**2
    norm = jnp.where(kept, jnp.sqrt(jnp.where(kept, square, 1)), 0)
    return norm, jnp.where(kept, w / jnp.where(kept, norm, 1), 0)


def _arnoldi(operator: Callable[[Array], Array], x, dim):
    """Rows of an orthonormal basis (dim + 1, n), Hessenberg matrix (dim + 1, dim), and |x|.

    Gram-Schmidt twice. Where the space is invariant the remaining vectors and entries are zero.
    """
    size, first = _normalised(x, 0)
    basis = jnp.zeros((dim + 1, x.size), x.dtype).at[0].set(first)
    tolerance = 10 * jnp.finfo(x.dtype).eps

    def step(basis, j):
        w = operator(basis[j])
        before = jax.lax.stop_gradient(jnp.sqrt(jnp.sum(w**2)))
        column = jnp.zeros(dim + 1, x.dtype)
        for _ in range(2):
            along = basis @ w
            w = w - along @ basis
            column = column + along
        norm, direction = _normalised(w, tolerance * before)
        return basis.at[j + 1].set(direction), column.at[j + 1].set(norm)

    basis, columns = jax.lax.scan(step, basis, jnp.arange(dim))
    return basis, columns.T, size


def _bordered(matrix, num):
    """[[A, e_1, 0], [0, 0, I], [0, 0, 0]], whose exponential holds exp(A) and phi_j(A) e_1."""
    m = len(matrix)
    out = jnp.zeros((m + num, m + num), matrix.dtype).at[:m, :m].set(matrix)
    rows = jnp.arange(num - 1)
    return out.at[0, m].set(1).at[m + rows, m + rows + 1].set(1)


def _small_phis(matrix, num):
    """Columns phi_0(A) e_1, ..., phi_{num-1}(A) e_1."""
    m = len(matrix)
    exponential = _expm(_bordered(matrix, num - 1))
    return jnp.concatenate([exponential[:m, :1], exponential[:m, m:]], axis=1)


def _expm(matrix):
    return jax.scipy.linalg.expm(matrix, max_squarings=48)


def _value(operator, h, weights, x, dim):
    basis, hessenberg, size = _arnoldi(operator, x, dim)
    small = _small_phis(h * hessenberg[:dim], _NUM_PHI)
    return size * ((small @ weights) @ basis[:dim]), (basis, hessenberg, size, small)


@eqx.filter_custom_vjp
def _action(vjp_arg, dim):
    operator, h, weights, x = vjp_arg
    return _value(operator, h, weights, x, dim)[0]


@_action.def_fwd
def _action_forward(perturbed, vjp_arg, dim):
    operator, h, weights, x = vjp_arg
    return _value(operator, h, weights, x, dim)


@_action.def_bwd
def _action_backward(residuals, cotangent, perturbed, vjp_arg, dim):
    """Adjoint of y(1), y' = h L y + sum_j w_{j+1} s^j/j! x, y(0) = w_0 x.

    The adjoint state is exp((1 - s) h L^T) cotangent; the gradient with respect to h L is the
    integral of its product with y, of rank at most dim.
    """
    operator, h, weights, x = vjp_arg
    basis, hessenberg, size, small = residuals
    differentiable, rest = eqx.partition(operator, eqx.is_inexact_array)
    transpose = jax.linear_transpose(operator, x)
    dual, dual_hessenberg, dual_size = _arnoldi(lambda v: transpose(v)[0], cotangent, dim)
    dual_small = _small_phis(h * dual_hessenberg[:dim], _NUM_PHI)
    x_bar = dual_size * ((dual_small @ weights) @ dual[:dim])
    weights_bar = size * ((basis[:dim] @ cotangent) @ small)

    # y(s) = |x| V q(s); q and the powers s^j/j! solve one linear system.
    num = _NUM_PHI - 1
    rows = jnp.arange(num - 1)
    system = jnp.zeros((dim + num, dim + num), x.dtype)
    system = system.at[:dim, :dim].set(h * hessenberg[:dim]).at[0, dim:].set(weights[1:])
    system = system.at[dim + 1 + rows, dim + rows].set(1)
    start = jnp.zeros(dim + num, x.dtype).at[0].set(weights[0]).at[dim].set(1)
    coupling = jnp.zeros((dim, dim + num), x.dtype).at[0].set(start)
    joint = jnp.block(
        [
            [h * dual_hessenberg[:dim], coupling],
            [jnp.zeros((dim + num, dim), x.dtype), system.T],
        ]
    )
    product = size * dual_size * _expm(joint)[:dim, dim : 2 * dim]
    images = hessenberg.T @ basis
    h_bar = jnp.sum(product * (dual[:dim] @ images.T))

    def actions(differentiable):
        return jax.vmap(eqx.combine(differentiable, rest))(basis[:dim])

    _, pull = jax.vjp(actions, differentiable)
    (operator_bar,) = pull(h * (product.T @ dual[:dim]))
    return operator_bar, h_bar, weights_bar, x_bar
