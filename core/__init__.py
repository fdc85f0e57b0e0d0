"""papyrax: losses, attention and second-order optimization from 267 papers, as parts that compose.

The rooms are imported when they are first used, so `import papyrax` costs nothing:

- `papyrax.losses`: loss functions, one value per example.
- `papyrax.attention`: attention operators with the signature of `jax.nn.dot_product_attention`.
- `papyrax.optim`: optax transformations, `scale_by_x` beside `x`.
- `papyrax.curvature`: Hessian-, Gauss-Newton- and Fisher-vector products and what is made of them.
- `papyrax.kernels`: Pallas kernels and their plain references.
- `papyrax.layers`: flax.nnx modules.
- `papyrax.metrics`: evaluation measures.
- `papyrax.data`: which examples come together in a batch.
- `papyrax.numerics`: safe arithmetic and argument checks that the rooms share.
- `papyrax.papers`: one module a paper, with its claim and how it is measured.
- `papyrax.train`: the training engine and the command line.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import attention, curvature, data, kernels, layers, losses, metrics, numerics, optim

__version__ = "0.1.0"

_ROOMS = (
    "attention",
    "curvature",
    "data",
    "kernels",
    "layers",
    "losses",
    "metrics",
    "numerics",
    "optim",
    "papers",
    "train",
)

__all__ = [
    "__version__",
    "attention",
    "curvature",
    "data",
    "kernels",
    "layers",
    "losses",
    "metrics",
    "numerics",
    "optim",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
