# SPDX-License-Identifier: Apache-2.0
"""
English prose that Debian packages ship: one text to count tokens in, another to score. A package
need not be installed; `apt-get download` and `dpkg-deb -x` put it into the work folder.
"""

import html.parser
import pathlib
import subprocess

# Package -> its English pages. All are in Debian main.
TEXTS = {
    "debian-handbook": "usr/share/doc/debian-handbook/html/en-US/*.html",
    "anarchism": "usr/share/doc/anarchism/html/*.html",
    "developers-reference": "usr/share/developers-reference/developers-reference.html",
    "debian-reference-en": "usr/share/debian-reference/ch*.en.html",
    "debian-faq": "usr/share/doc/debian/FAQ/*.en.html",
}

# A shorter paragraph is a heading, a caption or navigation.
PARAGRAPH_CHARS_MIN = 120


class Paragraphs(html.parser.HTMLParser):
    """Collects the text of paragraphs; without an end tag one ends where the next block begins."""

    ENDS = {"p", "pre", "ul", "ol", "dl", "table", "div", "blockquote", "h1", "h2", "h3", "h4"}

    def __init__(self):
        super().__init__()
        self.paragraphs = []
        self.parts = None

    def end(self):
        text = " ".join("".join(self.parts or []).split())
        if len(text) >= PARAGRAPH_CHARS_MIN:
            self.paragraphs.append(text)
        self.parts = None

    def handle_starttag(self, tag, attrs):
        if tag in self.ENDS:
            self.end()
        # DocBook pages made by publican say <div class="para"> for <p>.
        if tag == "p" or tag == "div" and ("class", "para") in attrs:
            self.parts = []

    def handle_endtag(self, tag):
        if tag in self.ENDS:
            self.end()

    def handle_data(self, data):
        if self.parts is not None:
            self.parts.append(data)


def unpack(package, work):
    """The folder that holds the package's files; fetched once."""
    tree = pathlib.Path(work) / "texts" / package
    if tree.is_dir():
        return tree
    debs = tree.parent
    debs.mkdir(parents=True, exist_ok=True)
    # apt reads only indices here; its warning that root's folder is not its own is no fault.
    got = subprocess.run(["apt-get", "download", package], cwd=debs, capture_output=True, text=True)
    if got.returncode:
        raise SystemExit(f"apt-get download {package}: {got.stderr.strip()}")
    deb = max(debs.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    fresh = tree.with_suffix(".tmp")
    subprocess.run(["dpkg-deb", "-x", deb.name, fresh.name], cwd=debs, check=True)
    fresh.rename(tree)
    return tree


def version(package, work):
    """The version in the name of the fetched package."""
    debs = (pathlib.Path(work) / "texts").glob(f"{package}_*.deb")
    return max(debs, key=lambda path: path.stat().st_mtime).name.split("_")[1].replace("%3a", ":")


def read(package, work):
    """The package's prose, paragraphs divided by empty lines, pages in the order of their names."""
    pages = sorted(unpack(package, work).glob(TEXTS[package]))
    seen = {}
    for page in pages:
        parser = Paragraphs()
        parser.feed(page.read_text("utf-8", errors="replace"))
        parser.close()
        # Repeated paragraphs (footers, the same page under two names) would count twice.
        seen.update(dict.fromkeys(parser.paragraphs))
    if not seen:
        raise SystemExit(f"{package}: no prose under {TEXTS[package]}")
    return "\n\n".join(seen)
