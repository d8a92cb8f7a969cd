"""Closures with a neural network inside, equivariant under rotations and reflections by design."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from .._base import check_at_least
from ._closure import Closure, FourthHarmonicClosure
from ._moments import tensor_to_traceless, traceless_to_tensor


def sine_mlp(
    in_size: int, out_size: int, *, width: int = 50, depth: int = 5, key: PRNGKeyArray
) -> eqx.nn.MLP:
    """Multilayer perceptron with sine activations, Xavier-normal weights and zero biases.

    `sine_mlp(3, 5, key=key)` has the 10 655 parameters of Maddu et al. (2024).

    **Arguments:**

    - `in_size`, `out_size`: number of inputs and outputs.
    - `width`, `depth`: size and number of the hidden layers.
    - `key`: random key.
    """
    for name, value in (("in_size", in_size), ("out_size", out_size), ("width", width)):
        check_at_least(name, value, 1)
    check_at_least("depth", depth, 0)
    mlp = eqx.nn.MLP(in_size, out_size, width, depth, activation=jnp.sin, key=key)
    xavier = jax.nn.initializers.glorot_normal()
    weights = [
        xavier(k, layer.weight.shape, layer.weight.dtype)
        for k, layer in zip(jax.random.split(key, depth + 1), mlp.layers)
    ]
    biases = [jnp.zeros(layer.out_features, layer.weight.dtype) for layer in mlp.layers]
    return eqx.tree_at(
        lambda m: [layer.weight for layer in m.layers] + [layer.bias for layer in m.layers],
        mlp,
        weights + biases,
    )


def _pointwise(mlp: Callable, features: list[Array], num_outputs: int) -> Array:
    """`mlp` at every point of fields of one shape, in its own precision; outputs come first."""
    x = jnp.stack(features, axis=-1)
    weights = [w for w in jax.tree.leaves(mlp) if eqx.is_inexact_array(w)]
    flat = x.reshape((-1, len(features))).astype(weights[0].dtype if weights else x.dtype)
    out = jax.vmap(mlp)(flat)
    if out.shape != (flat.shape[0], num_outputs):
        raise ValueError(
            f"`mlp` must map {len(features)} numbers to {num_outputs}, got an output of shape "
            f"{out.shape[1:]}."
        )
    return jnp.moveaxis(out.astype(x.dtype).reshape((*x.shape[:-1], num_outputs)), -1, 0)


class TensorBasisClosure(Closure):
    """The closure of Maddu, Weady and Shelley (2024): tensors D and E with learned coefficients.

    With Q = D/c, S:E = c (a_0 I + a_1 Q + a_2 E) and S:D = c^2 (b_0 I + b_1 Q), where the network
    maps (tr Q^2, tr E^2, tr QE), a complete set of joint invariants in the plane, to
    (b_0, b_1, a_0, a_1, a_2). For c = 1 this is the paper's form; the powers of c make S
    proportional to the density.

    The predicted traces are free outputs of the network: nothing makes them equal to those of a
    fourth moment, tr S:E = D:E and tr S:D = D:D. They matter to the training target only, since the
    moment equations use the traceless parts. `LearnedFourthHarmonic` has exact traces.

    **Arguments:**

    - `mlp`: callable from 3 to 5 numbers, e.g. `sine_mlp(3, 5, key=key)`.
    """

    mlp: Callable
    linear_in_strain: ClassVar[bool] = False

    def _coefficients(self, c, z, eps):
        q2 = (z.real**2 + z.imag**2) / c**2
        e2 = eps.real**2 + eps.imag**2
        qe = (z * eps.conj()).real / c
        return _pointwise(self.mlp, [(1 + q2) / 2, 2 * e2, qe], 5)

    def contractions(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Complex[Array, "*grid"], Complex[Array, "*grid"]]:
        """Traceless parts of S:E and S:D; see `Closure.contractions`."""
        _, b1, _, a1, a2 = self._coefficients(c, z, eps)
        return a1 * z / 2 + c * a2 * eps, c * b1 * z / 2

    def traces(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
        """The predicted traces of S:E and S:D; see `Closure.traces`."""
        b0, b1, a0, a1, _ = self._coefficients(c, z, eps)
        return c * (2 * a0 + a1), c**2 * (2 * b0 + b1)

    def __call__(
        self,
        d: Float[Array, "2 2 *grid"],
        e: Float[Array, "2 2 *grid"],
        zeta: Float[Array, "..."] | float,
    ) -> Float[Array, "2 2 *grid"]:
        """The tensor S:T, T = E + 2 zeta D.

        **Arguments:**

        - `d`: second moment D.
        - `e`: rate of strain E, symmetric and traceless.
        - `zeta`: strength of the steric alignment, a scalar or a field.
        """
        c, z, eps = d[0, 0] + d[1, 1], 2 * tensor_to_traceless(d), tensor_to_traceless(e)
        b0, b1, a0, a1, a2 = self._coefficients(c, z, eps)
        identity = jnp.eye(2).reshape((2, 2) + (1,) * c.ndim).astype(d.dtype)
        on_identity = c * a0 + 2 * zeta * c**2 * b0
        on_moment = a1 + 2 * zeta * c * b1
        return on_identity * identity + on_moment * d + c * a2 * traceless_to_tensor(eps)


def _bound_to_unit_disc(y: Complex[Array, "*grid"]) -> Complex[Array, "*grid"]:
    """y tanh(|y|)/|y|, smooth at zero."""
    square = y.real**2 + y.imag**2
    small = square < 1e-4
    modulus = jnp.sqrt(jnp.where(small, 1, square))
    series = 1 - square / 3 + 2 * square**2 / 15 - 17 * square**3 / 315
    return y * jnp.where(small, series, jnp.tanh(modulus) / modulus)


class LearnedFourthHarmonic(FourthHarmonicClosure):
    """A learned a_4 that no input takes out of the realisable set.

    A density exists with modes (c, z, a_4) if and only if |a_4 - z^2/c| <= c - |z|^2/c (its
    Toeplitz matrix is positive semi-definite). With zeta = z/c, a_4 = z^2/c + (c - |z|^2/c) b, and
    b = y tanh(|y|)/|y| in the unit disc with y = h_1 zeta^2 + h_2 zeta eps + h_3 eps^2. The
    coefficients h are real functions of |zeta|^2, |eps|^2 and Re(zeta conj(eps)), which makes the
    closure equivariant under rotations and reflections. The traces of S:E and S:D are exact.

    **Arguments:**

    - `mlp`: callable from 3 to 3 numbers, e.g. `sine_mlp(3, 3, key=key)`.
    """

    mlp: Callable
    linear_in_strain: ClassVar[bool] = False

    def __call__(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> Complex[Array, "*grid"]:
        """a_4; arguments as for `FourthHarmonicClosure`."""
        order = z / c
        r2 = order.real**2 + order.imag**2
        e2 = eps.real**2 + eps.imag**2
        h1, h2, h3 = _pointwise(self.mlp, [r2, e2, (order * eps.conj()).real], 3)
        y = h1 * order**2 + h2 * order * eps + h3 * eps**2
        radius = c * jnp.where(r2 <= 1, 1 - r2, 0)
        return z**2 / c + radius * _bound_to_unit_disc(y)
