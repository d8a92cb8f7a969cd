"""Kronecker-factored influence functions against the exact ones: digits, a minute on a CPU.

    python benchmarks/papers/ekfac_influence.py [--quick] [--json PATH]

Data: scikit-learn digits / 16, permutation RandomState(0), 1000 to train on, 100 queries.
Model: tanh MLP 64-16-10 (1210 parameters), trained by L-BFGS with weight decay 1e-3, float64.

Table 1: the mean over queries of the correlation (Pearson / Spearman) of scores with those of the
exact damped Gauss-Newton matrix. What must come out, at every damping: its diagonal blocks are at
least as close as EK-FAC, EK-FAC is as close as K-FAC (to .02), and the gradient dot product is
behind EK-FAC by .1, .25 and .3 (Pearson) at damping .1, .01 and .001.
Table 2: compression of the queries by rank, correlation with the uncompressed scores.
Table 3: 50 of the 1000 labels flipped, area under the curve of finding them by self-influence; at
least .98 for each of three seeds.
Times are of a second call, after compilation, at the size of table 1.
"""

import argparse
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _digits import digits
from _timing import write_json

from jaxsci.curvature import fit_kronecker
from jaxsci.curvature.influence import exact_ggn, gradient_dot, pairwise, self_influence

DECAY = 1e-3
BARS = {0.1: 0.1, 0.01: 0.25, 0.001: 0.3}


def init_params(seed):
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(16, 64)) / 8,
        "b1": np.zeros(16),
        "w2": rng.normal(size=(10, 16)) / 4,
        "b2": np.zeros(10),
    }


def logits(params, x):
    return params["w2"] @ jnp.tanh(params["w1"] @ x + params["b1"]) + params["b2"]


def loss(params, example):
    x, y = example
    return -jax.nn.log_softmax(logits(params, x))[y]


losses = jax.vmap(loss, in_axes=(None, 0))


def trained(params, data, steps):
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))

    @jax.jit
    def objective(flat):
        return jax.value_and_grad(
            lambda p: jnp.mean(losses(unravel(p), data)) + DECAY / 2 * jnp.sum(p**2)
        )(flat)

    def on_host(flat):
        value, gradient = objective(flat)
        return float(value), np.asarray(gradient)

    result = minimize(on_host, flat, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return unravel(jnp.asarray(result.x))


def layer_blocks(operator, params, damping):
    """The operator with what couples the two layers set to zero."""
    layer = {"w1": 0, "b1": 0, "w2": 1, "b2": 1}
    labels, unravel = ravel_pytree({k: jnp.full(v.shape, layer[k]) for k, v in params.items()})
    same = labels[:, None] == labels[None, :]
    matrix = jnp.where(same, operator.as_matrix(), 0) + damping * jnp.eye(len(labels))
    _, unravel = ravel_pytree(params)
    return lx.FunctionLinearOperator(
        lambda v: unravel(matrix @ ravel_pytree(v)[0]),
        jax.eval_shape(lambda: params),
        lx.positive_semidefinite_tag,
    )


def correlations(a, b):
    def mean(a, b):
        return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))

    a, b = np.asarray(a), np.asarray(b)
    return mean(a, b), mean(rankdata(a, axis=1), rankdata(b, axis=1))


def area_under_curve(scores, positive):
    ranks = rankdata(np.asarray(scores))
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def timed(fn):
    start = time.perf_counter()
    result = jax.block_until_ready(fn())
    return result, time.perf_counter() - start


def flipped(y, number, seed):
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(y), bool)
    wrong[rng.choice(len(y), number, replace=False)] = True
    return np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y), wrong


