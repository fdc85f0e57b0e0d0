"""ViT-S/16 on ImageNet for 90 epochs; for accelerators, after the set is prepared by TFDS."""

from papyrax.train.config import Checkpoint, Config, Data, Eval, Optimizer, Part, Schedule

config = Config(
    model=Part(
        "vit",
        {"patch": 16, "width": 384, "layers": 12, "heads": 6, "scan": True, "remat": True},
    ),
    optimizer=Optimizer("adamw", learning_rate=1e-3, clip_norm=1.0, options={"weight_decay": 0.1}),
    schedule=Schedule("cosine_decay", warmup=10_000),
    data=Data(
        "imagenet2012", batch_size=1024, transforms=("random_flip",), options={"image_size": 224}
    ),
    checkpoint=Checkpoint(every=2500, best="accuracy"),
    eval=Eval(every=2500, split="validation"),
    precision="bfloat16",
    log_every=50,
    steps=112_600,
)
