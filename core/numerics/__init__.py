"""Safe arithmetic, dtype rules and argument checks that every room shares."""

from .checks import (
    check,
    check_boolean,
    check_broadcastable,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    known_number,
)
from .dtypes import accumulation_dtype, restore, upcast
from .safe import safe_abs, safe_divide, safe_log, safe_norm, safe_normalize, safe_sqrt

__all__ = [
    "accumulation_dtype",
    "check",
    "check_boolean",
    "check_broadcastable",
    "check_count",
    "check_floating",
    "check_integer",
    "check_key",
    "check_positive",
    "check_range",
    "check_rank",
    "check_shape",
    "known_number",
    "restore",
    "safe_abs",
    "safe_divide",
    "safe_log",
    "safe_norm",
    "safe_normalize",
    "safe_sqrt",
    "upcast",
]
