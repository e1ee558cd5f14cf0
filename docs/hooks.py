"""What the build of the site needs beside mkdocs: Sphinx roles as Markdown links, and formulas without JavaScript."""

import ast
import html
import re
import textwrap
from itertools import takewhile
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([^`]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
MATH = re.compile(r":math:`([^`]+)`")
MATH_BLOCK = re.compile(r"^( *)\.\. math::\n\n?((?:\1 +\S.*\n?)+)", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
#: Pages that are files at the top of the repository.
FROM_THE_TOP = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def public_names() -> set[str]:
    """Every name in an ``__all__`` of the library."""
    names: set[str] = set()
    for file in Path("lightning_leep").rglob("__init__.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names.update(ast.literal_eval(node.value))
    return names


PUBLIC = public_names()


def as_markdown(docstring: str) -> str:
    """Replace Sphinx roles: public names become links (one that is not on the site fails the build), others code."""

    def link(match: re.Match[str]) -> str:
        short, target = match.groups()
        name = target.rpartition(".")[2]
        text = name if short else target
        return f"[`{text}`][{target}]" if target.startswith("lightning_leep.") and name in PUBLIC else f"`{text}`"

    docstring = EXAMPLE.sub(r"\1Examples:", docstring)  # what griffe takes for code
    docstring = MATH_BLOCK.sub(lambda m: f"{m[1]}$$\n{m[1]}{textwrap.dedent(m[2]).strip()}\n{m[1]}$$\n", docstring)
    return ROLE.sub(link, MATH.sub(r"$\1$", docstring))


def fields_of(cls: Object) -> str:
    """Section of a dataclass's docstring with what the comments ``#:`` beside or above its fields say."""
    lines = Path(str(cls.filepath)).read_text(encoding="utf-8").splitlines()
    entries = []
    for name, member in cls.members.items():
        if member.is_attribute and "property" not in member.labels and member.lineno and member.endlineno:
            above = takewhile(lambda line: line.strip().startswith("#:"), reversed(lines[: member.lineno - 1]))
            _, _, beside = lines[member.endlineno - 1].partition("  #: ")
            said = " ".join([*(line.strip().removeprefix("#:").strip() for line in [*above][::-1]), beside]).strip()
            if said:
                entries.append(f"    {name}: {said.removesuffix('.')}.")
    return "\n".join(["", "", "Attributes:", *entries]) if entries else ""


class SphinxRoles(Extension):
    """Rewrite every docstring when griffe has read it."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring is not None:
            if obj.is_class and "dataclass" in obj.labels:
                obj.docstring.value += fields_of(obj)
            obj.docstring.value = as_markdown(obj.docstring.value)


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Some pages are files at the top of the repository, whose links start there."""
    name = FROM_THE_TOP.get(page.file.src_uri)
    if name is None:
        return markdown
    text = Path(name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](contributing.md)")


def on_page_content(content: str, **kwargs: Any) -> str:
    """Formulas as MathML, which browsers draw without JavaScript."""

    def formula(match: re.Match[str]) -> str:
        source = html.unescape(match[3]).replace(r"\arg", r"\operatorname{arg}")
        drawn = convert(source, display="block" if match[1] == "div" else "inline")
        if "\\" in drawn:
            raise ValueError(f"latex2mathml does not know a command of {source!r}.")
        return drawn

    return FORMULA.sub(formula, content)
