"""What the `emfuse` command has beside the plain fit: options of the library, choosing, drawing, and JSON for machines."""

import json
import os
import re
import subprocess
import sys
from dataclasses import astuple
from importlib.resources import files

import numpy as np
import pytest

import emfuse
from emfuse import Constraints, options, report, stopping
from emfuse.selection import Row, Selection, Table
from emfuse.stopping import GainBelow, SweepLimit, Within, first_of

FAITHFUL = str(files("emfuse").joinpath("faithful.csv"))
DATA = np.loadtxt(FAITHFUL, delimiter=",", skiprows=1)
NAMES = ["eruptions", "waiting"]


@pytest.fixture
def model(call):
    """A fitted model's file, in the folder of the test."""
    assert call("fit", FAITHFUL, "-k", 2, "--out", "model.json")[0] == 0
    return "model.json"


def read_json(path):
    """What a file holds."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def document(outcome):
    """The document that a command printed; nothing else may be there, nor on stderr."""
    code, out, err = outcome
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


# ---------------------------------------------------------------- fit: options of the library


def of_each(**said):
    """Constraints, as an argument of `emfuse.fit`."""
    return {"constraints": Constraints(**said)}


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        ("--acceleration none", {"acceleration": None}),
        ("--acceleration squarem", {"acceleration": "squarem"}),
        ("--variance-floor 0.01", {"variance_floor": 0.01}),
        ("--on-collapse floor --variance-floor 1e-6", {"on_collapse": "floor", "variance_floor": 1e-6}),
        ("--on-collapse raise", {"on_collapse": "raise"}),
        ("--reg-covar 0.1", {"reg_covar": 0.1}),
        ("--covariances a,a", of_each(covariances=["a", "a"])),
        ("--covariances a,None --structure diag", {"structure": "diag", **of_each(covariances=["a", None])}),
        ("--fix-weights None,0.4", of_each(weights=[None, 0.4])),
        ("--columns waiting --sd 6", {"sd": 6.0}),
        ("--columns waiting --sds a,2a", of_each(sds=["a", "2a"])),
        ("--columns waiting --sds 6,None --means None,80", of_each(sds=[6.0, None], means=[None, 80.0])),
    ],
)
def test_an_option_is_the_librarys_argument(call, argv, arguments):
    """The very parameters that `emfuse.fit` returns."""
    X = DATA[:, 1] if "waiting" in argv else DATA
    assert call("fit", FAITHFUL, "-k", 2, *argv.split(), "--out", "model.json")[0] == 0
    assert emfuse.Parameters.load("model.json") == emfuse.fit(X, 2, **arguments).parameters


def test_means_of_several_features_are_numbers_with_spaces(call):
    """--means "2 54.5,None" fixes the first component's mean, and leaves the second."""
    assert call("fit", FAITHFUL, "-k", 2, "--means", "2 54.5, None", "--out", "model.json")[0] == 0
    p = emfuse.Parameters.load("model.json")
    assert p == emfuse.fit(DATA, 2, constraints=Constraints(means=[[2.0, 54.5], None])).parameters
    np.testing.assert_array_equal(p.means[0], [2.0, 54.5])


@pytest.mark.parametrize(
    ("argv", "stop"),
    [
        ("", first_of(Within(1e-6), SweepLimit(10_000))),
        ("--within 1", first_of(Within(1.0), SweepLimit(10_000))),
        ("--gain 1e-6", first_of(GainBelow(1e-6, per_row=True), SweepLimit(10_000))),
        ("--gain 1e-9 --within 0.1", first_of(GainBelow(1e-9, per_row=True), Within(0.1), SweepLimit(10_000))),
        ("--steps 3", 3),
        ("--time-limit 1000", first_of(Within(1e-6), SweepLimit(10_000), stopping.TimeLimit(1000))),
    ],
)
def test_when_to_stop_can_be_said(call, argv, stop):
    """The same reason, after as many sweeps, as `emfuse.fit` with that rule; from a start far away, so that there is a way."""
    said = document(call("fit", FAITHFUL, "-k", 3, "--init", "random", *argv.split(), "--json"))["fit"]
    fit = emfuse.fit(DATA, 3, init="random", stop=stop)
    assert (said["reason"], said["sweeps"], said["trace"]) == (fit.reason, fit.sweeps, fit.trace.tolist())


