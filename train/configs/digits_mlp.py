"""A perceptron on handwritten digits: seconds on a laptop."""

from papyrax.train.config import Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part("mlp", {"widths": [128, 128]}),
    optimizer=Optimizer("adamw", learning_rate=2e-3, options={"weight_decay": 1e-2}),
    schedule=Schedule("cosine_decay"),
    data=Data("digits", batch_size=128),
    eval=Eval(every=100),
    steps=400,
)
