"""What turns the repository's pages into a site: run by mkdocs, see `mkdocs.yml`.

Pages link to each other and to files of the repository by relative paths, as a code host shows them. The site has the
pages of the top level beside those of `docs/`, the README as its start, and every file of the repository that a page
links to; a link to what is not there ends a strict build.
"""

import base64
import json
import pathlib
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOP = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md",
       "SECURITY.md": "SECURITY.md"}  # fmt: skip
"""Pages of the top level, and what the site calls them."""

_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages of the top level, and the files that any page links to."""
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        text, pictures = from_notebook(notebook)
        files.append(File.generated(config, notebook.with_suffix(".md").name, content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, name, content=picture))
    pages = [(path, "docs") for path in sorted((ROOT / "docs").glob("*.md"))]
    for name, called in TOP.items():
        pages.append((ROOT / name, ""))
        files.append(File.generated(config, called, content=from_top((ROOT / name).read_text(encoding="utf-8"))))
    for page, folder in pages:
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            path = (ROOT / folder / link).resolve()
            place = path.relative_to(ROOT).as_posix()
            if path.is_file() and not place.startswith("docs/") and place not in TOP and place not in files.src_uris:
                files.append(File.generated(config, place, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page with links as the site has them; those of the top level were changed before."""
    return _LINK.sub(lambda found: _from_docs(found[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """The page without the second colon by which docstrings say that code follows."""
    return html.replace("Example::</p>", "Example:</p>")


def from_top(text: str) -> str:
    """A page of the top level as one beside those of `docs/`."""
    return _LINK.sub(lambda found: TOP.get(found[1], _from_docs(found[1].removeprefix("docs/"))), text)


def from_notebook(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as the text of a page, with what its cells printed and showed when it was run; its pictures."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            shown = output.get("data", {})
            if "image/png" in shown:
                name = f"{path.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(shown["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            elif "text/html" in shown:
                parts.append("".join(shown["text/html"]))
            else:
                parts.append("```text\n" + "".join(output.get("text", shown.get("text/plain", ""))).rstrip() + "\n```")
    download = f'<a href="{path.name}" download>This page as a notebook</a>'
    return "\n\n".join([*parts, download]), pictures


def _from_docs(link: str) -> str:
    if link.endswith(".ipynb"):
        return str(pathlib.PurePosixPath(link).with_suffix(".md"))
    place = link.removeprefix("../")
    return TOP.get(place, place) if link.startswith("../") else link
