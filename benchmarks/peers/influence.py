"""EK-FAC influence beside kronfluence (PyTorch): the same numbers, and the time they take.

    python benchmarks/peers/influence.py [--quick] [--json PATH]

Needs torch, kronfluence 1.0.1 and scikit-learn. Both sides get the same digits MLP 64-16-10 with
the same weights, the empirical Fisher matrix (the sampled one would differ by the draws) and the
damping of each layer at a tenth of its mean eigenvalue: once in float64, to compare numbers, and
once in float32, to compare times. Our times are of the second call, after compilation, and the
first is given too; both sides run on the CPU.

Bars: factors equal to 1e-7, scores to 1e-6, relative to the largest entry.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _digits import digits
from _timing import write_json

from jaxsci.curvature import fit_kronecker
from jaxsci.curvature.influence import pairwise


def network(dtype):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10)
    ).to(dtype)


def trained(model, data, steps):
    """A few steps of L-BFGS, so that the gradients are those of a trained network."""
    x, y = (torch.tensor(a) for a in data)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=steps)

    def closure():
        optimizer.zero_grad()
        penalty = sum(torch.sum(p**2) for p in model.parameters())
        loss = torch.nn.functional.cross_entropy(model(x), y) + 5e-4 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


class Classification(Task):
    def compute_train_loss(self, batch, model, sample=False):
        x, y = batch
        return torch.nn.functional.cross_entropy(model(x), y, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def kronfluence(model, data, queries, dtype, batch):
    task = Classification()
    model = prepare_model(model, task)
    names = ["activation_covariance", "gradient_covariance", "per_sample_gradient", "lambda"]
    factor_args = FactorArguments(
        strategy="ekfac", use_empirical_fisher=True, **{f"{n}_dtype": dtype for n in names}
    )
    names = ["query_gradient_svd", "per_sample_gradient", "precondition", "score"]
    score_args = ScoreArguments(damping_factor=None, **{f"{n}_dtype": dtype for n in names})
    sets = [
        torch.utils.data.TensorDataset(torch.tensor(x, dtype=dtype), torch.tensor(y))
        for x, y in (data, queries)
    ]
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("digits", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore", FutureWarning)
        start = time.perf_counter()
        analyzer.fit_all_factors(
            "factors", sets[0], per_device_batch_size=batch, factor_args=factor_args
        )
        factor_seconds = time.perf_counter() - start
        start = time.perf_counter()
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=sets[1],
            train_dataset=sets[0],
            per_device_query_batch_size=batch,
            per_device_train_batch_size=batch,
            score_args=score_args,
        )
        score_seconds = time.perf_counter() - start
        scores = analyzer.load_pairwise_scores("scores")["all_modules"].numpy()
        raw: Any = analyzer.load_covariance_matrices("factors")
    factors = {
        f"{n}{i}": raw[f"{n}_covariance"][layer].numpy() / len(data[0])
        for n in ("activation", "gradient")
        for i, layer in enumerate(("0", "2"))
    }
    return factors, scores, factor_seconds, score_seconds


def logits(params, x):
    (w1, b1), (w2, b2) = params
    return w2 @ jnp.tanh(w1 @ x + b1) + b2


def loss(params, example):
    x, y = example
    return -jax.nn.log_softmax(logits(params, x))[y]


def timed(fn):
    start = time.perf_counter()
    result = jax.block_until_ready(fn())
    return result, time.perf_counter() - start


def ours(params, data, queries):
    fit = lambda: fit_kronecker(logits, "softmax", params, data, labels="empirical")
    score = lambda: pairwise(curv, loss, params, queries, data)
    curv, first_factors = timed(fit)
    curv, factor_seconds = timed(fit)
    _, first_scores = timed(score)
    scores, score_seconds = timed(score)
    factors = {}
    for i, block in enumerate(curv.blocks):
        factors[f"activation{i}"] = np.asarray(block.input_factor[0])
        factors[f"gradient{i}"] = np.asarray(block.output_factor[0])
    seconds = (factor_seconds, score_seconds, first_factors, first_scores)
    return factors, np.asarray(scores), *seconds


def distance(a, b):
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def main():
    parser = argparse.ArgumentParser(description="EK-FAC influence beside kronfluence.")
    parser.add_argument("--quick", action="store_true", help="100 examples and 10 queries")
    parser.add_argument("--json", help="write the numbers there")
    args = parser.parse_args()
    number, num_queries = (100, 10) if args.quick else (1000, 100)
    data, queries = digits(number, num_queries)
    model = trained(network(torch.float64), data, 20 if args.quick else 200)
    weights = [p.detach().numpy().copy() for p in model.parameters()]

    results = {}
    print(f"{'':<10}{'factors':>10}{'scores':>10}{'':4}{'seconds, factors + scores':<30}")
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        cast = lambda x, name=name: jnp.asarray(x, name)
        params = [[cast(weights[0]), cast(weights[1])], [cast(weights[2]), cast(weights[3])]]
        pair = [(cast(x), jnp.asarray(y)) for x, y in (data, queries)]
        copy = network(dtype)
        with torch.no_grad():
            for p, w in zip(copy.parameters(), weights, strict=True):
                p.copy_(torch.tensor(w))
        theirs = kronfluence(copy, data, queries, dtype, number)
        mine = ours(params, *pair)
        row = {
            "factors": max(distance(mine[0][k], theirs[0][k]) for k in theirs[0]),
            "scores": distance(mine[1], theirs[1]),
            "kronfluence_seconds": theirs[2:],
            "seconds": mine[2:4],
            "seconds_first_call": mine[4:],
        }
        results[name] = row
        print(
            f"{name:<10}{row['factors']:>10.1e}{row['scores']:>10.1e}    "
            f"kronfluence {theirs[2]:.2f} + {theirs[3]:.2f}, jaxsci {mine[2]:.3f} + {mine[3]:.3f}"
            f" (first call {mine[4]:.2f} + {mine[5]:.2f})"
        )
    equal = results["float64"]["factors"] <= 1e-7 and results["float64"]["scores"] <= 1e-6
    print(f"equal in float64: {'yes' if equal else 'NO'}")
    about = {"jax": jax.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(args.json, {**about, "examples": number, "equal": equal, **results})


if __name__ == "__main__":
    main()
