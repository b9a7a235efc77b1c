"""``python -m waagent``: the same as the command ``waagent``."""

from __future__ import annotations

import sys

from waagent.cli import main

if __name__ == "__main__":
    sys.exit(main())
