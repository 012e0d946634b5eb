"""patches; what devices have beside their slots

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table('patches',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('base_root', sa.String(length=64), nullable=False),
    sa.Column('target_root', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('priority', sa.Integer(), server_default='0', nullable=False),
    sa.Column('queued_at', sa.DateTime(), nullable=False),
    sa.Column('asked_at', sa.DateTime(), nullable=True),
    sa.Column('device_id', sa.Integer(), nullable=True),
    sa.Column('tries', sa.Integer(), server_default='0', nullable=False),
    sa.Column('not_before', sa.DateTime(), nullable=True),
    sa.Column('reason', sa.String(length=200), server_default='', nullable=False),
    sa.Column('ended_at', sa.DateTime(), nullable=True),
    sa.Column('took_ms', sa.Integer(), nullable=True),
    sa.Column('size_bytes', sa.Integer(), nullable=True),
    sa.Column('sha256', sa.String(length=64), nullable=True),
    sa.Column('served_at', sa.DateTime(), nullable=True),
    sa.ForeignKeyConstraint(['device_id'], ['devices.id'], name=op.f('fk_patches_device_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_patches')),
    sa.UniqueConstraint('target_root', 'base_root', name=op.f('uq_patches_target_root_base_root'))
    )
    with op.batch_alter_table('patches', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_patches_device_id'), ['device_id'], unique=False)
        batch_op.create_index('ix_patches_state_priority', ['state', 'priority'], unique=False)

    with op.batch_alter_table('devices', schema=None) as batch_op:
        batch_op.add_column(sa.Column('items', sa.JSON(), nullable=True))


def downgrade() -> None:
    """Go back to the revision before."""
    with op.batch_alter_table('devices', schema=None) as batch_op:
        batch_op.drop_column('items')

    with op.batch_alter_table('patches', schema=None) as batch_op:
        batch_op.drop_index('ix_patches_state_priority')
        batch_op.drop_index(batch_op.f('ix_patches_device_id'))

    op.drop_table('patches')
