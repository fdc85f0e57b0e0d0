"""A small residual network on handwritten digits."""

from papyrax.train.config import Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part("resnet", {"widths": [16, 32], "blocks": [1, 1], "norm": "batch"}),
    optimizer=Optimizer("adamw", learning_rate=3e-3, options={"weight_decay": 1e-2}),
    schedule=Schedule("cosine_decay", warmup=20),
    data=Data("digits", batch_size=128),
    eval=Eval(every=100),
    steps=300,
)
