"""Imports point down only, and what is heavy is imported only where it is needed."""

import ast
from pathlib import Path

import pytest

import emfuse

SOURCE = Path(emfuse.__file__).parent
# From the ground up: a module may import what stands before it, and nothing else of emfuse. The number is its layer.
LAYERS = {
    "_typing": 0,
    "_isas": 0,
    "frames": 0,
    "covariance": 0,
    "decomposed": 0,
    "structures": 0,
    "statistics": 0,
    "reference": 0,
    "kernels": 1,
    "threads": 1,
    "parameters": 2,
    "constraints": 2,
    "maximise": 2,
    "engines": 2,
    "stopping": 2,
    "blocks": 3,
    "dask_engine": 3,
    "collapse": 3,
    "accelerate": 3,
    "density": 3,
    "climb": 3,
    "checkpoint": 3,
    "online": 3,
    "hierarchical": 3,
    "initialise": 3,
    "em": 3,
    "binned": 3,
    "many": 4,
    "free_parameters": 4,
    "information": 4,
    "one_more": 4,
    "lrt": 4,
    "uncertainty": 4,
    "selection": 4,
    "mixtools": 4,
    "mclust": 4,
    "estimator": 4,
    "selector": 4,
    "tables": 4,
    "sources": 4,
    "film": 5,
    "plots": 5,
    "summary": 5,
    "html": 5,
    "options": 5,
    "report": 5,
    "completion": 5,
    "commands": 5,
    "cli": 5,
    "__main__": 5,
}
ORDER = list(LAYERS)
# What is imported in one file alone, or in none.
HEAVY = {
    "sklearn": ("estimator", "selector"),
    "matplotlib": "plots",
    "tqdm": None,
    "dask": "dask_engine",
    "distributed": "dask_engine",
    "pyarrow": None,
    "pandas": None,
}


def tree_of(module):
    """The module's syntax tree, without what is there for type checkers alone."""
    tree = ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return tree


def imports_of(module):
    """Full names of what a module imports: "emfuse.em" for `from emfuse import em`, and for `from emfuse.em import x`."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}.py: imports are written in full"
            if node.module == "emfuse":
                yield from (f"emfuse.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_has_its_place():
    """A new file must be put into a layer, and one that is gone taken out."""
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_down(module):
    """A module imports only modules that stand before it; the package itself is for its users, and for the command."""
    below = ORDER[: ORDER.index(module)]
    for name in imports_of(module):
        package, _, inner = name.partition(".")
        if package != "emfuse" or (module in ("cli", "commands") and inner.partition(".")[0] not in LAYERS):
            continue
        assert inner.partition(".")[0] in below, f"{module}.py imports {name}"


@pytest.mark.parametrize("module", LAYERS)
def test_heavy_packages_are_imported_where_they_are_needed(module):
    """Each of them in one file, or none."""
    for name in imports_of(module):
        package = name.partition(".")[0]
        where = HEAVY.get(package, module)
        assert module == where or module in (where or ()), f"{module}.py imports {name}"


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_opens_with_its_reason_and_its_layer(module):
    """The docstring's first paragraph says why it exists, its last which layer it is in."""
    text = ast.get_docstring(tree_of(module))
    assert text and len(text.splitlines()[0]) > 30
    assert text.splitlines()[-1] == f"Layer {LAYERS[module]}."


@pytest.mark.parametrize("heavy", ["sklearn", "matplotlib", "scipy.stats", "tqdm", "pandas"])
def test_import_emfuse_imports_nothing_heavy(run, heavy):
    """`import emfuse`, and a whole fit, do without it."""
    code = (
        "import sys, emfuse\n"
        "emfuse.fit([1.0, 2.0, 3.0, 7.0, 8.0, 9.5], 2, structure='diag')\n"
        f"print([name for name in sys.modules if name == {heavy!r} or name.startswith({heavy + '.'!r})])"
    )
    assert run(code) == "[]"


def test_every_public_name_is_there():
    """__all__ is sorted and complete; an unknown name is an AttributeError."""
    assert emfuse.__all__ == sorted(emfuse.__all__)
    for name in emfuse.__all__:
        assert getattr(emfuse, name) is not None
    with pytest.raises(AttributeError, match="module 'emfuse' has no attribute 'fitt'"):
        emfuse.fitt


def test_it_is_typed():
    """py.typed tells type checkers so."""
    assert (SOURCE / "py.typed").exists()
