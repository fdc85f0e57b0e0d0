"""The guide to the losses lists what there is, and its properties are what theory says."""

import pathlib
import re
import types

import pytest

from papyrax import losses

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "losses.md").read_text()
LISTED = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))


@pytest.fixture(scope="module")
def guide():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import losses_guide
        from guide import entries, properties

        # One is enough to tell these two apart.
        patch.setitem(properties.DISTRIBUTIONS, 3, ((0.45, 0.35, 0.2),))
        yield types.SimpleNamespace(**vars(entries) | vars(properties), module=losses_guide)


def lasting(text):
    """A page but for what is measured: lines, and of each loss what it takes, keeps and is for."""
    for line in text.splitlines():
        cells = line.split("|")
        if not line.startswith("| `"):
            yield re.sub("Measured with .*|.* cores,", "", line)
        elif len(cells) > 6:
            yield cells[1], cells[2], cells[-4], cells[-2]
        else:
            yield tuple(cells)


def test_the_page_is_that_of_the_benchmark(guide, monkeypatch):
    def columns(*names):
        return lambda entry: dict.fromkeys(names, "")

    for name, found in {
        "properties": columns("bounded", "convex", "symmetric", "calibrated", "proper"),
        "regression_properties": columns("bounded", "convex", "even", "best prediction"),
        "costs": lambda entries, repeats: {entry.name: "" for entry in entries},
    }.items():
        monkeypatch.setattr(guide.module, name, found)
    assert list(lasting(guide.module.page(1))) == list(lasting(DOCUMENT))


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
