"""Configs: what they read, what they refuse, and how the command line changes them."""

import dataclasses
import doctest
import importlib
import json

import engine
import jax
import numpy as np
import pytest

from papyrax.train import config as C
from papyrax.train import configs, parts, sharding
from papyrax.train.cli import main
from papyrax.train.commands.train import Train
from papyrax.train.data import Spec
from papyrax.train.errors import UserError


@pytest.mark.parametrize("name", configs.presets())
def test_a_preset_survives_json(name, tmp_path):
    config = configs.get(name)
    C.validate(config)
    path = tmp_path / "config.json"
    path.write_text(str(config))
    assert C.load(path) == config
    assert configs.get(str(path)) == config
    assert configs.get(str(tmp_path)) == config


def test_every_field_of_a_config_survives_json():
    config = C.Config(
        loss=C.Part("poly_loss_cross_entropy", {"epsilon": 1.0}),
        optimizer=C.Optimizer("sgd", 0.1, 1.0, "kernel$", {"momentum": 0.9, "nesterov": True}),
        mesh=C.Mesh(4, 2, ((r"head/kernel$", (None, "model")),)),
        data=C.Data(transforms=("random_flip",)),
        ema=0.99,
        precision="bfloat16",
        out="somewhere",
    )
    assert C.from_json(json.loads(str(config))) == config
    assert C.from_json({}) == C.Config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stpes": 3}, "stpes: no such key; did you mean 'steps'?"),
        ({"optimizer": {"lr": 3}}, "optimizer.lr: no such key; takes name, learning_rate"),
        ({"steps": "many"}, 'steps: got "many", takes an integer'),
        ({"steps": True}, "steps: got true, takes an integer"),
        ({"steps": 1.5}, "steps: got 1.5, takes an integer"),
        ({"ema": "x"}, 'ema: got "x", takes a number or null'),
        ({"precision": "float8"}, "takes 'float32' or 'bfloat16'"),
        ({"model": {"name": "mlp", "options": 3}}, "model.options: got 3, takes an object"),
        ({"model": {}}, "model.name: is missing; takes a string"),
        ({"model": "mlp"}, 'model: got "mlp", takes an object'),
        ({"mesh": {"rules": [["x"]]}}, "mesh.rules[0]: got"),
        ({"mesh": {"rules": [["x", [1]]]}}, "mesh.rules[0][1][0]: got 1, takes a string or null"),
        ([], "config: got [], takes an object"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UserError) as error:
        C.from_json(change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps: got -1, takes 0 or more"),
        ({"ema": 1.0}, "ema: got 1.0"),
        ({"accumulate": 3}, "accumulate: got 3, takes a divisor of data.batch_size, 128"),
        (
            {"optimizer": C.Optimizer(learning_rate=float("nan"))},
            "optimizer.learning_rate: got nan",
        ),
        ({"optimizer": C.Optimizer(clip_norm=0.0)}, "optimizer.clip_norm: got 0.0"),
        ({"eval": C.Eval(batches=0)}, "eval.batches: got 0"),
        ({"curvature": C.Curvature(fraction=0.0)}, "curvature.fraction: got 0.0"),
        ({"checkpoint": C.Checkpoint(keep_last=0)}, "checkpoint.keep_last: got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_named(change, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        C.validate(dataclasses.replace(C.Config(), **change))


def test_a_file_that_is_no_config_is_named(tmp_path):
    for content, message in ((None, "cannot be read"), ("{", "is not JSON"), ('{"a": 1}', "a: no")):
        path = tmp_path / "c.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=message) as error:
            C.load(path)
        assert str(path) in str(error.value)


def test_changed_keys_are_found_wherever_they_are():
    new = dataclasses.replace(
        C.Config(), steps=3, out="x", optimizer=C.Optimizer(options={"b1": 0.8})
    )
    assert list(C.changed(C.Config(), new)) == ["optimizer.options", "steps"]


def parse(*words):
    return Train.parse(words).config


def test_the_command_line_changes_any_field():
    config = parse(
        "digits-mlp",
        *("--optimizer.learning-rate", "0.1", "--steps", "7", "--ema", "0.9"),
        *("--model.options", '{"widths": [8]}', "--mesh.rules", '[["kernel$", [null, "model"]]]'),
        *("--mesh.data", "2", "--data.transforms", "random_crop", "random_flip", "--out", "x"),
    )
    assert config.optimizer.learning_rate == 0.1
    assert config.optimizer.options == configs.get("digits-mlp").optimizer.options
    assert (config.steps, config.ema, config.mesh.data, config.out) == (7, 0.9, 2, "x")
    assert config.model.options == {"widths": [8]}
    assert config.mesh.rules == (("kernel$", (None, "model")),)
    assert config.data.transforms == ("random_crop", "random_flip")
    assert parse("digits-mlp").out == "runs/digits-mlp"


def test_another_part_starts_without_the_options_of_the_preset():
    config = parse("digits-mlp", "--optimizer.name", "sgd", "--model.name", "mlp")
    assert config.optimizer.options == {}
    assert config.model.options == {"widths": [128, 128]}
    config = parse("digits-mlp", "--optimizer.name", "sgd", "--optimizer.options", '{"momentum":1}')
    assert config.optimizer.options == {"momentum": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes a preset first"),
        (["digits-mpl"], "no preset 'digits-mpl'; did you mean 'digits-mlp'?"),
        (["--steps", "3"], "takes a preset or a path before --steps"),
        (["nowhere.json"], "nowhere.json: cannot be read"),
        (["digits-mlp", "--optimizer.name", "adamm"], "did you mean 'adam'"),
        (["digits-mlp", "--loss.name", "a.b"], "loss.name: 'a.b' cannot be imported"),
        (["digits-mlp", "--optimizer.options", '{"beta": 1}'], "adamw has no option 'beta'; "),
        (["digits-mlp", "--model.options", '{"width": 1}'], "did you mean 'widths'?"),
        (["digits-mlp", "--schedule.name", "cosin"], "did you mean 'cosine_decay"),
        (["digits-mlp", "--data.options", '{"size": 1}'], "data.options: digits has no option"),
        (["digits-vit", "--attention.name", "x"], "there is no attention 'x'; takes"),
        (["digits-mlp", "--steps", "-3"], "steps: got -3, takes 0 or more"),
        (["digits-mlp", "--mesh.model", "64"], "mesh: got 1 x 64 (data x model), takes at most"),
        (["digits-mlp", "--data.transforms", "flip"], "transform 'flip'; did you mean"),
        (["digits-mlp", "--mesh.rules", '[["(", []]]'], "mesh.rules: '(' is not a pattern"),
        (["digits-mlp", "--mesh.rules", '[["a", ["x"]]]'], "mesh.rules: got axis 'x'"),
    ],
)
def test_a_wrong_word_is_one_line(words, message, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")] if len(words) > 1 and words[0][0] != "-" else []
    assert main(["train", *words, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("papyrax: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--steps", "x"], ["--model.options", "{"], ["--nothing", "1"]])
def test_what_does_not_parse_ends_with_status_2(words, capsys):
    assert main(["train", "digits-mlp", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_help_lists_presets_and_options(capsys):
    for words in (["-h"], ["digits-vit", "--help"]):
        assert main(["train", *words]) == 0
        shown = capsys.readouterr().out
        assert "--optimizer.learning-rate" in shown
        assert all(name in shown for name in configs.presets())


def test_the_config_is_shown_as_json_that_loads(capsys):
    assert main(["train", "digits-vit", "--seed", "3", "--show-config"]) == 0
    shown = C.from_json(json.loads(capsys.readouterr().out))
    assert shown == parse("digits-vit", "--seed", "3")


def test_parts_are_found_in_the_public_namespaces_and_by_path():
    import optax

    assert parts.find("optimizer", "adamw") is optax.adamw
    assert parts.find("optimizer", "Adam-W".replace("-", "")) is optax.adamw
    assert parts.find("schedule", "cosine-decay") is optax.cosine_decay_schedule
    assert parts.find("attention", "jax.nn.dot_product_attention") is jax.nn.dot_product_attention
    assert parts.find("optimizer", "engine.root_newton") is engine.root_newton
    found = parts.find("loss", "stablemax_cross_entropy")
    assert found.__module__.startswith("papyrax.losses")
    # The house's part comes before optax's of the same name.
    for kind in ("loss", "optimizer", "attention"):
        room = parts.NAMESPACES[kind][0]
        for name in getattr(__import__(room, fromlist=["x"]), "__all__", ()):
            part = getattr(__import__(room, fromlist=["x"]), name)
            if name in parts.available(kind):
                assert parts.find(kind, name) is part


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [0.0, 0.5, 1.0, 1.0]),
        ("cosine_decay", {}, [0.0, 0.5, 1.0, 0.0]),
        ("linear", {}, [0.0, 0.5, 1.0, 0.0]),
        ("polynomial", {"power": 2, "end_value": 0.5}, [0.0, 0.5, 1.0, 0.5]),
        ("warmup_cosine_decay", {}, [0.0, 0.5, 1.0, 0.0]),
    ],
)
def test_schedules_rise_over_the_warmup_and_end_with_the_run(name, options, expected):
    config = C.Config(
        optimizer=C.Optimizer(learning_rate=1.0),
        schedule=C.Schedule(name, warmup=10, options=options),
        steps=100,
    )
    rate = parts.schedule(config)
    got = [float(rate(step)) for step in (0, 5, 10, 100)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def image_spec(name, side, classes):
    features = {
        "inputs": jax.ShapeDtypeStruct((side, side, 3), np.float32),
        "labels": jax.ShapeDtypeStruct((), np.int32),
    }
    return Spec(name, "train", "classification", 50_000, features, num_classes=classes)


@pytest.mark.parametrize(
    ("name", "spec", "least", "most"),
    [
        ("cifar10-resnet", image_spec("cifar10", 32, 10), 0.25e6, 0.3e6),
        ("imagenet-vit", image_spec("imagenet2012", 224, 1000), 21.5e6, 22.5e6),
    ],
)
def test_presets_whose_data_are_not_here_can_be_built(name, spec, least, most):
    from papyrax.train import build

    built = build(configs.get(name), spec=spec)
    assert least < sharding.size(built.state.params) < most
    assert built.batch["inputs"].shape[1:] == spec.features["inputs"].shape


@pytest.mark.parametrize("name", ["config", "parts", "sharding", "step", "loop"])
def test_doctests(name):
    module = importlib.import_module(f"papyrax.train.{name}")
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted
    assert not done.failed
