"""The documentation as a site: every link of it leads somewhere, and both APIs are there in full."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import lighthouse_attention

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """What a page may be linked to by, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {""}, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]


def build(folder, configuration=ROOT / "mkdocs.yml"):
    """Not --quiet, under which mkdocs counts no warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", configuration, "--site-dir", folder]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    result = build(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def broken_links(site):
    pages = {path: Page(path) for path in sorted(site.glob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        for link in page.links:
            file, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", file):
                continue
            target = (path.parent / unquote(file)).resolve() if file else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or target in pages and unquote(anchor) not in pages[target].anchors:
                yield f"{path.name}: {link}"


def test_every_link_leads_somewhere(site):
    assert len(list(site.glob("*.html"))) > len(list((ROOT / "docs").glob("*.md")))
    assert list(broken_links(site)) == []


def test_nothing_is_fetched_from_elsewhere(site):
    text = "".join(path.read_text() for path in site.glob("*.html"))
    assert re.findall(r'(?:src|<link[^>]* href)="(https?:[^"]*)"', text) == []


def test_broken_links_are_found(site, tmp_path):
    (tmp_path / "a.html").write_text('<a id="here"></a><a href="b.html#there">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"><img src="no.svg">')
    assert list(broken_links(tmp_path)) == ["a.html: b.html#there", "b.html: no.svg"]


def test_every_public_name_of_python_has_its_entry(site):
    named = re.findall(r"^::: lighthouse_attention\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted([*lighthouse_attention.__all__, "functional", "operators", "packed"])
    anchors = Page(site / "api.html").anchors
    assert {f"lighthouse_attention.{name}" for name in lighthouse_attention.__all__} <= anchors


def test_every_header_has_its_contracts(site):
    text = re.sub(r"<[^>]*>", "", (site / "cpp.html").read_text())
    for header in (ROOT / "include" / "lighthouse").glob("*.h"):
        assert f"{header.stem}h" in Page(site / "cpp.html").anchors
        for line in re.findall(r"^/// (\w[\w ,]{20,})", header.read_text(), re.MULTILINE):
            assert line in text, f"{header.name}: {line}"


@pytest.mark.parametrize(("text", "problem"), [
    ("[gone](no_such_page.md)", "no_such_page.md"), ("[moved](page.md#no-such-section)", "no-such-section")])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, text, problem):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(f"# Page\n\n{text}\n")
    validation = re.search(r"^validation:.*\n(?:  .*\n)+", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)[0]
    (tmp_path / "mkdocs.yml").write_text("site_name: test\n" + validation)
    result = build(tmp_path / "site", configuration=tmp_path / "mkdocs.yml")
    assert result.returncode != 0 and problem in result.stdout + result.stderr
