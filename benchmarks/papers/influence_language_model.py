"""Influence functions on a small language model (arXiv:2308.03296), in minutes on a CPU.

    python benchmarks/papers/influence_language_model.py [--quick] [--json PATH]

Data: sequences of two sentences from a made-up world of entities, relations and values. A fact
("ada moss lives in oslo") can be said in four ways that share no word but the entity and the value.
Each query asks for a fact in its first wording. Five training sequences state that fact in the
other wordings: the *near duplicates*, to be found. Five more repeat the words of the query, the
entity among them, in a sentence that says nothing about the value: *decoys* for lexical overlap.

Model: a decoder-only transformer of 1.1 M parameters in Equinox, trained here with AdamW on the
answers: the value of a fact, or "nothing" in a decoy.

What must come out: among the ten training sequences with the largest EK-FAC influence on the answer
are more of the near duplicates than among the ten of the gradient dot product, or of BM25.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _timing import write_json

from jaxsci import train
from jaxsci.curvature import fit_kronecker
from jaxsci.curvature.influence import bm25, gradient_dot, pairwise, tfidf_filter

LENGTH = 16
PLANTED = DECOYS = 5
FIRST, LAST, RELATIONS, VALUES, ENTITIES = 40, 40, 6, 30, 150
WORDINGS = 4
PAD, END, RUMOUR, NOTHING = range(4)


class World:
    """The vocabulary and the facts."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.words = ["", ".", "rumour", "nothing"]
        self.first = self._new("first", FIRST)
        self.last = self._new("last", LAST)
        self.values = [self._new(f"value{r}-", VALUES) for r in range(RELATIONS)]
        self.frames = [
            [self._new(f"rel{r}.{w}", 3) for w in range(WORDINGS)] for r in range(RELATIONS)
        ]
        pairs = self.rng.choice(FIRST * LAST, ENTITIES, replace=False)
        self.entities = [(self.first[i // LAST], self.last[i % LAST]) for i in pairs]
        self.facts = self.rng.integers(VALUES, size=(ENTITIES, RELATIONS))

    def _new(self, stem, number):
        start = len(self.words)
        self.words += [f"{stem}{i}" for i in range(number)]
        return list(range(start, start + number))

    def sentence(self, entity, relation, wording):
        f, l = self.entities[entity]
        a, b, c = self.frames[relation][wording]
        v = self.values[relation][self.facts[entity, relation]]
        return (
            [f, l, a, b, c, v, END],
            [a, b, f, l, c, v, END],
            [a, f, l, b, c, v, END],
            [a, b, c, f, l, v, END],
        )[wording]

    def decoy(self, entity, relation):
        f, l = self.entities[entity]
        return [RUMOUR, f, l, *self.frames[relation][0], NOTHING, END]


class Corpus(NamedTuple):
    tokens: np.ndarray
    queries: np.ndarray
    planted: np.ndarray  # (queries, PLANTED): rows of `tokens`
    is_answer: np.ndarray  # (vocabulary,)


def corpus(seed, size, num_queries):
    world = World(seed)
    rng = world.rng
    asked = [
        (int(e), int(rng.integers(RELATIONS)))
        for e in rng.choice(ENTITIES, num_queries, replace=False)
    ]
    hidden = set(asked)

    def background():
        while True:
            fact = int(rng.integers(ENTITIES)), int(rng.integers(RELATIONS))
            if fact not in hidden:
                return world.sentence(*fact, int(rng.integers(WORDINGS)))

    rows, owner = [], []
    for q, fact in enumerate(asked):
        for i in range(PLANTED):
            rows.append(world.sentence(*fact, 1 + i % (WORDINGS - 1)))
            owner.append(q)
        for _ in range(DECOYS):
            rows.append(world.decoy(*fact))
            owner.append(-1)
    rows += [background() for _ in range(size - len(rows))]
    owner += [-1] * (size - len(owner))
    order = rng.permutation(size)
    tokens = np.zeros((size, LENGTH), np.int32)
    for place, i in enumerate(order):
        one, other = rows[i], background()
        row = one + other if rng.random() < 0.5 else other + one
        tokens[place, : len(row)] = row
    owner = np.asarray(owner)[order]
    planted = np.stack([np.flatnonzero(owner == q) for q in range(num_queries)])
    queries = np.zeros((num_queries, LENGTH), np.int32)
    for q, fact in enumerate(asked):
        row = world.sentence(*fact, 0)[:-1]
        queries[q, : len(row)] = row
    is_answer = np.zeros(len(world.words), bool)
    is_answer[[NOTHING, *np.ravel(world.values)]] = True
    return Corpus(tokens, queries, planted, is_answer)


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, dim, heads, key):
        keys = jax.random.split(key, 4)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(dim), eqx.nn.LayerNorm(dim)
        self.qkv = eqx.nn.Linear(dim, 3 * dim, key=keys[0])
        self.out = eqx.nn.Linear(dim, dim, key=keys[1])
        self.up = eqx.nn.Linear(dim, 4 * dim, key=keys[2])
        self.down = eqx.nn.Linear(4 * dim, dim, key=keys[3])
        self.heads = heads

    def __call__(self, x):
        q, k, v = (
            h.reshape(len(x), self.heads, -1)
            for h in jnp.split(jax.vmap(self.qkv)(jax.vmap(self.norm1)(x)), 3, axis=-1)
        )
        scores = jnp.einsum("shd,thd->hst", q, k) / q.shape[-1] ** 0.5
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[1:], bool)), scores, -jnp.inf)
        mixed = jnp.einsum("hst,thd->shd", jax.nn.softmax(scores, axis=-1), v)
        x = x + jax.vmap(self.out)(mixed.reshape(x.shape))
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x))))


