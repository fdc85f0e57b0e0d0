"""Lists the packages of the three source folders; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

ROOTS = {"papyrax": "core", "papyrax.papers": "papers", "papyrax.train": "train"}

setup(
    packages=[
        name
        for package, folder in ROOTS.items()
        for name in (package, *(f"{package}.{room}" for room in find_packages(folder)))
    ]
)
