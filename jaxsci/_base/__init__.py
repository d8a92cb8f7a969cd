"""What every room leans on: argument checks, dtypes, result codes, `NonTrainable`. Private."""

from ._checkpointed_scan import checkpointed_scan as checkpointed_scan
from ._checks import (
    check_at_least as check_at_least,
    check_choice as check_choice,
    check_finite as check_finite,
    check_interval as check_interval,
    check_nonnegative as check_nonnegative,
    check_positive as check_positive,
    is_concrete as is_concrete,
)
from ._dtypes import (
    complex_dtype as complex_dtype,
    is_complex as is_complex,
    real_dtype as real_dtype,
)
from ._linear_primitive import linear_primitive as linear_primitive
from ._nontrainable import NonTrainable as NonTrainable
from ._results import (
    all_finite as all_finite,
    raise_if_failed as raise_if_failed,
    RESULTS as RESULTS,
)