class Transformer(eqx.Module):
    tokens: eqx.nn.Embedding
    positions: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, vocabulary, dim, depth, heads, key):
        keys = jax.random.split(key, depth + 3)
        self.tokens = eqx.nn.Embedding(vocabulary, dim, key=keys[0])
        self.positions = 0.02 * jax.random.normal(keys[1], (LENGTH, dim))
        self.blocks = [Block(dim, heads, k) for k in keys[3:]]
        self.norm = eqx.nn.LayerNorm(dim)
        self.head = eqx.nn.Linear(dim, vocabulary, key=keys[2])

    def __call__(self, tokens):
        x = self.tokens.weight[tokens] + self.positions
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.head)(jax.vmap(self.norm)(x))


def completions(data, tokens):
    """What is to be predicted at each position: the next token where that is an answer, else -1."""
    following = np.concatenate([tokens[:, 1:], np.zeros_like(tokens[:, :1])], axis=1)
    return np.where(data.is_answer[following], following, -1)


def cross_entropy(logits, labels):
    """The sum over the predicted positions."""
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[:, None], axis=-1
    )[:, 0]
    return -jnp.sum(jnp.where(labels >= 0, chosen, 0))


def train_model(model, tokens, labels, steps, batch):
    tokens, labels = jnp.asarray(tokens), jnp.asarray(labels)

    def batches(step, key):
        index = jax.random.randint(key, (batch,), 0, len(tokens))
        return tokens[index], labels[index]

    def loss(model, batch, key):
        x, y = batch
        total = jnp.sum(jax.vmap(lambda x, y: cross_entropy(model(x), y))(x, y))
        return total / jnp.sum(y >= 0)

    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps, 1e-5)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
    return train.fit(loss, model, batches, tx, key=jax.random.key(1), num_steps=steps)


def recall(scores, planted, k=10):
    top = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return float(np.mean([np.isin(p, t).mean() for p, t in zip(planted, top, strict=True)]))


