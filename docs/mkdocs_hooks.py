"""Hooks of mkdocs: the README is the first page, and files beside docs/ to which pages link are part of the site."""

from pathlib import Path

from mkdocs.structure.files import File

TOP = Path(__file__).resolve().parents[1]


def on_files(files, config):
    """Add the README as index.md, CONTRIBUTING.md, and the example configurations, schemas and CHANGES as they are."""
    for name, source in (("index.md", "README.md"), ("CONTRIBUTING.md", "CONTRIBUTING.md")):
        files.append(File.generated(config, name, content=_as_first_page((TOP / source).read_text("utf-8"))))
    beside = [TOP / "CHANGES", TOP / "LICENSE", *sorted((TOP / "etc").rglob("*"))]
    for path in beside:
        if path.is_file():
            name = path.relative_to(TOP).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/ lead to the copies."""
    return markdown.replace("](../", "](")


def _as_first_page(text):
    return text.replace("](docs/", "](")
