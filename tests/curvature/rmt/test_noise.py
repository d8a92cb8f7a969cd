"""The noise estimates on Hessians whose noise is known."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.curvature.rmt import batch_noise, bulk_noise, effective_batch_size

P, N, B = 30, 64, 8
SIGMA = 0.3
rng = np.random.default_rng(0)
# Example i has the Hessian H + E_i, the noise E_i summing to zero.
_each = rng.normal(size=(N, P, P)) * SIGMA / np.sqrt(2)
_each = _each + _each.transpose(0, 2, 1)
_each = _each - _each.mean(axis=0)
_full = np.diag(np.concatenate([[5.0], np.linspace(0, 1, P - 1)]))
EXAMPLES = jnp.asarray(_full + _each)
U1 = jnp.eye(P)[0]


def batch_hvp(indices, v):
    return jnp.mean(EXAMPLES[indices], axis=0) @ v


def drawn(count, seed=1):
    g = np.random.default_rng(seed)
    return np.stack([g.permutation(N)[:B] for _ in range(count)])


def exact_variance(of_example):
    """b E|mean over a batch|^2 for batches without replacement: N / (N - 1) of the population's."""
    return np.mean(np.sum(of_example**2, axis=-1)) * N / (N - 1)


noise_along = jax.jit(lambda idx: batch_noise(batch_hvp, 5.0, U1, idx, N))


def test_the_noise_along_the_top_vector_is_that_of_the_examples():
    got = noise_along(drawn(4000))
    np.testing.assert_allclose(got, exact_variance(_each[:, 0]), rtol=0.02)
    # An entry has variance sigma^2 (twice that on the diagonal): P sigma^2 in all.
    np.testing.assert_allclose(got, P * SIGMA**2, rtol=0.15)


def test_batches_may_come_as_a_list_of_examples_or_of_indices():
    idx = drawn(3)
    want = noise_along(idx)
    np.testing.assert_allclose(batch_noise(batch_hvp, 5.0, U1, list(idx), N), want, rtol=1e-12)

    def from_examples(batch, v):
        return jnp.mean(batch["h"], axis=0) @ v

    batches = [{"h": EXAMPLES[i]} for i in idx]
    np.testing.assert_allclose(batch_noise(from_examples, 5.0, U1, batches, N), want, rtol=1e-12)
    with_replacement = batch_noise(batch_hvp, 5.0, U1, idx)
    np.testing.assert_allclose(with_replacement, want * (1 - B / N), rtol=1e-12)


def test_the_bulk_noise_is_the_frobenius_norm_over_the_dimension():
    op = lx.MatrixLinearOperator(jnp.asarray(_full), lx.symmetric_tag)
    measure = jax.jit(lambda k, idx: bulk_noise(batch_hvp, op, k, idx, N, num_probes=20))
    got = measure(jax.random.key(0), drawn(400))
    want = exact_variance(_each.reshape(N, -1)) / P
    np.testing.assert_allclose(got, want, rtol=0.02)


def test_the_effective_batch_size_ends_in_infinity_at_all_of_the_data():
    b = effective_batch_size(jnp.asarray([1.0, 50.0, 100.0]), 100)
    np.testing.assert_allclose(b, [1 / 0.99, 100.0, np.inf])
    np.testing.assert_allclose(effective_batch_size(8), 8.0)
    assert noise_along(np.stack([np.arange(N)])) == 0


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    for size in (0, 101):
        with pytest.raises(ValueError, match="`batch_size`"):
            effective_batch_size(size, 100)
    with pytest.raises(ValueError, match=r"`batches`.*leading axes"):
        batch_noise(batch_hvp, 5.0, U1, jnp.arange(3), N)
    with pytest.raises(ValueError, match=r"`batches`.*at least one"):
        batch_noise(batch_hvp, 5.0, U1, [], N)
    with pytest.raises(ValueError, match="`batch_size`"):
        batch_noise(batch_hvp, 5.0, U1, drawn(2), 4)
