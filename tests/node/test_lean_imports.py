"""What a node loads before anybody asks it for anything; in an interpreter of its own each time."""

import subprocess
import sys

START = """
import sys
from kowalski.node.lean_imports import import_structlog
import_structlog()
import kowalski.node.app
"""


def said(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_an_idle_node_loads_nothing_that_draws_or_checks_schemas() -> None:
    unused = {"rich", "pygments", "jsonschema_rs", "segno"}
    assert said(f"{START}print(sorted({unused} & set(sys.modules)))") == "[]"


def test_structlog_by_itself_loads_rich() -> None:
    """When this fails, structlog has mended its ways, and the module can go."""
    assert said("import sys, structlog; print('rich' in sys.modules)") == "True"


def test_rich_can_be_imported_afterwards_and_the_log_tells_of_errors() -> None:
    code = f"{START}from kowalski.node.logs import configure_logging\n"
    code += "import structlog\nconfigure_logging('info', 'pretty', stream=sys.stdout)\n"
    code += "try:\n    1 / 0\nexcept ZeroDivisionError:\n"
    code += "    structlog.get_logger().exception('odd')\n"
    told = said(f"{code}import rich.table\nprint(rich.table.Table)").splitlines()
    assert "odd" in told[0]
    assert any("ZeroDivisionError" in line for line in told)
    assert told[-1] == "<class 'rich.table.Table'>"


def test_what_is_loaded_already_is_left_as_it_is() -> None:
    code = "import sys, rich, structlog as before\nfrom kowalski.node.lean_imports import *\n"
    code += "import_structlog()\nprint(sys.modules['structlog'] is before, 'rich' in sys.modules)"
    assert said(code) == "True True"
