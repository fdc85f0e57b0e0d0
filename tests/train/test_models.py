"""Models: shapes, dtypes, what they may see, and forms that must agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.layers import SelfAttention
from papyrax.train.models import LM, MLP, ResNet, ViT

IMAGE = (8, 8, 1)
MAKE = {
    "mlp": functools.partial(MLP, IMAGE, 10, widths=(16,)),
    "resnet": functools.partial(ResNet, IMAGE, 10, widths=(8, 16), blocks=(1, 1)),
    "resnet-batch": functools.partial(ResNet, IMAGE, 10, widths=(8,), blocks=(1,), norm="batch"),
    "resnet-large": functools.partial(
        ResNet, (32, 32, 3), 10, widths=(8,), blocks=(1,), stem="large"
    ),
    "vit": functools.partial(ViT, IMAGE, 10, width=16, layers=2, heads=2),
    "lm": functools.partial(LM, (6,), 20, width=16, layers=2, heads=2),
    "lm-learned": functools.partial(LM, (6,), 20, width=16, layers=2, heads=2, positions="learned"),
}


def inputs(name, batch=4):
    if name.startswith("lm"):
        return jax.random.randint(jax.random.key(1), (batch, 6), 0, 20)
    shape = (32, 32, 3) if name == "resnet-large" else IMAGE
    return jax.random.normal(jax.random.key(1), (batch, *shape))


@functools.cache
def model(name, **options):
    return nnx.jit(lambda: MAKE[name](rngs=nnx.Rngs(0), **options))()


def run(net, *args, **options):
    """A model's output as one compiled program."""
    graph, state = nnx.split(net)
    return jax.jit(lambda state, *args: nnx.merge(graph, state)(*args, **options))(state, *args)


@pytest.mark.parametrize("name", MAKE)
def test_logits_have_the_classes_last_and_start_undecided(name):
    logits = run(model(name), inputs(name))
    assert logits.shape == ((4, 6, 20) if name.startswith("lm") else (4, 10))
    assert logits.dtype == jnp.float32
    loss = -jax.nn.log_softmax(logits).mean()
    assert float(loss) < 1.5 * np.log(logits.shape[-1])


@pytest.mark.parametrize("name", MAKE)
def test_half_precision_computes_in_bfloat16_with_float32_parameters(name):
    half = model(name, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(nnx.state(half))} == {jnp.dtype("float32")}
    logits = run(half, inputs(name))
    assert logits.dtype == jnp.bfloat16
    whole = run(model(name), inputs(name))
    assert not np.array_equal(logits, whole)
    np.testing.assert_allclose(logits.astype(jnp.float32), whole, atol=0.1)


@pytest.mark.parametrize("name", ["lm", "lm-learned"])
def test_a_language_model_sees_no_later_token(name):
    tokens = inputs(name)
    changed = tokens.at[:, 3].add(1) % 20
    before, after = run(model(name), tokens), run(model(name), changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (np.abs(before - after)[:, 3:].max((0, 2)) > 1e-4).all()


@pytest.mark.parametrize("name", ["lm", "lm-learned"])
def test_a_language_model_knows_the_order(name):
    tokens = jnp.array([[1, 2, 3, 3, 3, 3], [2, 1, 3, 3, 3, 3]])
    a, b = run(model(name), tokens)[:, -1]
    assert float(jnp.abs(a - b).max()) > 1e-4


def test_scan_and_remat_change_the_program_and_not_the_function():
    """Parameters of the loop, stacked, give the scan's logits and gradients; remat changes none."""
    tokens = inputs("lm")
    loop = model("lm")
    graph, params = nnx.split(loop)
    pure = nnx.to_pure_dict(params)
    blocks = pure["stack"]["blocks"]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(blocks[i] for i in range(2)))
    scanned_params = {**pure, "stack": {"blocks": stacked}}

    def loss(graph, params):
        return jnp.sum(nnx.merge(graph, params)(tokens) ** 2)

    want, grads = jax.jit(jax.value_and_grad(lambda p: loss(graph, p)))(pure)
    for remat in (False, True):
        scan = nnx.eval_shape(lambda r=remat: MAKE["lm"](scan=True, remat=r, rngs=nnx.Rngs(0)))
        scan_graph, abstract = nnx.split(scan)
        shapes = jax.tree.map(lambda x: x.shape, nnx.to_pure_dict(abstract))
        assert shapes == jax.tree.map(lambda x: x.shape, scanned_params)
        got, scan_grads = jax.jit(jax.value_and_grad(lambda p, g=scan_graph: loss(g, p)))(
            scanned_params
        )
        np.testing.assert_allclose(got, want, rtol=1e-5)
        for i in range(2):
            for a, b in zip(
                jax.tree.leaves(jax.tree.map(lambda x, i=i: x[i], scan_grads["stack"]["blocks"])),
                jax.tree.leaves(grads["stack"]["blocks"][i]),
            ):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    rematerialized = model("lm", remat=True)
    np.testing.assert_allclose(run(rematerialized, tokens), run(loop, tokens), rtol=1e-5, atol=1e-6)


