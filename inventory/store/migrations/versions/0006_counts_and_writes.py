"""Cities have versions, leaves are smaller, and points have indexes that are quick to write.

Run: before the program's upgrade.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # One command at a time, as the driver wants it; a blank line ends each in these files.
    for statement in (_SQL / "0006_counts_and_writes.sql").read_text(encoding="utf-8").split(";\n\n"):
        op.execute(text(statement.replace(":", r"\:")))
