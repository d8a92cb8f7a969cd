"""Semilinear equations with additive noise, du = (L u + N(t, u)) dt + Q dW.

The noise is white in time. W holds one standard complex Brownian motion for each Fourier mode,
E|W_k(t)|^2 = t, with the symmetry of a real field on a real grid; Q multiplies each by its
amplitude. Coefficients are unscaled, so that the mean square of a field of n points gains
sum_k (Q_k/n)^2 per unit of time, over all modes of the full spectrum.
"""

import abc
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float, PRNGKeyArray

from .._base import check_finite, check_positive, real_dtype
from ._diffrax_compat import unwrap
from ._etdrk import ETDRK1
from ._propagator import broadcast, cast_coefficients, DiagonalPropagator
from ._scaled_propagator import ScaledPropagator
from ._solver import AbstractSemilinearSolver, combine, reuse_or
from ._term import SemilinearTerm
from ._time_varying_propagator import TimeVaryingPropagator


class SpectralBrownianPath(diffrax.AbstractBrownianPath):
    """Brownian motion of Fourier coefficients: the transform of white noise at the grid points.

    Increments have E|dW_k|^2 = t1 - t0 in every mode, real parts and imaginary parts alike but for
    the modes of a real grid that are real; coefficients of different modes are independent. On a
    real grid increments are exactly those of a real field.

    **Arguments:**

    - `grid`: a `jaxsci.spectral.FourierGrid`.
    - `key`: random key.
    - `channels`: number of fields.
    - `t0`, `t1`, `tol`: the times between which the path is defined, and the time below which it is
        not resolved, as for `diffrax.VirtualBrownianTree`: increments over parts of an interval
        then add up to that over the whole. Without them each interval draws afresh, which is
        faster and right for solves of one step size whose path is not asked for again.
    - `dtype`: real dtype of the noise.
    """

    grid: Any
    path: diffrax.AbstractBrownianPath

    def __init__(
        self,
        grid: Any,
        key: PRNGKeyArray,
        *,
        channels: int = 1,
        t0: Any = None,
        t1: Any = None,
        tol: Any = None,
        dtype: Any = float,
    ):
        self.grid = grid
        parts = () if grid.real else (2,)
        shape = jax.ShapeDtypeStruct((*parts, channels, *grid.shape), real_dtype(dtype))
        given = [x is not None for x in (t0, t1, tol)]
        if all(given):
            check_positive("tol", tol)
            self.path = diffrax.VirtualBrownianTree(t0, t1, tol, shape, key)
        elif any(given):
            raise ValueError(
                f"Give all of `t0`, `t1` and `tol` or none, got {t0!r}, {t1!r} and {tol!r}."
            )
        else:
            self.path = diffrax.UnsafeBrownianPath(shape, key)

    @property
    def levy_area(self) -> Any:
        """Increments only."""
        return diffrax.BrownianIncrement

    @property
    def t0(self) -> Any:
        """Start of the path."""
        return self.path.t0

    @property
    def t1(self) -> Any:
        """End of the path."""
        return self.path.t1

    def evaluate(self, t0, t1=None, left=True, use_levy=False) -> Complex[Array, "..."]:
        """The increment from t0 to t1, `(channels, *grid.spectral_shape)`."""
        w = self.path.evaluate(t0, t1)
        if not self.grid.real:
            w = jax.lax.complex(w[0], w[1]) / jnp.sqrt(jnp.asarray(2, w.dtype))
        return self.grid.fft(w) / jnp.sqrt(jnp.asarray(self.grid.num_points, real_dtype(w)))


