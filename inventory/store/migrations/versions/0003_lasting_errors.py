"""Lasting errors: how probably an asset is, if an error at all, one that every look of its model repeats (R8).

Run: before the program's upgrade. The first change of each city then folds it from nothing.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("asset_state", "history"):
        op.execute(f"ALTER TABLE urban_inventory.{table} ADD COLUMN lasting REAL DEFAULT 0 NOT NULL")
        op.execute(f"ALTER TABLE urban_inventory.{table} ALTER COLUMN lasting DROP DEFAULT")
    op.execute(
        "COMMENT ON COLUMN urban_inventory.asset_state.lasting IS 'if an error: how probably one that repeats (R8)'"
    )
    # What is stored was folded without it.
    op.execute(
        "UPDATE urban_inventory.survey_class SET folded_at = NULL, folded_campaign = NULL WHERE folded_at IS NOT NULL"
    )
