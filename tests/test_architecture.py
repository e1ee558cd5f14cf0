"""Imports go down the floors of the house as its picture in the documentation draws it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lightning_leep"


def floors() -> dict[str, int]:
    """Floor of each package in the picture, 0 at the bottom."""
    rooms = re.findall(r'class="n" x="\d+" y="(\d+)">(\w+)<', (ROOT / "docs/floors.svg").read_text(encoding="utf-8"))
    heights = sorted({int(y) for y, _ in rooms}, reverse=True)
    return {name: heights.index(int(y)) for y, name in rooms}


def imports(file: Path) -> set[str]:
    """Packages of the library that a file imports from."""
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    modules = [node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module]
    return {module.split(".")[1] for module in modules if module.startswith("lightning_leep.")}


def test_every_package_has_a_place_in_the_picture():
    packages = {path.stem for path in LIBRARY.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert packages - {"__init__", "__main__", "__pycache__", "py"} == set(floors())


@pytest.mark.parametrize("package", sorted(floors()))
def test_imports_go_down(package):
    place = floors()
    files = [LIBRARY / f"{package}.py", *(LIBRARY / package).rglob("*.py")]
    for file in filter(Path.is_file, files):
        for other in imports(file) - {package}:
            assert place[other] < place[package], f"{file.relative_to(ROOT)} imports from {other}"