class NoiseTerm(diffrax.AbstractTerm):
    """Q dW, for `diffrax.MultiTerm(SemilinearTerm(...), NoiseTerm(...))`.

    **Arguments:**

    - `amplitude`: Q, real, broadcastable to the state; in units of the unscaled coefficients per
        square root of time. `jaxsci.pde.ring_forcing` and `jaxsci.pde.white_noise` make some.
    - `path`: usually a `SpectralBrownianPath`.
    - `real_state`: as for the `SemilinearTerm` beside it.
    """

    amplitude: Float[Array, "..."]
    path: diffrax.AbstractBrownianPath
    real_state: bool

    def __init__(
        self,
        amplitude: Float[ArrayLike, "..."],
        path: diffrax.AbstractBrownianPath,
        *,
        real_state: bool = False,
    ):
        check_finite("amplitude", amplitude)
        self.amplitude = jnp.asarray(amplitude)
        self.path = path
        self.real_state = real_state

    def vf(self, t, y, args):
        """The amplitude."""
        return self.amplitude

    def contr(self, t0, t1, **kwargs):
        """The increment of the path."""
        return self.path.evaluate(t0, t1, **kwargs)

    def scaled(self, control: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Q dW."""
        return broadcast(lambda q, w: q.astype(real_dtype(w)) * w, self.amplitude, control)

    def prod(self, vf, control):
        """Q dW as the solver sees it."""
        noise = broadcast(lambda q, w: q.astype(real_dtype(w)) * w, vf, control)
        return jnp.stack([noise.real, noise.imag]) if self.real_state else noise


class _AbstractStochasticSolver(diffrax.AbstractItoSolver):
    """What the two methods share: coefficients are kept as long as the step stays the same."""

    term_structure: ClassVar = diffrax.MultiTerm[tuple[SemilinearTerm, NoiseTerm]]
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    @abc.abstractmethod
    def _start(self, term: SemilinearTerm, t0: Any, u0: Any, args: Any) -> Any:
        """History of the drift method."""

    @abc.abstractmethod
    def _coefficients(self, term: SemilinearTerm, t0: Any, h: Any) -> Any:
        """Coefficients of the step from t0 to t0 + h."""

    @abc.abstractmethod
    def _advance(
        self,
        term: SemilinearTerm,
        coefficients: Any,
        t0: Any,
        h: Any,
        u0: Any,
        args: Any,
        history: Any,
        dw: Any,
    ) -> tuple[Any, Any]:
        """The state at t0 + h and the history, given the increment Q dW."""

    def strong_order(self, terms):
        """Strong order; the noise is additive."""
        return 1

    def func(self, terms, t0, y0, args):
        """The drift."""
        return terms.terms[0].vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args):
        """Coefficients of the first step, and the history of the drift method."""
        term, _ = _parts(terms)
        u0, h = term.decode(y0), t1 - t0
        coefficients = cast_coefficients(self._coefficients(term, t0, h), u0)
        return h, coefficients, self._start(term, t0, u0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        term, noise = _parts(terms)
        u0 = term.decode(y0)
        old_h, coefficients, history = solver_state
        h = t1 - t0

        def recompute():
            return h, cast_coefficients(self._coefficients(term, t0, h), u0)

        h, coefficients = reuse_or(recompute, term, t0, t1, h, old_h, coefficients)
        if made_jump is not False:
            restart = lambda: self._start(term, t0, u0, args)
            history = jax.lax.cond(made_jump, restart, lambda: history)
        dw = noise.scaled(noise.contr(t0, t1))
        u1, history = self._advance(term, coefficients, t0, h, u0, args, history, dw)
        y1 = term.encode(term.project(u1))
        info = {"y0": y0, "y1": y1}
        return y1, None, info, (h, coefficients, history), diffrax.RESULTS.successful


class ExponentialEulerMaruyama(_AbstractStochasticSolver):
    """u1 = (one step of the drift) + the stochastic convolution, drawn exactly in law.

    int_0^h exp((h - s) L) Q dW is Gaussian with variance Q^2 int_0^h exp(2 s Re L) ds in each mode.
    The increment of the path is scaled to that variance, so that for N = 0 the distribution is
    exact for any step; on one path the method converges with strong order 1. Jentzen and Kloeden
    2009. Needs a diagonal L, constant or varying in time; forwards in time only.

    **Arguments:**

    - `drift`: the method for the drift, by default exponential Euler. A higher order pays off where
        the noise is weak.
    """

    drift: AbstractSemilinearSolver = ETDRK1()

    def order(self, terms):
        """Order without noise."""
        return self.drift.order(terms)

    def _start(self, term, t0, u0, args):
        return self.drift.start(term, t0, u0, args)

    def _coefficients(self, term, t0, h):
        return self.drift.coefficients(term, t0, h), _convolution(term.linear, t0, h)

    def _advance(self, term, coefficients, t0, h, u0, args, history, dw):
        drift, convolution = coefficients
        u1, _, _, history = self.drift.advance(term, drift, t0, h, u0, args, history)
        return combine((1, u1), (1, term.linear.act(convolution, dw))), history


class LordRougemont(_AbstractStochasticSolver):
    """u1 = exp(h L)(u + h N(u) + Q dW): the noise inside the propagator.

    Strong order 1 on a given path, for any propagator; the stationary spectrum is right up to
    relative errors of size h |L|. Lord and Rougemont 2004.
    """

    def order(self, terms):
        """Order without noise."""
        return 1

    def _start(self, term, t0, u0, args):
        return None

    def _coefficients(self, term, t0, h):
        return term.linear.propagate(t0, t0 + h)

    def _advance(self, term, coefficients, t0, h, u0, args, history, dw):
        n0 = term.nonlinear(t0, u0, args)
        return term.linear.act(coefficients, combine((1, u0), (h, n0), (1, dw))), None


def _parts(terms):
    """The two terms; a solve backwards in time has no meaning for an exact law."""
    term, _ = unwrap(terms.terms[0])
    noise, _ = unwrap(terms.terms[1])
    return term, noise


def _convolution(linear, t0, h):
    """Factor from an increment of the path to the stochastic convolution over it."""
    t1 = t0 + h
    if isinstance(linear, DiagonalPropagator):
        integral = jax.tree.map(lambda s: jnp.asarray(h, real_dtype(s)) * s, linear.diagonal)
    elif isinstance(linear, ScaledPropagator | TimeVaryingPropagator):
        integral = linear.integral(t0, t1)
    else:
        raise TypeError(
            "`ExponentialEulerMaruyama` needs a diagonal L (`DiagonalPropagator`, "
            f"`ScaledPropagator` or `TimeVaryingPropagator`), got {type(linear).__name__}; "
            "use `LordRougemont`."
        )
    (variance,) = _doubled_real_part(linear).moments(t0, t1, 1)

    def factor(variance, integral):
        size = jnp.sqrt(variance / jnp.asarray(h, variance.dtype))
        # The middle of the step is the phase that correlates best with the path.
        if jnp.iscomplexobj(integral):
            return size * jnp.exp(0.5j * integral.imag)
        return size

    return jax.tree.map(factor, variance, integral)


def _doubled_real_part(linear):
    double = lambda tree: jax.tree.map(lambda s: 2 * jnp.real(s), tree)
    if isinstance(linear, DiagonalPropagator):
        return DiagonalPropagator(double(linear.diagonal))
    if isinstance(linear, ScaledPropagator):
        doubled = double(linear.unscaled)
        return eqx.tree_at(lambda x: x.symbol, linear, doubled)
    return TimeVaryingPropagator(lambda t: double(linear.diagonal(t)), points=linear.points)