def test_a_time_limit_warns_by_its_own_name(call):
    """Exit code 0, a warning, and the option that would help."""
    code, _, err = call("fit", FAITHFUL, "-k", 2, "--time-limit", 1e-9)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(
        "emfuse: warning: the fit did not converge: the time limit of 1e-09 seconds was reached; raise --time-l"
    )


def test_a_fit_can_begin_with_a_model(call, model):
    """--start MODEL: no step from it is the model itself, and its columns are found by name."""
    with open("other.csv", "w", encoding="utf-8") as file:
        file.write("waiting,eruptions\n" + "".join(f"{w},{e}\n" for e, w in DATA))
    assert call("fit", "other.csv", "--start", model, "--steps", 0, "--out", "again.json")[0] == 0
    assert emfuse.Parameters.load("again.json") == emfuse.Parameters.load(model)


def test_components_can_stay_as_they_are(call, model):
    """--freeze 1: that component keeps mean and covariance to the last bit, the other one moves."""
    assert call("fit", FAITHFUL, "--columns", "0,1", "--start", model, "--reg-covar", 1, "--out", "wide.json")[0] == 0
    assert call("fit", FAITHFUL, "--start", "wide.json", "--freeze", 1, "--out", "held.json")[0] == 0
    wide, held = emfuse.Parameters.load("wide.json"), emfuse.Parameters.load("held.json")
    np.testing.assert_array_equal(wide.covariances[1], held.covariances[1])
    np.testing.assert_array_equal(wide.means[1], held.means[1])
    assert not np.array_equal(wide.covariances[0], held.covariances[0])


def test_a_film_is_written(call):
    """--film: one frame for each sweep."""
    image = pytest.importorskip("PIL.Image")
    code, out, _ = call(
        "fit", FAITHFUL, "-k", 2, "--columns", "waiting", "--init", "random", "--max-sweeps", 5, "--film", "way.gif"
    )
    assert (code, out.splitlines()[-1]) == (0, "film             way.gif")
    with image.open("way.gif") as film:
        assert film.n_frames == 5


def test_the_summary_is_that_of_the_library(call):
    """--summary prints `Fit.summary` with the columns' names, but for the seconds, whose digits move the ends of lines."""
    out = call("fit", FAITHFUL, "-k", 2, "--summary")[1]
    theirs = emfuse.summary.summary(emfuse.fit(DATA, 2), names=NAMES)
    ours, theirs = (re.sub(r"[\d.e-]+ s:", "s:", text).split() for text in (out, theirs))
    assert ours == theirs


def test_standard_errors_are_those_of_the_library(call):
    """--standard-errors: in the text the library's table, in JSON the numbers to the last bit."""
    theirs = emfuse.fit(DATA, 2).standard_errors(DATA, method="sandwich")
    assert str(theirs) in call("fit", FAITHFUL, "-k", 2, "--standard-errors", "sandwich")[1]
    said = document(call("fit", FAITHFUL, "-k", 2, "--standard-errors", "sandwich", "--json"))["standard_errors"]
    assert (said["method"], said["level"]) == ("sandwich", 0.95)
    assert [list(row.values()) for row in said["parameters"]] == [list(astuple(row)) for row in theirs.confidence_intervals()]


def test_a_checkpoint_is_gone_on_from(call):
    """A fit that was broken off in the library goes on in the command, to the same bits; then the checkpoint is gone."""
    stop = first_of(Within(1e-6), SweepLimit(10_000))
    whole = emfuse.fit(DATA, 3, init="random", stop=stop, checkpoint=emfuse.Checkpoint("whole", every_sweeps=1))

    def broken(progress):
        if progress.sweep == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emfuse.fit(DATA, 3, init="random", stop=stop, callback=broken, checkpoint=emfuse.Checkpoint("half", every_sweeps=1))
    assert os.path.exists("half")
    assert call("fit", FAITHFUL, "-k", 3, "--init", "random", "--checkpoint", "half", "--out", "model.json")[0] == 0
    assert emfuse.Parameters.load("model.json") == whole.parameters
    assert not os.path.exists("half")


