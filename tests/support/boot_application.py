#!/usr/bin/python3 -u
"""A boot application for tests on the board: does what its first argument says."""
# ruff: noqa: PTH109, PTH123, PTH207, PTH208, SIM115

import glob
import os
import pwd
import signal
import socket
import sys
import time

FILES = (
    "/dev/watchdog", "/dev/watchdog0", "/dev/dm-0", "/dev/gpiochip0", "/dev/ttyAMA0", "/dev/kmsg",
    "/data/zentri/settings.json", "/data/ssh/host_ed25519", "/sys/fs/cgroup/zentri-app/memory.max",
    "/proc/sys/kernel/core_pattern", "/proc/1/environ", "/proc/1/mem",
)  # fmt: skip
PLACES = (
    "/data/zentri/x", "/data/x", "/data/zentri/apps/x", "/data/zentri/log/app.log", "/run/zentrid/x", "/run/zentri/x",
)  # fmt: skip


def memory():
    print("taking memory")
    taken = []
    while True:
        taken.append(b"x" * 1048576)


def files():
    taken = []
    try:
        while True:
            taken.append(open("/dev/null"))
    except OSError as error:
        print("files", len(taken), error.errno)


def children():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.closerange(0, 3)
            time.sleep(1000)
    print("children")


def bomb():
    count = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(1000)
            count += 1
    except OSError as error:
        print("processes", count, error.errno)


def rights():
    user = pwd.getpwuid(os.getuid())
    print("user", user.pw_name, os.getuid(), os.getgid(), os.getgroups(), os.getcwd())
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    shown = ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")
    print("capabilities", *(status[name].strip() for name in shown))
    print("nice", os.nice(0), "fds", sorted(os.listdir("/proc/self/fd"))[:3])
    print("cgroup", open("/proc/self/cgroup").read().strip())
    open("mine", "w").write("x")
    keys = [path for path in glob.glob("/identity/*key*") if path != "/identity/authorized_keys"]
    for path in [*keys, *glob.glob("/dev/vda*"), *FILES]:
        for mode in ("rb", "r+b"):
            if path.startswith(("/sys", "/proc/sys")) and mode == "rb":
                continue
            try:
                with open(path, mode) as file:
                    file.read(1)
                print("OPENED", path, mode)
            except OSError as error:
                print("refused", path, mode, error.errno)
    for path in PLACES:
        try:
            open(path, "a")
            print("OPENED", path)
        except OSError as error:
            print("refused", path, error.errno)
    try:
        socket.socket(socket.AF_UNIX).connect("/run/zentrid/console.sock")
        print("OPENED the command socket")
    except OSError as error:
        print("refused the command socket", error.errno)
    try:
        os.kill(1, signal.SIGTERM)
        print("KILLED init")
    except OSError as error:
        print("refused to signal init", error.errno)
    print("rights told")


what = sys.argv[1]
print("begin", what, os.getpid())
if what == "crash":
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGSEGV)
elif what != "sleep":
    globals()[what]()
time.sleep(1000)
