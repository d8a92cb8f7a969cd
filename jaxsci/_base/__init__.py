"""What every room leans on: argument checks, dtypes, result codes, `NonTrainable`. Private."""

from ._array_file import (
    read_arrays as read_arrays,
    read_metadata as read_metadata,
    write_arrays as write_arrays,
)
from ._checkpointed_scan import checkpointed_scan as checkpointed_scan
from ._checks import (
    check_at_least as check_at_least,
    check_choice as check_choice,
    check_finite as check_finite,
    check_interval as check_interval,
    check_nonnegative as check_nonnegative,
    check_positive as check_positive,
    check_real_leaves as check_real_leaves,
    is_concrete as is_concrete,
)
from ._dtypes import (
    at_least_float32 as at_least_float32,
    complex_dtype as complex_dtype,
    is_complex as is_complex,
    real_dtype as real_dtype,
)
from ._examples import (
    example_structure as example_structure,
    strided_parts as strided_parts,
)
from ._jaxpr import (
    bind as bind,
    body_of as body_of,
    equation_kind as equation_kind,
    EquationPath as EquationPath,
    evaluate as evaluate,
    is_literal as is_literal,
    scan_sizes as scan_sizes,
    trace as trace,
    traceable_leaves as traceable_leaves,
    use_counts as use_counts,
)
from ._leaves import (
    array_leaves as array_leaves,
    check_same_leaves as check_same_leaves,
    describe as describe,
    is_array as is_array,
    is_key as is_key,
    replace_array_leaves as replace_array_leaves,
)
from ._linear_operators import register_operator as register_operator
from ._linear_primitive import linear_primitive as linear_primitive
from ._nontrainable import (
    NonTrainable as NonTrainable,
    parameter_mask as parameter_mask,
)
from ._progress import progress_bar as progress_bar
from ._results import (
    all_finite as all_finite,
    raise_if_failed as raise_if_failed,
    RESULTS as RESULTS,
)