def test_scanned_blocks_start_different():
    scanned = model("lm", scan=True)
    kernel = scanned.stack.blocks.attention.query.kernel
    assert kernel.shape == (2, 16, 2, 8)
    assert float(jnp.abs(kernel[0] - kernel[1]).min()) > 0


@pytest.mark.parametrize("name", ["mlp", "vit", "lm"])
def test_dropout_needs_a_key_and_keeps_the_mean(name):
    dropping = model(name, dropout=0.3)
    x = inputs(name)
    np.testing.assert_array_equal(run(dropping, x), run(model(name), x))
    a, b = (run(dropping, x, train=True, key=jax.random.key(i)) for i in (0, 1))
    assert float(jnp.abs(a - b).max()) > 1e-4


def test_dropout_drops_its_share_and_scales_the_others():
    from papyrax.train.models.shared import dropout

    x = dropout(jnp.ones(10_000), 0.25, jax.random.key(0))
    assert set(np.unique(x).round(5)) == {0.0, np.float32(4 / 3).round(5)}
    np.testing.assert_allclose(np.mean(x), 1, atol=0.02)


def test_batch_normalization_keeps_running_moments():
    net = nnx.clone(model("resnet-batch"))
    images = inputs("resnet-batch", 16) * 3 + 1
    stem = np.asarray(net.stem(images), np.float64)
    before = run(net, images)
    nnx.jit(lambda net, x: net(x, train=True))(net, images)
    moments = net.blocks[0].norm1.norm
    np.testing.assert_allclose(moments.mean[...], 0.1 * stem.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(moments.var[...], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)
    kept = jax.tree.map(np.asarray, nnx.state(net, nnx.BatchStat))
    after = run(net, images)
    assert float(jnp.abs(after - before).max()) > 1e-4
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(nnx.state(net, nnx.BatchStat))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("operator", ["linear_attention", "mala"])
@pytest.mark.parametrize("name", ["vit", "lm"])
def test_attention_is_an_argument(name, operator):
    from papyrax import attention

    other = model(name, attention=getattr(attention, operator))
    graph, params = nnx.split(other)
    x = inputs(name)
    value_and_grad = jax.jit(jax.value_and_grad(lambda p: jnp.sum(nnx.merge(graph, p)(x) ** 2)))
    loss, grads = value_and_grad(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() and np.any(g != 0) for g in jax.tree.leaves(grads))
    assert float(jnp.abs(run(other, x) - run(model(name), x)).max()) > 1e-3
    if name == "lm":
        changed = x.at[:, 3].add(1) % 20
        np.testing.assert_allclose(run(other, x)[:, :3], run(other, changed)[:, :3], atol=1e-5)


def test_grouped_queries_share_their_keys():
    operator = jax.nn.dot_product_attention
    layer = nnx.jit(
        lambda: SelfAttention(
            16,
            4,
            key_heads=2,
            attention_fn=operator,
            causal=False,
            positions="none",
            rngs=nnx.Rngs(0),
        )
    )()
    assert layer.key.kernel.shape == (16, 2, 4)
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))

    @nnx.jit
    def repeated(layer, x):
        query, key, value = layer.query(x), layer.key(x), layer.value(x)
        key, value = (jnp.repeat(a, 2, axis=2) for a in (key, value))
        scores = jnp.einsum("btnh,bsnh->bnts", query, key) / 2
        return layer.out(jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), value))

    np.testing.assert_allclose(run(layer, x), repeated(layer, x), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda r: ViT(IMAGE, 10, patch=3, rngs=r), "patch"),
        (lambda r: ViT((64,), 10, rngs=r), "shape"),
        (lambda r: ViT(IMAGE, 10, heads=5, rngs=r), "heads"),
        (lambda r: ViT(IMAGE, 10, key_heads=3, rngs=r), "key_heads"),
        (lambda r: LM(IMAGE, 10, rngs=r), "shape"),
        (lambda r: LM((6,), 10, positions="none", rngs=r), "positions"),
        (lambda r: LM((6,), 10, layers=0, rngs=r), "layers"),
        (lambda r: ResNet(IMAGE, 10, norm="layer", rngs=r), "norm"),
        (lambda r: ResNet(IMAGE, 10, blocks=(1,), rngs=r), "blocks"),
        (lambda r: ResNet(IMAGE, 10, stem="tall", rngs=r), "stem"),
    ],
)
def test_what_does_not_fit_is_named(make, argument):
    with pytest.raises(ValueError, match=f"^{argument}: got"):
        nnx.eval_shape(lambda: make(nnx.Rngs(0)))
