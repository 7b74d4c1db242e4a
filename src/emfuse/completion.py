"""Scripts that make a shell complete the command: written from its parser, so that they know what it knows.

A script is static, since a shell that asked the command itself at each key would wait for Python to start. Where a script has
nothing to offer, the shell offers files.

Layer 5.
"""

from __future__ import annotations

import argparse
import re

_Commands = list[tuple[str, str, list[argparse.Action]]]

MOST_SAID = 60  # letters of help beside an option


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for a shell that `SHELLS` names; parser is the whole command's."""
    return SHELLS[shell](_commands(parser))


def _commands(parser: argparse.ArgumentParser) -> _Commands:
    """Return each command's name, what it does, and its options and arguments."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [(made.dest, _said(made), found.choices[made.dest]._actions) for made in found._choices_actions]


def _said(action: argparse.Action) -> str:
    """Return an option's help, without its default, and without what a shell would take for its own."""
    text = re.sub(r" \(default: .*\)$", "", (action.help or "") % vars(action))
    text = re.sub(r"""["'`$\\\[\]]""", "", text).replace(":", ",")
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID].rsplit(' ', 1)[0]} ..."


def _words(action: argparse.Action) -> str:
    return " ".join(action.choices or ())


def _bash(commands: _Commands) -> str:
    values, options = [], []
    for name, _, actions in commands:
        for action in actions:
            if action.choices:
                after = "|".join(f'"{name} {before}"' for before in action.option_strings or [name])
                values.append(f'        {after}) offered="{_words(action)}" ;;')
        flags = " ".join(flag for action in actions for flag in action.option_strings)
        options.append(f'            {name}) offered="{flags}" ;;')
    lines = [
        "_emfuse() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" offered=""',
        '    case "$command ${COMP_WORDS[COMP_CWORD-1]}" in',
        *values,
        "    esac",
        '    if [ "$COMP_CWORD" -eq 1 ]; then',
        f'        offered="{" ".join(name for name, _, _ in commands)} --help --version"',
        '    elif [ -z "$offered" ] && [[ "$word" == -* ]]; then',
        '        case "$command" in',
        *options,
        "        esac",
        "    fi",
        '    COMPREPLY=($(compgen -W "$offered" -- "$word"))',
        "}",
        "complete -o default -F _emfuse emfuse",
    ]
    return "\n".join(lines) + "\n"


def _zsh(commands: _Commands) -> str:
    lines = [
        "#compdef emfuse",
        "_emfuse() {",
        "    if (( CURRENT == 2 )); then",
        "        local -a commands=(",
        *(f"            '{name}:{said}'" for name, said, _ in commands),
        "        )",
        "        _describe command commands",
        "        return",
        "    fi",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $words[1] in",
    ]
    for name, _, actions in commands:
        lines += [f"        {name})", "            _arguments \\"]
        rest = ":file:_files"
        for action in actions:
            value = "" if action.nargs == 0 else f":value:{f'({_words(action)})' if action.choices else '_files'}"
            lines += [f"                '{word}[{_said(action)}]{value}' \\" for word in action.option_strings]
            rest = rest if action.option_strings else value
        lines += [f"                '*{rest}'", "            ;;"]
    lines += [
        "    esac",
        "}",
        "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then",  # a file of fpath, which is the function itself
        '    _emfuse "$@"',
        "else",
        "    compdef _emfuse emfuse",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _fish(commands: _Commands) -> str:
    lines = []
    for name, said, actions in commands:
        lines.append(f"complete -c emfuse -n __fish_use_subcommand -f -a {name} -d '{said}'")
        for action in actions:
            where = f"complete -c emfuse -n '__fish_seen_subcommand_from {name}'"
            value = f" -x -a '{_words(action)}'" if action.choices else "" if action.nargs == 0 else " -r"
            for word in action.option_strings:
                option = f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
                lines.append(f"{where} {option}{value} -d '{_said(action)}'")
            if action.choices and not action.option_strings:
                lines.append(f"{where} -f -a '{_words(action)}'")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
