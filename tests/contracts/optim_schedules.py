"""Declarations for schedules."""

from contracts.case import Bad, Case

CASES = [
    Case(
        "papyrax.optim.cosine_power_annealing",
        arrays=lambda rng: {"count": rng.uniform(0, 50)},
        wrt=("count",),
        static={"init_value": 0.1, "decay_steps": 60, "end_value": 0.01, "warmup_steps": 5},
        call=lambda fn, count, **options: fn(**options)(count),
        rows=None,
        keeps_dtype=False,  # the count may be an integer
        bad=(
            Bad("init_value: got", {"init_value": -1.0}),
            Bad("end_value: got", {"end_value": -1.0}),
            Bad("power: got", {"power": 0.5}),
            Bad("decay_steps: got", {"decay_steps": 0}),
            Bad("warmup_steps: got", {"warmup_steps": 60}),
        ),
    ),
]
