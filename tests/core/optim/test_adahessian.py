"""AdaHessian against its recurrence in NumPy, its invariants, and the wrappers it lives in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from papyrax.curvature import Curvature, value_grad_and_diag
from papyrax.optim import adahessian, scale_by_adahessian, wants_curvature

SHAPES = {"scalar": (), "bias": (3,), "kernel": (4, 3), "conv1d": (5, 2, 3), "conv": (3, 2, 4, 3)}


def official_steps(params, grads, diags, *, lr, b1, b2, eps, k, weight_decay, average_of="abs"):
    """The authors' update, written again in NumPy for kernels laid out [window..., in, out].

    `grads` and `diags` (z * Hz) are given step by step; None for a step without a new estimate.
    """
    p = {n: np.array(x) for n, x in params.items()}
    m = {n: np.zeros_like(x) for n, x in p.items()}
    v = {n: np.zeros_like(x) for n, x in p.items()}
    out, refreshes = [], 0
    for t, (g, d) in enumerate(zip(grads, diags), 1):
        refreshes += d is not None
        for n in p:
            m[n] = b1 * m[n] + (1 - b1) * g[n]
            if d is not None:
                s = np.abs(d[n]) if average_of == "abs" else d[n]
                if s.ndim > 2:
                    window = tuple(range(s.ndim - 2))
                    s = np.broadcast_to(s.mean(window, keepdims=True), s.shape)
                v[n] = b2 * v[n] + (1 - b2) * s * s
            denominator = np.sqrt(v[n]) ** k / np.sqrt(1 - b2**refreshes) ** k + eps
            p[n] = p[n] - lr * (m[n] / (1 - b1**t) / denominator + weight_decay * p[n])
        out.append({n: x.copy() for n, x in p.items()})
    return out


def sequence(steps, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda: {n: rng.normal(size=s) for n, s in SHAPES.items()}  # noqa: E731
    return draw(), [draw() for _ in range(steps)], [draw() for _ in range(steps)]


def our_steps(tx, params, grads, diags):
    params = jax.tree.map(jnp.asarray, params)
    state, out = tx.init(params), []
    update = jax.jit(tx.update)
    for g, d in zip(grads, diags):
        extra = {} if d is None else {"curvature": Curvature(jax.tree.map(jnp.asarray, d))}
        updates, state = update(jax.tree.map(jnp.asarray, g), state, params, **extra)
        params = optax.apply_updates(params, updates)
        out.append(params)
    return out, state


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hessian_power": 0.5, "weight_decay": 1e-2},
        {"b1": 0.0, "b2": 0.9, "hessian_power": 0.75},
        {"average_of": "signed"},
    ],
    ids=["defaults", "root and decay", "other decays", "signed"],
)
def test_trajectory_is_the_official_recurrence(options):
    params, grads, diags = sequence(6)
    diags[3] = None  # a step that keeps the estimate: the correction counts estimates
    numbers = {"b1": 0.9, "b2": 0.999, "eps": 1e-4, "hessian_power": 1.0, "weight_decay": 0.0}
    numbers = {**numbers, **options}
    with jax.enable_x64(True):
        got, state = our_steps(adahessian(0.15, **numbers), params, grads, diags)
        power = numbers.pop("hessian_power")
        want = official_steps(params, grads, diags, lr=0.15, k=power, **numbers)
        for a, b in zip(got, want):
            for n in SHAPES:
                np.testing.assert_allclose(a[n], b[n], rtol=1e-10, atol=1e-12, err_msg=n)
        assert int(state[0].count) == 6
        assert int(state[0].refreshes) == 5


def test_state_keeps_the_averages_alone():
    state = scale_by_adahessian().init({n: jnp.zeros(s) for n, s in SHAPES.items()})
    shapes = {n: x.shape for n, x in state.nu.items()}
    assert shapes == {**SHAPES, "conv1d": (1, 2, 3), "conv": (1, 1, 4, 3)}
    assert all(state.mu[n].shape == s for n, s in SHAPES.items())


def one_update(tx, grads, diag):
    return tx.update(grads, tx.init(grads), grads, curvature=Curvature(diag))[0]


NEWTON = {"b1": 0.0, "b2": 0.0, "eps": 0.0}


def test_averages():
    """Each choice against a mean by hand; the last one is the fairseq code's blocks."""
    rng = np.random.default_rng(0)
    conv, kernel = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=(4, 6))
    g, d = {"c": jnp.ones(conv.shape), "k": jnp.ones(kernel.shape)}, {"c": conv, "k": kernel}
    d = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), d)

    def denominators(average):
        updates = one_update(scale_by_adahessian(average=average, **NEWTON), g, d)
        return jax.tree.map(lambda u: 1 / np.asarray(u), updates)

    def expect(average, c, k):
        got = denominators(average)
        for a, b in ((got["c"], c), (got["k"], k)):
            np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), rtol=1e-5)

    c, k = np.abs(conv), np.abs(kernel)
    expect("none", c, k)
    expect("spatial", c.mean((0, 1), keepdims=True), k)
    expect(lambda shape: tuple(range(len(shape))), c.mean(), k.mean())
    expect(lambda shape: (0,) if len(shape) == 2 else (), c, k.mean(0, keepdims=True))
    expect(3, c, np.repeat(k.reshape(-1, 3).mean(1), 3).reshape(k.shape))
    with pytest.raises(ValueError, match="average: got blocks of 5"):
        denominators(5)
    with pytest.raises(ValueError, match="average: got 'conv2d'"):
        scale_by_adahessian(average="conv2d")


