"""Second and fourth moments of an orientation density in the plane, as angular modes.

With a_m = integral of psi exp(i m theta) over theta, the moments needed are c = a_0 (real), z = a_2
and a_4. A symmetric traceless 2x2 tensor A is the complex number A_11 + i A_12, so that
tr(A B) = 2 Re(a conj(b)), and the second moment is D = c/2 I + traceless(z/2).
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float


def traceless_to_tensor(a: Complex[Array, "*grid"]) -> Float[Array, "2 2 *grid"]:
    """The symmetric traceless tensor [[Re a, Im a], [Im a, -Re a]] of a complex field.

    **Arguments:**

    - `a`: complex field A_11 + i A_12.
    """
    return jnp.stack([jnp.stack([a.real, a.imag]), jnp.stack([a.imag, -a.real])])


def tensor_to_traceless(tensor: Float[Array, "2 2 *grid"]) -> Complex[Array, "*grid"]:
    """The traceless symmetric part of a tensor field as the complex field A_11 + i A_12.

    **Arguments:**

    - `tensor`: 2x2 tensors, indices first; the trace and the antisymmetric part are dropped.
    """
    diagonal = (tensor[0, 0] - tensor[1, 1]) / 2
    return diagonal + 1j * (tensor[0, 1] + tensor[1, 0]) / 2


def second_moment(
    c: Float[Array, "*grid"], z: Complex[Array, "*grid"]
) -> Float[Array, "2 2 *grid"]:
    """The second moment D = integral of p p psi, not normalised by c.

    **Arguments:**

    - `c`: concentration a_0.
    - `z`: second angular mode a_2.
    """
    half = c / 2
    zero = jnp.zeros_like(half)
    isotropic = jnp.stack([jnp.stack([half, zero]), jnp.stack([zero, half])])
    return isotropic + traceless_to_tensor(z / 2)


def fourth_moment(
    c: Float[Array, "*grid"], z: Complex[Array, "*grid"], a4: Complex[Array, "*grid"]
) -> Float[Array, "2 2 2 2 *grid"]:
    """The fully symmetric fourth moment S = integral of p p p p psi.

    **Arguments:**

    - `c`: concentration a_0.
    - `z`: second angular mode a_2.
    - `a4`: fourth angular mode.
    """
    by_number_of_twos = [
        (3 * c + 4 * z.real + a4.real) / 8,
        (2 * z.imag + a4.imag) / 8,
        (c - a4.real) / 8,
        (2 * z.imag - a4.imag) / 8,
        (3 * c - 4 * z.real + a4.real) / 8,
    ]
    rows = [by_number_of_twos[i + j + k + m] for i, j, k, m in itertools.product((0, 1), repeat=4)]
    return jnp.stack(rows).reshape((2, 2, 2, 2, *c.shape))


def contract_fourth_moment(
    c: Float[Array, "*grid"],
    z: Complex[Array, "*grid"],
    a4: Complex[Array, "*grid"],
    trace: Float[Array, "*grid"],
    traceless: Complex[Array, "*grid"],
) -> tuple[Float[Array, "*grid"], Complex[Array, "*grid"]]:
    """The double contraction S:T for T = trace/2 I + traceless part.

    **Arguments:**

    - `c`, `z`, `a4`: angular modes 0, 2 and 4.
    - `trace`: trace of T.
    - `traceless`: traceless part of T as a complex field.

    **Returns:**

    The trace of S:T and its traceless part as a complex field.
    """
    contracted_trace = c * trace / 2 + (traceless * z.conj()).real
    contracted = (trace * z + c * traceless + a4 * traceless.conj()) / 4
    return contracted_trace, contracted


def contract_with_strain(
    c: Float[Array, "*grid"],
    z: Complex[Array, "*grid"],
    a4: Complex[Array, "*grid"],
    eps: Complex[Array, "*grid"],
) -> Complex[Array, "*grid"]:
    """Traceless part of S:E, E the (traceless) rate of strain.

    **Arguments:**

    - `c`, `z`, `a4`: angular modes 0, 2 and 4; `z` does not enter the traceless part.
    - `eps`: rate of strain E_11 + i E_12.
    """
    del z
    return (c * eps + a4 * eps.conj()) / 4


def contract_with_second_moment(
    c: Float[Array, "*grid"], z: Complex[Array, "*grid"], a4: Complex[Array, "*grid"]
) -> Complex[Array, "*grid"]:
    """Traceless part of S:D.

    **Arguments:**

    - `c`, `z`, `a4`: angular modes 0, 2 and 4.
    """
    return (3 * c * z + a4 * z.conj()) / 8
