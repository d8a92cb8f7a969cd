import math

import numpy as np
import pytest

from jaxsci.curvature.influence import bm25, tfidf_filter

DOCUMENTS = [[1, 2, 3], [1, 1, 4, 5], [6], [2, 3, 2, 3, 2, 3]]


def by_definition(query, documents, k1, b):
    """The formula, word by word."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for d in documents:
        score = 0.0
        for t in query:
            n = sum(t in other for other in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            f = d.count(t)
            score += idf * (k1 + 1) * f / (f + k1 * (1 - b + b * len(d) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.5, 0.0), (2.0, 1.0)])
def test_scores_equal_the_definition(k1, b):
    queries = [[1, 2], [3, 3, 9], [7]]
    ours = bm25([np.array(q) for q in queries], [np.array(d) for d in DOCUMENTS], k1, b)
    expected = [by_definition(q, DOCUMENTS, k1, b) for q in queries]
    np.testing.assert_allclose(ours, expected, rtol=1e-13, atol=1e-15)


def test_padding_changes_nothing():
    padded = np.full((4, 8), -1)
    zeros = np.zeros((4, 8), int)
    for i, d in enumerate(DOCUMENTS):
        padded[i, : len(d)] = zeros[i, : len(d)] = d
    query = np.array([[1, 2, -1, -1]])
    ragged = bm25([np.array([1, 2])], [np.array(d) for d in DOCUMENTS])
    np.testing.assert_array_equal(bm25(query, padded), ragged)
    np.testing.assert_array_equal(bm25(np.maximum(query, 0), zeros, padding=0), ragged)


def test_a_query_without_shared_words_scores_zero():
    assert not bm25([np.array([77])], [np.array(d) for d in DOCUMENTS]).any()
    assert not bm25(np.array([[-1, -1]]), [np.array(d) for d in DOCUMENTS]).any()


def test_the_filter_keeps_the_best_in_order_with_ties_by_index():
    documents = [np.array(d) for d in DOCUMENTS]
    kept = tfidf_filter([np.array([3]), np.array([77])], documents, 2)
    np.testing.assert_array_equal(kept, [[3, 0], [0, 1]])


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    documents = [np.array(d) for d in DOCUMENTS]
    query = [np.array([1])]
    with pytest.raises(ValueError, match="k1"):
        bm25(query, documents, -1.0)
    with pytest.raises(ValueError, match="`b`"):
        bm25(query, documents, 1.0, 2.0)
    with pytest.raises(TypeError, match="queries"):
        bm25([np.array([1.5])], documents)
    with pytest.raises(ValueError, match="documents"):
        bm25(query, [])
    with pytest.raises(ValueError, match="num"):
        tfidf_filter(query, documents, 5)
