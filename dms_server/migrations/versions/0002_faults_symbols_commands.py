"""faults, symbol files, commands to devices

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table('symbol_files',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('owner_id', sa.Integer(), nullable=False),
    sa.Column('build_id', sa.String(length=64), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('size_bytes', sa.Integer(), nullable=False),
    sa.Column('uploaded_at', sa.DateTime(), nullable=False),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_symbol_files_owner_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_symbol_files')),
    sa.UniqueConstraint('owner_id', 'build_id', name=op.f('uq_symbol_files_owner_id_build_id'))
    )
    with op.batch_alter_table('symbol_files', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_symbol_files_sha256'), ['sha256'], unique=False)

    op.create_table('device_commands',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('command_id', sa.String(length=36), nullable=False),
    sa.Column('device_id', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('settings_only', sa.Boolean(), nullable=False),
    sa.Column('requested_by', sa.Integer(), nullable=False),
    sa.Column('requested_at', sa.DateTime(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('answered_at', sa.DateTime(), nullable=True),
    sa.Column('detail', sa.String(length=200), nullable=False),
    sa.ForeignKeyConstraint(['device_id'], ['devices.id'], name=op.f('fk_device_commands_device_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['requested_by'], ['users.id'], name=op.f('fk_device_commands_requested_by')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_device_commands')),
    sa.UniqueConstraint('command_id', name=op.f('uq_device_commands_command_id'))
    )
    with op.batch_alter_table('device_commands', schema=None) as batch_op:
        batch_op.create_index('ix_device_commands_device_id_state', ['device_id', 'state'], unique=False)

    op.create_table('faults',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('device_id', sa.Integer(), nullable=False),
    sa.Column('report_id', sa.String(length=36), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('cause', sa.String(length=64), nullable=False),
    sa.Column('slot', sa.String(length=1), nullable=False),
    sa.Column('version', sa.String(length=20), nullable=False),
    sa.Column('uptime_s', sa.BigInteger(), nullable=False),
    sa.Column('device_time', sa.String(length=40), nullable=False),
    sa.Column('received_at', sa.DateTime(), nullable=False),
    sa.Column('detail', sa.String(length=160), nullable=False),
    sa.Column('frames', sa.JSON(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('backtrace', sa.JSON(), nullable=True),
    sa.Column('backtrace_key', sa.String(length=64), nullable=True),
    sa.ForeignKeyConstraint(['device_id'], ['devices.id'], name=op.f('fk_faults_device_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_faults')),
    sa.UniqueConstraint('device_id', 'report_id', name=op.f('uq_faults_device_id_report_id'))
    )
    with op.batch_alter_table('faults', schema=None) as batch_op:
        batch_op.create_index('ix_faults_device_id_id', ['device_id', 'id'], unique=False)



def downgrade() -> None:
    """Go back to the revision before."""
    with op.batch_alter_table('faults', schema=None) as batch_op:
        batch_op.drop_index('ix_faults_device_id_id')

    op.drop_table('faults')
    with op.batch_alter_table('device_commands', schema=None) as batch_op:
        batch_op.drop_index('ix_device_commands_device_id_state')

    op.drop_table('device_commands')
    with op.batch_alter_table('symbol_files', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_symbol_files_sha256'))

    op.drop_table('symbol_files')
