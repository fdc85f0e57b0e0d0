"""Run mypy on papyrax as it is installed: the wheel's files, not the source folders."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import wheels

ROOT = pathlib.Path(__file__).parents[1]
INSTALLED = ROOT / "build" / "typecheck"


def main() -> int:
    shutil.rmtree(INSTALLED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        wheels.unpack(wheels.build(pathlib.Path(folder)), INSTALLED)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    cache = ["--cache-dir", str(ROOT / "build" / "mypy_cache")]
    return subprocess.run([*mypy, *cache, "-p", "papyrax"], cwd=INSTALLED).returncode


if __name__ == "__main__":
    sys.exit(main())
