"""What a page shows is run: its blocks of Python and its `emfuse` commands, in order, and what they print is what it shows.

A block of `text` right below one of `python` or `sh` is its output, where "..." stands for anything and white space counts
little, as in doctest. `tests/test_docs.py` runs every page; the build runs those with pictures, which are what the page's own
code saves: `![...](made/PAGE/FILE.png)`.
"""

import contextlib
import doctest
import importlib.resources
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

FENCE = re.compile(r"^```(\S+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)")
DATA = Path(__file__).parent.parent / "examples" / "data"
MADE = "made"  # the folder of what pages save, in docs/
COMMANDS = ("fit", "select", "score", "sample", "plot", "kernels", "demo", "completion")
HELP_WIDTH = 90  # letters
HOW = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """Code to run, and what it prints: "" where the page shows nothing."""

    language: str
    code: str
    shown: str
    line: int


def of(docs: Path) -> list[Path]:
    """Return the pages that are written by hand."""
    return sorted(page for page in docs.rglob("*.md") if not {"gallery", MADE} & set(page.relative_to(docs).parts))


def blocks(page: Path) -> Iterator[Block]:
    """Yield what is to be run on a page, from its first to its last block."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for i, match in enumerate(found):
        if match[1] not in ("python", "sh"):
            continue
        below = found[i + 1] if i + 1 < len(found) else None
        own = below is not None and below[1] == "text" and not text[match.end() : below.start()].strip()
        shown = below[2] if below is not None and own else ""
        yield Block(match[1], match[2], shown, text.count("\n", 0, match.start()) + 2)


def run(page: Path, folder: Path) -> None:
    """Run a page in a folder that has `faithful.csv` and the data of the examples.

    Raises AssertionError where it prints another thing than it shows, and what its code raises.
    """
    (folder / "faithful.csv").write_bytes(importlib.resources.files("emfuse").joinpath("faithful.csv").read_bytes())
    for table in DATA.glob("*.csv"):
        shutil.copy(table, folder)
    namespace: dict[str, object] = {"__name__": "__main__"}
    before = os.getcwd()
    os.chdir(folder)
    try:
        for block in blocks(page):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                if block.language == "python":
                    # counted from the page's first line, so that a traceback points there
                    exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
                else:
                    _command_lines(block.code)
            told = block.language == "sh" and not block.shown  # of a command a page may show nothing
            got = printed.getvalue()
            if not told and not doctest.OutputChecker().check_output(block.shown, got, HOW):
                shown = block.shown or "nothing"
                raise AssertionError(f"{page.name}, line {block.line}, prints\n\n{got}\nand the page shows\n\n{shown}")
    finally:
        os.chdir(before)


def _command_lines(code: str) -> None:
    """Run the lines that begin with `emfuse`; others (pip) are only shown."""
    from emfuse.cli import main

    for line in code.splitlines():
        if line.startswith("emfuse "):
            try:
                failed = main(shlex.split(line, comments=True)[1:])
            except SystemExit as end:  # --help
                failed = int(end.code or 0)
            if failed:
                raise AssertionError(f"{line!r} ended with {failed}")


def write_help(docs: Path) -> None:
    """Write what `emfuse --help`, and that of each command, print, to docs/made/help."""
    folder = docs / MADE / "help"
    folder.mkdir(parents=True)
    for command in ("", *COMMANDS):
        with patch.dict(os.environ, COLUMNS=str(HELP_WIDTH)), contextlib.redirect_stdout(io.StringIO()) as printed:
            _command_lines(f"emfuse {command} --help")
        (folder / f"{command or 'emfuse'}.txt").write_text(printed.getvalue(), encoding="utf-8")


def run_those_with_pictures(docs: Path) -> None:
    """Run every page that shows a picture of its own, in docs/made/PAGE."""
    for page in of(docs):
        if f"{MADE}/{page.stem}/" in page.read_text(encoding="utf-8"):
            folder = docs / MADE / page.stem
            folder.mkdir(parents=True)
            run(page, folder)
