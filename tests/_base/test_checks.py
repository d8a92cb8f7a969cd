import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci._base import (
    check_at_least,
    check_choice,
    check_finite,
    check_interval,
    check_nonnegative,
    check_positive,
    is_concrete,
)

GOOD = {
    "finite": lambda v: check_finite("x", v),
    "positive": lambda v: check_positive("x", v),
    "nonnegative": lambda v: check_nonnegative("x", v),
    "at_least": lambda v: check_at_least("x", v, 1),
    "interval": lambda v: check_interval("x", v, 0, 2),
}


@pytest.mark.parametrize("check", GOOD.values(), ids=GOOD)
def test_a_check_passes_numbers_arrays_and_pytrees_of_allowed_values(check):
    for value in (1, 1.5, np.float32(1), np.array([1.0, 2.0]), jnp.ones((2, 3)), (1.0, 2.0)):
        assert check(value) is None


@pytest.mark.parametrize("check", GOOD.values(), ids=GOOD)
def test_a_check_passes_values_that_are_not_known_yet(check):
    jaxpr = jax.make_jaxpr(lambda v: (check(v), v)[1])(-1.0)
    assert len(jaxpr.eqns) == 0
    check(jax.ShapeDtypeStruct((), jnp.float32))
    jax.eval_shape(jax.vmap(lambda v: (check(v), v)[1]), jnp.array([-1.0, jnp.nan]))


def test_zero_is_nonnegative_and_ends_belong_to_the_interval_that_says_so():
    check_nonnegative("x", 0.0)
    check_at_least("x", 3, 3)
    check_interval("x", 0, 0, 1, closed="left")
    check_interval("x", 1, 0, 1, closed="right")
    check_interval("x", 0.5, 0, 1, closed="neither")
    check_choice("x", "a", ("a", "b"))


def test_only_tracers_are_not_concrete():
    assert is_concrete(1, "text", None, {"a": np.ones(2), "b": jnp.ones(2)})
    seen = []
    jax.make_jaxpr(lambda v: (seen.append(is_concrete({"a": 1, "b": v})), v)[1])(1.0)
    assert seen == [False]


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [jnp.nan, np.inf, -np.inf, np.array([1.0, np.nan])])
def test_a_value_that_is_not_finite_fails_every_sign_check(value):
    for check in (check_finite, check_positive, check_nonnegative):
        with pytest.raises(ValueError, match=r"`rate` must be finite, got .*(nan|inf)"):
            check("rate", value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: check_positive("dt", 0.0), r"`dt` must be positive, got 0\.0"),
        (lambda: check_positive("dt", np.array([1, -2])), r"`dt` must be positive, got array"),
        (lambda: check_nonnegative("drag", -1), r"`drag` must be at least zero, got -1"),
        (lambda: check_at_least("n", 3, 4), r"`n` must be at least 4, got 3"),
        (lambda: check_at_least("n", (8, 3), 4), r"`n` must be at least 4, got \(8, 3\)"),
        (lambda: check_interval("p", 2, 0, 1), r"`p` must be in \[0, 1\], got 2"),
        (lambda: check_interval("p", 1, 0, 1, closed="left"), r"`p` must be in \[0, 1\), got 1"),
        (lambda: check_interval("p", 0, 0, 1, closed="right"), r"`p` must be in \(0, 1\], got 0"),
        (lambda: check_interval("p", 0, 0, 1, closed="neither"), r"`p` must be in \(0, 1\), got 0"),
        (lambda: check_interval("p", np.nan, 0, 1), r"`p` must be in \[0, 1\], got nan"),
        (lambda: check_choice("m", "c", ("a", "b")), r"`m` must be one of 'a', 'b', got 'c'"),
    ],
)
def test_an_error_names_the_argument_the_value_and_what_is_allowed(run, message):
    with pytest.raises(ValueError, match=message):
        run()
