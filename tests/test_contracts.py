"""What every public function keeps, checked from its declaration in `tests/contracts`."""

import doctest
import functools
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


# All checks of one case stand together, so that they share its compiled programs.
@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return request.param


@functools.lru_cache(maxsize=2)
def program(case: Case):
    """Value, gradient and second directional derivative, as the case allows, of all its arrays."""

    def everything(arrays):
        out = [suite.call(case, arrays)]
        if case.differentiable and case.wrt:
            x = {k: arrays[k] for k in case.wrt}
            f = suite.loss_of(case, arrays)
            if case.second_order:
                out += jax.jvp(jax.grad(f), (x,), (suite.direction(x),))
            else:
                out.append(jax.grad(f)(x))
        return out

    return jax.jit(everything) if case.jittable else everything


@functools.lru_cache(maxsize=2)
def float64_program(case: Case):
    """The value; its weighted sum, and that sum's slopes and curvature along a direction."""
    assert case.wrt or not case.differentiable, "wrt: names no argument to differentiate"

    def derivatives(arrays):
        value = suite.call(case, arrays)
        if not (case.differentiable and case.jittable):
            return value, ()
        x = {k: arrays[k] for k in case.wrt}
        f, u = suite.loss_of(case, arrays), suite.direction(x)
        total, slope = jax.jvp(f, (x,), (u,))
        grad, hvp = jax.jvp(jax.grad(f), (x,), (u,))
        dot = jax.tree.map(lambda g, v: jnp.sum(g * v), grad, u)
        curvature = jax.tree.map(lambda h, v: jnp.sum(h * v), hvp, u)
        return value, (total, slope, sum(jax.tree.leaves(dot)), sum(jax.tree.leaves(curvature)))

    return jax.jit(derivatives) if case.jittable else derivatives


def stack(*leaves):
    keys = jnp.issubdtype(jnp.result_type(leaves[0]), jax.dtypes.prng_key)
    return jnp.stack(leaves) if keys else np.stack(leaves)


def test_jit_and_vmap(case: Case):
    """Compiled, it returns arrays; mapped over two draws, what it returns for each."""
    draws = [suite.example(case, seed=seed) for seed in (0, 1)]
    loop = [program(case)(arrays)[0] for arrays in draws]
    assert suite.floats(loop[0]) or jax.tree.leaves(loop[0]), "returns nothing"
    if case.jittable and case.vmappable:
        stacked = jax.tree.map(stack, *draws)
        mapped = jax.jit(jax.vmap(lambda a: suite.call(case, a)))(stacked)
        assert_close(mapped, jax.tree.map(stack, *loop), 1e-5)


def test_derivatives_agree_with_finite_differences(case: Case):
    """In float64: first and second directional derivatives, and reverse against forward mode."""
    if not (case.differentiable and case.jittable):
        return
    with jax.enable_x64(True):
        arrays, step = suite.example(case, np.float64), 1e-5
        x = {k: arrays[k] for k in case.wrt}
        u = suite.direction(x)

        def along(s):
            moved = jax.tree.map(lambda a, d: np.asarray(a) + s * np.asarray(d), x, u)
            return [float(y) for y in float64_program(case)({**arrays, **moved})[1]]

        (v0, s0, *_), (v2, s2, *_) = along(-step), along(step)
        v1, slope, grad_dot, curvature = along(0.0)
    scale = max(abs(slope), abs(v1), 1e-3)
    assert abs(slope - grad_dot) <= 1e-9 * scale, "reverse mode differs from forward mode"
    if case.finite_differences:
        assert abs((v2 - v0) / (2 * step) - slope) <= 1e-5 * scale, "first derivative"
        if case.second_order:
            scale = max(scale, abs(curvature))
            assert abs((s2 - s0) / (2 * step) - curvature) <= 1e-5 * scale, "second"


