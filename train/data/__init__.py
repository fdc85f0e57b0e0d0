"""Data by name: embedded sets that need no network, and every prepared TensorFlow Datasets set.

    batches = load("digits", batch_size=128)
    batch = next(batches)  # {"inputs": [128, 8, 8, 1] float32, "labels": [128] int32}

A pipeline is a function of (seed, position): its state is one number, it resumes exactly where it
stood, and with several processes every one reads its own part of the same global batches. Reading
is TFDS's ArrayRecord data source under `grain`; neither needs TensorFlow, and neither is imported
before `load` is called.
"""

from papyrax.train.data.pipeline import Pipeline, load
from papyrax.train.data.prepare import EMBEDDED
from papyrax.train.data.sampled import sampled
from papyrax.train.data.spec import Spec
from papyrax.train.data.transforms import random_crop, random_flip

__all__ = ["EMBEDDED", "Pipeline", "Spec", "load", "random_crop", "random_flip", "sampled"]
