"""A small vision transformer on handwritten digits; try `--attention.name`."""

from papyrax.train.config import Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part("vit", {"patch": 2, "width": 64, "layers": 3, "heads": 4}),
    optimizer=Optimizer("adamw", learning_rate=2e-3, clip_norm=1.0, options={"weight_decay": 1e-2}),
    schedule=Schedule("cosine_decay", warmup=40),
    data=Data("digits", batch_size=128),
    eval=Eval(every=100),
    steps=400,
)
