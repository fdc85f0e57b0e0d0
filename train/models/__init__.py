"""Small networks to try parts on: a perceptron, a residual network, and two transformers.

Every model is built as `Model(shape, classes, *, dtype, rngs, **options)`, where `shape` is that of
one input, and called as `model(inputs, train=False, key=None) -> logits [..., classes]`. `key`
draws the dropout masks; without one nothing is dropped. A model that takes `attention` is given the
operator that the config names. Your own model needs no more than that.
"""

from papyrax.train.models.perceptron import MLP
from papyrax.train.models.resnet import ResNet
from papyrax.train.models.transformer import LM, ViT

__all__ = ["LM", "MLP", "ResNet", "ViT"]
