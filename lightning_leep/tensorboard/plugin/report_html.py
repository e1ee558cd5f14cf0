"""The page as one file, which opens from disk: data, style and script are inside it."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"
#: The modules of the page, each after those that it imports from.
MODULES = ("arithmetic.js", "svg.js", "charts.js", "parts.js", "page.js")
START = 'show(document.getElementById("page"), JSON.parse(document.getElementById("data").textContent));\n'


def report_html(data: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    The data, of ``page_data``, are JSON in which `<`, `>` and `&` are escaped, and the page shows them as text only, so
    that a name can never become markup. The content policy admits this script and this style and no request.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # inside JSON they stand in strings only
        text = text.replace(character, f"\\u{ord(character):04x}")
    style, script = (STATIC / "page.css").read_text(encoding="utf-8"), _script() + START
    policy = (
        f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Transfers</title>
<style>{style}</style>
</head>
<body>
<main id="page"></main>
<script type="application/json" id="data">{text}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _script() -> str:
    """All modules as one: without imports, since a page from disk may not load another file."""
    modules = ((STATIC / name).read_text(encoding="utf-8") for name in MODULES)
    return "".join(re.sub(r"^(import [^;]*;\n|export )", "", module, flags=re.MULTILINE) for module in modules)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
