"""Walk the built site in a real browser, and fail on whatever a reader would stumble over.

    sphinx-build -W --keep-going -b html docs build/docs
    python docs/check_in_browser.py                         # with --shots FOLDER also pictures of some pages

Every page is opened at the width of a desktop and of a phone, on localhost, by Chromium without a window. What fails: a message
of the console that is an error, a script that raises, a request that fails or goes to another host, a link inside the site whose
page or anchor is not there, a page that must be scrolled sideways on a phone.

It needs `pip install playwright` and a Chromium: the one that CHROMIUM names, or the first found on PATH.
"""

import argparse
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from playwright.sync_api import ConsoleMessage, Page, Request, sync_playwright

SITE = Path(__file__).parent.parent / "build" / "docs"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
SHOTS = ("index", "tutorial", "how_to/from_scikit_learn", "explanation/equations", "reference/fit", "gallery/index")
LEFT = "net::ERR_ABORTED"  # by the browser, where the next page is opened while this one still asks for the icon of its tab
LINKS = "Array.from(document.querySelectorAll('a[href]'), a => a.href)"
ANCHORS = "Array.from(document.querySelectorAll('[id], a[name]'), e => e.id || e.name)"
TOO_WIDE = """() => {
    const {clientWidth, scrollWidth} = document.documentElement;
    if (scrollWidth <= clientWidth) return null;
    const wide = Array.from(document.querySelectorAll('main *')).filter(e => e.getBoundingClientRect().right > clientWidth + 1);
    return `${scrollWidth} pixels wide: ` + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 90)).join(' | ');
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on a free port of localhost, and give its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()


def watched(page: Page, home: str, faults: list[str]) -> None:
    """Write down what goes wrong on a page while it is open."""

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"{page.url}: the console says {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((home, "data:", "blob:")):
            faults.append(f"{page.url}: asked for {request.url}")

    def failed(request: Request) -> None:
        if request.failure != LEFT:
            faults.append(f"{page.url}: {request.url} failed: {request.failure}")

    page.on("console", console)
    page.on("pageerror", lambda error: faults.append(f"{page.url}: a script raised {error}"))
    page.on("requestfailed", failed)
    page.on("response", lambda r: faults.append(f"{page.url}: {r.url} gave {r.status}") if r.status >= 400 else None)
    page.on("request", asked)


def check(site: Path, shots: Path | None) -> list[str]:
    """Return what is wrong with the site, a sentence each."""
    faults: list[str] = []
    names = sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_static" not in path.parts)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with served(site) as home, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=[*QUIET, "--no-first-run"])
        anchors: dict[str, set[str]] = {}
        links: dict[str, set[str]] = {}
        for width, size in WIDTHS.items():
            page = browser.new_page(viewport={"width": size[0], "height": size[1]})
            watched(page, home, faults)
            for name in names:
                page.goto(home + name, wait_until="load")
                wide = page.evaluate(TOO_WIDE)
                if wide and width == "phone":
                    faults.append(f"{name}: on a phone {wide}")
                anchors[name], links[name] = set(page.evaluate(ANCHORS)), set(page.evaluate(LINKS))
                if shots is not None and name.removesuffix(".html") in SHOTS:
                    page.screenshot(path=shots / f"{name.removesuffix('.html').replace('/', '-')}-{width}.png")
            page.close()
        browser.close()
    for name, found in links.items():
        for link in sorted(found):
            if not link.startswith(home):
                continue
            target, anchor = urldefrag(urljoin(home + name, link))
            path = unquote(target.removeprefix(home)) or "index.html"
            path += "index.html" * path.endswith("/")
            if path not in anchors and not (site / path).is_file():
                faults.append(f"{name}: links to {path}, which is not there")
            elif anchor and path in anchors and unquote(anchor) not in anchors[path]:
                faults.append(f"{name}: links to {path}#{anchor}, and there is no such anchor")
    print(f"{len(names)} pages, {sum(map(len, links.values()))} links, {len(faults)} faults")
    return faults


def main() -> int:
    """Check the site that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(description="Check the built documentation in a browser.")
    parser.add_argument("site", nargs="?", type=Path, default=SITE)
    parser.add_argument("--shots", type=Path, help="a folder for pictures of some pages")
    asked = parser.parse_args()
    if asked.shots is not None:
        asked.shots.mkdir(parents=True, exist_ok=True)
    faults = check(asked.site, asked.shots)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
