"""What is in examples/ runs from anywhere, without a warning, and shows what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
NO_SCREEN = "ignore:FigureCanvasAgg is non-interactive:UserWarning"  # what plt.show() has to say here


class Printed(str):
    """What an example printed, and the folder that it ran in."""

    folder: Path

    def after(self, start, times=1):
        """Return the rest of the lines that begin so, of which there must be so many."""
        found = [line.strip().removeprefix(start) for line in self.splitlines() if line.strip().startswith(start)]
        assert len(found) == times, f"{len(found)} lines begin with {start!r}, not {times}:\n{self}"
        return found

    def numbers(self, start, times=1):
        """Return the numbers in the rest of those lines, (times, ...)."""
        return np.array(
            [
                [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*(?:e[+-]\d+)?", line)]
                for line in self.after(start, times)
            ]
        )


def by_hand(printed):
    """The same path as the hand-written loop; and a row that is nothing to it is one of many to emfuse."""
    assert printed.after("by hand      weights") == printed.after("normalmixEM  weights")
    assert "means [nan nan]" in printed.after("by hand, one step:")[0]
    assert np.isfinite(printed.numbers("emfuse, one step:")).all()


def collapse(printed):
    """Each policy says what it does, and on 73 equal rows a tenth of the standard deviation is worth 73 log 10 nats."""
    assert "component 1 has collapsed" in printed.after("error:")[0]
    assert sum("was dropped" in line for line in printed.after("warning:", 3)) == 2
    assert "rests on the floor" in printed.after("warning:", 3)[2]
    heights = printed.numbers("standard deviation 1e", 9)[:, -1]
    assert heights[0] - heights[1] == pytest.approx(73 * np.log(10), abs=0.11)  # printed with one decimal


def colours(printed):
    """Different colours with weights are the pixels."""
    pixels, different = (printed.numbers(f"{name} log-likelihood")[0, 0] for name in ("pixels  ", "colours "))
    assert pixels == pytest.approx(different, rel=1e-9)  # 273,280 rows, added in another order


def faithful(printed):
    """Two features leave fewer eruptions in doubt than one."""
    alone, both = (printed.numbers(f"by {name}:")[0, 2] for name in ("waiting alone", "both"))
    assert both < alone
    assert printed.numbers("a wait of 66 minutes:")[0].sum() == pytest.approx(1.0, abs=0.011)  # printed with two decimals


def film(printed):
    """The log-likelihood never falls, and there is a film."""
    heights = printed.numbers("sweep", 6)[:, 1]
    assert (np.diff(heights) >= 0.0).all()
    with Image.open(printed.folder / "old_faithful.gif") as gif:
        assert gif.n_frames == len(printed.numbers(str(printed.folder / "old_faithful.gif"))[0]) - 1


def galaxies(printed):
    """BIC takes three, five rest on two galaxies, and two are rejected where three are not."""
    table = {K: printed.numbers(f"{K}  ")[0] for K in range(1, 7)}
    assert min(table, key=lambda K: table[K][2]) == 3
    assert table[5][3] < 2.5 < table[3][3]
    assert printed.numbers("2 or 3: statistic")[0, 1] <= 0.05 < printed.numbers("3 or 4: statistic")[0, 1]


def histogram(printed):
    """The middles of wider classes make larger standard deviations, by w squared over 12; the classes do not."""
    truth = printed.numbers("rows: means")[0, 2]
    for width in range(2, 14, 2):
        middles, classes = printed.numbers(f"{width} minutes: standard deviation, on average,")[0]
        assert middles == pytest.approx(np.sqrt(truth**2 + width**2 / 12), abs=0.03)
        assert classes == pytest.approx(truth, abs=0.12)  # what few classes do not tell


def iris(printed):
    """k-means misplaces more flowers, and AIC takes more components than BIC."""
    mixture, k_means = (printed.numbers(f"{name}: ")[0, 0] for name in ("mixture", "k-means"))
    assert mixture < k_means
    aic, bic = printed.numbers("full: AIC is best for")[0]
    assert aic > bic


def known_sd(printed):
    """Eight steps, under which both standard deviations stay 1; and of real ones, equal is best and double is worst."""
    table = [line.split() for line in printed.splitlines() if re.match(r"\s+\d+ ", line)]
    assert [row[0] for row in table] == [str(sweep) for sweep in range(9)]
    assert all(row[5:7] == ["1", "1"] for row in table)
    bic = {name: printed.numbers(name)[0, -1] for name in ("free ", "equal ", "one is double ", "both 5 minutes ")}
    assert min(bic, key=bic.get) == "equal " and max(bic, key=bic.get) == "one is double "


def ozone(printed):
    """The mixture is nearer to the days than a straight line, and hot, still days are worst."""
    line, mixture = (printed.numbers(f"{name} root mean square error")[0, 0] for name in ("least squares", "mixture      "))
    assert mixture < line
    medians = [printed.numbers(f"{day}: median")[0, 0] for day in ("15 mph, 65 °F", "10 mph, 80 °F", "5 mph, 93 °F")]
    assert medians == sorted(medians)


def patches(printed):
    """The sums of rows in files are those of rows in memory."""
    files, memory = printed.numbers("log-likelihood from files")[0]
    assert files == pytest.approx(memory, rel=1e-12)  # 134,196 rows, each rounded alike, added in another order


def pipeline(printed):
    """scikit-learn's path, iteration by iteration, and clusters that nearly are the cultivars."""
    ours, theirs = printed.numbers("iterations: emfuse")[0]
    assert ours == theirs
    assert printed.numbers("largest difference of the means:")[0, 0] < 1e-8  # what the README promises
    assert printed.numbers("adjusted Rand index")[0, 0] > 0.8
    scores = {name: printed.numbers(name)[0] for name in ("full ", "tied ")}
    assert scores["full "][4] < scores["full "][0] and scores["tied "][4] > scores["tied "][0]


