"""What a closure of the moment equations is, and the algebraic ones.

The equations for (c, z) need the fourth moment S only contracted with E and with D. A closure
gives these contractions from the local (c, z, eps); one that models the fourth angular mode a_4
gets them, and their traces, exactly.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar
from jaxtyping import Array, Complex, Float

from ._moments import contract_with_second_moment, contract_with_strain


class Closure(eqx.Module):
    """Abstract base class of closures: S:E and S:D from concentration, order and rate of strain.

    All fields have one shape, the grid's; closures that act point by point accept any shape.
    Subclasses set `linear_in_strain`: whether S:E is linear in E and S:D independent of it, so that
    the Stokes problem with the particle stress is linear.
    """

    linear_in_strain: AbstractClassVar[bool]

    @abc.abstractmethod
    def contractions(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Complex[Array, "*grid"], Complex[Array, "*grid"]]:
        """Traceless parts of S:E and S:D; with T = E + 2 zeta D, S:T = S:E + 2 zeta S:D.

        **Arguments:**

        - `c`: concentration a_0.
        - `z`: second angular mode a_2.
        - `eps`: rate of strain E_11 + i E_12.

        **Returns:**

        The traceless parts of S:E and of S:D as complex fields.
        """

    def traces(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
        """Traces of S:E and S:D. Those of any S with tr S = D are known: D:E and D:D.

        They do not enter the moment equations (the trace of D stays c), only the training target.
        Arguments as for `contractions`.
        """
        return (eps * z.conj()).real, (c**2 + jnp.abs(z) ** 2) / 2


class FourthHarmonicClosure(Closure):
    """Abstract base class of closures that model the fourth angular mode a_4.

    S is then a symmetric tensor with tr S = D, whatever a_4 is. Calling the closure gives a_4.
    """

    @abc.abstractmethod
    def __call__(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> Complex[Array, "*grid"]:
        """The fourth angular mode a_4.

        **Arguments:**

        - `c`: concentration a_0.
        - `z`: second angular mode a_2.
        - `eps`: rate of strain E_11 + i E_12.
        """

    def contractions(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Complex[Array, "*grid"], Complex[Array, "*grid"]]:
        """Traceless parts of S:E and S:D from a_4; see `Closure.contractions`."""
        a4 = self(c, z, eps)
        return contract_with_strain(c, z, a4, eps), contract_with_second_moment(c, z, a4)


class IsotropicFourthHarmonic(FourthHarmonicClosure):
    """a_4 = 0: exact to first order about isotropy, unrealisable in the nematic state."""

    linear_in_strain: ClassVar[bool] = True

    def __call__(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> Complex[Array, "*grid"]:
        """a_4 = 0; arguments as for `FourthHarmonicClosure`."""
        return jnp.zeros_like(z)


class QuadraticFourthHarmonic(FourthHarmonicClosure):
    """a_4 = z^2 / c: the centre of the realisable disc, exact at isotropy and at full alignment."""

    linear_in_strain: ClassVar[bool] = True

    def __call__(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> Complex[Array, "*grid"]:
        """a_4 = z^2 / c; arguments as for `FourthHarmonicClosure`."""
        return z**2 / c


class QuadraticTensorClosure(Closure):
    """S = D D / c, the classical quadratic closure (Doi 1981).

    Not a symmetric fourth moment: it gives the wrong growth rate of perturbations of the isotropic
    state, (zeta beta - alpha)/2 + 2 zeta - 4 d_r - d_t k^2. Kept as the baseline that fails.
    """

    linear_in_strain: ClassVar[bool] = True

    def contractions(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> tuple[Complex[Array, "*grid"], Complex[Array, "*grid"]]:
        """Traceless parts of D (D:E) / c and D (D:D) / c; see `Closure.contractions`."""
        strain_trace, moment_trace = self.traces(c, z, eps)
        return z * strain_trace / (2 * c), z * moment_trace / (2 * c)


def contracted_moment(
    closure: Closure,
    c: Float[Array, "*grid"],
    z: Complex[Array, "*grid"],
    eps: Complex[Array, "*grid"],
    zeta: Float[Array, "..."],
) -> Float[Array, "3 *grid"]:
    """The tensor S:T, T = E + 2 zeta D, that a closure predicts: components 11, 12 and 22.

    **Arguments:**

    - `closure`: the closure.
    - `c`, `z`, `eps`: concentration, second angular mode and rate of strain.
    - `zeta`: strength of the steric alignment, a scalar or a field.
    """
    with_strain, with_moment = closure.contractions(c, z, eps)
    strain_trace, moment_trace = closure.traces(c, z, eps)
    trace = strain_trace + 2 * zeta * moment_trace
    traceless = with_strain + 2 * zeta * with_moment
    return jnp.stack([trace / 2 + traceless.real, traceless.imag, trace / 2 - traceless.real])
