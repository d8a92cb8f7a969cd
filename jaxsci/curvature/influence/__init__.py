"""Influence functions: which training examples push a trained model towards what it does.

- **Scores.** `pairwise`: every training example on every query, through any curvature; by layer and
  by token. `self_influence`: each example on itself. `top_influences`: only the largest, streamed.
- **Curvature.** A `KroneckerCurvature` from `jaxsci.curvature.fit_kronecker` at any scale;
  `exact_ggn` for small models.
- **Truth.** `pbrf`: the response that influence functions predict, computed by Newton's method.
- **Baselines.** `gradient_dot`, `tracin`, and the solver `lissa`.
- **Lexical overlap** of token sequences: `bm25`, `tfidf_filter`.
"""

from ._ggn import exact_ggn as exact_ggn
from ._lexical import bm25 as bm25, tfidf_filter as tfidf_filter
from ._lissa import lissa as lissa
from ._pairwise import gradient_dot as gradient_dot, pairwise as pairwise
from ._response import pbrf as pbrf, ResponseSolution as ResponseSolution
from ._self_influence import self_influence as self_influence
from ._top_influences import top_influences as top_influences, TopInfluences as TopInfluences
from ._tracin import tracin as tracin
