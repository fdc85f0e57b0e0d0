"""Second-order information about a loss: products, diagonals, traces and spectra.

What takes a function returns a function, as `jax.grad` does. Trees of results have the structure of
the parameters; integer leaves are constants.
"""

from .diagonal import Curvature, value_grad_and_diag
from .domains import DomainAlignment, domain_alignment
from .estimators import Estimator, exact_diagonal, gnb, hutchinson
from .exchangeable import xdiag, xtrace
from .heavy_tails import PowerLawFit, farms_eigenvalues, hill_exponent, power_law_fit
from .inverse_fisher import (
    InverseFisher,
    inverse_fisher,
    inverse_fisher_diagonal,
    inverse_fisher_vp,
    obs_saliency,
    obs_update,
)
from .probes import normal_like, rademacher_like
from .products import (
    QuadraticForm,
    empirical_fisher_vp,
    fisher_vp,
    ggn_vp,
    hvp,
    quadratic_form,
    value_grad_and_hvp,
)
from .spectra import (
    SpectralDensity,
    directional_sharpness,
    extreme_eigenpairs,
    spectral_density,
)
from .stability import (
    NoiseAlignment,
    SgdStability,
    noise_alignment,
    sgd_moment_growth,
    sgd_stability,
)
from .traces import TraceEstimate, hessian_trace, hutch_plus_plus_trace, hutchinson_trace

__all__ = [
    "Curvature",
    "DomainAlignment",
    "Estimator",
    "InverseFisher",
    "NoiseAlignment",
    "PowerLawFit",
    "QuadraticForm",
    "SgdStability",
    "SpectralDensity",
    "TraceEstimate",
    "directional_sharpness",
    "domain_alignment",
    "empirical_fisher_vp",
    "exact_diagonal",
    "extreme_eigenpairs",
    "farms_eigenvalues",
    "fisher_vp",
    "ggn_vp",
    "gnb",
    "hessian_trace",
    "hill_exponent",
    "hutch_plus_plus_trace",
    "hutchinson",
    "hutchinson_trace",
    "hvp",
    "inverse_fisher",
    "inverse_fisher_diagonal",
    "inverse_fisher_vp",
    "noise_alignment",
    "normal_like",
    "obs_saliency",
    "obs_update",
    "power_law_fit",
    "quadratic_form",
    "rademacher_like",
    "sgd_moment_growth",
    "sgd_stability",
    "spectral_density",
    "value_grad_and_diag",
    "value_grad_and_hvp",
    "xdiag",
    "xtrace",
]
