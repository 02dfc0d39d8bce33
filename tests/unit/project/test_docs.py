"""The pages hang together: every link leads somewhere, every page is found from the README, words stand in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[3]
DOCS = sorted((HERE / "docs").glob("*.md"))
PAGES = [HERE / "README.md", HERE / "CONTRIBUTING.md", HERE / "workers/README.md", *DOCS]
FOLDERS = ("oscar_steps", "profiles", "docs", "tests", "demo", "bench", "workers", "requirements")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """The files of ours that a page links to, each with the section, if any."""
    found = re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", page.read_text()))
    ours = [target.partition("#") for target in found if "://" not in target]
    return [((page.parent / path).resolve() if path else page, section) for path, _, section in ours]


def sections(page: Path) -> set[str]:
    """The names by which GitHub and others link to a page's sections."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_section_that_are_there(page: Path) -> None:
    for target, section in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        assert not section or section in sections(target), f"{page.name} links to #{section} of {target.name}"


def test_every_page_is_found_from_the_readme() -> None:
    linked = {target for target, _ in links(HERE / "README.md")}
    assert set(DOCS) <= linked


def test_the_glossary_is_in_the_order_of_the_alphabet_and_has_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z].*?) +\|", (HERE / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    assert len(words) > 30
    assert words == sorted(set(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    ours = [path for folder in FOLDERS for path in (HERE / folder).rglob("*.*")] + list(HERE.glob("*.*"))
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|toml|md|dtd|sh))`", page.read_text()):
        if ("/" in name or name.endswith(".py")) and "NAME" not in name:
            assert any(str(path).endswith(f"/{name}") for path in ours), f"{page.name} names {name}"
