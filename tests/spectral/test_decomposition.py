"""Grids that are cut over devices: layout and padding here, transforms on simulated devices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec as P

from jaxsci.spectral import FourierGrid
from simulated_devices import on_eight_devices


def on_devices(*arguments):
    return on_eight_devices(Path(__file__).with_name("sharded_grid.py"), *arguments)


def abstract(**sizes):
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


@pytest.mark.parametrize(
    ("shape", "real", "devices", "stored"),
    [
        ((8, 16), True, 8, 16),
        ((8, 14), True, 8, 8),
        ((9, 16), True, 3, 9),
        ((8, 9), True, 4, 8),
        ((8, 10), False, 4, 12),
        ((4, 5, 16), True, 2, 10),
    ],
)
def test_padding_fills_the_last_axis_and_is_no_mode(shape, real, devices, stored):
    plain = FourierGrid(shape, (1.0,) * len(shape), real)
    grid = plain.sharded(abstract(s=devices), "s")
    modes = plain.spectral_shape[-1]
    assert grid.spectral_shape == (*shape[:-1], stored)
    assert grid.num_stored == plain.num_stored == modes
    for ours, theirs in zip(grid.mode_numbers(), plain.mode_numbers()):
        kept = ours[..., : theirs.shape[-1]]
        np.testing.assert_array_equal(kept, theirs)
        assert not ours[..., theirs.shape[-1] :].any()
    for kind in ("strict", "inclusive", "smooth"):
        factor = grid.dealias_factors(2, kind)[-1]
        np.testing.assert_array_equal(factor[..., :modes], plain.dealias_factors(2, kind)[-1])
        assert factor.shape[-1] == stored
        assert not factor[..., modes:].any()


def test_fields_are_cut_along_the_first_axes_and_coefficients_along_the_last():
    slab = FourierGrid((8, 8), (1.0, 1.0)).sharded(abstract(b=2, s=4), "s")
    assert slab.sharding("physical", "b", None).spec == P("b", None, "s", None)
    assert slab.sharding("spectral", "b", None).spec == P("b", None, None, "s")
    pencil = FourierGrid((8, 8, 8), (1.0,) * 3).sharded(abstract(s=2, t=4), ("s", "t"))
    assert pencil.sharding("physical").spec == P("s", "t", None)
    assert pencil.sharding("spectral").spec == P(None, "s", "t")


def test_a_sharded_grid_stays_sharded_and_equal_by_value():
    plain = FourierGrid((8, 8), (1.0, 2.0))
    grid = plain.sharded(abstract(s=4), "s")
    assert grid == plain.sharded(abstract(s=4), ["s"]) != plain
    assert hash(grid) == hash(plain.sharded(abstract(s=4), "s"))
    assert grid.with_layout(real=False).sharded(None) == plain.with_layout(real=False)
    assert grid.with_layout(real=False).spectral_shape == (8, 8)
    assert grid.with_shape((16, 20)).spectral_shape == (16, 12)
    assert jax.tree.leaves(grid) == []


def test_on_one_device_a_sharded_grid_is_a_grid():
    plain = FourierGrid((8, 6), (1.0, 2.0))
    grid = plain.sharded(jax.make_mesh((1,), ("s",)), "s")
    u = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 6)))
    np.testing.assert_allclose(grid.fft(u), plain.fft(u), atol=1e-13)
    np.testing.assert_allclose(grid.ifft(grid.fft(u)), u, atol=1e-13)
    np.testing.assert_allclose(grid.mean(grid.fft(u)), np.mean(u, (1, 2)), atol=1e-14)
    assert grid.fft(u.astype(np.float32)).dtype == np.complex64


@pytest.mark.bad_input
def test_misuse_names_the_argument():
    plane, box = FourierGrid((8, 8), (1.0, 1.0)), FourierGrid((8, 6, 8), (1.0,) * 3)
    with pytest.raises(ValueError, match="`axes` must be one of 's', got 'x'"):
        plane.sharded(abstract(s=4), "x")
    with pytest.raises(ValueError, match="fewer than the 2 axes"):
        plane.sharded(abstract(s=2, t=2), ("s", "t"))
    with pytest.raises(ValueError, match="fewer than the 1 axes"):
        FourierGrid(8, 1.0).sharded(abstract(s=2), "s")
    with pytest.raises(ValueError, match="each once"):
        box.sharded(abstract(s=2), ("s", "s"))
    with pytest.raises(ValueError, match="at least one"):
        plane.sharded(abstract(s=2))
    with pytest.raises(ValueError, match=r"multiple of 3 points on axis 0.*'s', got \(8, 8\)"):
        plane.sharded(abstract(s=3), "s")
    with pytest.raises(ValueError, match=r"multiple of 4 points on axis 1.*'t'"):
        box.sharded(abstract(s=2, t=4), ("s", "t"))
    with pytest.raises(ValueError, match=r"multiple of 4 points on axis 1.*'s'"):
        box.sharded(abstract(s=4, t=2), ("s", "t"))
    with pytest.raises(ValueError, match="needs a sharded grid"):
        plane.sharding("physical")
    with pytest.raises(ValueError, match="`kind` must be one of 'physical', 'spectral'"):
        plane.constrain(jnp.ones((8, 8)), "fourier")


@pytest.mark.slow
def test_a_step_of_a_flow_in_slabs_exchanges_once_a_transform_and_gathers_nothing():
    case = on_devices("step")
    assert case["value"] < 1e-12
    assert case["grad"] < 1e-12
    assert case["padding"] == 0
    assert case["cut"]
    # Four evaluations of two transforms; the fifth is not needed.
    assert case["hlo"] == {
        "all-gather": 0,
        "all-to-all": 8,
        "all-reduce": 0,
        "collective-permute": 0,
    }
    assert case["grad_hlo"]["all-gather"] == case["grad_hlo"]["collective-permute"] == 0


@pytest.fixture(scope="module")
def sharded():
    return on_devices()


@pytest.mark.slow
def test_transforms_exchange_once_for_each_cut_and_equal_those_of_numpy(sharded):
    assert sharded["transforms"]
    for name, case in sharded["transforms"].items():
        exchanges = 2 if "pencils" in name else 1
        assert max(case["value"], case["back"], case["grad"]) < 1e-12, name
        assert case["padding"] == 0, name
        assert case["cut"], name
        assert case["cut_back"], name
        for program, count in (("hlo", 1), ("back_hlo", 1), ("grad_hlo", 2)):
            assert case[program]["all-to-all"] == count * exchanges, name
            assert case[program]["all-gather"] == case[program]["collective-permute"] == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["auto", "explicit"])
def test_a_batch_of_flows_in_slabs_equals_one_device_and_gathers_nothing(sharded, mesh):
    case = sharded["flows"][f"batch and slab/{mesh}"]
    assert max(case["value"], case["grad"]) < 1e-12
    assert case["padding"] == 0
    assert case["cut"]
    assert case["hlo"] == {
        "all-gather": 0,
        "all-to-all": 10,
        "all-reduce": 0,
        "collective-permute": 0,
    }
    assert case["grad_hlo"]["all-gather"] == case["grad_hlo"]["collective-permute"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffeqsolve", "simulate with dt", "simulate with rtol"])
def test_diffrax_solves_in_slabs_equal_one_device_and_gather_nothing(sharded, name):
    case = sharded["flows"][f"{name}/auto"]
    assert case["value"] < 1e-12
    assert case["hlo"]["all-gather"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["auto", "explicit"])
def test_a_flow_in_pencils_equals_one_device_and_gathers_nothing(sharded, mesh):
    case = sharded["pencils"][mesh]
    assert max(case["value"], case["grad"]) < 1e-12
    assert case["padding"] == 0
    assert case["hlo"]["all-gather"] == case["grad_hlo"]["all-gather"] == 0


@pytest.mark.slow
def test_operators_and_diagnostics_equal_one_device_and_gather_nothing(sharded):
    assert len(sharded["diagnostics"]) == 4
    for name, case in sharded["diagnostics"].items():
        assert max(case["errors"].values()) < 1e-12, name
        assert case["hlo"]["all-gather"] == 0, name


@pytest.mark.slow
def test_random_fields_are_the_same_on_any_number_of_devices(sharded):
    for name, case in sharded["fields"].items():
        assert case["value"] < 1e-12, name
        assert case["cut"], name


@pytest.mark.slow
def test_resizing_moves_between_sharded_grids_and_to_whole_ones(sharded):
    for name, case in sharded["resizes"].items():
        assert case["value"] < 1e-12, name
        assert case["padding"] == 0, name
