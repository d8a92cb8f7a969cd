import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim import BlockAxes


def abs_mean(x, axes):
    return np.broadcast_to(np.mean(np.abs(x), axis=axes, keepdims=True), x.shape)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape))


HWIO, OIHW = normal(3, 4, 5, 6), normal(6, 5, 3, 4)
WIO, OIDHW = normal(3, 5, 6), normal(2, 3, 2, 4, 5)
MATRIX, VECTOR, SCALAR = normal(4, 6), normal(7), normal()


@pytest.mark.parametrize(
    ("blocks", "leaf", "axes"),
    [
        (BlockAxes.none, HWIO, ()),
        (BlockAxes.none, MATRIX, ()),
        (BlockAxes.flax, HWIO, (0, 1)),
        (BlockAxes.flax, WIO, (0,)),
        (BlockAxes.flax, MATRIX, ()),
        (BlockAxes.flax_fan_in, MATRIX, (0,)),
        (BlockAxes.flax_fan_in, HWIO, (0, 1)),
        (BlockAxes.equinox, OIHW, (2, 3)),
        (BlockAxes.equinox, OIDHW, (2, 3, 4)),
        (BlockAxes.equinox, MATRIX, ()),
        (BlockAxes.equinox_fan_in, MATRIX, (1,)),
        (BlockAxes.equinox_fan_in, OIHW, (2, 3)),
        (BlockAxes.from_fn(lambda path, x: (-1,)), HWIO, (3,)),
    ],
)
def test_the_average_of_the_absolute_value_is_taken_over_the_named_axes(blocks, leaf, axes):
    expected = abs_mean(leaf, axes) if axes else np.abs(leaf)
    np.testing.assert_allclose(blocks.average({"x": leaf})["x"], expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["none", "flax", "equinox", "flax_fan_in", "equinox_fan_in"])
def test_vectors_and_scalars_are_never_averaged(name):
    blocks = getattr(BlockAxes, name)
    for leaf in (VECTOR, SCALAR):
        np.testing.assert_array_equal(blocks.average(leaf), np.abs(leaf))
    np.testing.assert_array_equal(BlockAxes.contiguous(5).average(VECTOR), np.abs(VECTOR))


def test_alternating_signs_average_to_one_not_to_zero():
    signs = jnp.asarray([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    for blocks in (BlockAxes.equinox_fan_in, BlockAxes.flax_fan_in, BlockAxes.contiguous(2)):
        np.testing.assert_array_equal(blocks.average(signs), 1)


@pytest.mark.parametrize("block_size", [1, 3, 6, 8, 24])
def test_contiguous_blocks_are_runs_of_the_flattened_out_in_matrix(block_size):
    def flat_blocks(x):
        runs = np.abs(x).reshape(-1, block_size).mean(1)
        return np.repeat(runs, block_size).reshape(x.shape)

    blocks = BlockAxes.contiguous(block_size)
    np.testing.assert_allclose(blocks.average(MATRIX), flat_blocks(MATRIX), rtol=1e-14)
    flax = BlockAxes.contiguous(block_size, layout="flax")
    np.testing.assert_allclose(flax.average(MATRIX.T), flat_blocks(MATRIX).T, rtol=1e-14)


def test_contiguous_blocks_see_the_same_kernel_in_both_layouts():
    hwio = jnp.transpose(OIHW, (2, 3, 1, 0))
    for block_size in (4, 10):
        there = BlockAxes.contiguous(block_size).average(OIHW)
        here = BlockAxes.contiguous(block_size, layout="flax").average(hwio)
        np.testing.assert_allclose(here, jnp.transpose(there, (2, 3, 1, 0)), rtol=1e-14)


def test_from_fn_chooses_by_path():
    blocks = BlockAxes.from_fn(lambda path, x: (0,) if "embed" in path else ())
    tree = {"embed": MATRIX, "dense": MATRIX}
    out = blocks.average(tree)
    np.testing.assert_allclose(out["embed"], abs_mean(MATRIX, 0), rtol=1e-14)
    np.testing.assert_array_equal(out["dense"], np.abs(MATRIX))


def test_it_jits_and_keeps_float32():
    tree = {"a": HWIO.astype(jnp.float32), "b": MATRIX.astype(jnp.float32)}
    for blocks in (BlockAxes.flax_fan_in, BlockAxes.contiguous(3)):
        out = jax.jit(blocks.average)(tree)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(out))


def test_it_is_a_hashable_value_that_optax_does_not_take_for_a_schedule():
    assert not callable(BlockAxes.flax)
    assert BlockAxes.flax == BlockAxes.flax
    assert len({BlockAxes.flax, BlockAxes.equinox}) == 2


@pytest.mark.bad_input
def test_misuse_names_the_argument():
    with pytest.raises(ValueError, match="`block_size` must be at least 1, got 0"):
        BlockAxes.contiguous(0)
    with pytest.raises(ValueError, match="`layout` must be one of 'equinox', 'flax', got 'torch'"):
        BlockAxes.contiguous(2, layout="torch")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`block_size` must divide .* got 5 for \['w'\] of shape"):
        BlockAxes.contiguous(5).average({"w": MATRIX})
    with pytest.raises(ValueError, match=r"axes of the leaf \['w'\] of shape \(4, 6\), got \(2,\)"):
        BlockAxes.from_fn(lambda path, x: (2,)).average({"w": MATRIX})