def quadratic_run(tx, curvatures, start, steps):
    f = value_grad_and_diag(lambda w: 0.5 * jnp.sum(curvatures * w**2))

    @jax.jit
    def run(w):
        def step(carry, key):
            w, state = carry
            value, grads, curvature = f(w, key=key)
            updates, state = tx.update(grads, state, w, curvature=curvature)
            return (optax.apply_updates(w, updates), state), value

        (w, _), values = jax.lax.scan(
            step, (w, tx.init(w)), jax.random.split(jax.random.key(0), steps)
        )
        return w, values

    return run(start)


CURVATURES = jnp.array([1.0, 10.0, 1e3])
START = jnp.array([3.0, -0.2, 40.0])


def test_newton_on_a_diagonal_quadratic():
    """b1 = b2 = eps = 0, learning rate 1, power 1: the minimum in one step."""
    w, _ = quadratic_run(adahessian(1.0, **NEWTON), CURVATURES, START, 1)
    np.testing.assert_allclose(w, 0, atol=1e-5)


def test_power_zero_is_momentum():
    tx = adahessian(0.01, hessian_power=0.0, eps=0.0)
    same = optax.chain(optax.ema(0.9), optax.scale(-0.01))
    got, _ = quadratic_run(tx, CURVATURES[:2], START[:2], 5)
    want, _ = quadratic_run(optax.with_extra_args_support(same), CURVATURES[:2], START[:2], 5)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_units_do_not_matter():
    """Rescaled coordinates of a diagonal quadratic leave the losses as they are; Adam's change."""
    units = jnp.array([10.0, 0.1, 3.0])

    def losses(tx, units):
        return quadratic_run(tx, CURVATURES * units**2, START / units, 20)[1]

    for tx, limit, holds in (
        (adahessian(0.3, eps=0.0), 1e-4, True),
        (optax.with_extra_args_support(optax.adam(0.3, eps=0.0)), 0.1, False),
    ):
        change = jnp.abs(losses(tx, units) / losses(tx, jnp.ones(3)) - 1)
        assert (float(change.max()) < limit) == holds


@pytest.mark.parametrize("every", [1, 3, 10])
def test_lazy_estimates_are_not_biased(every):
    """On a diagonal quadratic the denominator is the curvature at every step, whatever `every`."""
    tx = scale_by_adahessian(b1=0.0, eps=0.0)
    state = tx.init(CURVATURES)
    update = jax.jit(tx.update)
    for step in range(12):
        extra = {"curvature": Curvature(CURVATURES)} if step % every == 0 else {}
        updates, state = update(CURVATURES, state, CURVATURES, **extra)
        np.testing.assert_allclose(updates, 1, rtol=3e-6)
    assert int(state.refreshes) == -(-12 // every)


def test_floors_guard_against_a_probe_that_hides_the_curvature():
    g, hidden = jnp.ones(4), jnp.array([0.0, 2.0, 4.0, 2.0])
    plain = one_update(scale_by_adahessian(), g, hidden)
    np.testing.assert_allclose(plain, [1e4, 0.5, 0.25, 0.5], rtol=1e-3)
    floor = one_update(scale_by_adahessian(min_curvature=3.0, eps=0.0), g, hidden)
    np.testing.assert_allclose(floor, [1 / 3, 1 / 3, 1 / 4, 1 / 3], rtol=1e-5)
    relative = one_update(scale_by_adahessian(relative_floor=0.5, eps=0.0), g, hidden)
    np.testing.assert_allclose(relative, [1, 0.5, 0.25, 0.5], rtol=1e-5)
    # Without eps and without curvature there is no direction, and nothing that is not a number.
    np.testing.assert_array_equal(one_update(scale_by_adahessian(**NEWTON), g, 0 * g), 0)


PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.full((2, 2), 0.5)}


