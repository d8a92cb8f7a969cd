import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from capture_cases import affine, CASES, DENSE, normal, X
from jaxsci.curvature import capture_layers
from simulated_devices import on_eight_devices


@functools.cache
def sites_of(case):
    fn, params, args, _, _ = CASES[case]
    return capture_layers(fn, params, *args)


def weighted(outputs):
    """A scalar function of any outputs, and the gradient of it."""
    return sum(
        jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype))
        for x in jax.tree.leaves(outputs)
    )


def rebuilt(sites, params, args):
    outputs, inputs, pullback = sites.vjp(params, *args)
    deltas, rest = pullback(jax.grad(weighted)(outputs))
    return sites.from_matrices(sites.gradients(inputs, deltas), rest)


WRITTEN_OUT = ("scan over layers", "grouped convolution", "shared weight", "tied embedding")


def products(sites, params, args):
    """Inputs, deltas, and what each block makes of them."""
    outputs, inputs, pullback = sites.vjp(params, *args)
    deltas, _ = pullback(jax.grad(weighted)(outputs))
    out = []
    for block, a, d in zip(sites.blocks, inputs, deltas):
        v = normal(5, *block.shape)
        out.append((a, d, v, block.input_gram(a), block.output_gram(d), block.apply(v, a)))
    return out


def round_trip(sites, params):
    matrices, rest = sites.to_matrices(params)
    return matrices, rest, sites.from_matrices(matrices, rest)


@functools.cache
def everything():
    """Of every case rebuilt and true gradients, products, and matrices, compiled as one program."""

    def run(cases):
        return {
            name: (
                rebuilt(sites_of(name), params, args),
                jax.grad(lambda p, f=CASES[name][0], args=args: weighted(f(p, *args)))(params),
                products(sites_of(name), params, args) if name in WRITTEN_OUT else None,
                round_trip(sites_of(name), params),
            )
            for name, (params, args) in cases.items()
        }

    # Compiling takes most of the time, running none.
    quickly = {"xla_backend_optimization_level": 0}
    arguments = {name: (p, args) for name, (_, p, args, _, _) in CASES.items()}
    return jax.jit(run, compiler_options=quickly)(arguments)


@pytest.mark.parametrize("case", CASES)
def test_layers_are_found_where_they_are(case):
    sites, (_, _, _, blocks, left_out) = sites_of(case), CASES[case]
    found = [
        (b.path, b.bias_path, b.kind, b.stack, b.in_features, b.out_features, b.positions)
        for b in sites.blocks
    ]
    assert found == blocks
    assert sites.uncaptured == tuple(left_out)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_sums_of_outputs_times_inputs(case):
    ours, reference, _, _ = everything()[case]
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * float(jnp.max(jnp.abs(b))))


def test_inputs_and_output_gradients_of_an_mlp_are_those_of_the_chain_rule():
    p = {"w1": normal(1, 3, 4), "b1": normal(2, 4), "w2": normal(3, 2, 4), "b2": normal(4, 2)}
    x = X[0]

    def fn(p, x):
        return p["w2"] @ jnp.tanh(x @ p["w1"] + p["b1"]) + p["b2"]

    sites = capture_layers(fn, p, x)

    @jax.jit
    def run():
        outputs, inputs, pullback = sites.vjp(p, x)
        return outputs, inputs, pullback(jnp.array([1.0, -2.0]))

    outputs, ((a1,), (a2,)), (((d1,), (d2,)), rest) = run()
    h = np.tanh(np.asarray(x @ p["w1"] + p["b1"]))
    np.testing.assert_allclose(outputs, p["w2"] @ h + p["b2"], rtol=1e-14)
    np.testing.assert_allclose(a1[0, 0], [*x, 1], rtol=1e-14)
    np.testing.assert_allclose(a2[0, 0], [*h, 1], rtol=1e-14)
    np.testing.assert_allclose(d2[0, 0], [1, -2], rtol=1e-14)
    np.testing.assert_allclose(d1[0, 0], (1 - h**2) * (p["w2"].T @ np.array([1.0, -2])), rtol=1e-13)
    assert rest == {}


