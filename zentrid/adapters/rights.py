"""Giving up rights: a process that meets strangers becomes a user that may do nothing."""

from __future__ import annotations

import os
import pwd
import resource
from typing import Final

KEEP_RIGHTS: Final = "ZENTRI_KEEP_RIGHTS"
"""An environment variable for computers that are no devices, such as those that tests run on: missing users are left out."""


def user_to_become(name: str) -> pwd.struct_passwd | None:
    """Return the user `name`; None if this process is not root and so can become nobody.

    Raises OSError if there is no such user: a device whose users are damaged must not meet strangers as root instead.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if os.environ.get(KEEP_RIGHTS):
            return None
        raise OSError(f"there is no user {name}, and nothing is done as root instead; repair /etc/passwd") from None


def become(user: pwd.struct_passwd) -> None:
    """Become `user` for good. No process or thread can be started any more. Raises OSError."""
    # What it could start would outlive it, with all that it has open: for the update worker, the partitions being filled.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
