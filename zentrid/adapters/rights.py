"""Giving up rights: a process that meets strangers becomes a user that may do nothing."""

from __future__ import annotations

import os
import pwd
import resource


def user_to_become(name: str) -> pwd.struct_passwd | None:
    """Return the user `name`; None if this process is not root and so can become nobody, or if there is no such user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def become(user: pwd.struct_passwd) -> None:
    """Become `user` for good. No process or thread can be started any more. Raises OSError."""
    # What it could start would outlive it, with all that it has open: for the update worker, the partitions being filled.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
