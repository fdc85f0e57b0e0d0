"""A byte-level language model of Python's standard library."""

from papyrax.train.config import Checkpoint, Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part("lm", {"width": 128, "layers": 4, "heads": 4, "scan": True}),
    optimizer=Optimizer(
        "adamw", learning_rate=3e-3, clip_norm=1.0, options={"b2": 0.95, "weight_decay": 0.1}
    ),
    schedule=Schedule("cosine_decay", warmup=100),
    data=Data("python_source", batch_size=32, options={"sequence_length": 128}),
    checkpoint=Checkpoint(every=250),
    eval=Eval(every=250, batches=20),
    steps=2000,
)
