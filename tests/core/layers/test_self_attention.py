"""Self-attention against its definition in NumPy, and decoding against the parallel form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.attention import dot_product_attention
from papyrax.layers import SelfAttention, TransformerBlock, attention_fn


@pytest.fixture(autouse=True)
def x64():
    # Every program is compiled to run once.
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def compare(make, most=8, prompt=3):
    """The call, and `decode` of a prompt at once and of the other tokens one by one."""

    @jax.jit
    def both(x):
        layer = make(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        first, cache = layer.decode(x[:, :prompt], layer.init_cache(x.shape[0], most))

        def step(cache, token):
            y, cache = layer.decode(token[:, None], cache)
            return cache, y[:, 0]

        cache, rest = jax.lax.scan(step, cache, jnp.moveaxis(x[:, prompt:], 1, 0))
        return layer(x), jnp.concatenate([first, jnp.moveaxis(rest, 0, 1)], axis=1), cache.length

    want, got, length = both(draw(2, 7, 8))
    assert length == 7
    # Angles are float32.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "learned", "max_length": 7, "window": 2},
        {"positions": "none", "attention_fn": "linear_attention"},
        {"attention_fn": "mala"},
    ],
    ids=["learned, window", "none, linear attention", "mala, which takes rope"],
)
def test_decoding_agrees_with_the_parallel_form(options):
    linear = "attention_fn" in options
    compare(functools.partial(SelfAttention, 8, 4, **options), prompt=1 if linear else 3)


def test_a_block_decodes_as_its_parallel_form():
    compare(functools.partial(TransformerBlock, 8, 4, key_heads=2, mlp_ratio=1.0), most=7)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_equals_the_definition(positions):
    options = {"positions": positions, "window": 2, "key_heads": 2, "max_length": 9}
    make = functools.partial(SelfAttention, 16, 4, rngs=nnx.Rngs(1), param_dtype=jnp.float64)
    x = draw(1, 6, 16)
    layer = make(**options)
    got = nnx.jit(layer)(x)

    def project(name, x):
        return np.einsum("td,dnh->nth", x, np.asarray(getattr(layer, name).kernel[...]))

    placed = plain = np.asarray(x[0])
    if positions == "learned":
        placed = plain + np.asarray(layer.table.embedding[...])[:6]
    q, k, v = project("query", placed), project("key", placed), project("value", plain)
    if positions == "rope":
        angle = np.arange(6)[:, None] * 10000.0 ** (-np.arange(2) / 2)

        def turn(z):
            z = (z[..., ::2] + 1j * z[..., 1::2]) * np.exp(1j * angle)
            return np.stack([z.real, z.imag], -1).reshape(*z.shape[:2], 4)

        q, k = turn(q), turn(k)
    out = np.zeros((4, 6, 4))
    for n, i in np.ndindex(4, 6):
        near = slice(max(0, i - 2), i + 1)
        weights = np.exp(q[n, i] @ k[n // 2, near].T / 2)
        out[n, i] = weights @ v[n // 2, near] / weights.sum()
    want = np.einsum("nth,nhd->td", out, np.asarray(layer.out.kernel[...]))
    np.testing.assert_allclose(got[0], want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("operator", ["dot_product_attention", "linear_attention"])
def test_padding_is_not_seen(operator):
    block = TransformerBlock(8, 2, attention_fn=operator, causal=False, rngs=nnx.Rngs(0))
    x = draw(2, 5, 8)
    mask = jnp.arange(5) < jnp.array([[3], [5]])
    got = nnx.jit(block)(x.at[0, 3:].set(1e3), mask)
    for row, length in enumerate((3, 5)):
        alone = nnx.jit(block)(x[row : row + 1, :length])[0]
        np.testing.assert_allclose(got[row, :length], alone, rtol=1e-5, atol=1e-6)
    for wrong in (mask[:, :4], mask.astype(int)):
        with pytest.raises(ValueError, match="mask: got"):
            block(x, wrong)


def test_a_full_cache_does_not_answer():
    @jax.jit
    def twice(x):
        layer = SelfAttention(8, 2, rngs=nnx.Rngs(0))
        first, cache = layer.decode(x, layer.init_cache(1, 5))
        return first, layer.decode(x, cache)[0]

    first, second = twice(draw(1, 3, 8))
    assert np.isfinite(first).all()
    assert np.isnan(second).all()


def test_what_cannot_be_is_refused():
    layer = functools.partial(SelfAttention, 8, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"causal: got False"):
        layer(causal=False).init_cache(1, 4)
    with pytest.raises(ValueError, match=r"x: got 5 tokens, takes 1 to 4"):
        layer().decode(draw(1, 5, 8), layer().init_cache(1, 4))
    for cache in (None, SelfAttention(8, 4, rngs=nnx.Rngs(0)).init_cache(1, 4)):
        with pytest.raises(ValueError, match="cache: got"):
            layer().decode(draw(1, 1, 8), cache)
    for sizes in ({"dim": 0}, {"dim": 8.0}, {"heads": 3}, {"key_heads": 0}, {"window": 2.5}):
        with pytest.raises(ValueError, match=f"{next(iter(sizes))}: got"):
            SelfAttention(**({"dim": 8, "heads": 2, "rngs": nnx.Rngs(0)} | sizes))
    with pytest.raises(ValueError, match=r"window: got 3"):
        layer(attention_fn="mala", window=3)
    with pytest.raises(ValueError, match=r"max_length: got None"):
        layer(positions="learned")
    with pytest.raises(ValueError, match=r"x: got 6 tokens"):
        layer(positions="learned", max_length=5)(draw(1, 6, 8))


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("softmaxx", "got 'softmaxx'"),
        (3, "got 3"),
        ("anchor_attention", "got anchor_attention, which needs anchors"),
        ("epipolar_attention", "takes a function with arguments mask and is_causal"),
        (attention_fn("mala", is_causal=True), "with is_causal=True"),
        (functools.partial(dot_product_attention, is_causal=True), "with is_causal=True"),
    ],
    ids=["name", "number", "anchors", "epipolar", "causal", "causal by partial"],
)
def test_operators_that_cannot_be(operator, message):
    with pytest.raises(ValueError, match=f"attention_fn: .*{message}"):
        SelfAttention(8, 2, attention_fn=operator, rngs=nnx.Rngs(0))


def test_an_operator_with_its_options():
    operator = functools.partial(dot_product_attention, logits_soft_cap=0.1)
    layers = [SelfAttention(8, 2, attention_fn=f, rngs=nnx.Rngs(0)) for f in (operator, "mala")]
    soft, mala = (nnx.jit(layer)(draw(1, 4, 8)) for layer in layers)
    assert not np.allclose(soft, mala, atol=1e-3)
