import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxsci import viz

TS = jnp.linspace(0.0, 2.0, 5)


def test_every_quantity_is_a_named_line_over_time():
    ax = viz.plot_history(TS, {"energy": TS**2, "mean": np.ones(5)}, ylabel="value")
    energy, mean = ax.lines
    np.testing.assert_allclose(energy.get_xydata(), np.stack([TS, TS**2], axis=1))
    assert (energy.get_label(), mean.get_label()) == ("energy", "mean")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "value")
    assert energy.get_linestyle() != mean.get_linestyle()


def test_relative_changes_are_divided_by_the_size_of_the_first_value():
    _, ax = plt.subplots()
    viz.plot_history(TS, {"a": -4.0 + TS, "zero": TS}, relative=True, ax=ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.asarray(TS) / 4)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), TS)
    assert ax.get_ylabel() == "relative change"


@pytest.mark.bad_input
def test_a_history_of_another_length_is_named():
    with pytest.raises(ValueError, match=r"`values\['a'\]`.*\(5,\), got \(4,\)"):
        viz.plot_history(TS, {"a": TS[1:]})