def test_examples_and_cotangents_can_be_mapped_over():
    sites = sites_of("x @ w")
    xs = normal(20, 2, 5, 3)

    def of_example(x):
        outputs, inputs, pullback = sites.vjp(DENSE, x)
        basis = jnp.eye(outputs.size).reshape(-1, *outputs.shape)
        return inputs, jax.vmap(pullback)(basis)[0]

    ((a,),), ((d,),) = jax.jit(jax.vmap(of_example))(xs)
    assert a.shape == (2, 1, 5, 4)
    np.testing.assert_array_equal(a[:, 0, :, :3], xs)
    np.testing.assert_array_equal(d.reshape(2, 20, 20), np.tile(np.eye(20), (2, 1, 1)))


def test_recording_gives_the_inputs_of_the_backward_pass_and_takes_other_sizes():
    sites = sites_of("GRU over time")
    fn, params, _, _, _ = CASES["GRU over time"]
    xs = normal(21, 3, 3)
    outputs, inputs = jax.jit(sites.record)(params, xs)
    for ours, theirs in zip(jax.tree.leaves(outputs), jax.tree.leaves(fn(params, xs))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    np.testing.assert_array_equal(inputs[0][0][0], np.c_[xs, np.ones(3)])
    np.testing.assert_allclose(inputs[1][0][0], outputs[1], rtol=1e-13)


def test_layers_of_a_scan_are_a_stack_in_their_own_order():
    _, params, (x,), _, _ = CASES["scan over layers"]
    _, ((inputs,),) = jax.jit(sites_of("scan over layers").record)(params, x)
    for layer in range(6):
        np.testing.assert_allclose(inputs[layer], np.c_[x, np.ones(5)], rtol=1e-13)
        x = np.tanh(np.asarray(x @ params["w"][layer] + params["b"][layer]))


def test_inputs_of_a_convolution_are_its_patches():
    _, params, (image,), _, _ = CASES["convolution"]
    _, ((patches,),) = jax.jit(sites_of("convolution").record)(params, image)
    padded = np.pad(image, ((0, 0), (1, 2), (0, 1)))
    reference = np.array(
        [padded[:, 2 * i : 2 * i + 3, j : j + 4 : 2] for i in range(5) for j in range(5)]
    )
    np.testing.assert_array_equal(patches[0, :, :-1], reference.reshape(25, 12))


def test_inputs_of_an_embedding_are_row_numbers():
    _, params, (tokens,), _, _ = CASES["embedding"]
    _, (inputs,) = jax.jit(sites_of("embedding").record)(params, tokens)
    assert [list(index[0]) for index in inputs] == [[1, 2, 2, 0, 5], [1]]


def test_rows_out_of_range_are_not_counted():
    table = {"e": normal(1, 7, 4)}
    tokens = jnp.array([-1, 3, 9, -9])
    sites = capture_layers(lambda p, i: p["e"].at[i].get(mode="fill", fill_value=0), table, tokens)
    _, inputs, pullback = sites.vjp(table, tokens)
    deltas, _ = pullback(jnp.ones((4, 4)))
    (gradient,) = sites.gradients(inputs, deltas)
    np.testing.assert_array_equal(gradient[0].sum(0) / 4, [0, 0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(sites.blocks[0].input_gram(inputs[0]), [[0, 0, 0, 1, 0, 0, 1]])


def test_the_bias_coordinate_is_zero_where_the_bias_is_not_added():
    _, params, (x,), _, _ = CASES["shared weight"]
    _, ((first, second),) = jax.jit(sites_of("shared weight").record)(params, x)
    assert np.all(first[..., -1] == 1)
    assert np.all(second[..., -1] == 0)


def one_hot(block, index):
    return np.eye(block.in_features)[index] if block.kind == "embedding" else np.asarray(index)


def test_grams_and_products_are_those_of_the_rows_written_out():
    for name in WRITTEN_OUT:
        results = everything()[name][2]
        for block, (inputs, deltas, v, input_gram, output_gram, products) in zip(
            sites_of(name).blocks, results
        ):
            rows = [one_hot(block, np.asarray(a)) for a in inputs]
            a = np.concatenate(rows, axis=1)
            d = np.concatenate(deltas, axis=1)
            gram = np.einsum("sti,stj->sij", a, a)
            if block.kind == "embedding":
                input_gram = np.stack([np.diag(counts) for counts in input_gram])
            np.testing.assert_allclose(input_gram, gram, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                output_gram, np.einsum("sti,stj->sij", d, d), rtol=1e-12, atol=1e-12
            )
            for row, product in zip(rows, products, strict=True):
                np.testing.assert_allclose(product, row @ np.swapaxes(v, 1, 2), atol=1e-12)


def test_parts_of_positions_sum_to_the_product_with_the_gradient():
    for name in WRITTEN_OUT:
        results = everything()[name][2]
        for block, (inputs, deltas, v, _, _, products) in zip(sites_of(name).blocks, results):
            parts = sum(np.sum(d * np.asarray(p)) for d, p in zip(deltas, products))
            gradient = sum(
                np.einsum("sto,sti->soi", d, one_hot(block, np.asarray(a)))
                for a, d in zip(inputs, deltas)
            )
            np.testing.assert_allclose(parts, np.sum(gradient * v), rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_matrices_hold_every_leaf_and_give_it_back(case):
    sites, params = sites_of(case), CASES[case][1]
    matrices, rest, back = everything()[case][3]
    assert [m.shape for m in matrices] == [block.shape for block in sites.blocks]
    entries = [np.ravel(x) for x in (*matrices, *rest.values())]
    every = [np.ravel(x) for x in jax.tree.leaves(params)]
    np.testing.assert_array_equal(np.sort(np.concatenate(entries)), np.sort(np.concatenate(every)))
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def of_an_affine_layer(dtype):
    """Everything that the layers give, in the precision of the arguments."""
    p, x = jax.tree.map(lambda x: x.astype(dtype), (DENSE, X))
    sites = capture_layers(affine, p, x)

    @jax.jit
    def run(p, x):
        outputs, inputs, pullback = sites.vjp(p, x)
        deltas, rest = pullback(outputs)
        block, matrices = sites.blocks[0], sites.gradients(inputs, deltas)
        sums = (matrices, block.input_gram(inputs[0]), block.output_gram(deltas[0]))
        reference = jax.grad(lambda p: jnp.sum(affine(p, x) ** 2) / 2)(p)
        return (outputs, inputs, deltas), sums, sites.from_matrices(matrices, rest), reference

    return run(p, x)


def test_single_precision_stays_single():
    *arrays, rebuilt, reference = of_an_affine_layer(jnp.float32)
    assert {x.dtype for x in jax.tree.leaves((arrays, rebuilt))} == {np.dtype("float32")}
    np.testing.assert_allclose(rebuilt["w"], reference["w"], rtol=1e-5)


def test_half_precision_is_summed_in_single():
    arrays, sums, rebuilt, _ = of_an_affine_layer(jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves((arrays, rebuilt))} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(sums)} == {np.dtype("float32")}


def test_casts_of_a_weight_are_seen_through():
    def fn(p, x):
        y = x.astype(jnp.float32) @ p["w"].astype(jnp.float32) + p["b"].astype(jnp.float32)
        return y.astype(x.dtype)

    sites = capture_layers(fn, DENSE, X)
    assert sites.blocks[0].bias_path == "['b']"
    sites.check(DENSE, X)


def test_casts_to_complex_numbers_and_integers_are_not():
    def fn(p, x):
        y = jnp.abs(x.astype(complex) @ p["w"].astype(complex))
        return y @ p["u"] + jnp.sum(x.astype(int) @ p["u"][:3].astype(int))

    sites = capture_layers(fn, {"w": DENSE["w"], "u": normal(1, 4, 2)}, X)
    assert [block.path for block in sites.blocks] == ["['u']"]
    assert "complex" in sites.reasons["['w']"]


def test_described_arrays_and_tracers_are_enough_to_capture():
    described = jax.eval_shape(lambda: (DENSE, X))
    assert capture_layers(affine, *described) == sites_of("x @ w")
    found = []
    jax.eval_shape(lambda p, x: found.append(capture_layers(affine, p, x)), *described)
    assert found[0].blocks == sites_of("x @ w").blocks


def test_equal_captures_are_one_static_argument():
    again = capture_layers(affine, DENSE, X)
    assert again == sites_of("x @ w")
    assert hash(again) == hash(sites_of("x @ w"))
    assert again != sites_of("scan over layers")


def test_leaves_left_out_come_with_a_reason():
    reasons = {name: sites_of(name).reasons for name in CASES}
    assert "`mul`" in reasons["normalisation"]["['scale']"]
    assert "conditional" in reasons["branches"]["['w']"]
    assert "rule of its own" in reasons["straight-through rounding"]["['w']"]
    unused = capture_layers(lambda p, x: x @ p["w"], DENSE, X)
    assert unused.reasons == {"['b']": "it is not used"}
    assert "['b']: it is not used" in repr(unused)


def test_a_derivative_rule_that_hides_a_layer_fails_the_check():
    @jax.custom_vjp
    def clipped(x, w):
        return x @ w

    clipped.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, ct: (0 * r[0], 0 * r[1]))
    sites = capture_layers(lambda p, x: clipped(x, p["w"]) + p["b"], DENSE, X)
    with pytest.raises(ValueError, match=r"\['w'\].* differs"):
        sites.check(DENSE, X)


@pytest.mark.slow
def test_layers_of_sharded_parameters_gather_nothing():
    case = on_eight_devices(Path(__file__).with_name("sharded_layers.py"))
    assert case["blocks"] == 2
    assert case["error"] < 1e-12
    assert case["gathered"] == [0, 0]


def test_other_parameters_or_another_use_of_them_are_refused():
    sites = sites_of("x @ w")
    with pytest.raises(ValueError, match="structure"):
        sites.record({"w": DENSE["w"]}, X)
    depends = lambda p, x: affine(p, x) if len(x) > 3 else jnp.sum(p["w"]) + p["b"]
    with pytest.raises(ValueError, match="another way"):
        capture_layers(depends, DENSE, X).record(DENSE, X[:2])


@pytest.mark.bad_input
def test_a_weight_in_a_while_loop_is_an_error_that_names_it():
    def fn(p, x):
        return lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x @ p["w"], x)

    with pytest.raises(ValueError, match=r"\['w'\].*while"):
        capture_layers(fn, {"w": jnp.eye(3)}, X)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jnp.ones((3, 4), complex), "real and imaginary"),
        (jnp.ones((3, 4), int), "leave other leaves out"),
        ("relu", "'relu'"),
    ],
)
def test_parameters_that_are_not_real_floating_arrays_are_refused(leaf, message):
    with pytest.raises(TypeError, match=message):
        capture_layers(affine, {**DENSE, "c": leaf}, X)


@pytest.mark.bad_input
def test_trees_and_matrices_that_do_not_fit_are_refused():
    sites = sites_of("x @ w")
    with pytest.raises(ValueError, match="structure"):
        sites.to_matrices({"w": DENSE["w"]})
    with pytest.raises(ValueError, match=r"\['w'\]"):
        sites.to_matrices({**DENSE, "w": DENSE["w"].T})
    with pytest.raises(ValueError, match="rest"):
        sites.from_matrices([jnp.ones((1, 4, 4))], {"['c']": jnp.ones(3)})
    with pytest.raises(ValueError, match="shape"):
        sites.from_matrices([jnp.ones((1, 4, 3))], {})