def plateau(printed):
    """Acceleration comes to where plain EM comes, much sooner, and scikit-learn's rule stops far from it."""
    plain, emqn, theirs = (printed.numbers(f"{name}:", 1)[0] for name in ("plain EM", "emqn", "scikit-learn"))
    assert 10 * emqn[0] < plain[0]
    assert plain[1] < 1e-4 and emqn[1] < 1e-4  # plain EM stops by an estimate, and crawls
    assert theirs[1] > 1.0


def returns(printed):
    """Each component more has a better BIC, and a tail that is nearer to the three days that lost more than 5%."""
    names = ("one normal", "two", "three")
    bic = [printed.numbers(f"{name}: log-likelihood")[0, 1] for name in names]
    assert bic == sorted(bic, reverse=True)
    tail = [printed.numbers(f"{name:21s}")[0, 3] for name in names]
    assert tail == sorted(tail) and tail[0] < 0.1 and tail[2] < printed.numbers("observed   ")[0, 3]


def rolling(printed):
    """No fit fails, and two components promise about what they keep, where one normal distribution does not."""
    assert re.search(r" fits, 0 failed$", printed, re.MULTILINE)
    expected = printed.numbers("days that should lose more than was said:")[0, 0]
    two, one = (printed.numbers(f"by {name}:")[0, 0] for name in ("two components", "one normal"))
    assert abs(two - expected) < 2.0 * np.sqrt(expected)  # two standard deviations of such a count
    assert one - expected > 5.0 * np.sqrt(expected)


def unseen_digit(printed):
    """Twelve components know better than one what is unusual, and most of that are fours."""
    one, twelve = (printed.numbers(f"{name} BIC")[0, 1] for name in ("one normal  ", "twelve, tied"))
    assert twelve > one
    fours, by_chance = printed.numbers("of the 50 least probable,")[0]
    assert fours > 2 * by_chance


CLAIMS = [
    by_hand,
    collapse,
    colours,
    faithful,
    film,
    galaxies,
    histogram,
    iris,
    known_sd,
    ozone,
    patches,
    pipeline,
    plateau,
    returns,
    rolling,
    unseen_digit,
]


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda claims: claims.__name__)
def test_an_example_shows_what_it_says(claims, tmp_path):
    command = [sys.executable, "-W", "error", "-W", NO_SCREEN, str(EXAMPLES / f"plot_{claims.__name__}.py")]
    settings = os.environ | {"MPLBACKEND": "Agg", "TMPDIR": str(tmp_path), "TMP": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    printed = Printed(done.stdout)
    printed.folder = tmp_path
    claims(printed)


def test_every_example_has_its_claims():
    assert sorted(path.stem.removeprefix("plot_") for path in EXAMPLES.glob("*.py")) == [claims.__name__ for claims in CLAIMS]
