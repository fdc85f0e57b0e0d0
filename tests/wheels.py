"""Builds the wheel from a copy of the sources, so that nothing left in `build/` slips into it."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ("core", "papers", "train", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build(folder: pathlib.Path) -> pathlib.Path:
    """Build the wheel in `folder` and return its path."""
    copy = folder / "source"
    for name in SOURCES:
        source, target = ROOT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*pip, *options, str(copy)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the wheel does not build:\n{done.stdout}{done.stderr}")
    return next(folder.glob("papyrax-*.whl"))


def unpack(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpack a wheel of pure Python, which is all that installing it does."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
