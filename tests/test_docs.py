"""The documentation says what is so: its code runs and prints what it shows, and its reference has every public name."""

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import emfuse
from emfuse.cli import main
from emfuse.structures import structure_named

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def loaded(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if not DOCS.is_dir():
    pytest.skip("there is no documentation beside these tests", allow_module_level=True)
pages, docstrings = loaded("pages"), loaded("docstrings")
PAGES = pages.of(DOCS)
RUN = [page for page in PAGES if any(True for _ in pages.blocks(page))]
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
STRUCTURES = (DOCS / "explanation" / "structures.md").read_text(encoding="utf-8")


def named(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", RUN, ids=named)
def test_a_page_prints_what_it_shows(page, tmp_path):
    """Its blocks run in order, in one namespace; a line that is printed and not shown, or shown and not printed, fails."""
    if "import pyarrow" in page.read_text(encoding="utf-8"):
        pytest.importorskip("pyarrow")  # which is late for a new Python
    pages.run(page, tmp_path)
    for picture in re.findall(rf"\]\((?:\.\./)*{pages.MADE}/{page.stem}/([^)]+)\)", page.read_text(encoding="utf-8")):
        assert (tmp_path / picture).stat().st_size > 1000


def test_links_between_pages_lead_somewhere():
    """To a page or a file that is there; the gallery is made at the build, and pictures by the pages."""
    for page in PAGES:
        for _, target in pages.LINK.findall(page.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if path and not path.startswith("http") and "gallery/" not in path:
                assert (page.parent / path).exists(), f"{named(page)} links to {target}"


def test_every_page_can_be_found():
    """Each is in the table of contents of the page above it."""
    for page in PAGES:
        if page.name == "index.md":
            continue
        contents = (page.parent / "index.md").read_text(encoding="utf-8").partition("```{toctree}")[2]
        assert re.search(rf"^(?:.* <)?{page.stem}>?$", contents, re.MULTILINE), named(page)
    for folder in {page.parent for page in PAGES} - {DOCS}:
        assert f"{folder.name}/index\n" in (DOCS / "index.md").read_text(encoding="utf-8")


def documented(kind):
    """What the reference has a directive for, below emfuse."""
    return {name.removeprefix("emfuse.") for name in re.findall(rf"^\.\. auto{kind}:: (\S+)$", REFERENCE, re.MULTILINE)}


@pytest.mark.parametrize("name", emfuse.__all__)
def test_every_public_name_is_in_the_reference(name):
    """A function as a function, a class as a class, a module with its members."""
    thing = getattr(emfuse, name)
    kind = "(?:class|exception)" if inspect.isclass(thing) else "module" if inspect.ismodule(thing) else "function"
    assert name in documented(kind)


def test_every_command_is_in_the_reference(capsys):
    """Those that `emfuse --help` lists, each with the place where its help is put in."""
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE) == list(pages.COMMANDS)
    assert re.findall(r"literalinclude} \.\./made/help/(\w+)\.txt", REFERENCE) == ["emfuse", *pages.COMMANDS]


@pytest.mark.parametrize("module", sorted(documented("module")))
def test_the_reference_leaves_nothing_of_a_module_out(module):
    """What is left out of its members has a directive of its own, or is a field of a dataclass."""
    directive = re.search(rf"automodule:: emfuse\.{module}\n   :members:\n(?:   :exclude-members: (.*)\n)?", REFERENCE)
    assert directive
    for name in (directive[1] or "").split(", "):
        found = getattr(importlib.import_module(f"emfuse.{module}"), name, None) if name else None
        assert found is None or {name, f"{module}.{name}"} & documented(r"\w+"), f"{module}.{name}"


def test_the_table_of_structures_counts_right():
    """Its formulas, as code, beside what AIC and BIC count; and the names in its second column are the same structures."""
    rows = re.findall(r"^\| ([EVI]{3}) \| (\w*) ?\|.*\| ([^|]+) \| (?:closed|iterative) \|$", STRUCTURES, re.MULTILINE)
    assert len(rows) == 14
    for name, theirs, formula in rows:
        assert structure_named(name) is structure_named(theirs or name)
        code = re.sub(r"(?<=[\w)]) (?=[KD(])", " * ", formula.replace("\N{MINUS SIGN}", "-"))
        for K, D in ((1, 2), (3, 4), (5, 2)):
            assert eval(code, {"K": K, "D": D}) == structure_named(name).free_parameters(K, D), name


def test_the_speeds_quoted_are_those_of_the_readme():
    """Rows of its table, without two columns: where that is measured anew, this page follows."""
    rows = re.findall(r"^\| ([\d,]+ \| .*) \|$", (DOCS / "how_to" / "speed.md").read_text(encoding="utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(rows) == 6
    for row in rows:
        beginning, times = re.sub(r"\| \|", "|  |", row).rsplit(" | ", 1)
        assert f"| {beginning} | {times} x |" in readme, row


@pytest.mark.parametrize(
    ("docstring", "made"),
    [
        ("x : (N,)    rows", "**x** : (N,)\n    rows\n"),
        ("x, means_ : (N,)    of *each*,\n    |x|", "**x**, **means\\_** : (N,)\n    of \\*each\\*, \\|x\\|\n"),
        ("nats : float", "**nats**\n    float\n"),
        ("X : (N, D) rows; y : ignored", "**X**\n    (N, D) rows\n**y**\n    ignored\n"),
        ("stop, sd    as in `em`", "**stop**, **sd**\n    as in :py:obj:`em`\n"),
        ("Raises\n------\nValueError    n < 0", ".. rubric:: Raises\n\n**ValueError**\n    n < 0\n"),
        ("Words,\nwith `a + b`s.", "Words, with ``a + b``\\ s.\n"),
        ("D.", "\\D.\n"),
        ("It is\n\n    a = b * c\n\n>>> 1 + 1\n2", "It is\n\n::\n\n        a = b * c\n\n>>> 1 + 1\n2\n"),
        ("1. one\n   and on\n2. two", "1. one and on\n2. two\n"),
        ("source : one of\n    a file\n    an array", "**source** : one of\n    | a file\n    | an array\n"),
    ],
)
def test_docstrings_become_markup(docstring, made):
    """Each way to write an item, and what RST would misread."""
    assert "\n".join(docstrings.to_rst(docstring.split("\n"))) == made


def test_a_page_that_prints_another_thing_is_found_out(tmp_path):
    """The check can fail: on a wrong output, on one that is not shown, and on an exception."""
    for text, error in (
        ("```python\nprint(1)\n```\n```text\n2\n```\n", AssertionError),
        ("```python\nprint(1)\n```\n\nwords\n\n```text\n1\n```\n", AssertionError),
        ("```python\n1 / 0\n```\n", ZeroDivisionError),
        ("```sh\nemfuse fit nowhere.csv -k 2\n```\n", AssertionError),
    ):
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        with pytest.raises(error):
            pages.run(tmp_path / "page.md", tmp_path)