def main():
    parser = argparse.ArgumentParser(description="Kronecker-factored influence on digits.")
    parser.add_argument("--quick", action="store_true", help="100 examples, one seed, no verdict")
    parser.add_argument("--json", help="write the numbers there")
    args = parser.parse_args()
    number, num_queries, steps = (100, 10, 50) if args.quick else (1000, 100, 500)
    data, queries = digits(number, num_queries)
    data, queries = jax.tree.map(jnp.asarray, (data, queries))
    params = trained(init_params(0), data, steps)

    def fit(factors):
        return fit_kronecker(logits, "softmax", params, data, factors=factors)

    curvatures = {}
    for name, factors in (("EK-FAC", "ekfac"), ("K-FAC", "kfac")):
        fit(factors)
        curvatures[name], seconds = timed(lambda factors=factors: fit(factors))
        if name == "EK-FAC":
            factor_seconds = seconds
    undamped = exact_ggn(logits, "softmax", params, data)
    dots = gradient_dot(loss, params, queries, data)

    table = {}
    print(f"{'damping':<10}{'method':<22}{'Pearson':>9}{'Spearman':>10}")
    for damping in BARS:
        exact = pairwise(
            exact_ggn(logits, "softmax", params, data, damping), loss, params, queries, data
        )
        scores = {
            "blocks of the GGN": pairwise(
                layer_blocks(undamped, params, damping), loss, params, queries, data
            )
        }
        for name, curv in curvatures.items():
            scores[name] = pairwise(curv, loss, params, queries, data, damping=damping)
        scores["gradient dot product"] = dots
        table[damping] = {name: correlations(s, exact) for name, s in scores.items()}
        for name, (pearson, spearman) in table[damping].items():
            print(f"{damping:<10g}{name:<22}{pearson:>9.3f}{spearman:>10.3f}", flush=True)

    curv = curvatures["EK-FAC"]
    whole, score_seconds = timed(
        lambda: pairwise(curv, loss, params, queries, data, damping=jnp.asarray(0.01))
    )
    ranks = {}
    print(f"\n{'rank':<10}{'Pearson with all ranks':>24}")
    for rank in (1, 2, 4, 8):
        low = pairwise(curv, loss, params, queries, data, rank=rank, damping=0.01)
        ranks[rank] = correlations(low, whole)[0]
        print(f"{rank:<10}{ranks[rank]:>24.5f}")
    print(
        f"\nfactors {factor_seconds:.3f} s, {num_queries} x {number} scores {score_seconds:.3f} s"
    )

    areas = []
    print(f"\n{'seed':<10}{'AUC of mislabelled':>20}")
    for seed in range(1 if args.quick else 3):
        labels, wrong = flipped(np.asarray(data[1]), number // 20, seed)
        noisy = data[0], jnp.asarray(labels)
        fitted = trained(init_params(seed), noisy, steps)
        own = self_influence(fit_kronecker(logits, "softmax", fitted, noisy), loss, fitted, noisy)
        areas.append(area_under_curve(own, wrong))
        print(f"{seed:<10}{areas[-1]:>20.4f}")

    verdicts = {}
    if not args.quick:
        for damping, bar in BARS.items():
            pearson = {name: row[0] for name, row in table[damping].items()}
            ours = pearson["EK-FAC"]
            verdicts |= {
                f"damping {damping:g}: blocks at least as close as EK-FAC": pearson[
                    "blocks of the GGN"
                ]
                >= ours,
                f"damping {damping:g}: EK-FAC as close as K-FAC, to .02": abs(
                    ours - pearson["K-FAC"]
                )
                <= 0.02,
                f"damping {damping:g}: EK-FAC ahead of the dot product by {bar:g}": ours
                - pearson["gradient dot product"]
                >= bar,
            }
        verdicts["mislabelled examples found, AUC at least .98"] = min(areas) >= 0.98
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    write_json(
        args.json,
        {
            "jax": jax.__version__,
            "correlations": {str(k): v for k, v in table.items()},
            "ranks": ranks,
            "factor_seconds": factor_seconds,
            "score_seconds": score_seconds,
            "mislabel_auc": areas,
            "verdicts": verdicts,
        },
    )


if __name__ == "__main__":
    main()
