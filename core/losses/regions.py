"""Losses of the regions of an image: which are reliable, and which of two images match."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_normalize,
    upcast,
)
from ._shared import everyone
from .batch_pairs import across
from .pair_sums import mean_log_loss
from .pairs import PairMasks
from .similarity import pairwise_cosine, pairwise_dot

Map = Float[Array, "... patches"]
Features = Float[Array, "... patches features"]


def _limit(x: Map, outliers: int, share: float) -> Map:
    """The largest values replaced by the one at the given share of the descending order."""
    place = jnp.argsort(jnp.argsort(-x, -1), -1)
    level = jnp.sort(x, -1)[..., ::-1][..., int(share * x.shape[-1])]
    return jnp.where(place < outliers, level[..., None], x)


def spatial_alignment_loss(
    confidence: Map, attention: Map, *, outliers: int = 3, level: float = 0.05
) -> Float[Array, "..."]:
    """SAL: what is aggregated with confidence and what is attended to are to be the same regions.

    `KL(a || c) + KL(c || a)` of `c = softmax(confidence)` and `a = softmax(attention)` over the
    patches, the first of the two distributions in each a constant for the gradient.

    Args:
      confidence: how surely each patch belongs to a cluster, the mean of its assignments
        [..., patches].
      attention: how much the class token attends to each patch [..., patches].
      outliers: in either map so many largest values are replaced...
      level: ...by the value at this share of the descending order.

    Returns:
      One loss an image [...]; the authors' code adds it times 0.005. The paper divides by the
      number of patches, the code does not.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Focus on Local: Finding Reliable Discriminative Regions for Visual Place Recognition,
    arXiv 2504.09881; `aggregators/FoL.py` of chenshunpeng/FoL agrees in values and gradients.

    >>> x = jnp.array([0.0, 1.0, 2.0])
    >>> print(f"{spatial_alignment_loss(x, 2 * x, outliers=0):.4f}")
    0.2757
    """
    check_floating(confidence=confidence, attention=attention)
    check_rank("confidence", confidence, 1, at_least=True)
    check(jnp.shape(confidence)[-1] > 0, "confidence", "got no patches, takes one or more")
    check_shape("attention", attention, jnp.shape(confidence), "[..., patches], as confidence")
    good = isinstance(outliers, int) and outliers >= 0
    check(good, "outliers", f"got {outliers!r}, takes an integer of 0 or more")
    check_range("level", level, 0, 1, open_high=True)
    c, a = (_limit(x, outliers, level) for x in upcast(confidence, attention))
    c, a = jax.nn.log_softmax(c, -1), jax.nn.log_softmax(a, -1)

    def divergence(constant: Array, x: Array) -> Array:
        constant = jax.lax.stop_gradient(constant)
        return jnp.sum(jnp.exp(constant) * (constant - x), -1)

    return restore(divergence(a, c) + divergence(c, a), confidence, attention)


def foreground_background_loss(
    first: Features,
    second: Features,
    first_mask: Map,
    second_mask: Map,
    *,
    foreground_weight: float = 0.7,
) -> Float[Array, "..."]:
    """Two images of one place: what is masked as foreground agrees, and so does what is not.

    `w (1 - cos(f_1, f_2)) + (1 - w) (1 - cos(b_1, b_2))` of `f = sum_i m_i x_i` and
    `b = sum_i (1 - m_i) x_i`.

    Args:
      first: local features of one image [..., patches, features]; constants in the authors' code,
        so that masks alone learn: apply `jax.lax.stop_gradient`.
      second: of another image of the same place [..., patches, features].
      first_mask: `m`, how much each patch is foreground [..., patches].
      second_mask: the same of the second image [..., patches].
      foreground_weight: `w`.

    Returns:
      One loss a pair of images [...], from 0 to 2.

    Raises:
      ValueError: if a shape, a dtype or `foreground_weight` does not fit.

    Source: Focus on Local: Finding Reliable Discriminative Regions for Visual Place Recognition,
    arXiv 2504.09881, the contrast enhancement loss as `loss.py` of chenshunpeng/FoL has it: both
    parts pull together. The paper says that foreground and background are contrasted as well,
    which the code does not do.

    >>> x, mask = jnp.eye(2), jnp.array([1.0, 0.0])
    >>> print(f"{foreground_background_loss(x, x, mask, 1 - mask):.1f}")
    1.0
    """
    check_floating(first=first, second=second, first_mask=first_mask, second_mask=second_mask)
    check_rank("first", first, 2, at_least=True)
    check_shape("second", second, jnp.shape(first), "[..., patches, features], as first")
    for name, mask in (("first_mask", first_mask), ("second_mask", second_mask)):
        check_shape(name, mask, jnp.shape(first)[:-1], "[..., patches], one a patch")
    check_range("foreground_weight", foreground_weight, 0, 1)
    x, y, m, n = upcast(first, second, first_mask, second_mask)

    def disagreement(m: Array, n: Array) -> Array:
        a, b = (safe_normalize(jnp.sum(w[..., None] * z, -2)) for w, z in ((m, x), (n, y)))
        return 1 - jnp.sum(a * b, -1)

    front, back = disagreement(m, n), disagreement(1 - m, 1 - n)
    loss = foreground_weight * front + (1 - foreground_weight) * back
    return restore(loss, first, second, first_mask, second_mask)


def detcon_loss(
    first: Features,
    second: Features,
    first_targets: Features,
    second_targets: Features,
    first_masks: Int[Array, "batch patches"],
    second_masks: Int[Array, "batch patches"],
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """DetCon: a region of one view among all regions of the batch must find itself in the other.

    `mean_m 1[p exists] / n_m mean_p -log(exp(s_mp / t) / sum_j exp(s_mj / t))` for a region `m` of
    one view with cosines `s`: the positives `p` are the regions of the same mask in the other
    view of the image, `j` all regions of all images in both views but those of the same mask in its
    own view, and `n_m` is how often that mask is in its own view. The sum of both ways round.

    Args:
      first: features pooled over the regions of one view, as predicted [batch, patches, features].
      second: of the other view [batch, patches, features].
      first_targets: features of the same regions by a slow encoder (DetCon-B), or `first` again
        (DetCon-S) [batch, patches, features].
      second_targets: the same of the other view [batch, patches, features].
      first_masks: the number of the mask of each region within its image [batch, patches].
      second_masks: the same of the other view [batch, patches].
      temperature: `t`.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an image [batch], the mean over its regions; zero for regions that are in one view.

    Raises:
      ValueError: if a shape, a dtype or `temperature` does not fit.

    Source: Efficient Visual Pretraining with Contrastive Detection, arXiv 2103.10957; `DetConBLoss`
    and `DetConSLoss` of lightly-ai/lightly agree in values and gradients.

    >>> x, masks = jnp.eye(4).reshape(2, 2, 4), jnp.array([[0, 1], [0, 1]])
    >>> np.asarray(detcon_loss(x, x, x, x, masks, masks, temperature=0.5), float).round(3)
    array([1.189, 1.189])
    """
    check_floating(first=first, second=second)
    check_floating(first_targets=first_targets, second_targets=second_targets)
    check_rank("first", first, 3)
    shape = jnp.shape(first)
    check(0 not in shape, "first", f"got shape {shape}, takes no zeros")
    named = {"second": second, "first_targets": first_targets, "second_targets": second_targets}
    for name, x in named.items():
        check_shape(name, x, shape, "[batch, patches, features], as first")
    check_integer(first_masks=first_masks, second_masks=second_masks)
    for name, masks in (("first_masks", first_masks), ("second_masks", second_masks)):
        check_shape(name, masks, shape[:2], "[batch, patches], one a region")
    check_positive(temperature=temperature)
    batch, patches, features = shape
    arrays = upcast(first, second, first_targets, second_targets)
    x, y, x_key, y_key = (safe_normalize(a.reshape(-1, features)) for a in arrays)
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch
    image = jnp.repeat(jnp.arange(batch) + start, patches)
    x_mask, y_mask = (jnp.asarray(m).reshape(-1) for m in (first_masks, second_masks))
    x_all, y_all, images, x_masks, y_masks = everyone(
        (x_key, y_key, image, x_mask, y_mask), axis_name
    )

    def one_way(x: Array, mask: Array, own: tuple, other: tuple) -> Array:
        same_image = image[:, None] == images[None]
        same, positive = (same_image & (mask[:, None] == m[None]) for _, m in (own, other))
        # A region of its own mask and view is no reference.
        masks = [
            jnp.concatenate(m, 1) for m in ((positive, jnp.zeros_like(same)), (~positive, ~same))
        ]
        pairs = across(
            x,
            jnp.concatenate([other[0], own[0]]),
            compare=pairwise_dot,
            labels=PairMasks(*masks),
        )
        scale = jnp.full(len(x), 1 / temperature, x.dtype)
        loss = mean_log_loss(pairs, scale) / jnp.maximum(jnp.sum(same, -1), 1)
        return jnp.mean(loss.reshape(batch, patches), -1)

    loss = one_way(x, x_mask, (x_all, x_masks), (y_all, y_masks))
    loss += one_way(y, y_mask, (y_all, y_masks), (x_all, x_masks))
    return restore(loss, first, second, first_targets, second_targets)


class Matches(NamedTuple):
    """Which patch of a second image belongs to each of a first one.

    Attributes:
      partner: the number of the patch of the second image [patches].
      similarity: its cosine [patches].
      is_match: whether it is a match at all [patches].
    """

    partner: Int[Array, "patches"]
    similarity: Float[Array, "patches"]
    is_match: Bool[Array, "patches"]


def mutual_matches(
    first: Float[Array, "patches features"],
    second: Float[Array, "others features"],
    where: Bool[Array, "patches others"] | None = None,
    *,
    least_similarity: float = 0.7,
) -> Matches:
    """Pairs of patches that are each other's nearest and similar enough.

    `j = argmax_j s_ij`, `i = argmax_i s_ij` and `s_ij > least_similarity` with cosines `s`. Their
    number ranks images again that a global descriptor has found; the mean of their similarities is
    what the authors' local loss raises for images of one place, `max(0, negative - positive)`.

    Args:
      first: local features of one image [patches, features].
      second: of another [others, features].
      where: which pairs may match [patches, others]; all for None.
      least_similarity: a cosine above this is a match.

    Returns:
      `Matches` [patches]; of ties the first.

    Raises:
      ValueError: if a shape, a dtype or `least_similarity` does not fit.

    Source: Focus on Local: Finding Reliable Discriminative Regions for Visual Place Recognition,
    arXiv 2504.09881, the re-ranking; `match_batch_tensor` in `loss.py` of chenshunpeng/FoL. Without
    a match that code takes the mean of empty sets, here nothing is a match.

    >>> matches = mutual_matches(jnp.eye(3), jnp.eye(3)[::-1])
    >>> matches.partner.tolist(), int(matches.is_match.sum())
    ([2, 1, 0], 3)
    """
    allowed = _check_patches(first, second, where)
    check_range("least_similarity", least_similarity, -1, 1)
    # Below every cosine, and finite.
    s = jnp.where(allowed, pairwise_cosine(*upcast(first, second)), -2)
    index, back = jnp.argmax(s, 1), jnp.argmax(s, 0)
    similarity = jnp.max(s, 1)
    mutual = back[index] == jnp.arange(len(s))
    return Matches(
        index, restore(similarity, first, second), mutual & (similarity > least_similarity)
    )


def reliable_matches(
    first: Float[Array, "patches features"],
    second: Float[Array, "others features"],
    where: Bool[Array, "patches others"] | None = None,
    *,
    least_similarity: float = 0.8,
    ratio: float = 2.0,
    most: int = 5,
) -> Matches:
    """Patches whose nearest of another image is near, and far nearer than the next one.

    `s_1 > least_similarity` and `s_1 > ratio s_2` of the two largest cosines among the pairs that
    `where` allows: the pseudo-correspondences that local features learn from. The first `most` are
    kept.

    Args:
      first: local features of one image [patches, features].
      second: of another image of the same place [others, features].
      where: which pairs may match [patches, others], in the paper those of patches in a reliable
        region and of one cluster; all for None.
      least_similarity: a cosine above this is near.
      ratio: how many times the second cosine the first must be; an only candidate passes.
      most: how many matches are kept.

    Returns:
      `Matches` [patches].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Focus on Local: Finding Reliable Discriminative Regions for Visual Place Recognition,
    arXiv 2504.09881; `get_weak_supervision_triplets` in `loss.py` of chenshunpeng/FoL, which
    skips the first patch of the region and drops matches with an only candidate or whose next one
    has a negative cosine; the other matches agree.

    >>> matches = reliable_matches(jnp.eye(3), jnp.eye(3), most=2)
    >>> matches.is_match.tolist()
    [True, True, False]
    """
    allowed = _check_patches(first, second, where)
    check_range("least_similarity", least_similarity, -1, 1)
    check_range("ratio", ratio, 1)
    check_count(most=most)
    s = jnp.where(allowed, pairwise_cosine(*upcast(first, second)), -2)
    index, similarity = jnp.argmax(s, 1), jnp.max(s, 1)
    chosen = jnp.arange(s.shape[1]) == index[:, None]
    runner_up = jnp.max(jnp.where(chosen, -2, s), 1)
    good = (similarity > least_similarity) & (similarity > ratio * runner_up)
    good &= jnp.cumsum(good) <= most
    return Matches(index, restore(similarity, first, second), good)


def correspondence_loss(
    first: Float[Array, "patches features"],
    second: Float[Array, "others features"],
    matches: Matches,
) -> Float[Array, ""]:
    """Local features of patches that match are to agree.

    `mean_i s_i (1 - cos(x_i, y_j(i)))` over the matches, `s` their similarity.

    Args:
      first: local features of one image [patches, features].
      second: of the other [others, features].
      matches: which belong together, of features that may be others than these; constants.

    Returns:
      The loss of the pair of images [], zero without a match; the authors add it times 0.01.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Focus on Local: Finding Reliable Discriminative Regions for Visual Place Recognition,
    arXiv 2504.09881; `loss_function_weak_supervision` in `loss.py` of chenshunpeng/FoL.

    >>> x = jnp.eye(2)
    >>> matches = Matches(jnp.array([1, 1]), jnp.array([1.0, 0.5]), jnp.array([True, False]))
    >>> float(correspondence_loss(x, x, matches))
    1.0
    """
    _check_patches(first, second, None)
    for name, x in matches._asdict().items():
        check_shape(f"matches.{name}", x, (jnp.shape(first)[0],), "[patches], as first")
    x, y = map(safe_normalize, upcast(first, second))
    cosine = jnp.sum(x * y[matches.partner], -1)
    each = jax.lax.stop_gradient(matches.similarity).astype(x.dtype) * (1 - cosine)
    total = jnp.sum(jnp.where(matches.is_match, each, 0))
    count = jnp.sum(matches.is_match).astype(x.dtype)
    return restore(safe_divide(total, count), first, second)


def _check_patches(first: Any, second: Any, where: Any) -> Bool[Array, "patches others"]:
    """Raise unless the three fit; which pairs are allowed."""
    check_floating(first=first, second=second)
    check_rank("first", first, 2)
    check_shape("second", second, (None, jnp.shape(first)[1]), "[others, features], as first")
    check(min(len(first), len(second)) > 0, "first", "got no patches, takes one or more")
    shape = (len(first), len(second))
    if where is None:
        return jnp.ones(shape, bool)
    check_shape("where", where, shape, "[patches, others]")
    check_boolean(where=where)
    return jnp.asarray(where)