def test_derivatives_at_zeros(case: Case):
    """In float64, with one argument all zeros: the whole derivative, where there is one.

    Ties of `maximum` and the corner of `abs` lie there, of whose derivatives JAX takes one half and
    one, also inside of functions that are smooth. Corners and poles of the function itself, where
    the slopes on either side differ or are huge, are left alone.
    """
    if not (case.differentiable and case.jittable and case.finite_differences):
        return
    with jax.enable_x64(True):
        arrays, step = suite.example(case, np.float64), 1e-6
        for name in case.wrt:
            if {"zeros", f"zeros of {name}"} & set(case.skip_extremes):
                continue
            x = {k: arrays[k] for k in case.wrt}
            x[name] = jax.tree.map(np.zeros_like, x[name])
            u = suite.direction(x)

            def along(s, x=x, u=u):
                moved = jax.tree.map(lambda a, d: np.asarray(a) + s * np.asarray(d), x, u)
                return [float(y) for y in float64_program(case)({**arrays, **moved})[1]]

            f = [along(s * step)[0] for s in (-2, -1, 0, 1, 2)]
            slope = along(0.0)[1]
            left = (3 * f[2] - 4 * f[1] + f[0]) / (2 * step)
            right = (4 * f[3] - f[4] - 3 * f[2]) / (2 * step)
            scale = max(abs(left), abs(slope), 1e-3)
            if abs(left - right) <= 1e-4 * scale and scale < 1e4:
                assert abs(left + right - 2 * slope) <= 2e-3 * scale, f"{name}: {slope}, not {left}"


def test_dtypes(case: Case):
    """bf16 in, bf16 out, close to float64; float64 in, float64 out where enabled."""
    half = suite.example(case, jnp.bfloat16)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: np.asarray(x, np.float64) if x.dtype == jnp.bfloat16 else x, half
        )
        want = float64_program(case)(suite.cast(wide, np.float64))[0]
        for leaf in suite.floats(want):
            assert not case.keeps_dtype or jnp.result_type(leaf) == jnp.float64
        want = jax.tree.map(np.asarray, want)
    run = lambda a: suite.call(case, a)  # noqa: E731
    got = (jax.jit(run) if case.jittable else run)(half)
    if case.keeps_dtype:
        for leaf in suite.floats(got):
            assert leaf.dtype == jnp.bfloat16
    assert_close(got, want, case.tolerance)


def test_extremes_are_finite(case: Case):
    """Value, gradient and second directional derivative at the extremes of float32."""
    arrays = suite.example(case)
    for label, changed in suite.extremes(case, arrays).items():
        results = program(case)(changed)
        for part, value in zip(("value", "gradient", "second derivative"), results):
            for leaf in suite.floats(value):
                assert np.all(np.isfinite(leaf)), f"{part} not finite for {label}: {leaf}"


def bad_calls():
    return [
        pytest.param(case, bad, id=f"{case}-{bad.argument}-{i}")
        for case in CASES
        for i, bad in enumerate(case.bad)
    ]


@pytest.mark.parametrize(("declared", "bad"), bad_calls())
def test_bad_arguments_are_named(declared: Case, bad: Bad):
    arrays = suite.example(declared)
    change = {k: v(arrays) if callable(v) else v for k, v in bad.change.items()}
    change = suite.cast(change, jnp.float32)
    with pytest.raises(ValueError, match=re.escape(bad.argument)):
        suite.call(declared, {k: v for k, v in arrays.items() if k not in change}, **change)


def test_functions_with_arguments_to_get_wrong_say_so():
    """A function without any bad call in its declarations has not shown that it checks."""
    shown = {case.name for case in suite.declarations() if case.bad}
    silent = {
        name
        for name in {case.name for case in suite.declarations()} - shown
        if not name.startswith("papyrax.numerics.") and parameters(PUBLIC[name])
        if is_module(PUBLIC[name]) or not inspect.isclass(PUBLIC[name])  # records check nothing
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
