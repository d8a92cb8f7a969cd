import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxsci._base import all_finite, raise_if_failed, RESULTS


def test_only_inexact_leaves_decide_whether_a_tree_is_finite():
    assert all_finite({"a": jnp.ones(2), "n": jnp.arange(3), "s": "text"})
    assert all_finite({})
    for bad in (jnp.nan, jnp.inf, complex(0, jnp.inf)):
        assert not all_finite([jnp.ones(2), jnp.array([1, bad])])


def test_success_raises_nothing_and_neither_does_a_code_that_is_not_known_yet():
    raise_if_failed(RESULTS.successful, "solve")

    @eqx.filter_jit
    def run(x):
        code = RESULTS.where(x > 0, RESULTS.successful, RESULTS.nonfinite)
        raise_if_failed(code, "solve")
        return code

    assert run(jnp.array(1.0)) == RESULTS.successful
    assert run(jnp.array(-1.0)) == RESULTS.nonfinite


def test_a_failure_raises_its_message_with_the_name_of_the_computation():
    with pytest.raises(RuntimeError, match=r"my solve: A non-finite value"):
        raise_if_failed(RESULTS.nonfinite, "my solve")


def test_one_failure_in_a_batch_of_results_raises():
    code = eqx.filter_vmap(
        lambda x: RESULTS.where(x > 0, RESULTS.successful, RESULTS.not_converged)
    )
    raise_if_failed(code(jnp.ones(3)), "batch")
    with pytest.raises(RuntimeError, match="batch: The iteration did not converge"):
        raise_if_failed(code(jnp.array([1.0, -1.0, 1.0])), "batch")


def test_finiteness_is_decided_inside_compiled_code():
    assert not jax.jit(all_finite)(jnp.array([1.0, jnp.nan]))
