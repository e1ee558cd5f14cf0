"""A real TensorBoard in a process of its own, with the tab, whether the package is installed or not."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import sys
from tensorboard import default, program
from lightning_leep.tensorboard.plugin.tab import TransferPlugin
others = [plugin for plugin in default.get_plugins() if plugin is not TransferPlugin]
board = program.TensorBoard(plugins=[*others, TransferPlugin])
board.configure(argv=["tensorboard", *sys.argv[1:]])
sys.exit(board.main())
"""


@contextmanager
def tensorboard(*arguments: str) -> Iterator[str]:
    """Its address, once it answers."""
    with tempfile.NamedTemporaryFile("w+") as said:
        command = [sys.executable, "-c", PROGRAM, "--port", "0", "--reload_interval", "1", *arguments]
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + 60
            while not (address := re.search(r"http://\S+", Path(said.name).read_text())):
                assert process.poll() is None, Path(said.name).read_text()
                assert time.monotonic() < deadline, "TensorBoard did not start"
                time.sleep(0.1)
            yield address.group().rstrip("/")
        finally:
            process.terminate()
            process.wait(20)