def loss(p, x=1.0):
    return x * (jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 4))


ORACLE = value_grad_and_diag(loss)


def train(tx, steps=8, refresh=lambda i: True, params=PARAMS, find=lambda s: s):
    @functools.partial(jax.jit, static_argnames="refresh", donate_argnums=(0, 1))
    def step(p, s, key, refresh):
        _, grads, curvature = ORACLE(p, key=key, refresh=refresh)
        updates, s = tx.update(grads, s, p, curvature=curvature)
        return optax.apply_updates(p, updates), s

    p = jax.tree.map(jnp.copy, params)
    s = tx.init(p)
    for i in range(steps):
        p, s = step(p, s, jax.random.key(i), refresh(i))
    return p, find(s)


def assert_same(got, want, rtol=1e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=1e-7)


def test_static_and_traced_refresh_give_the_same_trajectory():
    tx = adahessian(0.1)
    static, state = train(tx, refresh=lambda i: i % 3 == 0)

    @jax.jit
    def step(p, s, i):
        _, grads, curvature = ORACLE(p, key=jax.random.key(i), refresh=s[0].count % 3 == 0)
        updates, s = tx.update(grads, s, p, curvature=curvature)
        return optax.apply_updates(p, updates), s

    p, s = PARAMS, tx.init(PARAMS)
    for i in range(8):
        p, s = step(p, s, i)
    assert int(s[0].refreshes) == int(state[0].refreshes) == 3
    assert_same(p, static)
    assert_same(s, state)


def test_no_conditional_in_the_default_step():
    tx = adahessian(0.1)

    def step(p, s, key):
        _, grads, curvature = ORACLE(p, key=key)
        return tx.update(grads, s, p, curvature=curvature)

    args = (PARAMS, tx.init(PARAMS), jax.random.key(0))
    assert " cond[" not in str(jax.make_jaxpr(step)(*args))
    assert " conditional(" not in jax.jit(step).lower(*args).compile().as_text()


def test_masked_and_partition_follow_their_masks_with_default_arguments():
    want, _ = train(adahessian(0.1))
    masked = optax.chain(
        optax.masked(adahessian(0.1), {"a": True, "b": False}),
        optax.masked(optax.scale(-0.1), {"a": False, "b": True}),
    )
    got, _ = train(masked)
    assert_same(got["a"], want["a"])
    labels = {"a": "second order", "b": "first order"}
    txs = {"second order": adahessian(0.1), "first order": optax.sgd(0.1)}
    split, _ = train(optax.partition(txs, labels))
    assert_same(split, got)


def test_multi_steps_with_an_estimate_on_the_emitting_step_alone():
    """Four micro-steps of one gradient are one step, and one estimate."""
    tx = optax.MultiSteps(adahessian(0.1), 4)
    got, state = train(tx, steps=12, refresh=lambda i: i % 4 == 3)
    want, _ = train(adahessian(0.1), steps=3)
    assert int(state.inner_opt_state[0].refreshes) == 3
    assert_same(got, want)  # this Hessian is diagonal, so that all probes agree


def test_inject_hyperparams_and_schedules():
    schedule = optax.linear_schedule(0.2, 0.1, 5)
    plain, _ = train(adahessian(schedule))
    injected, state = train(optax.inject_hyperparams(adahessian)(learning_rate=schedule))
    assert_same(injected, plain, rtol=1e-5)
    assert {"b1", "b2", "eps", "hessian_power"} <= set(state.hyperparams)
    blocks = optax.inject_hyperparams(adahessian, static_args=("average",))(0.1, average=2)
    train(blocks, steps=1)
    with pytest.raises(ValueError, match=r"average: got .*static_args"):
        optax.inject_hyperparams(adahessian)(0.1, average=2).init(PARAMS)


def test_apply_if_finite_skips_broken_gradients_with_their_estimates():
    tx = optax.apply_if_finite(adahessian(0.1), 3)
    state = tx.init(PARAMS)
    bad = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    updates, state = tx.update(bad, state, PARAMS, curvature=Curvature(bad))
    assert all(not jnp.any(u) for u in jax.tree.leaves(updates))
    _, state = tx.update(PARAMS, state, PARAMS, curvature=Curvature(PARAMS))
    assert int(state.inner_state[0].refreshes) == 1


