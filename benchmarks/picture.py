"""The animation of a demo's page as a file: `python benchmarks/picture.py runs/demo docs/results/demo.gif`."""

import base64
import re
import sys
from pathlib import Path


def main(run: Path, out: Path) -> None:
    found = re.search(r'data:image/gif;base64,([^"]+)', (run / "report" / "index.html").read_text(encoding="utf-8"))
    if not found:
        sys.exit(f"{run} has no page with an animation; run `evor demo --out {run}` first.")
    out.write_bytes(base64.b64decode(found[1]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
