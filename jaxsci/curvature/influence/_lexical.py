"""Lexical overlap of token sequences: which training sequences are worth a gradient at all.

The score of a document for a query is Okapi BM25,

    sum_t idf(t) (k1 + 1) f / (f + k1 (1 - b + b |d| / mean |d|)),
    idf(t) = log(1 + (N - n_t + 1/2) / (n_t + 1/2)),

over the tokens t of the query, f the count of t in the document d and n_t the number of the N
documents that hold it (Robertson and Zaragoza 2009, "The probabilistic relevance framework"). It
runs on the host, in NumPy.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..._base import check_at_least, check_interval, check_nonnegative


def _sequences(name: str, tokens: Any, padding: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of all sequences in one array, and the sequence that each belongs to."""
    rows = [np.asarray(row) for row in tokens]
    for row in rows:
        if row.ndim != 1 or not (np.issubdtype(row.dtype, np.integer) or row.size == 0):
            raise TypeError(
                f"`{name}` must hold sequences of integer tokens, shape (number, length) or a "
                f"list of one-dimensional arrays; one has shape {row.shape} and dtype {row.dtype}."
            )
    if not rows:
        raise ValueError(f"`{name}` must hold at least one sequence, got none.")
    flat = np.concatenate([row.astype(np.int64) for row in rows])
    owner = np.repeat(np.arange(len(rows)), [row.size for row in rows])
    keep = flat >= 0
    if padding is not None:
        keep &= flat != padding
    return flat[keep], owner[keep]


def bm25(
    queries: Any,
    documents: Any,
    k1: float = 1.5,
    b: float = 0.75,
    *,
    padding: int | None = None,
) -> Float[np.ndarray, "queries documents"]:
    """The BM25 score of every document for every query.

    **Arguments:**

    - `queries`, `documents`: integer tokens, shape `(number, length)`, or a list of integer arrays
        of any lengths. Negative tokens are padding.
    - `k1`: how slowly repeated tokens saturate, at least zero; zero counts presence only.
    - `b`: how strongly long documents are marked down, in [0, 1].
    - `padding`: a further token that is ignored.

    **Returns:**

    Scores in float64, shape `(queries, documents)`; zero where no token is shared. A token that a
    query repeats counts as often as it occurs.

    **Raises:**

    `TypeError` if the tokens are not integers; `ValueError` if `k1` or `b` is out of range or there
    is no query or no document.
    """
    check_nonnegative("k1", k1)
    check_interval("b", b, 0, 1)
    asked, query = _sequences("queries", queries, padding)
    held, document = _sequences("documents", documents, padding)
    num_queries, num_documents = len(queries), len(documents)
    vocabulary, asked = np.unique(asked, return_inverse=True)
    scores = np.zeros((num_queries, num_documents))
    if not vocabulary.size:
        return scores

    lengths = np.bincount(document, minlength=num_documents).astype(float)
    # Tokens that no query holds enter through the lengths alone.
    place = np.minimum(np.searchsorted(vocabulary, held), vocabulary.size - 1)
    shared = vocabulary[place] == held
    pairs, counts = np.unique(place[shared] * num_documents + document[shared], return_counts=True)
    token, document = np.divmod(pairs, num_documents)
    containing = np.bincount(token, minlength=vocabulary.size)
    idf = np.log1p((num_documents - containing + 0.5) / (containing + 0.5))
    relative = lengths[document] / max(lengths.mean(), np.finfo(float).tiny)
    weight = idf[token] * (k1 + 1) * counts / (counts + k1 * (1 - b + b * relative))

    starts = np.searchsorted(token, np.arange(vocabulary.size + 1))
    for q, t in zip(query, asked, strict=True):
        here = slice(starts[t], starts[t + 1])
        scores[q, document[here]] += weight[here]
    return scores


def tfidf_filter(
    queries: Any,
    documents: Any,
    num: int,
    *,
    k1: float = 1.5,
    b: float = 0.75,
    padding: int | None = None,
) -> Int[np.ndarray, "queries num"]:
    """The documents with the largest lexical overlap with each query.

    The pre-filter of influence on language models: gradients are then computed of these documents
    alone. It is blind to influence without shared words, so pair it with a scan of an unfiltered
    sample for many queries at once. Grosse et al. 2023, "Studying large language model
    generalization with influence functions" (arXiv:2308.03296), section 3.2.

    **Arguments:**

    - `queries`, `documents`, `k1`, `b`, `padding`: as in
        [`bm25`][jaxsci.curvature.influence.bm25].
    - `num`: how many documents to keep for each query, at most their number.

    **Returns:**

    Their indices, best first, shape `(queries, num)`; ties go to the smaller index. The union over
    the queries is `np.unique(indices)`.

    **Raises:**

    As `bm25`; `ValueError` if `num` is not between one and the number of documents.
    """
    check_at_least("num", num, 1)
    if num > len(documents):
        raise ValueError(
            f"`num` must be at most the number of documents, {len(documents)}, got {num}."
        )
    scores = bm25(queries, documents, k1, b, padding=padding)
    return np.argsort(-scores, axis=1, kind="stable")[:, :num]
