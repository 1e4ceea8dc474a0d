"""Hold the skipped tests of a run against the list of skips that are known and explained.

Reads the JUnit file that pytest wrote and scripts/known_skips.txt (the form is described there).
Expected failures count as skips: neither has shown that anything works.
"""

import fnmatch
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET


@dataclass(frozen=True, slots=True)
class KnownSkip:
    """A reason, with `*` for the part that differs, and how many tests may give it."""

    count_max: int
    reason: str


def parse_known(text: str) -> tuple[KnownSkip, ...]:
    """Read the list.

    Raises:
        ValueError: a line does not begin with a number, or has no reason.
    """
    known = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        count, _, reason = line.strip().partition(" ")
        if not reason or not count.isdigit():
            raise ValueError(f"not a count and a reason: {line}")
        known.append(KnownSkip(int(count), reason.strip()))
    return tuple(known)


def skip_reasons(junit: Path) -> Counter[str]:
    """Count the tests of each reason; a test that names none counts under ''."""
    root = ET.parse(junit).getroot()
    return Counter(skipped.get("message", "") for skipped in root.iter("skipped"))


def complaints(known: tuple[KnownSkip, ...], reasons: Counter[str]) -> list[str]:
    """Say what is wrong, one line each; the first pattern that fits a reason counts it."""
    counts: Counter[KnownSkip] = Counter()
    found = []
    for reason, count in sorted(reasons.items()):
        fitting = [skip for skip in known if fnmatch.fnmatchcase(reason, skip.reason)]
        if fitting:
            counts[fitting[0]] += count
        else:
            found.append(f"{count} skipped for a reason that is not listed: {reason}")
    found += [
        f"{count} skipped, at most {skip.count_max} listed: {skip.reason}"
        for skip, count in counts.items()
        if count > skip.count_max
    ]
    return found


def main(junit: str, known_skips: str) -> int:
    known = parse_known(Path(known_skips).read_text(encoding="utf-8"))
    reasons = skip_reasons(Path(junit))
    found = complaints(known, reasons)
    for line in found:
        print(f"skips: {line}", file=sys.stderr)
    print(f"skips: {reasons.total()}, {'see above' if found else 'all of them known'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
