"""`ActiveFluid`: the kinetic equation of an active fluid in angular modes, and its closed moments.

With a_m = integral of psi exp(i m theta), z = a_2, rate of strain eps = E_11 + i E_12, vorticity
w = d_x v - d_y u and tau = eps + zeta z, the kinetic model of Maddu, Weady and Shelley (2024) is

    d_t a_m = -u.grad a_m + (i m w/2) a_m + (m/2) (tau a_{m-2} - conj(tau) a_{m+2})
              + (d_t Lap - m^2 d_r) a_m - (v0/2) [(d_x - i d_y) a_{m+1} + (d_x + i d_y) a_{m-1}],
    -Lap u + grad Pi = div sigma, div u = 0, mean(u) = 0,
    sigma = alpha z/2 + beta S:E - 2 zeta beta (D.D - S:D)   (traceless parts).
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, PRNGKeyArray

from jaxsci.integrate import SemilinearTerm
from jaxsci.spectral import cfl_number, energy_spectrum, FourierGrid

from .._base import check_at_least, check_choice, is_complex, is_concrete, real_dtype
from ._closure import Closure
from ._initial import random_moments
from ._moments import (
    contract_with_second_moment,
    contract_with_strain,
    second_moment,
    traceless_to_tensor,
)
from ._params import ActiveFluidParams
from ._stokes import (
    ConjugateGradientStokes,
    PicardStokes,
    StokesFlow,
    StokesSolver,
)


class ActiveFluidFields(NamedTuple):
    """Fields of one state on the grid; complex ones are angular modes or traceless tensors.

    `c`, `z`: angular modes 0 and 2. `a4`: angular mode 4, None for a closure of another kind.
    `velocity`: (2, N_x, N_y). `vorticity`: d_x v - d_y u. `eps`: rate of strain E_11 + i E_12.
    `with_strain`, `with_moment`: traceless parts of S:E and S:D.
    """

    c: Float[Array, "nx ny"]
    z: Complex[Array, "nx ny"]
    a4: Complex[Array, "nx ny"] | None
    velocity: Float[Array, "2 nx ny"]
    vorticity: Float[Array, "nx ny"]
    eps: Complex[Array, "nx ny"]
    with_strain: Complex[Array, "nx ny"]
    with_moment: Complex[Array, "nx ny"]


class _GivenFourthHarmonic(Closure):
    """The "closure" of the kinetic model, which knows a_4."""

    a4: Array
    linear_in_strain: ClassVar[bool] = True

    def contractions(self, c, z, eps):
        strain = contract_with_strain(c, z, self.a4, eps)
        return strain, contract_with_second_moment(c, z, self.a4)


class ActiveFluid(eqx.Module):
    """A suspension of active rods in two-dimensional Stokes flow, in a periodic box.

    The state is `{"a": coefficients}`, the complex Fourier coefficients (full layout) of the
    angular modes a_0, a_2, ..., a_2M, shape (M + 1, N_x, N_y); with swimming (`polar`) of a_0,
    a_1, ..., a_2M, shape (2M + 1, N_x, N_y). Without a closure, modes beyond 2M are zero and the
    model is the kinetic theory, exact as M grows; with a closure, M = 1 and it is a moment system.
    A nematic state has a_m ~ exp(-m^2 d_r/(4 zeta)): M = 16 resolves zeta = 0.5, 20 zeta = 1, 45
    zeta = 5 (d_r = 0.05).

    !!! example

        ```python
        fluid = ActiveFluid(grid, ActiveFluidParams(alpha=-3.0, zeta=0.5), modes=16)
        y0 = fluid.random_state(key)
        sol = diffrax.diffeqsolve(fluid.term(), SBDF2(), 0.0, 1.0, 0.01, y0)
        ```

    **Arguments:**

    - `grid`: two-dimensional `jaxsci.spectral.FourierGrid`, either layout.
    - `params`: `ActiveFluidParams`.
    - `modes`: M, at least 1; at least 2 without a closure, exactly 1 with one.
    - `closure`: `Closure` of the moment system, or None for the kinetic theory.
    - `polar`: whether odd modes are stored; needed for `params.v0 != 0` and without use otherwise.
        By default decided from `params.v0`, which must then be concrete.
    - `stokes`: `StokesSolver` for the stress that contains the rate of strain. By default
        `ConjugateGradientStokes()`, or `PicardStokes()` if the closure is not linear in the strain.
    - `dealias`: the 2/3 rule is applied to the nonlinear term ("flux"), as in the reference method,
        to the stress as well ("all"), or not at all ("none").

    **Raises:** `ValueError` for arguments that do not fit together, as described above.
    """

    grid: FourierGrid
    params: ActiveFluidParams
    closure: Closure | None
    stokes: StokesSolver | None
    modes: int = eqx.field(static=True)
    polar: bool = eqx.field(static=True)
    dealias: str = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        params: ActiveFluidParams,
        modes: int,
        closure: Closure | None = None,
        *,
        polar: bool | None = None,
        stokes: StokesSolver | None = None,
        dealias: str = "flux",
    ):
        if grid.ndim != 2:
            raise ValueError(f"`grid` must be two-dimensional, got shape {grid.shape}.")
        check_at_least("modes", modes, 1)
        check_choice("dealias", dealias, ("flux", "all", "none"))
        if closure is not None and not isinstance(closure, Closure):
            raise TypeError(f"`closure` must be a `Closure` or None, got {closure!r}.")
        if closure is None and modes == 1:
            raise ValueError("`modes` = 1 leaves a_4 unknown: give a `closure`, or more modes.")
        if closure is not None and modes != 1:
            raise ValueError(f"`modes` must be 1 with a `closure`, got {modes}.")
        if polar is None:
            if closure is None and not is_concrete(params.v0):
                raise ValueError("`polar` must be given where `params.v0` is traced.")
            polar = closure is None and bool(np.any(np.asarray(params.v0) != 0))
        if not polar and is_concrete(params.v0) and np.any(np.asarray(params.v0) != 0):
            needed = "`closure` = None and `polar` = True"
            raise ValueError(f"{needed} are needed for `params.v0` = {params.v0}.")
        if polar and closure is not None:
            raise ValueError("`polar` must be False with a `closure`.")
        self.grid = grid.with_layout(real=False)
        self.params = params
        self.closure = closure
        self.stokes = stokes
        self.modes = modes
        self.polar = polar
        self.dealias = dealias

    @property
    def orders(self) -> tuple[int, ...]:
        """The stored angular orders m."""
        return tuple(range(0, 2 * self.modes + 1, 1 if self.polar else 2))

    @property
    def _step(self) -> int:
        """How far apart orders m and m + 2 are stored."""
        return 2 if self.polar else 1

    def with_closure(self, closure: Closure) -> "ActiveFluid":
        """The moment system with a closure, otherwise the same fluid.

        **Arguments:**

        - `closure`: the closure.
        """
        return ActiveFluid(
            self.grid,
            self.params,
            1,
            closure,
            polar=self.polar,
            stokes=self.stokes,
            dealias=self.dealias,
        )

    def with_params(self, params: ActiveFluidParams) -> "ActiveFluid":
        """The same model with other constants.

        **Arguments:**

        - `params`: the constants.
        """
        return ActiveFluid(
            self.grid,
            params,
            self.modes,
            self.closure,
            polar=self.polar,
            stokes=self.stokes,
            dealias=self.dealias,
        )

    def term(self, *, real_state: bool = False) -> SemilinearTerm:
        """The equation as a `jaxsci.integrate.SemilinearTerm`: diffusion linear, the rest not.

        **Arguments:**

        - `real_state`: as for `SemilinearTerm`.
        """
        p = self.params
        m = jnp.asarray(self.orders, real_dtype(p.d_t))[:, None, None]
        k2 = self.grid.squared_wavenumber(p.d_t)
        linear = {"a": -p.d_t * k2 - p.d_r * m**2}
        return SemilinearTerm(linear, self.nonlinear, real_state=real_state)

    def nonlinear(self, t: Any, y: dict[str, Array], args: Any = None) -> dict[str, Array]:
        """All but diffusion of the right-hand side, in Fourier space.

        **Arguments:**

        - `t`, `args`: not used.
        - `y`: state.
        """
        del t, args
        coefficients = y["a"]
        dtype = real_dtype(coefficients)
        a = self._grid_modes(coefficients)
        fields = self._fields(a)
        zeta = self.params.zeta.astype(dtype)
        u, v = fields.velocity
        c, z, eps = fields.c, fields.z, fields.eps
        if self.closure is None:
            tau = eps + zeta * z
            shift = self._step
            above = jnp.concatenate([a[shift:], jnp.zeros_like(a[:shift])])
            # a_{-m} = conj a_m; the row m = 0 has the factor 0.
            below = jnp.concatenate([a[1 : shift + 1][::-1].conj(), a[:-shift]])
            m = jnp.asarray(self.orders, dtype)[:, None, None]
            local = m / 2 * (1j * fields.vorticity * a + tau * below - tau.conj() * above)
        else:
            contracted = fields.with_strain + 2 * zeta * fields.with_moment
            of_z = 1j * fields.vorticity * z + 2 * c * eps + 4 * zeta * c * z - 4 * contracted
            local = jnp.stack([jnp.zeros_like(z), of_z])
        # The flux form conserves the mean of c to rounding, aliased or not.
        flux_x, flux_y, local = self.grid.fft(jnp.stack([u * a, v * a, local]))
        kx, ky = self.grid.derivative_wavenumbers(dtype)
        rate = local - 1j * (kx * flux_x + ky * flux_y)
        if self.polar:
            rate = rate + self._swimming(coefficients)
        if self.dealias != "none":
            rate = self.grid.dealias(rate)
        return {"a": rate}

    def _swimming(self, coefficients):
        kx, ky = self.grid.derivative_wavenumbers(coefficients)
        above = jnp.concatenate([coefficients[1:], jnp.zeros_like(coefficients[:1])])
        below = jnp.concatenate([_conjugate_field(coefficients[1:2]), coefficients[:-1]])
        v0 = self.params.v0.astype(real_dtype(coefficients))
        return -v0 / 2 * ((1j * kx + ky) * above + (1j * kx - ky) * below)

    def _fields(self, a) -> ActiveFluidFields:
        dtype = real_dtype(a)
        c, z = a[0].real, a[self._step]
        if self.closure is None:
            a4 = a[2 * self._step]
            closure = _GivenFourthHarmonic(a4=a4)
        else:
            a4, closure = None, self.closure
        flow = StokesFlow(self.grid.with_layout(real=True), self.dealias == "all")

        def stress(eps):
            return self._stress(c, z, *_contractions(closure, c, z, eps))

        solver = self.stokes
        if solver is None:
            solver = ConjugateGradientStokes() if closure.linear_in_strain else PicardStokes()
        stiffness = self.params.beta.astype(dtype) * jnp.max(c) / 4
        vorticity = solver(flow, stress, stiffness, dtype, _lowest_precision(closure, dtype))
        velocity, w, eps = flow.fields(vorticity)
        with_strain, with_moment = _contractions(closure, c, z, eps)
        return ActiveFluidFields(c, z, a4, velocity, w, eps, with_strain, with_moment)

    def _stress(self, c, z, with_strain, with_moment):
        """Traceless part of the extra stress."""
        p, dtype = self.params, c.dtype
        alpha, beta, zeta = (x.astype(dtype) for x in (p.alpha, p.beta, p.zeta))
        steric = c * z / 2 - with_moment
        return alpha * z / 2 + beta * with_strain - 2 * zeta * beta * steric

    def _grid_modes(self, coefficients):
        a = self.grid.ifft(coefficients)
        return a.at[0].set(a[0].real)

    def initial_state(self, a: Complex[Array, "num_modes nx ny"]) -> dict[str, Array]:
        """The state with given angular modes on the grid.

        **Arguments:**

        - `a`: modes of the orders `orders`, shape (M + 1, N_x, N_y), or (2M + 1, N_x, N_y) with
            `polar`.

        **Raises:** `ValueError` for a wrong shape, odd modes without `polar`, a_0 not real or with
        a mean that is not positive, or |z| > c, which no density has; `TypeError` for a real array.
        """
        if not is_complex(a):
            raise TypeError(f"`a` must be complex, got {jnp.result_type(a)}.")
        expected = (len(self.orders), *self.grid.shape)
        if not self.polar and a.shape == (2 * self.modes + 1, *self.grid.shape):
            raise ValueError(
                f"`a` of shape {a.shape} has odd modes, which an apolar fluid (`params.v0` = 0) "
                f"does not store: pass a[::2], of shape {expected}, or `polar=True`."
            )
        if a.shape != expected:
            raise ValueError(f"`a` must have shape {expected}, got {a.shape}.")
        if is_concrete(a):
            self._check_moments(np.asarray(a))
        a = jnp.asarray(a)
        return {"a": self.grid.fft(a.at[0].set(a[0].real))}

    def _check_moments(self, a: np.ndarray):
        if not np.all(np.isfinite(a)):
            raise ValueError("`a` must be finite.")
        c, z = a[0], a[self._step]
        tol = 1e3 * np.finfo(a.dtype).eps
        imaginary = np.max(np.abs(c.imag))
        if imaginary > tol * np.max(np.abs(c)):
            raise ValueError(f"`a[0]` must be real, got an imaginary part of {imaginary:.3g}.")
        if not c.real.mean() > 0:
            raise ValueError(f"`a[0]` must have a positive mean, got {c.real.mean():.3g}.")
        excess = np.abs(z) - c.real
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        if excess[worst] > tol * c.real.mean():
            raise ValueError(
                "`a` must be the modes of a density, |a_2| <= a_0 everywhere; got |a_2| = "
                f"{np.abs(z[worst]):.6g} with a_0 = {c.real[worst]:.6g} at the point "
                f"{tuple(int(i) for i in worst)}."
            )

    def random_state(
        self,
        key: PRNGKeyArray,
        *,
        amplitude: float = 0.1,
        num_terms: int = 8,
        max_mode: int = 8,
        uniform_density: bool = False,
        dtype: Any = None,
    ) -> dict[str, Array]:
        """The state of a random, nearly isotropic density; arguments as for `random_moments`."""
        a = random_moments(
            key,
            self.grid,
            self.modes,
            amplitude=amplitude,
            num_terms=num_terms,
            max_mode=max_mode,
            uniform_density=uniform_density,
            dtype=dtype,
        )
        if self.polar:
            a = jnp.zeros((len(self.orders), *self.grid.shape), a.dtype).at[::2].set(a)
        return {"a": self.grid.fft(a)}

    def fields(self, y: dict[str, Array]) -> ActiveFluidFields:
        """Moments, flow and contractions of a state on the grid.

        **Arguments:**

        - `y`: state.
        """
        return self._fields(self._grid_modes(y["a"]))

    def physical(self, y: dict[str, Array]) -> Complex[Array, "num_modes nx ny"]:
        """The angular modes on the grid, in the order of `orders`.

        **Arguments:**

        - `y`: state.
        """
        return self._grid_modes(y["a"])

    def velocity(self, y: dict[str, Array]) -> Float[Array, "2 nx ny"]:
        """The two components of the velocity on the grid.

        **Arguments:**

        - `y`: state.
        """
        return self.fields(y).velocity

    def stress(self, y: dict[str, Array]) -> Float[Array, "2 2 nx ny"]:
        """The traceless part of the extra stress on the grid; its trace belongs to the pressure.

        **Arguments:**

        - `y`: state.
        """
        f = self.fields(y)
        return traceless_to_tensor(self._stress(f.c, f.z, f.with_strain, f.with_moment))

    def coarse_state(self, y: dict[str, Array]) -> dict[str, Array]:
        """The state of the moment system: the orders 0 and 2 of a state, or a stack of states.

        **Arguments:**

        - `y`: state; leading axes are free.
        """
        return {"a": y["a"][..., :: self._step, :, :][..., :2, :, :]}

    def moments_to_tensor(
        self, y: dict[str, Array]
    ) -> tuple[Float[Array, "nx ny"], Float[Array, "2 2 nx ny"]]:
        """Concentration c and second moment D on the grid.

        **Arguments:**

        - `y`: state.
        """
        a = self._grid_modes(y["a"])
        c = a[0].real
        return c, second_moment(c, a[self._step])

    def density(
        self, y: dict[str, Array], angles: Float[Array, " num_angles"]
    ) -> Float[Array, "num_angles nx ny"]:
        """The orientation density psi at given angles, (1/2 pi) sum_m a_m exp(-i m theta).

        **Arguments:**

        - `y`: state.
        - `angles`: angles theta.
        """
        a = self._grid_modes(y["a"])
        m = jnp.asarray(self.orders, real_dtype(a))
        waves = jnp.where(m == 0, 1, 2) * jnp.exp(-1j * m * angles[:, None])
        return jnp.einsum("tm,mxy->txy", waves.astype(a.dtype), a).real / (2 * np.pi)

    def velocity_spectrum(
        self, y: dict[str, Array]
    ) -> tuple[Float[Array, " shells"], Float[Array, " shells"]]:
        """Wave numbers and shell spectrum of the velocity, E(k) = 1/2 sum_shell |u_k|^2/N^4.

        **Arguments:**

        - `y`: state.
        """
        real_grid = self.grid.with_layout(real=True)
        return energy_spectrum(real_grid, real_grid.fft(self.velocity(y)))

    def max_dt(self, y: dict[str, Array]) -> Float[Array, ""]:
        """Largest advisable step of an explicit treatment of the nonlinear term at a state.

        The smaller of 0.5/(M max|tau|), tau = eps + zeta z (alignment), and the step of Courant
        number 0.5 (advection).

        **Arguments:**

        - `y`: state.
        """
        f = self.fields(y)
        tau = f.eps + self.params.zeta.astype(f.c.dtype) * f.z
        alignment = self.modes * jnp.max(jnp.abs(tau))
        courant = cfl_number(self.grid, f.velocity, 1.0)
        return 0.5 / jnp.maximum(alignment, courant)

    def check_dt(self, y: dict[str, Array], dt: Float[ArrayLike, ""]) -> None:
        """Raise `ValueError` if a step is larger than `max_dt`; passes while tracing.

        **Arguments:**

        - `y`: state.
        - `dt`: time step.
        """
        if not is_concrete((y, dt)):
            return
        limit, step = self.max_dt(y).item(), jnp.asarray(dt).item()
        if not step <= limit:
            raise ValueError(
                f"`dt` must be at most {limit:.3g} at this state (0.5/(modes max|tau|) and Courant "
                f"number 0.5), got {step:.3g}."
            )


def _lowest_precision(closure, dtype):
    """The coarsest dtype among that of the fields and those of the closure's arrays."""
    leaves = [x for x in jax.tree.leaves(closure) if eqx.is_inexact_array(x)]
    return min([dtype, *map(real_dtype, leaves)], key=lambda d: jnp.finfo(d).bits)


def _contractions(closure, c, z, eps):
    pair = closure.contractions(c, z, eps)
    for name, value in zip(("S:E", "S:D"), pair):
        if value.shape != z.shape or value.dtype != z.dtype:
            raise ValueError(
                f"`closure` must return a {z.dtype} field of shape {z.shape} for {name}, got "
                f"{value.dtype} of shape {value.shape}."
            )
    return pair


def _conjugate_field(coefficients: Array) -> Array:
    """Coefficients of the complex conjugate of a field, conj(F(-k))."""
    return jnp.roll(jnp.flip(coefficients, (-2, -1)), 1, (-2, -1)).conj()
