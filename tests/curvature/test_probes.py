import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import rademacher_like


def test_entries_are_plus_or_minus_one_in_the_shapes_and_dtypes_of_the_tree(key):
    tree = {
        "scalar": jnp.ones((), jnp.float32),
        "odd": jnp.ones((3, 45), jnp.float64),
        "word": jnp.ones((2, 3, 64), jnp.bfloat16),
        "empty": jnp.ones((0, 3), jnp.float16),
    }
    probe = rademacher_like(key, tree)
    for name, x in tree.items():
        assert probe[name].shape == x.shape
        assert probe[name].dtype == x.dtype
        assert np.all(np.abs(np.asarray(probe[name], float)) == 1)


def test_entries_are_balanced_and_uncorrelated_within_and_between_leaves(key):
    keys = jax.random.split(key, 4096)
    tree = [jnp.ones((2, 32)), jnp.ones((4, 17))]
    draw = jax.jit(
        jax.vmap(lambda k: jnp.concatenate([x.ravel() for x in rademacher_like(k, tree)]))
    )
    v = np.asarray(draw(keys))
    covariance = v.T @ v / len(v)
    # Standard error 1/64; the largest of 132^2 / 2 entries lies near 4.2 of them.
    assert np.max(np.abs(covariance - np.eye(132))) < 6 / 64
    assert np.max(np.abs(v.mean(0))) < 5 / 64


def test_two_keys_give_two_probes_and_one_key_one(key):
    x = jnp.ones(64)
    a, b = rademacher_like(key, x), rademacher_like(jax.random.key(1), x)
    assert jnp.array_equal(a, rademacher_like(key, x))
    assert not jnp.array_equal(a, b)


def test_a_structure_of_shapes_is_enough(key):
    struct = jax.ShapeDtypeStruct((5,), jnp.float32)
    assert jnp.array_equal(
        rademacher_like(key, struct), rademacher_like(key, jnp.zeros(5, jnp.float32))
    )


@pytest.mark.bad_input
@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.ones(3, bool), jnp.ones(3, complex)])
def test_a_leaf_that_is_not_real_floating_is_named(key, leaf):
    with pytest.raises(TypeError, match=r"real floating arrays; leaf \['steps'\]"):
        rademacher_like(key, {"a": jnp.ones(2), "steps": leaf})
