"""AdaHessian's step from gradient and Hessian diagonal to parameters, each number moved once."""

from .api import adahessian_step

__all__ = ["adahessian_step"]
