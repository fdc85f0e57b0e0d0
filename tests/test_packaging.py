"""The wheel holds the whole tree, installs into a clean environment, and imports lightly."""

import pathlib
import subprocess
import sys
import sysconfig
import tomllib
import venv

import pytest
import wheels

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = {"papyrax": "core", "papyrax.papers": "papers", "papyrax.train": "train"}
HEAVY = ("matplotlib", "sklearn", "tensorflow", "tensorflow_datasets", "grain", "rich", "tyro")


def tree_modules() -> set[str]:
    """The dotted names of all modules in the source folders."""
    names = set()
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            names.add(".".join([package, *(p for p in parts if p != "__init__")]))
    return names


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """The Python of a clean environment that holds the wheel and, for imports, our dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = wheels.build(folder)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, wheel], check=True)
    return python


def python(installed, code: str, *, dependencies: bool = True) -> str:
    """What the code prints in the clean environment, run from a folder with nothing of ours."""
    if dependencies:
        # Appended, so that the clean environment's papyrax comes first; an editable install of
        # this environment hooks in through a .pth file, which a plain path does not run.
        code = f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n{code}"
    done = subprocess.run(
        [installed, "-I", "-c", code], cwd="/", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module(installed):
    code = (
        "import importlib.metadata as m\n"
        "for f in m.files('papyrax'):\n"
        "    if str(f).endswith('.py'): print(f)"
    )
    files = python(installed, code, dependencies=False).split()
    modules = {f.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for f in files}
    assert modules == tree_modules()


def test_the_wheel_holds_its_data(installed):
    code = "import importlib.metadata as m\nprint(*m.files('papyrax'), sep='\\n')"
    files = set(python(installed, code, dependencies=False).split())
    data = {
        "/".join([*package.split("."), *path.relative_to(ROOT / folder).parts])
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".json", ".css", ".js", ".typed")
    }
    wanted = data | {"papyrax/py.typed"}
    assert wanted <= files, sorted(wanted - files)
    assert not any(f.startswith(("core/", "papers/", "train/", "tests/")) for f in files)


def test_the_installed_library_is_the_wheel(installed):
    code = (
        "import papyrax, papyrax.losses, papyrax.papers, papyrax.train\n"
        "print(papyrax.__file__, papyrax.papers.__file__, papyrax.train.__file__, sep='\\n')"
    )
    for path in python(installed, code).split():
        assert pathlib.Path(path).is_relative_to(installed.parents[1])


def imported_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_papyrax_pulls_in_nothing():
    new = imported_by("import papyrax") - imported_by("import importlib, typing")
    assert new <= {"papyrax"}


def test_rooms_pull_in_no_data_or_plotting_library():
    rooms = "attention, curvature, data, kernels, layers, losses, metrics, numerics, optim"
    new = imported_by(f"from papyrax import {rooms}") - imported_by("import jax, optax, flax.nnx")
    assert not new.intersection(HEAVY)


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("numerics", set()),
        ("losses", set()),
        ("attention", set()),
        ("kernels", set()),
        ("curvature", set()),
        ("metrics", set()),
        ("data", set()),
        ("optim", {"optax"}),
    ],
)
def test_rooms_depend_downwards(room, allowed):
    modules = imported_by(f"import papyrax.{room}")
    assert not (modules & {"flax", "optax", "chex"}) - allowed - ({"chex"} if allowed else set())


def test_importing_compiles_nothing():
    code = (
        "import jax, logging, sys\n"
        "jax.config.update('jax_log_compiles', True)\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "from papyrax import attention, curvature, data, kernels, layers, losses, metrics, optim\n"
        "print('backends', len(jax._src.xla_bridge._backends))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Compiling" not in done.stdout + done.stderr
    assert done.stdout.strip().endswith("backends 0"), "a backend was started by an import"


def test_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    assert f'__version__ = "{version}"' in (ROOT / "core" / "__init__.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert not any("tensorflow" in d and "datasets" not in d for d in project["dependencies"])
