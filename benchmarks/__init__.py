"""Programs that measure; none is a test, and none is in the wheel."""

import os

# An installed package has its bytecode beside it. Where this is set, a checkout has none, and each
# process that a benchmark starts compiles what it imports: 0.9 s more before a node is usable.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
