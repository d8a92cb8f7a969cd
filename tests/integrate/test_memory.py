"""Plans of gradient memory against what the compiler allocates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ETDRK2, memory_plan, rollout
from jaxsci.pde import burgers
from jaxsci.spectral import FourierGrid

GRID = FourierGrid(256, 2 * np.pi)
STEPS = 400


def loss(viscosity, u0, checkpoint):
    term = burgers(GRID, viscosity=viscosity)
    options = {"dt": 0.001, "num_steps": STEPS, "save_every": STEPS, "checkpoint": checkpoint}
    return jnp.sum(GRID.ifft(rollout(ETDRK2(), term, GRID.fft(u0), **options)) ** 2)


ARGUMENTS = (jnp.asarray(0.1), jnp.sin(GRID.x[0]))


@pytest.fixture(scope="module")
def plan():
    return memory_plan(loss, 1e6, *ARGUMENTS)


def test_it_looks_from_the_fastest_mode_on_until_one_fits(plan):
    modes = list(plan.bytes)
    assert modes[-1] == plan.checkpoint
    assert plan.bytes[plan.checkpoint] <= 1e6
    assert all(plan.bytes[m] > 1e6 for m in modes[:-1])
    assert plan.checkpoint != "none"


def test_the_figures_are_those_of_the_compiled_gradient(plan):
    for mode in plan.bytes:
        gradient = jax.jit(jax.grad(lambda *a: loss(*a, mode), argnums=(0, 1)))  # noqa: B023
        memory = gradient.lower(*ARGUMENTS).compile().memory_analysis()
        peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        assert plan.bytes[mode] == pytest.approx(peak + memory.output_size_in_bytes, rel=0.2)
    # All intermediates of all steps: at least two complex states a step.
    assert plan.bytes["none"] > STEPS * 2 * 129 * 16


def test_it_prints_a_table(plan):
    text = str(plan)
    assert "budget 1.0 MB" in text
    assert f"{plan.checkpoint:>9}" in text
    assert text.count("chosen") == 1


def test_shapes_are_enough():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ARGUMENTS)
    plan = memory_plan(loss, None, *shapes)
    assert plan.checkpoint == "none"
    assert plan.budget > 1e8


@pytest.mark.bad_input
def test_bad_plans_are_refused():
    with pytest.raises(ValueError, match="No mode fits in `budget` = 1000 bytes"):
        memory_plan(loss, 1000, *ARGUMENTS, modes=("sqrt",))
    with pytest.raises(ValueError, match="`budget` must be positive"):
        memory_plan(loss, -1.0, *ARGUMENTS)
    with pytest.raises(ValueError, match="`modes` must be one of"):
        memory_plan(loss, 1e9, *ARGUMENTS, modes=("half",))
    with pytest.raises(TypeError, match="`f` must be a function"):
        memory_plan(3.0, 1e9)