# ---------------------------------------------------------------- fit: what contradicts itself, and what cannot be


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("fit x.csv -k 2 --start m.json", "argument -k: not allowed with --start, which takes its place"),
        ("fit x.csv --start m.json --structure diag", "argument --structure: not allowed with --start, which takes its place"),
        ("fit x.csv --start m.json --n-init 2", "argument --n-init: not allowed with --start, which takes its place"),
        ("fit x.csv -k 2 --freeze 0", "argument --freeze: needs --start, the model as which components stay"),
        ("fit x.csv -k 2 --steps 3 --within 1", "argument --steps: not allowed with --within"),
        ("fit x.csv -k 2 --steps 3 --max-sweeps 9", "argument --steps: not allowed with --max-sweeps"),
        (
            "fit x.csv -k 2 --reg-covar 1 --acceleration emqn",
            "argument --acceleration: emqn is not allowed with --reg-covar; --variance-floor is",
        ),
        (
            "fit x.csv -k 2 --on-collapse floor --variance-floor 0",
            "argument --on-collapse: floor needs a --variance-floor above 0",
        ),
        (
            "fit x.csv -k 2 --standard-errors sandwich --workers 2",
            "argument --standard-errors: not allowed with --workers or --dask, since it takes rows in memory",
        ),
        ("fit x.csv -k 3 --sds a,a", "argument --sds: must have one entry for each of the 3 components, got 2"),
        (
            "fit x.csv -k 2 --sd 1 --means a,a",
            "argument --sd: not allowed beside what is said of each component; write --sds with entries like 1,1",
        ),
        ("fit x.csv -k 2 --sds a,a --covariances a,a", "sds and covariances say the same thing: give one of them"),
        ("fit x.csv -k 2 --sds=-a,a", "sds[0] must be a multiple above 0, got '-a'"),
        (
            "fit x.csv -k 2 --sds a,,b",
            "argument --sds: must be None, numbers, or a letter like a or 2a, for each component, got ''",
        ),
        (
            "fit x.csv -k 2 --means -a,a",
            "argument --means: expected one argument; write --option=VALUE where it begins with a minus sign",
        ),
        ("fit x.csv -k 2 --sd 0", "argument --sd: must be a number above 0, got '0'"),
        ("fit x.csv -k 2 --memory-limit 2Q", "argument --memory-limit: must be bytes, like 500M or 2G, got '2Q'"),
        ("fit x.csv -k 2 --memory-limit 0", "argument --memory-limit: must be bytes, like 500M or 2G, got '0'"),
        ("fit x.csv -k 2 --workers 2 --dask tcp://a:1", "argument --dask: not allowed with argument --workers"),
        ("fit x.csv -k 2 --memory-limit 2G --workers 2", "argument --workers: not allowed with argument --memory-limit"),
        ("fit x.csv -k 2 --json --summary", "argument --summary: not allowed with argument --json"),
        (
            "fit x.csv -k 2 --json --labels -",
            "argument --labels: must be a file with --json, whose document is all that stdout has",
        ),
        ("fit x.csv -k 2 --frobnicate", "unrecognized arguments: --frobnicate"),
        ("sample m.json -n 2 y.csv", "unrecognized arguments: y.csv"),
        ("sample m.json -n 2 --json", "unrecognized arguments: --json"),
        ("select x.csv -k 5:2", "argument -k: must rise from its first number to its last, got '5:2'"),
        ("select x.csv -k 0:2", "argument -k: must be a whole number of at least 1, got '0'"),
        ("select x.csv --json --plot -", "argument --plot: must be a file with --json, whose document is all that stdout has"),
        (
            "score m.json x.csv --json --out /dev/stdout",
            "argument --out: must be a file with --json, whose document is all that stdout has",
        ),
        ("plot m.json --out x.png --kind uncertainty", "argument --kind: uncertainty is drawn row by row, and needs a FILE"),
        (
            "plot m.json x.csv --out x.png --kind trace",
            "argument --kind: trace is of the fit, and takes neither FILE nor --features",
        ),
        (
            "plot m.json x.csv --out x.png --kind responsibilities --features 0,1",
            "argument --kind: responsibilities are of all features, and take no --features",
        ),
        ("completion csh", "argument shell: invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')"),
    ],
)
def test_what_contradicts_itself_is_a_2(call, argv, message):
    """One line that says what, and where to read more; nothing has been read."""
    command = argv.split()[0]
    code, out, err = call(*argv.split())
    assert (code, out) == (2, "")
    said = err.replace("(choose from bash, zsh, fish)", "(choose from 'bash', 'zsh', 'fish')")  # as older versions of Python
    assert said == f"emfuse: error: {message}; see 'emfuse {command} --help'\n"


