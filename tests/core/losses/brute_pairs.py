"""Pair losses as loops over pairs and triplets in float64, straight from their formulas."""

import numpy as np


def unit(x):
    norm = np.linalg.norm(x)
    return x / norm if norm > 0 else x


def cosine(a, b):
    return float(unit(a) @ unit(b))


def euclidean(a, b):
    return float(np.sqrt(((a - b) ** 2).sum()))


def dot(a, b):
    return float(a @ b)


def lists(x, labels, i, compare):
    """The values of the anchor's positives and of its negatives."""
    near = [compare(x[i], x[j]) for j in range(len(x)) if j != i and labels[j] == labels[i]]
    far = [compare(x[i], x[j]) for j in range(len(x)) if labels[j] != labels[i]]
    return near, far


def mean(values):
    return sum(values) / len(values) if values else 0.0


def active(values):
    return mean([v for v in values if v > 0])


def relu(v):
    return max(v, 0.0)


def lse(values):
    return np.log(sum(np.exp(v) for v in values))


def each(compare):
    """Turns a formula on an anchor's lists into a loss of the batch."""

    def wrap(f):
        def loss(x, labels, **kw):
            return np.array([f(*lists(x, labels, i, compare), **kw) for i in range(len(x))])

        return loss

    return wrap


@each(euclidean)
def contrastive(near, far, *, reduce=mean, m_p=0.0, m_n=1.0, k=2):
    return reduce([relu(d - m_p) ** k / k for d in near]) + reduce(
        [relu(m_n - d) ** k / k for d in far]
    )


@each(euclidean)
def triplet_hard(near, far, *, margin=0.2):
    if not near or not far:
        return 0.0
    gap = max(near) - min(far)
    return np.log1p(np.exp(gap)) if margin is None else relu(margin + gap)


@each(euclidean)
def triplet_all(near, far, *, margin=0.2, reduce=mean):
    return reduce([relu(margin + p - n) for p in near for n in far])


@each(euclidean)
def triplet_semi_hard(near, far, *, margin=0.2, reduce=mean):
    costs = []
    for p in near:
        beyond = [n for n in far if n > p]
        if far:
            costs.append(relu(margin + p - (min(beyond) if beyond else max(far))))
    return reduce(costs)


@each(dot)
def n_pair(near, far):
    return mean([np.log1p(sum(np.exp(n - p) for n in far)) for p in near])


@each(euclidean)
def lifted(near, far, *, m_p=0.0, m_n=1.0):
    if not near or not far:
        return 0.0
    return relu(lse([d - m_p for d in near]) + lse([m_n - d for d in far]))


@each(cosine)
def multi_similarity(near, far, *, a=2.0, b=50.0, base=0.5, eps=0.1):
    kept_far = [n for n in far if eps is None or (near and n > min(near) - eps)]
    kept_near = [p for p in near if eps is None or (far and p < max(far) + eps)]
    return (
        np.log1p(sum(np.exp(-a * (p - base)) for p in kept_near)) / a
        + np.log1p(sum(np.exp(b * (n - base)) for n in kept_far)) / b
    )


@each(cosine)
def circle(near, far, *, m=0.4, g=80.0):
    total = sum(np.exp(g * relu(n + m) * (n - m)) for n in far) * sum(
        np.exp(-g * relu(1 + m - p) * (p - 1 + m)) for p in near
    )
    return np.log1p(total)


def tcm(x, labels, *, m_p=0.9, m_n=0.5, w_p=1.0, w_n=1.0):
    rows = [lists(x, labels, i, cosine) for i in range(len(x))]
    near = [[m_p - s for s in row[0] if s <= m_p] for row in rows]
    far = [[s - m_n for s in row[1] if s >= m_n] for row in rows]
    count_p, count_n = sum(map(len, near)), sum(map(len, far))
    out = np.zeros(len(x))
    for i in range(len(x)):
        if count_p:
            out[i] += w_p * len(x) * sum(near[i]) / count_p
        if count_n:
            out[i] += w_n * len(x) * sum(far[i]) / count_n
    return out


@each(cosine)
def supcon(near, far, *, t=0.1):
    total = sum(np.exp(s / t) for s in near + far)
    return mean([-np.log(np.exp(p / t) / total) for p in near])


@each(cosine)
def decoupled(near, far, *, t=0.05):
    return mean([np.log1p(sum(np.exp((n - p) / t) for n in far)) for p in near])


