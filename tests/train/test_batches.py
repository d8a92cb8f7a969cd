import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import train


def _epoch(batches, size, batch_size, epoch=0):
    per_epoch = size // batch_size
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return np.concatenate([np.asarray(batches(s)) for s in steps])


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 65, 1000])
def test_an_epoch_is_a_permutation_of_the_data(size, key):
    rows = _epoch(train.minibatches(jnp.arange(size), size, key=key), size, size)
    assert sorted(rows) == list(range(size))


def test_the_batches_of_an_epoch_do_not_overlap_and_epochs_differ(key):
    batches = train.minibatches(jnp.arange(103), 10, key=key)
    first, second = _epoch(batches, 103, 10), _epoch(batches, 103, 10, epoch=1)
    assert len(set(first)) == len(set(second)) == 100
    assert list(first) != list(second)


def test_every_sample_is_equally_likely_in_every_place():
    size, epochs = 6, 2000
    batches = train.minibatches(jnp.arange(size), size, key=jax.random.key(3))
    orders = np.asarray(jax.vmap(lambda epoch: batches(epoch))(jnp.arange(epochs)))
    assert (np.sort(orders, axis=1) == np.arange(size)).all()
    counts = np.stack([(orders == sample).sum(axis=0) for sample in range(size)])
    chi2 = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
    # 25 degrees of freedom: the 99.9% quantile is 52.6.
    assert chi2 < 52.6
    followers = (np.diff(orders, axis=1) == 1).sum() / epochs
    # Neighbours stay neighbours as often as in a uniform permutation: (n - 1) / n a permutation.
    np.testing.assert_allclose(followers, 5 / 6, atol=0.1)


def test_without_a_key_the_order_is_that_of_the_data():
    batches = train.minibatches(np.arange(7), 2)
    assert [batches(s).tolist() for s in range(4)] == [[0, 1], [2, 3], [4, 5], [0, 1]]


def test_host_and_device_data_give_the_same_batches_in_and_out_of_jit(key):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    on_host = train.minibatches({"x": x, "y": y}, 4, key=key)
    on_device = train.minibatches({"x": jnp.asarray(x), "y": jnp.asarray(y)}, 4, key=key)
    compiled = jax.jit(lambda step: on_host(step))
    for step in (0, 3, 7, 1234):
        host, device = on_host(step), on_device(step)
        traced = compiled(jnp.int32(step))
        assert isinstance(host["x"], np.ndarray)
        for name in ("x", "y"):
            np.testing.assert_array_equal(host[name], device[name])
            np.testing.assert_array_equal(host[name], traced[name])
        np.testing.assert_array_equal(host["x"], x[host["y"]])


@pytest.mark.bad_input
def test_bad_arguments_are_named(key):
    with pytest.raises(ValueError, match="leaves of `data` must have one leading axis"):
        train.minibatches((jnp.ones(3), jnp.ones(4)), 2, key=key)
    with pytest.raises(ValueError, match="leaves of `data` must have one leading axis"):
        train.minibatches(jnp.ones(()), 2, key=key)
    with pytest.raises(ValueError, match="`batch_size` must be at most the 3 samples, got 4"):
        train.minibatches(jnp.ones(3), 4, key=key)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        train.minibatches(jnp.ones(3), 0, key=key)