def test_an_unknown_structure_is_a_2(call):
    """With those that there are."""
    code, out, err = call("select", "x.csv", "--structures", "full,round")
    assert (code, out) == (2, "")
    assert err.startswith("emfuse: error: argument --structures: must be of full, tied, ")
    assert err.endswith(", or all, got 'round'; see 'emfuse select --help'\n")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("2k", 2048),
        ("2K", 2048),
        ("2G", 2 << 30),
        ("1.5M", 1536 << 10),
        ("1 TiB", 1 << 40),
        ("3GB", 3 << 30),
        ("7B", 7),
    ],
)
def test_bytes_have_units(text, size):
    """Powers of 1024, however they are written."""
    assert options.memory(text) == size


@pytest.mark.parametrize(("text", "numbers"), [("3", [3]), ("1:4", [1, 2, 3, 4]), ("1,2,4", [1, 2, 4]), ("1:2, 5", [1, 2, 5])])
def test_numbers_of_components_are_ranges(text, numbers):
    """From the first to the last, both included."""
    assert options.ranges(text) == numbers


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("None,1,a", [None, 1.0, "a"]),
        ("none, 2a ,-a", [None, "2a", "-a"]),
        ("1 2,1e-3 -4", [[1.0, 2.0], [1e-3, -4.0]]),
        ("a", ["a"]),
    ],
)
def test_entries_are_mixtools_language(text, entries):
    """Free, fixed, or linked."""
    assert options.entries(text) == entries


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--film", "way.avi"], "way.avi: a film's name must end with .gif or .mp4, or be a folder's, for PNG files"),
        (["--film", "no/such/way.gif"], "no/such/way.gif: there is no folder "),
        (["--checkpoint", "no/such/file"], "no/such/file: there is no folder "),
        (["--init", "quantiles"], "--init quantiles needs one feature, got 2; "),
        (["--sds", "a,a"], "sds must be None where there are 2 features; "),
        (["--structure", "VVE", "--standard-errors", "information"], "--standard-errors must be 'bootstrap', "),
    ],
)
def test_what_the_library_refuses_is_said_in_the_commands_words(call, argv, message):
    """One line, exit code 1, and options by the names that they have here."""
    code, _, err = call("fit", FAITHFUL, "-k", 2, *argv)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"emfuse: error: {message}")


def test_a_collapse_is_told_with_the_option_that_helps(call):
    """--on-collapse raise: the library's sentence, in which reg_covar is --reg-covar."""
    with open("ties.csv", "w", encoding="utf-8") as file:
        file.write("x\n" + "1\n" * 10 + "2\n3\n")
    code, out, err = call("fit", "ties.csv", "-k", 2, "--on-collapse", "raise")
    assert (code, out) == (1, "")
    assert "has collapsed" in err and "Raise --reg-covar (now 0)" in err


def test_files_may_stand_after_options(call):
    """emfuse fit a.csv -k 1 b.csv: what a shell makes of patterns here and there."""
    assert call("fit", FAITHFUL, "-k", 1, FAITHFUL)[1].splitlines()[0] == "rows             544"


# ---------------------------------------------------------------- JSON


def test_a_fit_as_json_is_one_document(call):
    """All numbers are the library's to the last bit, and the document is a model's file."""
    said = document(call("fit", FAITHFUL, "-k", 3, "--structure", "VEV", "--n-init", 2, "--json"))
    fit = emfuse.fit(DATA, 3, structure="VEV", n_init=2)
    assert emfuse.Parameters.from_dict(said) == fit.parameters
    assert said["columns"] == NAMES
    assert said["fit"] == {
        "rows": 272,
        "weight": 272.0,
        "log_likelihood": fit.log_likelihood,
        "free_parameters": fit.free_parameters,
        "aic": fit.aic,
        "bic": fit.bic,
        "converged": True,
        "reason": fit.reason,
        "sweeps": fit.sweeps,
        "distance": fit.distance,
        "repairs": [],
        "scores": fit.scores.tolist(),
        "trace": fit.trace.tolist(),
    }
    assert said["data"] == {"files": [FAITHFUL], "how": "memory", "bytes": None, "limit": None}
    assert (said["emfuse"], said["build"], said["files"]) == (emfuse.__version__, emfuse.kernels.active(), {})