def timed(fn):
    start = time.perf_counter()
    result = jax.block_until_ready(fn())
    return result, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description="Influence functions on a small language model.")
    parser.add_argument("--quick", action="store_true", help="a small model, no verdict")
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--json", help="write the numbers there")
    args = parser.parse_args()
    size, steps, num_queries = args.sequences, args.steps, args.queries
    shape: dict[str, Any] = {"dim": 128, "depth": 5, "heads": 4}
    if args.quick:
        size, steps, num_queries = 600, 60, 8
        shape = {"dim": 32, "depth": 2, "heads": 2}

    data = corpus(0, size, num_queries)
    labels, query_labels = (completions(data, tokens) for tokens in (data.tokens, data.queries))
    vocabulary = len(data.is_answer)
    model = Transformer(vocabulary, **shape, key=jax.random.key(0))
    fitted, seconds = timed(lambda: train_model(model, data.tokens, labels, steps, 64))
    params, static = eqx.partition(fitted.model, eqx.is_inexact_array)
    number = sum(x.size for x in jax.tree.leaves(params))
    print(f"{number} parameters, {size} sequences, vocabulary {vocabulary}")

    def model_fn(params, tokens):
        return eqx.combine(params, static)(tokens)

    def loss_fn(params, example):
        tokens, labels = example
        return cross_entropy(model_fn(params, tokens), labels)

    queries = jnp.asarray(data.queries), jnp.asarray(query_labels)
    examples = data.tokens, labels
    answer = jnp.exp(-jax.vmap(lambda e: loss_fn(params, e))(queries))
    print(f"trained in {seconds:.0f} s; mean probability of the answers {answer.mean():.3f}")

    def batches():
        for start in range(0, size, 100):
            yield (
                jnp.asarray(data.tokens[start : start + 100]),
                jnp.asarray(labels[start : start + 100]),
            )

    rows = {}

    def report(name, scores, seconds):
        rows[name] = {"recall_at_10": recall(scores, data.planted), "seconds": seconds}
        print(f"{name:<34}{rows[name]['recall_at_10']:>12.3f}{seconds:>10.1f}", flush=True)

    print(f"{'method':<34}{'recall@10':>12}{'seconds':>10}")
    lexical, spent = timed(lambda: bm25(data.queries, data.tokens, padding=PAD))
    report("BM25", lexical, spent)
    dot, spent = timed(lambda: gradient_dot(loss_fn, params, queries, examples))
    report("gradient dot product", dot, spent)
    curv, fit_seconds = timed(
        lambda: fit_kronecker(
            model_fn,
            "softmax",
            params,
            batches(),
            key=jax.random.key(2),
            labels="sampled",
            factors="ekfac",
        )
    )
    print(f"{'(EK-FAC factors)':<34}{'':>12}{fit_seconds:>10.1f}")
    exact, spent = timed(lambda: pairwise(curv, loss_fn, params, queries, examples))
    report("EK-FAC influence", exact, spent)
    rank = 8 if args.quick else 32
    low, spent = timed(lambda: pairwise(curv, loss_fn, params, queries, examples, rank=rank))
    report(f"EK-FAC influence, rank {rank}", low, spent)

    kept = tfidf_filter(data.queries, data.tokens, size // 10, padding=PAD)
    chosen = np.unique(kept)
    subset = jax.tree.map(lambda x: x[chosen], examples)
    part, spent = timed(lambda: pairwise(curv, loss_fn, params, queries, subset))
    filtered = np.full(exact.shape, -np.inf)
    filtered[:, chosen] = part
    mask = np.zeros(exact.shape, bool)
    np.put_along_axis(mask, kept, True, axis=1)
    report("EK-FAC influence, lexical filter", np.where(mask, filtered, -np.inf), spent)

    verdicts = {}
    if not args.quick:
        ours = rows["EK-FAC influence"]["recall_at_10"]
        verdicts = {
            f"EK-FAC above {name}": ours > rows[name]["recall_at_10"]
            for name in ("BM25", "gradient dot product")
        }
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    write_json(
        args.json,
        {
            "jax": jax.__version__,
            "parameters": number,
            "sequences": size,
            "steps": steps,
            "train_seconds": seconds,
            "factor_seconds": fit_seconds,
            "answer_probability": float(answer.mean()),
            "rows": rows,
            "verdicts": verdicts,
        },
    )


if __name__ == "__main__":
    main()
