"""The guide to the losses lists what there is, and its properties are what theory says."""

import importlib.util
import pathlib
import re
import sys

import pytest

from papyrax import losses

ROOT = pathlib.Path(__file__).parents[1]
LISTED = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "losses.md").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def guide():
    spec = importlib.util.spec_from_file_location(
        "losses_guide", ROOT / "benchmarks" / "losses_guide.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    module.DISTRIBUTIONS[3] = ((0.45, 0.35, 0.2),)  # one is enough to tell these two apart
    yield module
    del sys.modules[spec.name]


def choice(guide, name):
    return next(c for c in guide.CLASSIFICATION + guide.NOISY if c.name == name)


def test_every_listed_loss_is_exported(guide):
    groups = guide.CLASSIFICATION + guide.NOISY + guide.PREFERENCE + guide.REGRESSION
    assert {entry.name for entry in groups} | set(guide.WHOLE_BATCH) == LISTED
    assert len(LISTED) > 40
    assert not LISTED - {*losses.__all__, *losses.FROM_OPTAX}


def test_no_loss_of_scores_and_labels_is_forgotten(guide):
    found = guide.per_example_classification()
    assert {"brier_loss", "elr_loss", "madacos", "stablemax_cross_entropy_with_targets"} <= found
    assert not found & {"fit_temperature", "correct_labels", "madacos_parameters", "stablemax"}
    assert not found - LISTED


def test_cross_entropy_is_proper_and_convex_but_not_bounded(guide):
    assert guide.properties(choice(guide, "softmax_cross_entropy_with_integer_labels")) == {
        "bounded": "no",
        "convex": "yes",
        "symmetric": "no",
        "calibrated": "yes",
        "proper": "yes",
    }


def test_mean_absolute_error_is_symmetric_and_bounded(guide):
    assert guide.properties(choice(guide, "mae_loss")) == {
        "bounded": "yes",
        "convex": "no",
        "symmetric": "yes",
        "calibrated": "yes",
        "proper": "no",
    }


def test_pinball_loss_predicts_the_median(guide):
    entry = next(e for e in guide.REGRESSION if e.name == "pinball_loss")
    assert guide.regression_properties(entry) == {
        "bounded": "no",
        "convex": "yes",
        "even": "yes",
        "best prediction": "median",
    }