def test_a_document_can_be_used_as_a_model(call):
    """emfuse fit --json > model.json; emfuse score model.json."""
    with open("model.json", "w", encoding="utf-8") as file:
        file.write(call("fit", FAITHFUL, "-k", 2, "--json")[1])
    said = document(call("score", "model.json", FAITHFUL, "--json"))
    fit = emfuse.fit(DATA, 2)
    assert said["log_likelihood"] == pytest.approx(fit.log_likelihood, rel=1e-14)  # a sum of 272, in another order
    assert said["mean_log_likelihood"] == said["log_likelihood"] / 272
    assert (said["rows"], said["columns"]) == (272, NAMES)


def test_the_same_fit_writes_the_same_bytes(call):
    """--out has no seconds and no date."""
    for name in ("a.json", "b.json"):
        assert call("fit", FAITHFUL, "-k", 2, "--out", name)[0] == 0
    with open("a.json", "rb") as a, open("b.json", "rb") as b:
        assert a.read() == b.read()


def test_what_is_not_known_is_null(call):
    """After no step at all, nobody knows how far the maximum is."""
    assert document(call("fit", FAITHFUL, "-k", 2, "--steps", 0, "--acceleration", "none", "--json"))["fit"]["distance"] is None


def test_files_that_were_written_are_in_the_document(call):
    """By their options."""
    written = {"out": "m.json", "labels": "labels.csv", "plot": "fit.png"}
    said = document(
        call("fit", FAITHFUL, "-k", 2, "--json", *[word for name, path in written.items() for word in (f"--{name}", path)])
    )
    assert said["files"] == written
    assert all(os.path.getsize(path) for path in written.values())


def test_an_error_leaves_stdout_empty(call):
    """With --json too: the message is on stderr, and machines look at the exit code."""
    code, out, err = call("fit", "gone.csv", "-k", 2, "--json")
    assert (code, out, err) == (1, "", "emfuse: error: gone.csv: No such file or directory\n")


def keys_of(value):
    """Keys of a document, and of what is in it."""
    if isinstance(value, dict):
        return {*value, *(key for item in value.values() for key in keys_of(item))}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


@pytest.mark.parametrize(
    "argv",
    [
        ["fit", FAITHFUL, "-k", 2],
        ["fit", FAITHFUL, "-k", 2, "--history", "--standard-errors", "information"],
        ["select", FAITHFUL, "-k", "1:2", "--structures", "full"],
        ["score", "model.json", FAITHFUL],
        ["plot", "model.json", "--out", "x.png"],
        ["kernels"],
        ["demo"],
    ],
)
def test_every_key_of_a_document_stands_in_the_help(call, model, argv):
    """`--help` names what `--json` prints; of a model's file, `emfuse fit --help` does."""
    keys = keys_of(document(call(*argv, "--json")))
    help_text = call(argv[0], "--help")[1] + call("fit", "--help")[1]
    assert {key for key in keys if not re.search(rf"\b{key}\b", help_text)} == set()


def test_kernels_as_json_are_the_table(call):
    """Each build once; the one in use is marked."""
    with emfuse.kernels.use("reference"):
        said = document(call("kernels", "--json"))
    assert [build["name"] for build in said["builds"] if build["active"]] == ["reference"]
    assert [build["name"] for build in said["builds"] if build["runs"]] == emfuse.kernels.runnable()
    assert {build["name"]: build["reason"] for build in said["builds"] if not build["runs"]} == emfuse.kernels.not_runnable()


def test_the_demo_as_json_has_both_fits(call):
    """Parameters of both, the history of the one that is shown with it, and the picture."""
    said = document(call("demo", "--json"))
    assert emfuse.Parameters.from_dict(said["both"]) == emfuse.fit(DATA, 2, random_state=0).parameters
    assert [each["log_likelihood"] for each in said["waiting"]["history"]] == said["waiting"]["fit"]["trace"]
    assert said["files"] == {"out": "faithful.png"} and os.path.exists("faithful.png")


# ---------------------------------------------------------------- select


