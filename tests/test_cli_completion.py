"""What shells offer: the scripts are sourced by real ones, where these are installed, and asked as a user's TAB asks them."""

import argparse
import shutil
import subprocess
import sys

import pytest

from emfuse import completion
from emfuse.cli import _parser, main
from emfuse.structures import ALIASES, ALL_STRUCTURES

COMMANDS = ["fit", "select", "score", "sample", "plot", "kernels", "demo", "completion"]
STRUCTURES = [*ALL_STRUCTURES, *ALIASES]

# What is on the line, and what may come next, in any order.
OFFERED = [
    (["emfuse", ""], COMMANDS),
    (["emfuse", "s"], ["select", "score", "sample"]),
    (["emfuse", "fit", "--st"], ["--structure", "--start", "--steps", "--standard-errors"]),
    (["emfuse", "fit", "--structure", ""], STRUCTURES),
    (["emfuse", "fit", "--structure", "sph"], ["spherical"]),
    (["emfuse", "select", "x.csv", "--criterion", ""], ["aic", "bic", "icl"]),
    (["emfuse", "plot", "--kind", "de"], ["density"]),
    (["emfuse", "kernels", "--j"], ["--json"]),
    (["emfuse", "completion", ""], ["bash", "zsh", "fish"]),
]


def shell_named(name):
    """The path of a shell; skips where there is none."""
    return shutil.which(name) or pytest.skip(f"needs {name}")


@pytest.fixture
def script(tmp_path, capsys):
    """Function that writes what `emfuse completion SHELL` prints to a file, and returns its path."""

    def made(shell, name="script"):
        assert main(["completion", shell]) == 0
        path = tmp_path / name
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        return path

    return made


def told(*command, **options):
    """What a program printed, word by word; it must end well, and say nothing else."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="bash is another one there")
@pytest.mark.parametrize(("words", "offered"), OFFERED)
def test_bash_offers_what_may_come_next(script, words, offered):
    """Sourced, the script tells bash of itself, and the function that it names fills in COMPREPLY."""
    lines = [
        f'source "{script("bash")}"',
        "complete -p emfuse",
        f"COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)})",
        f"COMP_CWORD={len(words) - 1}",
        "_emfuse",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    registered, *found = told(shell_named("bash"), "--norc", "-c", "\n".join(lines))
    assert registered == "complete -o default -F _emfuse emfuse"
    assert {word for word in found if word not in ("--help", "--version")} == set(offered)


@pytest.mark.skipif(sys.platform == "win32", reason="bash is another one there")
def test_bash_offers_files_where_the_script_has_nothing(script):
    """COMPREPLY is empty, and `complete -o default` leaves the rest to readline."""
    lines = [
        f'source "{script("bash")}"',
        "COMP_WORDS=(emfuse fit --out mod)",
        "COMP_CWORD=3",
        "_emfuse",
        "echo ${#COMPREPLY[@]}",
    ]
    assert told(shell_named("bash"), "--norc", "-c", "\n".join(lines)) == ["0"]


@pytest.mark.parametrize(("words", "offered"), OFFERED)
def test_fish_offers_what_may_come_next(script, tmp_path, words, offered):
    """`complete -C LINE` is what fish itself asks."""
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    line = f'source "{script("fish")}"; complete -C "{" ".join(words)}"'
    found = told(shell_named("fish"), "--no-config", "-c", line, env=home)
    assert {word.partition("\t")[0] for word in found} == set(offered)


def test_zsh_knows_the_command_once_the_script_is_sourced(script, tmp_path):
    """What it offers needs a terminal; that it registers, and that every line of it can be read, does not."""
    alone = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    zsh, path = shell_named("zsh"), script("zsh")
    assert told(zsh, "-n", str(path), env=alone) == []
    line = f'autoload -U compinit; compinit -u -d "$HOME/dump"; source "{path}"; print -r -- $_comps[emfuse] $+functions[_emfuse]'
    assert told(zsh, "-f", "-c", line, env=alone) == ["_emfuse 1"]


def test_a_script_knows_every_command_and_option():
    """They are written from the parser, so that nothing can be forgotten in them."""
    flags = {
        flag
        for _, _, actions in completion._commands(_parser())
        for action in actions
        for flag in action.option_strings
        if flag.startswith("--")
    }
    assert {"--json", "--memory-limit", "--fix-weights"} <= flags
    for shell in completion.SHELLS:
        made = completion.script(shell, _parser())
        assert all(command in made for command in COMMANDS)
        assert all((f"-l {flag[2:]} " if shell == "fish" else flag) in made for flag in flags)


def test_help_is_no_danger_to_a_shell():
    """What a shell would take for its own is left out of a help text, or is a comma; and so is the default."""
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--x", default=3, help="""a "b" 'c' `d` $e [f] \\g: 95%% (default: %(default)s)""")
    assert completion._said(action) == "a b c d e f g, 95%"
