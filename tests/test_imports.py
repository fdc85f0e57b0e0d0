"""Dependencies point one way: read from the sources, so that imports inside functions count too."""

import ast
import graphlib
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"papyrax": "core", "papyrax.papers": "papers", "papyrax.train": "train"}

# What a room may import beside itself: only rooms before it in this list, and not all of them.
ALLOWED: dict[str, set[str]] = {
    "numerics": set(),
    "curvature": {"numerics"},
    "kernels": {"numerics"},
    "data": {"numerics"},
    "attention": {"numerics", "curvature", "kernels"},
    "losses": {"numerics", "curvature", "kernels"},
    "optim": {"numerics", "curvature", "kernels"},
    "metrics": {"numerics", "losses"},
    "layers": {"numerics", "curvature", "kernels", "attention", "losses", "optim"},
}
ONLY = {"flax": "layers", "optax": "optim"}


def modules() -> dict[str, pathlib.Path]:
    """All source files by their dotted names; a package by its own."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


MODULES = modules()


def imports(name: str, path: pathlib.Path, source: str | None = None) -> Iterator[str]:
    """The dotted names that a module imports, of modules where they are ours."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base


def room_of(name: str) -> str:
    """The room of core that a module is in; "" for the package itself and what is outside."""
    parts = name.split(".")
    ours = parts[0] == "papyrax" and len(parts) > 1 and parts[1] not in ("papers", "train")
    return parts[1] if ours else ""


def test_every_room_is_listed():
    rooms = {room_of(name) for name in MODULES} - {""}
    assert rooms == set(ALLOWED)
    order = list(ALLOWED)
    for room, below in ALLOWED.items():
        assert all(order.index(other) < order.index(room) for other in below)


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_rooms_below(room):
    for name, path in MODULES.items():
        if room_of(name) != room:
            continue
        for target in imports(name, path):
            where = f"{path.relative_to(ROOT)} imports {target}"
            if target.split(".")[0] == "papyrax":
                assert room_of(target) in ALLOWED[room] | {room}, where
            library = target.split(".")[0]
            assert ONLY.get(library, room) == room, where


def test_core_imports_no_papers_and_papers_no_engine():
    for name, path in MODULES.items():
        above = {"papyrax.papers", "papyrax.train"}
        if name.startswith("papyrax.papers"):
            above = {"papyrax.train"}
        elif name.startswith("papyrax.train"):
            continue
        for target in imports(name, path):
            head = ".".join(target.split(".")[:2])
            assert head not in above, f"{path.relative_to(ROOT)} imports {target}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {n: set(imports(n, p)) & set(MODULES) - {n} for n, p in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_imports_are_found():
    """In functions, relative and absolute, of names and of modules."""
    lines = "from ..losses.standard import mse", "from . import rope", "import optax.tree"
    source = "\n    ".join(["def f():", *lines])
    path = pathlib.Path("core/attention/made_up.py")
    found = list(imports("papyrax.attention.made_up", path, source))
    assert found == ["papyrax.losses.standard", "papyrax.attention.rope", "optax.tree"]
    assert room_of(found[0]) not in ALLOWED["attention"]