def test_a_selection_is_that_of_the_library(call):
    """The table, the winner, its model's file, and the picture."""
    code, out, err = call("select", FAITHFUL, "-k", "1:4", "--structures", "full,VEV", "--plot", "bic.png", "--out", "best.json")
    theirs = emfuse.select(DATA, range(1, 5), ("full", "VEV"))
    assert (code, err) == (0, "")
    seconds = re.compile(r" +[\d.e-]+$", re.MULTILINE)  # the last column
    assert seconds.sub("", repr(theirs.table)).split("\n", 1)[1] in seconds.sub("", out)
    assert f"best             K = {theirs.K}, covariances {theirs.structure}" in out.splitlines()
    assert emfuse.Parameters.load("best.json") == theirs.best.parameters
    assert read_json("best.json")["fit"]["bic"] == theirs.best.bic
    with open("bic.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_a_selection_as_json_is_one_document(call):
    """The best model's file, and each model's row; the smallest criterion is the winner's."""
    said = document(call("select", FAITHFUL, "-k", "1,2", "--criterion", "icl", "--columns", "waiting", "--seed", 3, "--json"))
    theirs = emfuse.select(DATA[:, 1], (1, 2), criterion="icl", random_state=3)
    assert emfuse.Parameters.from_dict(said) == theirs.best.parameters
    chosen = said["selection"]
    assert (chosen["criterion"], chosen["components"], chosen["structure"]) == ("icl", theirs.K, theirs.structure)
    assert [row["icl"] for row in chosen["models"]] == [row.icl for row in theirs.table]
    assert chosen["why"] == report.why(theirs)


def test_weights_count_in_a_selection(call):
    """--weights leaves that column out of the rows, and BIC goes by the sum."""
    with open("w.csv", "w", encoding="utf-8") as file:
        file.write("n,x\n" + "".join(f"2,{w}\n" for w in DATA[:, 1]))
    out = call("select", "w.csv", "-k", "1:2", "--weights", "n")[1]
    assert out.splitlines()[0] == "rows             272, of total weight 544"


def selection(*rows, criterion="bic"):
    """A selection of rows (K, structure, log-likelihood, free parameters, criterion's value, doubtful, converged)."""
    made = []
    for K, structure, log_likelihood, p, value, doubtful, converged in rows:
        values = {"aic": 0.0, "bic": 0.0, "icl": 0.0, criterion: value}
        reason = "it just did; component 0 has 2 rows" if doubtful else "it just did"
        made.append(
            Row(
                K,
                structure,
                log_likelihood,
                p,
                **values,
                converged=converged,
                reason=reason,
                sweeps=9,
                seconds=1.0,
                doubtful=doubtful,
            )
        )
    return Selection(Table(tuple(made), criterion), {}, criterion, 1.0)


@pytest.mark.parametrize(
    ("apart", "words"),
    [
        (0.5, "a difference hardly worth a mention"),
        (2.5, "positive evidence against it"),
        (6.5, "strong evidence against it"),
        (50.0, "very strong evidence against it"),
    ],
)
def test_why_the_best_is_the_best_is_said_in_words(apart, words):
    """BIC on the scale of Kass & Raftery (1995); what the next model gains, and what for."""
    found = selection((1, "full", -50.0, 5, 100.0, False, True), (2, "tied", -45.0, 6, 100.0 + apart, False, True))
    assert report.why(found) == (
        f"its BIC, 100, is the smallest. The next, K = 2 with 'tied' covariances, is {apart:g} above, {words}; its "
        "log-likelihood is 5 nats higher, with 1 more free parameter."
    )


def test_why_says_what_speaks_against_the_best():
    """Doubt, a limit, and that no more components were tried."""
    doubtful = selection((2, "full", -50.0, 5, 100.0, True, True))
    assert report.why(doubtful) == (
        "its BIC, 100, is the smallest. But look at it before you take it: it just did; component 0 has 2 rows. More components "
        "than that were not tried."
    )
    passed = selection((1, "full", -60.0, 5, 120.0, False, False), (2, "full", -50.0, 8, 100.0, True, True))
    assert report.why(passed) == (
        "its BIC, 120, is the smallest. But look at it before you take it: it just did. Doubtful ones with a smaller BIC were "
        "passed over: 1."
    )


def test_aic_has_a_scale_of_its_own_and_icl_none():
    """exp(-4.6 / 2) = 0.1."""
    rows = (1, "full", -50.0, 5, 100.0, False, True), (2, "tied", -55.0, 5, 104.605, False, True)
    assert "is 4.605 above, which makes it 0.1 times as likely to be the nearest to the truth; its" in report.why(
        selection(*rows, criterion="aic")
    )
    assert "is 4.605 above; its log-likelihood is 5 nats lower, with as many free parameters." in report.why(
        selection(*rows, criterion="icl")
    )


# ---------------------------------------------------------------- plot


@pytest.mark.parametrize("kind", ["density", "components", "uncertainty", "responsibilities"])
def test_a_model_is_drawn_over_rows(call, model, kind):
    """A picture of each kind."""
    code, out, err = call("plot", model, FAITHFUL, "--kind", kind, "--out", "x.png")
    assert (code, out, err) == (0, "The picture is in x.png\n", "")
    with open("x.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


@pytest.mark.parametrize("argv", [["--kind", "trace"], ["--kind", "density"], ["--kind", "components"], []])
def test_a_model_is_drawn_by_itself(call, model, argv):
    """What needs no rows needs no file; the trace is in the model's."""
    assert document(call("plot", model, *argv, "--out", "x.svg", "--json"))["files"] == {"out": "x.svg"}
    with open("x.svg", encoding="utf-8") as file:
        assert "<svg" in file.read()


def test_what_is_drawn_is_what_the_library_draws(call, model, monkeypatch):
    """The function of that name gets the mixture, the rows, their names, and the features that were chosen."""
    given = {}

    def draw(mixture, X, *, ax, **options):
        given.update(mixture=mixture, X=X.X, **options)

    monkeypatch.setattr(emfuse.plots, "uncertainty", draw)
    argv = ["plot", model, FAITHFUL, "--kind", "uncertainty", "--features", "waiting,0", "--out", "x.png"]
    assert call(*argv)[0] == 0
    assert given["mixture"] == emfuse.Parameters.load(model)
    np.testing.assert_array_equal(given["X"], DATA)
    assert (given["names"], given["features"]) == (NAMES, [1, 0])


def test_one_feature_is_drawn_as_a_density(call):
    """Where no kind is asked for."""
    assert call("fit", FAITHFUL, "-k", 2, "--columns", "waiting", "--out", "m.json")[0] == 0
    assert document(call("plot", "m.json", FAITHFUL, "--out", "x.png", "--json"))["kind"] == "density"


def test_a_picture_can_go_to_stdout(tmp_path):
    """--out -: a PNG, and not a byte else."""
    command = [sys.executable, "-m", "emfuse.cli"]
    subprocess.run([*command, "fit", FAITHFUL, "-k", "2", "--out", "m.json"], cwd=tmp_path, check=True, capture_output=True)
    ended = subprocess.run([*command, "plot", "m.json", "--out", "-"], cwd=tmp_path, check=True, capture_output=True)
    assert ended.stdout.startswith(b"\x89PNG") and ended.stdout.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["model.json", "--kind", "responsibilities"], "--kind responsibilities of 2 features is drawn row by row: give a FILE"),
        (
            ["model.json", FAITHFUL, "--columns", "waiting"],
            f"{FAITHFUL}: the model has 2 features, and 1 column would be drawn: waiting; ",
        ),
        (
            ["model.json", FAITHFUL, "--features", "delay,0"],
            "model.json: there is no column 'delay'; choose from eruptions, waiting",
        ),
        (["gone.json"], "gone.json: No such file or directory"),
        (["bare.json", "--kind", "trace"], "bare.json: it does not say how it was fitted, which --kind trace draws; "),
        (["broken.json", "--kind", "trace"], "broken.json: it does not say how it was fitted, which --kind trace draws; "),
    ],
)
def test_what_cannot_be_drawn_is_one_line(call, model, argv, message):
    """Exit code 1, and no picture."""
    emfuse.Parameters.load(model).save("bare.json")
    content = read_json(model)
    content["fit"]["trace"] = "up and up"
    with open("broken.json", "w", encoding="utf-8") as file:
        json.dump(content, file)
    code, out, err = call("plot", *argv, "--out", "x.png")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"emfuse: error: {message}")
    assert not os.path.exists("x.png")


# ---------------------------------------------------------------- progress


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
@pytest.mark.parametrize(("argv", "told"), [(["-k", 1], False), (["-k", 1, "--memory-limit", 1], True)])
def test_progress_is_shown_on_a_terminal_of_what_is_long(tmp_path, argv, told):
    """A fit of milliseconds leaves the terminal as it was; one that reads its file again and again says how far it is."""
    np.save(tmp_path / "x.npy", DATA)
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "emfuse.cli", "fit", tmp_path / "x.npy", *argv]
    ended = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=end, check=True)
    os.write(end, b"the end")
    seen = os.read(terminal, 100_000)
    os.close(terminal)
    os.close(end)
    assert b"log-likelihood" in ended.stdout
    assert (b"EM: sweep" in seen) == told and (told or seen == b"the end")
