"""How the documentation is built: `sphinx-build -W --keep-going -b html docs build/docs`.

The site asks nothing of another host, neither when it is built nor when it is read: formulas are MathML, fonts and scripts come
with the theme. A page's pictures are those that its own code saves: `pages.run` runs it before the build, and the build fails
where it prints another thing than it shows.
"""

import shutil
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import emfuse

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import docstrings  # noqa: E402
import pages  # noqa: E402

project = "emfuse"
author = "the emfuse developers"
copyright = author
version = release = emfuse.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
smartquotes = False  # "full" is code in many places
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings have shapes and units, which types have not
autodoc_member_order = "bysource"
autosummary_generate = False
toc_object_entries_show_parents = "hide"

copybutton_selector = "div.highlight-python pre, div.highlight-Python pre, div.highlight-sh pre, div.highlight-r pre"

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": "plot_",
    "ignore_pattern": "^(?!plot_)",
    "abort_on_example_error": True,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "backreferences_dir": None,
}

html_theme = "pydata_sphinx_theme"
html_title = "emfuse"
html_static_path = ["_static"]
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["style.css"]
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
html_sidebars = {"index": [], "tutorial": [], "contributing": [], "changelog": []}
html_theme_options = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "text": "emfuse", "alt_text": ""},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

MOST_FIELDS = 6  # of a dataclass that users make; one with more comes back from a function, and needs no signature


def setup(app: Sphinx) -> None:
    """Register what is ours."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("builder-inited", make)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("include-read", without_links_to_files)


def make(app: Sphinx) -> None:
    """Make what pages show and is no page: their pictures, and the help of the command."""
    shutil.rmtree(HERE / pages.MADE, ignore_errors=True)
    pages.run_those_with_pictures(HERE)
    pages.write_help(HERE)


def inline_math(visitor: Any, node: nodes.math) -> None:
    """Write a formula in a line as MathML, which browsers draw themselves."""
    visitor.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_math(visitor: Any, node: nodes.math_block) -> None:
    """Write a formula of its own, in the middle."""
    visitor.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>\n')
    raise nodes.SkipNode


def process_docstring(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of a docstring; a module's layer is for those who read the source."""
    lines[:] = docstrings.to_rst([line for line in lines if not line.startswith("Layer ")])


def process_signature(
    app: Sphinx, what: str, name: str, of: Any, options: object, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Leave out the signature of what nobody but emfuse makes, and of exceptions."""
    comes_back = what == "class" and is_dataclass(of) and len(fields(of)) > MOST_FIELDS
    if signature and (comes_back or what == "exception" or getattr(of, "_is_protocol", False)):
        return "", None
    return None


def skip_member(app: Sphinx, what: str, name: str, of: Any, skip: bool, options: object) -> bool | None:
    """Leave out fields of named tuples, which the class describes, and what scikit-learn adds."""
    if str(getattr(of, "__doc__", "")).startswith("Alias for field number") or name.startswith("set_"):
        return True
    return None


def without_links_to_files(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """Turn links to files of the repository into their words: on the site these files are not."""
    content[0] = pages.LINK.sub(lambda m: m[0] if m[2].startswith(("http", "#")) else m[1], content[0])
