"""Cross-entropy of a linear layer over a large vocabulary, in memory that logits never enter."""

from jaxtyping import Array, Float, Int

from ..numerics import check_range
from ._linear import linear_layer, log_sum_and_label


def linear_softmax_cross_entropy(
    hidden: Float[Array, "... features"],
    kernel: Float[Array, "features classes"],
    labels: Int[Array, "..."],
    *,
    bias: Float[Array, "classes"] | None = None,
    label_smoothing: float = 0.0,
    z_loss_weight: float = 0.0,
    chunk_size: int = 2048,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
    tiles: tuple[int, int, int] | None = None,
) -> Float[Array, "..."]:
    """Softmax cross-entropy of `hidden @ kernel + bias` without its matrix of logits.

    With `z = x W + b` and `Z = sum_k exp(z_k)`,

        log Z - (1 - s) z_y - s mean_k z_k + w (log Z)^2

    where `s` is `label_smoothing` and `w` `z_loss_weight`. The classes are walked in chunks: the
    value, the gradient and products of the Hessian with a vector, in forward and in reverse mode,
    hold no more than a few [..., chunk_size] arrays beside their inputs and results. Logits are
    computed again where a derivative needs them: value and gradient take four matrix products,
    in kernels five, where the logits in memory take three.

    For a vocabulary that is sharded over devices, call it inside `jax.shard_map` with `kernel` and
    `bias` split along the classes and name the mesh axis in `axis_name`; a program that XLA
    partitions by itself would gather the kernel instead.

    Args:
      hidden: inputs of the last layer [..., features].
      kernel: its weights [features, classes]; inside a `shard_map`, this device's classes.
      labels: the right class of each example [...], from 0 on, counted over all devices. A label
        outside of the vocabulary has no logit: its term `z_y` is zero; leave such examples out.
      bias: one number a class [classes], or None.
      label_smoothing: `s`, the share of the target spread over all classes.
      z_loss_weight: `w`, which pulls `log Z` to zero; 1e-4 where large language models use it.
      chunk_size: classes at a time, of "xla" and of the derivatives of "pallas_triton".
      axis_name: the mesh axis, or axes, over which the classes are split; None for one device.
      implementation: "xla", or kernels: "pallas_tpu" holds a tile of logits in a TPU's fast memory,
        "pallas_triton" in the registers of an NVIDIA GPU, where gradients and products with the
        Hessian keep [..., chunk_size] arrays in the inputs' dtype for XLA to multiply by.
        "interpret" and "interpret_triton" run the two anywhere, slowly, in any dtype. None takes
        "xla", on TPUs and GPUs too. For neither chip have the kernels been timed, as none was at
        hand: of a TPU's the cycles that its compiler expects are half as many for the value alone,
        but 15% fewer at best for the gradient and as many for products with the Hessian; a GPU's
        compile and take less memory. "pallas_tpu" takes float32 and bfloat16, "pallas_triton"
        float16 too. One that cannot run raises; a program of several devices gets kernels in
        `jax.shard_map` only.
      tiles: (rows, classes, features) of the kernels' tiles: of "pallas_tpu" multiples of 16, 128
        and 128, or all there are; of "pallas_triton" powers of two from 16. None for what suits the
        shapes.

    Returns:
      One loss an example [...]. Products take operands in the input's dtype (float16: in float32)
      and are summed in float32, or in float64 for that.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, a hyper-parameter out of range, or an
        implementation that cannot run.

    Source: Cut Your Losses in Large-Vocabulary Language Models, arXiv 2411.09009, section 4 (the
    loss in blocks; the tangents and the chunks of the derivatives are this library's), and PaLM:
    Scaling Language Modeling with Pathways, arXiv 2204.02311, section 5, for the term in `log Z`.
    `linear_softmax_cross_entropy_loss` of openxla/tokamax is this function without bias, smoothing,
    `z_loss_weight` and second derivatives, and sums over the batch by default.

    >>> hidden, kernel = jnp.ones((2, 3)), jnp.zeros((3, 50_000))
    >>> loss = linear_softmax_cross_entropy(hidden, kernel, jnp.array([7, 49_999]))
    >>> bool(jnp.allclose(loss, jnp.log(50_000)))
    True
    """
    check_range("label_smoothing", label_smoothing, 0, 1)
    check_range("z_loss_weight", z_loss_weight, 0)
    layer = linear_layer(
        *(hidden, kernel, labels),
        bias=bias,
        chunk_size=chunk_size,
        axis_name=axis_name,
        implementation=implementation,
        tiles=tiles,
    )
    log_z, label, total = log_sum_and_label(layer)
    target = (1 - label_smoothing) * label + label_smoothing / layer.classes * total
    return layer.losses((log_z - target) + z_loss_weight * log_z**2)
