"""What every public function keeps, checked from its declaration in `tests/contracts`."""

import doctest
import inspect
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import papyrax
from contracts import suite
from contracts.case import Bad, Case

CASES = suite.functions()
each_case = pytest.mark.parametrize("case", CASES, ids=str)
PUBLIC = dict(suite.public_names())


def assert_close(got, want, rtol, atol_scale=None):
    """Leaf by leaf, relative to the largest entry of the leaf."""
    got, want = suite.floats(got), suite.floats(want)
    assert len(got) == len(want)
    for g, w in zip(got, want):
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        scale = max(np.max(np.abs(w), initial=0.0), atol_scale or 1e-6)
        np.testing.assert_allclose(g, w, rtol=0, atol=rtol * scale)


def test_every_public_name_has_a_declaration():
    declared = {case.name for case in suite.declarations()}
    types = {name for name, x in PUBLIC.items() if inspect.isclass(x) and not is_module(x)}
    missing = sorted(set(PUBLIC) - declared - types)
    assert not missing, f"declare example inputs in tests/contracts for: {', '.join(missing)}"


def test_every_declaration_names_a_public_object():
    unknown = sorted({c.name for c in suite.declarations()} - set(PUBLIC))
    assert not unknown, f"not exported by their room's __all__: {', '.join(unknown)}"


def is_module(x):
    return inspect.isclass(x) and issubclass(x, nnx.Module)


@each_case
def test_jit_agrees_with_eager(case: Case):
    arrays = suite.example(case)
    eager = suite.call(case, arrays)
    assert suite.floats(eager) or jax.tree.leaves(eager), "returns nothing"
    if not case.jittable:
        return
    jitted = jax.jit(lambda a: suite.call(case, a))(arrays)
    for e, j in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        assert jnp.shape(e) == j.shape
        assert jnp.result_type(e) == j.dtype
    assert_close(jitted, eager, 1e-5)


