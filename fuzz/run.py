"""Every target for some seconds each: ``python fuzz/run.py [SECONDS] [TARGET ...]``. Exit code 1 for a finding."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from driver import TARGETS


def main() -> int:
    words = sys.argv[1:]
    seconds = words.pop(0) if words and words[0].isdigit() else "60"
    failed = []
    for name in words or TARGETS:
        program = Path(__file__).with_name(f"fuzz_{name}.py")
        done = subprocess.run([sys.executable, str(program), seconds], capture_output=True, text=True, errors="replace")
        text = done.stdout + done.stderr
        runs = re.findall(r"Done (\d+) runs|: (\d+) executions", text)
        count = next((number for number in (runs[-1] if runs else ()) if number), "?")
        result = "a FINDING" if done.returncode else "no finding"
        sys.stdout.write(f"{name:<12} {count:>10} executions in {seconds} s, {result}\n")
        if done.returncode:
            failed.append(name)
            sys.stdout.write(text[-6000:])
        sys.stdout.flush()
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
