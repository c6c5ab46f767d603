"""Leaves: what is counted, packed by place, for exact counts in any polygon.

Run: before the program's upgrade. The first change of each city then packs what is stored.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # One command at a time, as the driver wants it; a blank line ends each in these files.
    for statement in (_SQL / "0004_leaves.sql").read_text(encoding="utf-8").split(";\n\n"):
        op.execute(text(statement.replace(":", r"\:")))
