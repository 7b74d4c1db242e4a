"""What the documentation shows is run: the README's Python and every docstring's examples."""

import doctest
import importlib
import importlib.resources
import os
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import emfuse

README = Path(__file__).parent.parent / "README.md"
MODULES = [module.name for module in pkgutil.iter_modules(emfuse.__path__) if not module.name.startswith("_sweep")]


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
def test_the_readmes_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_print_what_they_show(name):
    failed, _ = doctest.testmod(importlib.import_module(f"emfuse.{name}"))
    assert failed == 0


def test_every_module_opens_with_why_it_exists_and_its_layer():
    for name in MODULES:
        assert re.search(r"^Layer \d\.$", importlib.import_module(f"emfuse.{name}").__doc__, re.MULTILINE), name


def test_files_that_the_readme_names_exist():
    named = re.findall(r"\]\((?!https?:)([^)]+)\)|pytest (tests/\S+?\.py)", README.read_text(encoding="utf-8"))
    for link, test in named:
        assert (README.parent / (link or test)).exists(), link or test


def test_the_command_lines_that_the_readme_shows_are_understood(tmp_path, monkeypatch, capsys):
    from emfuse.cli import main

    monkeypatch.chdir(tmp_path)
    faithful = Path(os.fspath(importlib.resources.files("emfuse") / "faithful.csv"))
    for name in ("eruptions.csv", "more.csv"):
        (tmp_path / name).write_text(faithful.read_text(encoding="utf-8"), encoding="utf-8")
    shown = re.findall(r"^emfuse (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) >= 4
    for line in shown:
        assert main(shlex.split(line)) == 0, capsys.readouterr().err
