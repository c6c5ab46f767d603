"""Each square of the ground knows which asset of it comes next: pages of a box in the order of ids.

Run: before the program's upgrade.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # One command at a time, as the driver wants it; a blank line ends each in these files.
    for statement in (_SQL / "0007_next_ids.sql").read_text(encoding="utf-8").split(";\n\n"):
        op.execute(text(statement.replace(":", r"\:")))
