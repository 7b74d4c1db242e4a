"""From the docstrings of emfuse to reStructuredText, for the reference pages.

They are written to be read in a terminal: `name : type    meaning`, one argument a line, under a heading or not; formulas are
indented; single backticks are code. Sphinx would run the lines of such a list together and stumble over `means_` and `|y|`. What
is here turns lists into definitions, indented blocks into literal ones, and quotes what is no markup. Nothing is changed in the
text itself.
"""

import re
from collections.abc import Iterator

NAMES = r"\*{0,2}[A-Za-z_][\w.]*(?:, \*{0,2}[A-Za-z_][\w.]*)*"
ITEM = re.compile(rf"({NAMES}) : (.*)")
ITEM_WITHOUT_TYPE = re.compile(rf"({NAMES}) {{3,}}(\S.*)")
AND_ANOTHER = re.compile(rf"; (?={NAMES} : )")
GAP = re.compile(r" {3,}")
RULE = re.compile(r"-{3,}$")
NUMBER = re.compile(r"\(?\w+[.)](\s|$)")
LIST = re.compile(r"^((?:\d+\.|[-*]) )")
IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
LONGEST_TYPE = 110  # letters of a line: a longer one is a sentence, and goes on in the next


def to_rst(lines: list[str]) -> list[str]:
    """Return a docstring, dedented, as lines of reStructuredText."""
    made: list[str] = []
    for block in blocks(lines):
        if block[0].startswith(">>>"):
            made += block
        elif block[0].startswith(" "):
            made += ["::", "", *(f"    {line}" for line in block)]
        elif len(block) > 1 and RULE.match(block[1]):
            made += [f".. rubric:: {block[0]}", ""]
            made += definitions(block[2:])
        elif is_item(block[0]):
            made += definitions(block)
        else:
            made += listed(block) if LIST.match(block[0]) else prose(block)
        made.append("")
    return made


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield what stands between empty lines; a paragraph is cut where a list of items begins in it."""
    block: list[str] = []
    for line in [*lines, ""]:
        begins = is_item(line) and block and not is_item(block[0]) and not (len(block) > 1 and RULE.match(block[1]))
        if block and (not line.strip() or begins):
            yield block
            block = []
        if line.strip():
            block.append(line.rstrip())


def is_item(line: str) -> bool:
    """Whether a line begins an item: `name : ...`, or `name    ...`."""
    return bool(ITEM.match(line) or ITEM_WITHOUT_TYPE.match(line))


def definitions(lines: list[str]) -> list[str]:
    """Return items as a definition list; a line that begins none and is not indented ends the list."""
    made: list[str] = []
    at = 0
    while at < len(lines):
        if not is_item(lines[at]):
            return [*made, "", *prose(lines[at:])]
        more = at + 1
        while more < len(lines) and lines[more].startswith(" "):
            more += 1
        *heads, last = AND_ANOTHER.split(lines[at])
        for head in heads:
            made += definition(head, [])
        made += definition(last, [line.strip() for line in lines[at + 1 : more]])
        at = more
    return made


def definition(head: str, more: list[str]) -> list[str]:
    """Return one item: its names, its type if it has one, and what it means."""
    typed, bare = ITEM.match(head), ITEM_WITHOUT_TYPE.match(head)
    if typed is not None:
        names, rest = typed.groups()
        kind, *meaning = GAP.split(rest, maxsplit=1)
        if not meaning and len(head) > LONGEST_TYPE:
            kind, meaning = "", [rest]
    else:
        assert bare is not None
        names, kind, meaning = bare[1], "", [bare[2]]
    term = ", ".join(f"**{escaped(name)}**" for name in names.split(", "))
    if not (meaning or more):  # a type alone, or a meaning alone
        kind, meaning = "", [kind]
    lines = [f"| {line}" for line in map(inline, more)]  # of what is "one of" these, a line for each
    body = lines if kind.endswith("one of") else [inline(" ".join([*meaning, *more]))]
    return [f"{term} : {inline(kind)}" if kind else term, *(f"    {line}" for line in body)]


def listed(block: list[str]) -> list[str]:
    """Return a list with bullets or numbers, whose items may go on in the next line."""
    made: list[str] = []
    for line in block:
        if LIST.match(line):
            made.append(line)
        else:
            made[-1] += " " + line.strip()
    return [mark + inline(text) for _, mark, text in (LIST.split(line, maxsplit=1) for line in made)]


def prose(block: list[str]) -> list[str]:
    """Return a paragraph; "D." at its beginning is no number of a list."""
    text = inline(" ".join(line.strip() for line in block))
    return ["\\" + text if NUMBER.match(text) else text]


def inline(text: str) -> str:
    """Return a text with code as code, names as references, and nothing else as markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        raise ValueError(f"a backtick is missing in {text!r}")
    made = []
    for i, part in enumerate(parts):
        if i % 2 == 0:
            made.append(escaped(part))
        else:
            made.append(f":py:obj:`{part}`" if IDENTIFIER.fullmatch(part) else f"``{part}``")
            if i + 1 < len(parts) and parts[i + 1][:1].isalnum():
                made.append(r"\ ")
    return "".join(made)


def escaped(text: str) -> str:
    """Return a text without markup: RST reads *, |, and an underscore at the end of a word."""
    return re.sub(r"([\\*|]|_(?!\w))", r"\\\1", text)
