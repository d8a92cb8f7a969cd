"""The phi functions of blocks, through the coefficients of `BlockPropagator` over a unit step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxsci.integrate import BlockPropagator, phi_functions

ORDER = 5
# Unimodular: exact inverses.
BASES = {
    2: (np.array([[1, 2], [1, 3]]), np.array([[3, -2], [-1, 1]])),
    3: (
        np.array([[1, 1, 0], [1, 2, 1], [0, 1, 2]]),
        np.array([[3, -2, 1], [-2, 2, -1], [1, -1, 1]]),
    ),
}


@jax.jit
def functions(blocks):
    linear = BlockPropagator(blocks)
    return linear.propagate(0.0, 1.0), *linear.moments(0.0, 1.0, ORDER)


def check(found, expected, rtol):
    """Relative to the largest entry of each block."""
    assert len(found) == len(expected) == ORDER + 1
    for k, (x, y) in enumerate(zip(found, expected)):
        error = np.max(np.abs(np.asarray(x) - y), axis=(0, 1))
        np.testing.assert_array_less(error, rtol * np.max(np.abs(y), axis=(0, 1)) + 1e-300, f"{k}")


def by_expm(matrix):
    """phi_0 .. phi_ORDER as blocks of the exponential of one larger matrix."""
    c = len(matrix)
    large = np.zeros((c * (ORDER + 1),) * 2, matrix.dtype)
    large[:c, :c] = matrix
    large += np.kron(np.eye(ORDER + 1, k=1), np.eye(c))
    first = scipy.linalg.expm(large)[:c]
    return [first[:, k * c : (k + 1) * c] for k in range(ORDER + 1)]


def by_eigenvalues(eigenvalues, c):
    """A and its phi functions from eigenvalues `(c, n)`, in a basis of integers."""
    basis, inverse = BASES[c]
    assemble = lambda d: np.einsum("ij,jn,jk->ikn", basis, d, inverse)
    return assemble(eigenvalues), [
        assemble(np.asarray(p)) for p in phi_functions(ORDER, eigenvalues)
    ]


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [float, complex])
def test_random_blocks_agree_with_the_exponential_of_an_augmented_matrix(c, dtype):
    rng = np.random.default_rng(c)
    a = rng.normal(size=(c, c, 40)).astype(dtype)
    if dtype is complex:
        a += 1j * rng.normal(size=a.shape)
    a *= np.geomspace(1e-8, 1, 40)
    expected = [np.stack(x, axis=-1) for x in zip(*(by_expm(a[..., i]) for i in range(40)))]
    found = functions(a)
    check(found, expected, 1e-12)
    assert all(f.dtype == dtype for f in found)


EIGENVALUES = {
    "decaying": -np.geomspace(1e-6, 1e5, 60),
    "oscillating": 1j * np.geomspace(1e-6, 1e5, 60),
    "damped": (-0.3 + 1j) * np.geomspace(1e-6, 1e5, 60),
    "growing": np.geomspace(1e-6, 300, 60),
}


@pytest.mark.parametrize("kind", EIGENVALUES)
@pytest.mark.parametrize("ratio", [1 + 1e-7, 1.5, -1.0, 1e-5, 0.0])
def test_two_by_two_blocks_are_exact_at_any_size_and_ratio_of_eigenvalues(kind, ratio):
    first = EIGENVALUES[kind]
    if ratio < 0 and kind != "oscillating":
        ratio = 0.3
    eigenvalues = np.stack([first, ratio * first])
    a, expected = by_eigenvalues(eigenvalues, 2)
    # Rounding of A moves its eigenvalues by about 50 eps |A|, more if they nearly coincide.
    size = np.abs(first) * (50 if abs(ratio - 1) < 0.1 else 1)
    rtol = 1e-13 + 1e-13 * size
    check(functions(a), expected, rtol)


@pytest.mark.parametrize("kind", ["decaying", "oscillating", "damped"])
@pytest.mark.parametrize("ratios", [(1.0, 1.0), (0.5, 1e-5), (1.5, 0.0)])
def test_larger_blocks_are_exact_up_to_their_norm_times_rounding(kind, ratios):
    first = EIGENVALUES[kind]
    a, expected = by_eigenvalues(np.stack([first, ratios[0] * first, ratios[1] * first]), 3)
    check(functions(a), expected, 1e-13 + 1.5e-13 * np.abs(first))


@pytest.mark.parametrize("c", [2, 3])
def test_defective_blocks_hold_the_derivatives_of_phi(c):
    # f of a Jordan block: f on the diagonal, f' above it, f''/2 above that.
    eigenvalues = np.concatenate([[0.0], -np.geomspace(1e-6, 1e5, 30), [0.7, 2.0, 20.0]])
    a = np.einsum("ij,n->ijn", np.eye(c), eigenvalues) + np.eye(c, k=1)[..., None]
    expected = []
    for k in range(ORDER + 1):
        f = lambda z: phi_functions(ORDER, z)[k]  # noqa: B023
        derivatives, value = [f], np.zeros((c, c, len(eigenvalues)))
        for _ in range(c - 1):
            derivatives.append(jax.grad(derivatives[-1]))
        for j, d in enumerate(derivatives):
            on_diagonal = jax.vmap(d)(jnp.asarray(eigenvalues)) / math.factorial(j)
            value += np.einsum("ij,n->ijn", np.eye(c, k=j), on_diagonal)
        expected.append(value)
    rtol = 1e-13 if c == 2 else 1e-13 + 1e-15 * np.abs(eigenvalues)
    check(functions(a), expected, rtol)


def wave_blocks(w):
    """Blocks [[0, 1], [-w^2, 0]] and their phi functions, w != 0."""
    f = phi_functions(ORDER, 1j * w)
    a = np.array([[0 * w, 1 + 0 * w], [-(w**2), 0 * w]])
    expected = [np.array([[p.real, p.imag / w], [-w * p.imag, p.real]]) for p in f]
    return a, expected


def test_blocks_of_the_wave_equation_are_exact_for_every_frequency():
    # Powers of two: w^2 is exact, and so the frequency.
    a, expected = wave_blocks(2.0 ** np.arange(-20, 18))
    check(functions(a), expected, 1e-14)


@pytest.mark.parametrize("c", [2, 3])
def test_derivatives_are_finite_and_right_at_every_kind_of_block(c):
    rng = np.random.default_rng(0)
    jordan = np.eye(c, k=1)
    blocks = [0 * jordan, jordan, jordan - np.eye(c), jordan - 50 * np.eye(c), -np.eye(c)]
    blocks += [rng.normal(size=(c, c)), 0.25 * np.eye(c)[::-1], np.eye(c)[::-1] - np.eye(c)]
    blocks += [np.diag(np.r_[-1e5, -np.ones(c - 1)]), 1e4 * (jordan - jordan.T)]
    a = np.stack(blocks, axis=-1)
    weights = rng.normal(size=(ORDER + 1, c, c))

    def value(a):
        found = functions(a)
        return sum(jnp.sum(w[..., None] * f) for w, f in zip(weights, found))

    reverse = jax.jit(jax.grad(value))(a)
    assert np.all(np.isfinite(reverse))
    # d/ds f(A + s E) of the first eight, which are of moderate size, by the formula for block
    # matrices: f([[A, E], [0, A]]) = [[f(A), f'(A) E], [0, f(A)]].
    direction = rng.normal(size=(c, c))
    for i in range(8):
        double = np.block([[a[..., i], direction], [np.zeros((c, c)), a[..., i]]])
        slopes = [f[:c, c:] for f in by_expm(double)]
        expected = sum(np.sum(w * s) for w, s in zip(weights, slopes))
        np.testing.assert_allclose(np.sum(reverse[..., i] * direction), expected, rtol=1e-10)


@pytest.mark.parametrize("x64", [True, False])
def test_coefficients_of_single_precision_are_accurate_to_it(x64):
    w = 2.0 ** np.arange(-10, 14)
    a, expected = wave_blocks(w)
    with jax.enable_x64(x64):
        found = functions(jnp.asarray(a, jnp.float32))
        assert all(f.dtype == jnp.float32 for f in found)
        check(found, expected, 1e-6)
        decaying, expected = by_eigenvalues(-np.stack([w, 0.5 * w, 0.25 * w]), 3)
        found = functions(jnp.asarray(decaying, jnp.float32))
        check(found[1:] + found[1:2], expected[1:] + expected[1:2], 4e-6)