def nt_xent(x, y, *, t=0.5):
    z, n = np.concatenate([x, y]), len(x)
    losses = []
    for i in range(2 * n):
        total = sum(np.exp(cosine(z[i], z[j]) / t) for j in range(2 * n) if j != i)
        losses.append(-np.log(np.exp(cosine(z[i], z[(i + n) % (2 * n)]) / t) / total))
    return (np.array(losses[:n]) + np.array(losses[n:])) / 2


def dcl(x, y, *, t=0.1, sigma=None):
    n = len(x)
    losses = np.zeros((2, n))
    for v, (a, b) in enumerate(((x, y), (y, x))):
        near = np.array([cosine(a[i], b[i]) for i in range(n)])
        w = np.ones(n)
        if sigma is not None:
            e = np.exp(near / sigma)
            w = 2 - e / e.mean()
        for i in range(n):
            others = [cosine(a[i], z[j]) / t for z in (a, b) for j in range(n) if j != i]
            losses[v, i] = -w[i] * near[i] / t + lse(others)
    return losses.mean(0)


def clip(x, y, *, t=0.07, smoothing=0.0):
    n = len(x)
    s = np.array([[cosine(a, b) / t for b in y] for a in x])
    target = (1 - smoothing) * np.eye(n) + smoothing / n
    one_way = [-(target * (m - np.log(np.exp(m).sum(1, keepdims=True)))).sum(1) for m in (s, s.T)]
    return (one_way[0] + one_way[1]) / 2


def siglip(x, y, *, scale=10.0, bias=-10.0):
    out = np.zeros(len(x))
    for i in range(len(x)):
        for j in range(len(y)):
            z = 1 if i == j else -1
            out[i] += np.log1p(np.exp(-z * (scale * cosine(x[i], y[j]) + bias)))
    return out


def between(a, b):
    return euclidean(unit(a), unit(b))


@each(between)
def margin_based(near, far, *, m=0.2, b=1.2, reduce=active):
    return reduce([relu(m + d - b) for d in near] + [relu(m + b - d) for d in far])


@each(between)
def ranked_list(near, far, *, m=0.4, b=1.2, t_p=0.0, t_n=10.0, share=0.5):
    def weighted(excess, scale):
        costly = np.array([e for e in excess if e > 0])
        w = np.exp(scale * costly)
        return (w * costly).sum() / w.sum() if len(costly) else 0.0

    positives, negatives = [d - (b - m) for d in near], [b - d for d in far]
    return (1 - share) * weighted(positives, t_p) + share * weighted(negatives, t_n)


@each(cosine)
def tuplet(near, far, *, m=0.1, s=64.0):
    # The arc cosine of what is one but for rounding is not zero but for rounding.
    angles = [np.arccos(c) if c < 1 - 1e-12 else 0.0 for c in near]
    return mean([np.log1p(sum(np.exp(s * (n - np.cos(a - m))) for n in far)) for a in angles])


@each(euclidean)
def nca(near, far, *, s=1.0):
    a, b = (sum(np.exp(-s * d**2) for d in values) for values in (near, far))
    return -np.log(a / (a + b)) if near else 0.0


def intra_pair_variance(x, labels, *, e=0.01):
    both = [lists(x, labels, i, cosine) for i in range(len(x))]
    out = np.zeros(len(x))
    for k, cost in ((0, lambda v, m: (1 - e) * m - v), (1, lambda v, m: v - (1 + e) * m)):
        values = [v for row in both for v in row[k]]
        for i, row in enumerate(both):
            if values:
                total = sum(relu(cost(v, mean(values))) ** 2 for v in row[k])
                out[i] += total * len(x) / len(values)
    return out


def angular(x, labels, *, degrees=45.0):
    t = np.tan(np.radians(degrees)) ** 2
    u, out = [unit(row) for row in x], []
    for i in range(len(x)):
        near = [u[j] for j in range(len(x)) if j != i and labels[j] == labels[i]]
        far = [u[j] for j in range(len(x)) if labels[j] != labels[i]]
        costs = [
            np.log1p(sum(np.exp(4 * t * (u[i] + p) @ n - 2 * (1 + t) * u[i] @ p) for n in far))
            for p in near
        ]
        out.append(mean(costs))
    return np.array(out)


def lifted_pairs(x, labels, *, m_p=0.0, m_n=1.0):
    out = []
    for i in range(len(x)):
        costs = []
        for j in range(len(x)):
            if j != i and labels[j] == labels[i]:
                far = [
                    np.exp(m_n - euclidean(x[k], x[n]))
                    for k in (i, j)
                    for n in range(len(x))
                    if labels[n] != labels[i]
                ]
                d = euclidean(x[i], x[j]) - m_p
                costs.append(relu(d + np.log(sum(far))) ** 2 / 2 if far else 0.0)
        out.append(mean(costs))
    return np.array(out)