def test_an_overflow_in_an_estimate_does_not_outlive_it():
    tx = scale_by_adahessian(b1=0.0, eps=0.0)
    g, curvature = jnp.ones(3), jnp.array([2.0, 4.0, 5.0])
    state = tx.init(g)
    _, state = tx.update(g, state, g, curvature=Curvature(curvature))
    broken = Curvature(jnp.array([jnp.inf, jnp.nan, 5.0]))
    updates, state = tx.update(g, state, g, curvature=broken)
    assert jnp.all(jnp.isfinite(state.nu))
    assert jnp.all(jnp.isfinite(updates))
    np.testing.assert_allclose(updates[2], 0.2, rtol=1e-5)


def test_orbax_round_trip_continues_bit_for_bit(tmp_path):
    tx = adahessian(0.1)
    p, s = train(tx, steps=3)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", (p, s))
        checkpointer.wait_until_finished()
        q, r = checkpointer.restore(
            tmp_path / "c", jax.tree.map(ocp.utils.to_shape_dtype_struct, (p, s))
        )
    step = jax.jit(lambda p, s: tx.update(jax.grad(loss)(p), s, p, obj_fn=loss))
    for a, b in zip(*map(jax.tree.leaves, (step(p, s), step(q, r))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nnx_optimizer_trains_and_is_recognized():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, adahessian(0.1), wrt=nnx.Param)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 3)), jnp.float32)
    y = x @ jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    assert wants_curvature(optimizer.opt_state)

    def mse(params, graphdef, rest, x, y):
        return jnp.mean((nnx.merge(graphdef, params, rest)(x) - y) ** 2)

    f = value_grad_and_diag(mse, microbatches=2, batch_argnums=(3, 4))

    @nnx.jit
    def step(model, optimizer, key):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        value, grads, curvature = f(params, graphdef, rest, x, y, key=key)
        optimizer.update(model, grads, curvature=curvature)
        return value

    values = [float(step(model, optimizer, jax.random.key(i))) for i in range(40)]
    assert values[-1] < 0.02 * values[0]


def test_objective_instead_of_curvature():
    """`obj_fn` draws its own probes; on a diagonal Hessian they are exact."""
    tx = adahessian(0.1)
    step = jax.jit(lambda p, s: tx.update(jax.grad(loss)(p), s, p, obj_fn=loss))
    p, s = PARAMS, tx.init(PARAMS)
    for _ in range(8):
        updates, s = step(p, s)
        p = optax.apply_updates(p, updates)
    assert_same(p, train(tx)[0])
    lazy = adahessian(0.1, update_interval=3)
    s = lazy.init(PARAMS)
    for _ in range(7):
        _, s = jax.jit(functools.partial(lazy.update, obj_fn=loss))(PARAMS, s, PARAMS)
    assert int(s[0].refreshes) == 3


def test_probes_of_the_objective_change_with_the_step_and_the_seed():
    coupled = lambda w: jnp.prod(1 + w)  # noqa: E731
    w = jnp.arange(1.0, 5.0)

    def nu_after(seed, steps):
        tx = scale_by_adahessian(b2=0.0, seed=seed)
        state = tx.init(w)
        for _ in range(steps):
            _, state = tx.update(w, state, w, obj_fn=coupled)
        return np.asarray(state.nu)

    first = nu_after(0, 1)
    np.testing.assert_array_equal(first, nu_after(0, 1))
    assert any(not np.allclose(first, nu_after(0, n)) for n in (2, 3, 4))
    assert any(not np.allclose(first, nu_after(seed, 1)) for seed in (1, 2, 3))


def test_sharded_training_equals_one_device():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
    w = {"w": jnp.asarray(rng.normal(size=(4, 16)), jnp.float32)}
    f = value_grad_and_diag(lambda p, x: jnp.mean(jnp.sum(jnp.tanh(x @ p["w"]) ** 2, -1)))
    tx = adahessian(0.01, min_curvature=1e-2)

    def run(p, x):
        state = jax.jit(tx.init)(p)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(p, s, key):
            _, grads, curvature = f(p, x, key=key)
            updates, s = tx.update(grads, s, p, curvature=curvature)
            return optax.apply_updates(p, updates), s

        for i in range(5):
            p, state = step(p, state, jax.random.key(i))
        return p, state

    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda a, *s: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*s)))  # noqa: E731
    many = run({"w": place(w["w"], None, "x")}, place(x, "x"))
    one = run(jax.tree.map(jnp.copy, w), x)
    assert_same(many, one, rtol=2e-5)
    assert many[1][0].nu["w"].sharding.spec == PartitionSpec(None, "x")