@each_case
def test_vmap_agrees_with_a_loop(case: Case):
    if not (case.jittable and case.vmappable):
        return
    draws = [suite.example(case, seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *draws)
    one = jax.jit(lambda a: suite.call(case, a))
    loop = jax.tree.map(lambda *x: jnp.stack(x), *map(one, draws))
    assert_close(jax.jit(jax.vmap(lambda a: suite.call(case, a)))(stacked), loop, 1e-5)


@each_case
def test_derivatives_agree_with_finite_differences(case: Case):
    """In float64: first and second directional derivatives, and reverse against forward mode."""
    if not (case.differentiable and case.jittable):
        return
    with jax.enable_x64(True):
        arrays = suite.example(case, np.float64)
        x = {k: arrays[k] for k in case.wrt}
        assert x, "wrt: names no argument to differentiate"
        f, u = suite.loss_of(case, arrays), suite.direction(x)

        @jax.jit
        def derivatives(x):
            value, slope = jax.jvp(f, (x,), (u,))
            grad, hvp = jax.jvp(jax.grad(f), (x,), (u,))
            dot = jax.tree.map(lambda g, v: jnp.sum(g * v), grad, u)
            curvature = jax.tree.map(lambda h, v: jnp.sum(h * v), hvp, u)
            return value, slope, sum(jax.tree.leaves(dot)), sum(jax.tree.leaves(curvature))

        step = 1e-5
        back, ahead = (jax.tree.map(lambda a, d, s=s: a + s * d, x, u) for s in (-step, step))
        (v0, s0, *_), (v2, s2, *_) = derivatives(back), derivatives(ahead)
        v1, slope, grad_dot, curvature = derivatives(x)
        scale = max(abs(slope), abs(v1), 1e-3)
        assert abs(slope - grad_dot) <= 1e-9 * scale, "reverse mode differs from forward mode"
        if case.finite_differences:
            assert abs((v2 - v0) / (2 * step) - slope) <= 1e-5 * scale, "first derivative"
            if case.second_order:
                scale = max(scale, abs(curvature))
                assert abs((s2 - s0) / (2 * step) - curvature) <= 1e-5 * scale, "second"


@each_case
def test_dtypes(case: Case):
    """bf16 in, bf16 out, close to float64; float64 in, float64 out where enabled."""
    run = (lambda a: suite.call(case, a)) if not case.jittable else None
    half = suite.example(case, jnp.bfloat16)
    with jax.enable_x64(True):
        wide = suite.cast(
            jax.tree.map(
                lambda x: np.asarray(x, np.float64) if x.dtype == jnp.bfloat16 else x, half
            ),
            np.float64,
        )
        want = (run or jax.jit(lambda a: suite.call(case, a)))(wide)
        for leaf in suite.floats(want):
            assert not case.keeps_dtype or jnp.result_type(leaf) == jnp.float64
        want = jax.tree.map(np.asarray, want)
    got = (run or jax.jit(lambda a: suite.call(case, a)))(half)
    if case.keeps_dtype:
        for leaf in suite.floats(got):
            assert leaf.dtype == jnp.bfloat16
    assert_close(got, want, case.tolerance)


@each_case
def test_extremes_are_finite(case: Case):
    """Value, gradient and second directional derivative at the extremes of float32."""
    arrays = suite.example(case)

    def everything(a):
        out = [suite.call(case, a)]
        if case.differentiable and case.wrt:
            x = {k: a[k] for k in case.wrt}
            f = suite.loss_of(case, a)
            if case.second_order:
                out += jax.jvp(jax.grad(f), (x,), (suite.direction(x),))
            else:
                out.append(jax.grad(f)(x))
        return out

    run = jax.jit(everything) if case.jittable else everything
    for label, changed in suite.extremes(case, arrays).items():
        for part, value in zip(("value", "gradient", "second derivative"), run(changed)):
            for leaf in suite.floats(value):
                assert jnp.all(jnp.isfinite(leaf)), f"{part} not finite for {label}: {leaf}"


def bad_calls():
    return [
        pytest.param(case, bad, id=f"{case}-{bad.argument}-{i}")
        for case in CASES
        for i, bad in enumerate(case.bad)
    ]


@pytest.mark.parametrize(("case", "bad"), bad_calls())
def test_bad_arguments_are_named(case: Case, bad: Bad):
    arrays = suite.example(case)
    change = {k: v(arrays) if callable(v) else v for k, v in bad.change.items()}
    change = suite.cast(change, jnp.float32)
    with pytest.raises(ValueError, match=re.escape(bad.argument)):
        suite.call(case, {k: v for k, v in arrays.items() if k not in change}, **change)


def test_functions_with_arguments_to_get_wrong_say_so():
    """A function without any bad call in its declarations has not shown that it checks."""
    shown = {case.name for case in suite.declarations() if case.bad}
    silent = {
        name
        for name in {case.name for case in suite.declarations()} - shown
        if not name.startswith("papyrax.numerics.")
    }
    assert not silent, f"declare calls that must raise (bad=...) for: {', '.join(sorted(silent))}"


def parameters(thing):
    signature = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing)
    return [p for p in signature.parameters if p != "self"]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_documentation(name: str):
    """Arguments, results and a source are written down, and the example runs."""
    thing = PUBLIC[name]
    doc = inspect.getdoc(thing) or ""
    assert doc, "no docstring"
    if inspect.isclass(thing) and not is_module(thing):
        return  # records: named tuples and dataclasses explain their fields
    assert ">>>" in doc, "no example to paste (>>>)"
    if not name.startswith("papyrax.numerics.check"):
        if parameters(thing):
            assert "Args:" in doc, "no Args: section"
        if not is_module(thing):
            assert "Returns:" in doc, "no Returns: section"
    if not name.startswith("papyrax.numerics."):
        assert "Source:" in doc, "no Source: line"
        assert re.search(r"\[[^\]]*\]", doc) or name.startswith("papyrax.optim."), "no shapes"
    module = sys.modules[thing.__module__]
    scope = {**vars(module), "jax": jax, "jnp": jnp, "np": np, "papyrax": papyrax}
    scope |= {"optax": optax, "nnx": nnx}
    tests = doctest.DocTestFinder(recurse=False).find(thing, name, module=False, globs=scope)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append, clear_globs=False)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(report)
