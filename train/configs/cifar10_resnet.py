"""A 20-layer residual network on CIFAR-10; the set has to be prepared by TFDS."""

from papyrax.train.config import Checkpoint, Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part("resnet", {"widths": [16, 32, 64], "blocks": [3, 3, 3], "norm": "batch"}),
    optimizer=Optimizer("adamw", learning_rate=3e-3, options={"weight_decay": 0.05}),
    schedule=Schedule("cosine_decay", warmup=500),
    data=Data("cifar10", batch_size=256, transforms=("random_crop", "random_flip")),
    checkpoint=Checkpoint(every=1000, best="accuracy"),
    eval=Eval(every=1000),
    log_every=50,
    steps=20_000,
)
