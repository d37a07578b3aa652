"""A page as a test reads it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """What a test asks of a page: its tags, its scripts, its visible text, its exact numbers."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "line", "rect", "wbr"})

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.values: list[float] = []
        self.open: list[str] = []
        self.feed(self.html)
        self.close()
        assert self.open == [], "every tag that is opened is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((found, ""))
        for name in ("data-value", "data-half-width", "data-lower", "data-upper"):
            if found.get(name):
                self.values.append(json.loads(found[name] or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def results(self) -> Any:
        (found,) = [text for attrs, text in self.scripts if attrs.get("id") == "calibtrain-results"]
        return json.loads(found)

    @property
    def plots(self) -> list[dict[str, Any]]:
        return [json.loads(t) for attrs, t in self.scripts if attrs.get("class") == "plot-data"]

    def plots_of(self, anchor: str) -> list[dict[str, Any]]:
        """The plots of one figure."""
        found = re.findall(r'class="plot-data">(.*?)</script>', self.part(anchor), re.DOTALL)
        return [json.loads(text) for text in found]

    def cells(self, anchor: str) -> list[dict[str, str | None]]:
        """Attributes of every cell of a number in a section or figure."""
        texts = re.findall(r'<td class="num(?: apart)?"(.*?)>', self.part(anchor))
        return [dict(re.findall(r'([\w-]+)="([^"]*)"', text)) for text in texts]

    def findings(self) -> str:
        match = re.search(r'id="findings">(.*?)</div>', self.html, re.DOTALL)
        assert match is not None
        return match[1].replace("\u00a0", " ")

    def part(self, anchor: str) -> str:
        """The HTML of the section or figure of that name."""
        match = re.search(rf'<(section|figure) id="{anchor}".*?</\1>', self.html, re.DOTALL)
        assert match is not None, anchor
        return match[0]

    def figures(self) -> list[str]:
        return [a["id"] or "" for tag, a in self.tags if tag == "figure"]
