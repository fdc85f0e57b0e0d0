"""optax's own tests of its contributed optimizers, run on ours.

The wheel of optax has them in `optax/contrib/_common_test.py`. Its source is read, the list of
optimizers is replaced by ours, and those that need an objective are given one as Sophia is there.
"""

import pathlib
import re
import sys
import types
import unittest

import optax
import pytest

from papyrax import optim

OURS = {
    "adahessian": {"learning_rate": 0.1},
    "sophia_h": {"learning_rate": 1e-2, "weight_decay": 0.0},
}
SOURCE = pathlib.Path(optax.contrib.__file__).with_name("_common_test.py")


@pytest.fixture(scope="module")
def common():
    if not SOURCE.exists():
        pytest.skip("this optax comes without its tests")
    source = SOURCE.read_text()
    rows = ", ".join(f"{{'opt_name': {n!r}, 'opt_kwargs': {kw!r}}}" for n, kw in OURS.items())
    main = f"_MAIN_OPTIMIZERS_UNDER_TEST = [{rows}]\n"
    cuts = [
        # ours instead of theirs; no wrappers; no base optimizers
        (r"_MAIN_OPTIMIZERS_UNDER_TEST = \[\n.*?\n\]\n", main),
        (r"_MAIN_OPTIMIZERS_UNDER_TEST \+= \[\n.*?\n\]\n", ""),
        (r"_OTHER_OPTIMIZERS_UNDER_TEST = \[\n.*?\n\]\n", "_OTHER_OPTIMIZERS_UNDER_TEST = []\n"),
        (r"opt_name (== 'sophia'|in \['sophia'\])", f"opt_name in {tuple(OURS)!r}"),
    ]
    for pattern, replacement in cuts:
        source, count = re.subn(pattern, lambda _, r=replacement: r, source, flags=re.DOTALL)
        assert count, f"optax's tests have changed: nothing matches {pattern}"
    module = types.ModuleType("optax_common_test")
    module.__file__ = str(SOURCE)
    sys.modules[module.__name__] = module
    patch = pytest.MonkeyPatch()
    for name in OURS:
        patch.setattr(optax.contrib, name, getattr(optim, name), raising=False)
    exec(compile(source, str(SOURCE), "exec"), module.__dict__)
    yield module
    patch.undo()
    del sys.modules[module.__name__]


def cases(module):
    """The tests by the method they are made from."""
    found = unittest.defaultTestLoader.loadTestsFromModule(module)
    return [case for suite in found for case in suite]


def run(tests):
    result = unittest.TestResult()
    unittest.TestSuite(tests).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    return result.testsRun


SLOW = re.compile(r"test_optimizers\d")  # 30,000 steps on each of four problems


def test_all_but_the_long_ones(common):
    assert run([t for t in cases(common) if not SLOW.match(t._testMethodName)]) >= 20


def test_convergence(common):
    long = [t for t in cases(common) if SLOW.match(t._testMethodName)]
    assert run(long) == 4 * len(OURS)
