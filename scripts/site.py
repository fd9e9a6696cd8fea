"""What mkdocs.yml needs beside docs/: pages that are files elsewhere, and the page of the C++ headers."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]

# Files that are pages of the site without being in docs/, and their names there.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md",
         "experiments/two_stage/README.md": "two_stage.md", "experiments/extension/README.md": "extension.md", "LICENSE": "LICENSE"}
SOURCES = {page: file for file, page in PAGES.items()}
FIRST_HEADERS = ("ops", "geometry", "score", "select", "gather", "scatter")  # the others by name
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")
DECLARED = re.compile(r"^(?:struct|class|enum class|using|#define|inline constexpr \w+) (\w+)|^\w[^(=]*?\b(\w+)\(", re.MULTILINE)


def on_files(files, config):
    for file, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text()))
    files.append(File.generated(config, "cpp.md", content=headers_page()))
    return files


def on_page_markdown(markdown, page, **_):
    """Links between files of the repository become links between pages."""
    folder = posixpath.dirname(SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    return LINK.sub(lambda link: f"]({target(posixpath.normpath(posixpath.join(folder, link[1])), link[2] or '')})", markdown)


def target(file, anchor):
    """Of a file of the repository, where the site has it."""
    if file in PAGES:
        return PAGES[file] + anchor
    header = re.fullmatch(r"include/lighthouse/(\w+)\.h", file)
    if header:
        return f"cpp.md#{header[1]}h"
    return file.removeprefix("docs/") + anchor


def headers_page():
    names = [path.stem for path in (ROOT / "include" / "lighthouse").glob("*.h")]
    names.sort(key=lambda name: (FIRST_HEADERS.index(name) if name in FIRST_HEADERS else len(FIRST_HEADERS), name))
    parts = ["# C++ API", "The headers in `include/lighthouse/` with their contracts; sections are those of [the algorithm](algorithm.md). "
             "[Development](development.md#from-another-c-project) says how another project finds them."]
    for name in names:
        parts += header_sections(name, (ROOT / "include" / "lighthouse" / f"{name}.h").read_text())
    return "\n\n".join(parts) + "\n"


def header_sections(name, text):
    """The comment that a header begins with, as prose; then its declarations, each with its contract."""
    introduction, _, rest = text.partition("#pragma once\n")
    yield f"## {name}.h"
    yield re.sub(r"^// ?", "", introduction, flags=re.MULTILINE).strip()
    rest = re.sub(r"^(#include .*|namespace .*|}  // namespace.*)\n", "", rest, flags=re.MULTILINE)
    for block in re.split(r"\n\n+(?=\S)", rest.strip()):
        declared = list(dict.fromkeys(filter(None, (name for pair in DECLARED.findall(block) for name in pair))))
        if declared and "///" in block:
            yield "### " + ", ".join(declared)
        yield f"```cpp\n{block}\n```"
