"""Declarations for optimistic online mirror descent."""

from contracts.case import Bad, Case, OptimizerCase


def step(fn, point, direction, **options):
    mirror = fn(**options)
    return mirror.to_primal(mirror.step(mirror.to_dual(point), direction, 0.5))


def points(rng):
    return {"point": rng.uniform(0.1, 1, (3, 4)), "direction": rng.normal(size=(3, 4))}


CASES = [
    Case(
        "papyrax.optim.euclidean_mirror",
        arrays=points,
        wrt=("point", "direction"),
        static={"radius": 1.5},
        rows=None,
        call=step,
        keeps_dtype=False,
        bad=(Bad("radius: got", {"radius": 0.0}),),
    ),
    Case(
        "papyrax.optim.entropic_mirror",
        arrays=points,
        wrt=("point", "direction"),
        call=step,
        keeps_dtype=False,
    ),
    OptimizerCase(
        "papyrax.optim.optimistic_omd",
        {"diameter": 1.0, "gradient_bound": 10.0},
        numeric=("diameter", "gradient_bound", "smoothness"),
        bad=(
            Bad("diameter: got", {"diameter": 0.0}),
            Bad("gradient_bound: got", {"gradient_bound": -1.0}),
            Bad("smoothness: got", {"smoothness": -1.0}),
            Bad("mirror: got", {"mirror": "simplex"}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.optimistic_omd_strongly_convex",
        {"strong_convexity": 50.0},
        numeric=("strong_convexity",),
        bad=(
            Bad("strong_convexity: got", {"strong_convexity": 0.0}),
            Bad("mirror: got", {"mirror": 3}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.optimistic_online_newton",
        {"diameter": 1.0, "gradient_bound": 2000.0, "exp_concavity": 1.0},
        numeric=("diameter", "gradient_bound", "exp_concavity"),
        bad=(
            Bad("diameter: got", {"diameter": 0.0}),
            Bad("gradient_bound: got", {"gradient_bound": -1.0}),
            Bad("exp_concavity: got", {"exp_concavity": 0.0}),
            Bad("radius: got", {"radius": -1.0}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.optimistic_omd_dynamic",
        {
            "diameter": 1.0,
            "gradient_bound": 10.0,
            "smoothness": 1.0,
            "rounds": 100,
            "step_sizes": (0.001, 0.002),
            "switching_penalty": 2.0,
            "meta_bound": 0.1,
        },
        numeric=("switching_penalty", "meta_scale", "meta_bound"),
        bad=(
            Bad("diameter: got", {"diameter": 0.0}),
            Bad("gradient_bound: got", {"gradient_bound": -1.0}),
            Bad("smoothness: got", {"smoothness": 0.0}),
            Bad("rounds: got", {"rounds": 0}),
            Bad("step_sizes: got", {"step_sizes": ()}),
            Bad("switching_penalty: got", {"switching_penalty": -1.0}),
            Bad("meta_scale: got", {"meta_scale": 0.0}),
            Bad("meta_bound: got", {"meta_bound": 0.0}),
            Bad("mirror: got", {"mirror": "simplex"}),
        ),
    ),
]
