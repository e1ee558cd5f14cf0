"""The arithmetic of the page, under Node."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from lightning_leep.tensorboard.plugin.report_html import STATIC


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run JavaScript")
def test_arithmetic_of_the_page():
    # A URL of data is a module in every version of Node, without a package.json that says so.
    tests = Path(__file__).with_name("arithmetic.test.mjs")
    module = f"data:text/javascript,{quote((STATIC / 'arithmetic.js').read_text(encoding='utf-8'))}"
    result = subprocess.run(
        ["node", "--test", str(tests)], env={**os.environ, "ARITHMETIC": module}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "# fail 0" in result.stdout
