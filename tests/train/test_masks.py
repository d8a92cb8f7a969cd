from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci import train


class Model(eqx.Module):
    encoder: eqx.nn.Linear
    head: eqx.nn.Linear
    normalizer: train.Normalizer
    table: train.NonTrainable
    count: jax.Array
    name: str
    activation: Any
    rate: float

    def __call__(self, x):
        x = self.normalizer.forward(x) + self.table.value["bias"]
        return self.head(self.activation(self.encoder(x)))


@pytest.fixture(scope="module")
def model():
    k1, k2, k3 = jax.random.split(jax.random.key(0), 3)
    data = jax.random.normal(k3, (10, 3)) * 2 + 1
    return Model(
        eqx.nn.Linear(3, 4, key=k1),
        eqx.nn.Linear(4, 2, key=k2),
        train.Normalizer.fit(data),
        train.NonTrainable({"bias": jnp.ones(3), "key": jax.random.key(7), "steps": jnp.arange(3)}),
        jnp.array(3),
        "model",
        jax.nn.gelu,
        0.5,
    )


def test_trainable_selects_weights_and_nothing_else(model):
    mask = train.trainable(model)
    assert jax.tree.structure(mask) == jax.tree.structure(jax.tree.map(lambda _: 0, model))
    assert all(isinstance(x, bool) for x in jax.tree.leaves(mask))
    chosen = [
        jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(mask) if x
    ]
    assert chosen == [".encoder.weight", ".encoder.bias", ".head.weight", ".head.bias"]


def test_trainable_reads_flax_style_dictionaries_numpy_arrays_and_shapes():
    params = {
        "dense": {"kernel": np.ones((2, 2), np.float32), "bias": jnp.ones(2, jnp.bfloat16)},
        "steps": np.arange(3),
        "statistics": train.NonTrainable(jnp.ones(2)),
    }
    expected = {
        "dense": {"kernel": True, "bias": True},
        "steps": False,
        "statistics": train.NonTrainable(False),
    }
    assert train.trainable(params) == expected
    assert train.trainable(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, params))) == expected


def test_one_adamw_step_with_decay_leaves_every_non_parameter_bitwise_unchanged(model):
    x = jnp.ones((4, 3))
    result = train.fit(
        lambda model, batch, key: jnp.mean(jax.vmap(model)(batch) ** 2),
        model,
        lambda step, key: x,
        optax.adamw(1e-2, weight_decay=0.1),
        key=jax.random.key(0),
        num_steps=1,
    )
    mask = jax.tree.leaves(train.trainable(model))
    for is_parameter, old, new in zip(mask, jax.tree.leaves(model), jax.tree.leaves(result.model)):
        if not eqx.is_array(old):
            assert old is new
        elif jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            assert old == new
        else:
            same = np.asarray(old).tobytes() == np.asarray(new).tobytes()
            assert same == (not is_parameter)


def test_freeze_takes_nodes_out_of_the_default(model):
    mask = train.freeze(lambda m: m.encoder)(model)
    assert not any(jax.tree.leaves(mask.encoder))
    assert mask.head.weight
    assert mask.head.bias
    assert not any(jax.tree.leaves((mask.table, mask.normalizer)))


def test_train_only_keeps_nodes_of_the_default(model):
    mask = train.train_only(lambda m: (m.head, m.table))(model)
    assert mask.head.weight
    assert mask.head.bias
    assert not any(jax.tree.leaves((mask.encoder, mask.table, mask.normalizer)))


def test_masks_compose_and_reach_into_dictionaries():
    params = {"a": {"w": jnp.ones(2), "b": jnp.ones(2)}, "c": jnp.ones(2)}
    only_a = train.train_only(lambda p: p["a"])
    mask = train.freeze(lambda p: p["a"]["b"], where=only_a)(params)
    assert mask == {"a": {"w": True, "b": False}, "c": False}


def test_masks_choose_among_equal_leaves_by_place_not_by_value(model):
    mask = train.freeze(lambda m: m.head.bias)(model)
    assert mask.head.weight
    assert not mask.head.bias
    assert mask.encoder.bias


@pytest.mark.bad_input
def test_a_selection_outside_the_model_is_a_value_error(model):
    for select in (lambda m: m.decoder, lambda m: 3):
        with pytest.raises(ValueError, match="`select` must return a node of the model"):
            train.freeze(select)(model)