def test_explicit_sharding_keeps_the_types_of_the_state():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec(None, None, None, "x"))
        p = {"w": jax.device_put(jnp.ones((3, 3, 2, 16)), sharding)}
        f, tx = value_grad_and_diag(lambda p: jnp.sum(p["w"] ** 4)), adahessian(0.1)
        state = tx.init(p)

        @jax.jit
        def step(p, s, key):
            _, grads, curvature = f(p, key=key)
            updates, s = tx.update(grads, s, p, curvature=curvature)
            return optax.apply_updates(p, updates), s

        q, after = step(p, state, jax.random.key(0))
        assert jax.tree.map(jax.typeof, (p, state)) == jax.tree.map(jax.typeof, (q, after))


def test_dtypes_of_the_state():
    p = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones((2, 2)), "n": jnp.arange(2)}
    state = scale_by_adahessian().init(p)
    assert [state.mu["a"].dtype, state.nu["a"].dtype] == [jnp.bfloat16, jnp.float32]
    state = scale_by_adahessian(mu_dtype=jnp.float32, nu_dtype="bfloat16").init(p)
    assert [state.mu["a"].dtype, state.nu["b"].dtype] == [jnp.float32, jnp.bfloat16]
    assert state.mu["n"].dtype == state.nu["n"].dtype == p["n"].dtype
    tx = adahessian(0.1)
    f = value_grad_and_diag(lambda p: jnp.sum(p["a"].astype(jnp.float32) ** 2) + jnp.sum(p["b"]))
    _, grads, curvature = f(p, key=jax.random.key(0))
    updates, _ = tx.update(grads, tx.init(p), p, curvature=curvature)
    after = optax.apply_updates(p, updates)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, p)
    np.testing.assert_array_equal(after["n"], p["n"])


def test_bf16_second_moment_would_stand_still():
    """Why half precision keeps v in float32: 0.999 v + 0.001 s^2 rounds back to v."""
    p = jnp.ones(4, jnp.bfloat16)

    def final(dtype):
        tx = scale_by_adahessian(nu_dtype=dtype)
        state = tx.init(p)
        update = jax.jit(tx.update)
        for _ in range(400):
            _, state = update(p, state, p, curvature=Curvature(p))
        return float(state.nu[0])

    assert abs(final(None) / (1 - 0.999**400) - 1) < 1e-3
    assert final("bfloat16") < 0.9 * final(None)


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip(1.0), optax.chain(tx)),
    "named chain": lambda tx: optax.named_chain(("ours", tx)),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": False}),
    "partition": lambda tx: optax.partition({"o": tx, "s": optax.sgd(0.1)}, {"a": "o", "b": "s"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 4).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "inject": lambda tx: optax.inject_hyperparams(
        lambda lr: optax.chain(tx, optax.scale_by_learning_rate(lr))
    )(lr=0.1),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wants_curvature_is_found_under_every_wrapper(wrap):
    assert wants_curvature(wrap(scale_by_adahessian()).init(PARAMS))
    assert wants_curvature(jax.eval_shape(wrap(scale_by_adahessian()).init, PARAMS))
    assert not wants_curvature(wrap(optax.adam(0.1)).init(PARAMS))


def test_wrong_extra_arguments_are_named():
    tx = adahessian(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="curvature: got dict"):
        tx.update(PARAMS, state, PARAMS, curvature={"diag": PARAMS})
    with pytest.raises(ValueError, match="curvature: its diag is not a tree like the gradient"):
        tx.update(PARAMS, state, PARAMS, curvature=Curvature({"a": PARAMS["a"]}))
    wrong = Curvature({"a": jnp.ones(2), "b": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"curvature: got a leaf of shape \(2,\)"):
        tx.update(PARAMS, state, PARAMS, curvature=wrong)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(PARAMS, state, obj_fn=loss)
    masked = optax.masked(tx, {"a": True, "b": False})
    with pytest.raises(ValueError, match="obj_fn: got masked parameters"):
        masked.update(PARAMS, masked.init(PARAMS), PARAMS, obj_fn=loss)
