"""The command `lightning-leep` in a process of its own, through a pipe or in a terminal."""

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl


def in_shell(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "", "TERM": "xterm", **options.pop("environment", {})}
    program = options.pop("program", ["-m", "lightning_leep"])
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env=environment,
        check=True,
        **{"capture_output": True, "text": True, **options},
    )


def in_terminal(width: int, *arguments, **options) -> list[str]:
    """The lines that a terminal of so many columns shows."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    in_shell(*arguments, capture_output=False, stdout=theirs, **options)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how Linux says that nothing more will come
        pass
    os.close(ours)
    return shown.decode().splitlines()
