"""An agent process that works through a list of commands and may be killed at any instant.

Arguments: directory of the run directories, file for results, count, directory for the marks of commands.
"""

from __future__ import annotations

import os
import sys

from waagent import Log
from waagent.log import Sinks
from waagent_extensions.commands import Order, Runner


def main() -> None:
    runs, results, count, marks = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    runner = Runner(runs, Log(Sinks()), "boot")
    known = set()
    if os.path.exists(results):
        with open(results) as stream:
            known = {line.split()[0] for line in stream if line.endswith("\n")}
    for number in range(count):
        name = f"command-{number}"
        if name not in known:
            line = f"echo ran >>{marks}/{number}; exit {number % 7}"
            order = Order(name, "A", "1.0", None, "enable", line, marks, 60.0)
            result = runner.run(order, {"PATH": os.environ["PATH"]})
            assert result is not None
            with open(results, "a") as stream:
                stream.write(f"{name} {result.code}\n")
        runner.release(name)


if __name__ == "__main__":
    main()
