"""Make .venv and install farsearch into it, with nothing but a Python. Called by the Makefile.

    python3 tools/make_venv.py EXTRA [argument of pip install ...]

Parses under any Python that a machine may call python3, to report in one line that it is too old. Works where Python
comes without ensurepip: then pip is taken from any other pip of the machine, or from Debian's packages.
"""

from __future__ import print_function

import glob
import os
import re
import subprocess
import sys
import tempfile

OLDEST = (3, 10)
VENV = ".venv"
VENV_PYTHON = os.path.join(VENV, "bin", "python")
LOG = os.path.join(VENV, "install.log")
CONSTRAINTS = "constraints.txt"


def main(extra, pip_args):
    if sys.version_info < OLDEST:
        sys.exit(too_old())
    # A user's pip settings must not move the install out of the environment.
    os.environ.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    if not quiet([VENV_PYTHON, "-m", "pip", "--version"]):
        make_venv()
    install = [VENV_PYTHON, "-m", "pip", "install", "--constraint", CONSTRAINTS] + pip_args
    # pip itself first: the same version everywhere, one that supports --build-constraint.
    shown(install + ["pip"], "w")
    say("installing farsearch[%s] into %s: a few minutes, whole log in %s" % (extra, VENV, LOG))
    shown(install + ["--build-constraint", CONSTRAINTS, "--editable", ".[%s]" % extra], "a")


def say(line):
    print("farsearch: " + line)
    sys.stdout.flush()


def too_old():
    version = "%d.%d" % sys.version_info[:2]
    needed = "%d.%d" % OLDEST
    for minor in range(14, OLDEST[1] - 1, -1):
        name = "python3.%d" % minor
        if quiet([name, "-c", ""]):
            return "farsearch: %s is Python %s, needed is %s or newer; add PYTHON=%s" % (
                sys.executable,
                version,
                needed,
                name,
            )
    return "farsearch: %s is Python %s, needed is %s or newer; install one and add PYTHON=<its path>" % (
        sys.executable,
        version,
        needed,
    )


def quiet(command, **options):
    """Return whether the command exists and succeeds, without its output."""
    with open(os.devnull, "r+") as null:
        try:
            return subprocess.call(command, stdin=null, stdout=null, stderr=null, **options) == 0
        except OSError:
            return False


def shown(pip_command, log_mode):
    """Run pip with its output in the log, and only its large downloads and its errors on the screen."""
    with open(LOG, log_mode) as log:
        pip = subprocess.Popen(
            pip_command + ["--progress-bar", "off", "--no-color"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        for line in pip.stdout:
            log.write(line)
            download = re.match(r"\s*Downloading (\S+?)-([^-]+)-\S+ \((\d{2,}(?:\.\d+)? MB|\S+ GB)\)", line)
            if download:
                print("  %s %s (%s)" % download.groups())
            elif line.startswith("ERROR"):
                print("  " + line.rstrip())
            elif "WARNING: Retrying" in line:
                print("  the package index does not answer, trying again")
            sys.stdout.flush()
    if pip.wait():
        sys.exit("farsearch: pip could not install (see %s); fix the cause and run make again" % LOG)


def make_venv():
    say("making %s with Python %d.%d.%d" % ((VENV,) + sys.version_info[:3]))
    if subprocess.call([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV]):
        sys.exit("farsearch: %s can't make a virtual environment; add PYTHON=<another one>" % sys.executable)
    if not (quiet([VENV_PYTHON, "-m", "ensurepip"]) or pip_from_another_pip() or pip_from_debian()):
        sys.exit("farsearch: %s has no ensurepip, and no pip was found; install python3-venv" % sys.executable)


def pip_from_another_pip():
    """Use any pip to fetch a newer one into a folder, whatever Python it belongs to."""
    with tempfile.TemporaryDirectory() as folder:
        pips = ([sys.executable, "-m", "pip"], ["pip3"], ["pip"])
        return any(quiet(pip + ["install", "--target", folder, "pip"]) and pip_from(folder) for pip in pips)


def pip_from_debian():
    """Fetch the pip that Debian, which omits ensurepip, packs as a wheel. Needs no root."""
    wheels = "usr/share/python-wheels/pip-*.whl"
    if any(pip_from(wheel) for wheel in glob.glob("/" + wheels)):
        return True
    say("Python has no ensurepip: getting pip from the system's packages")
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "lists", "partial"))
        os.makedirs(os.path.join(folder, "archives", "partial"))
        apt = ["apt-get", "-o", "Dir::State::Lists=%s/lists" % folder, "-o", "Dir::Cache=%s" % folder]
        apt += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
        if not (quiet(apt + ["update"], cwd=folder) and quiet(apt + ["download", "python3-pip-whl"], cwd=folder)):
            return False
        for package in glob.glob(os.path.join(folder, "*.deb")):
            quiet(["dpkg-deb", "--extract", package, folder])
        return any(pip_from(wheel) for wheel in glob.glob(os.path.join(folder, wheels)))


def pip_from(path):
    """Install pip into the environment with the pip in ``path``, a folder or a wheel."""
    command = [VENV_PYTHON, "-m", "pip", "install", "--ignore-installed", "--constraint", CONSTRAINTS, "pip"]
    return quiet(command, env=dict(os.environ, PYTHONPATH=path))


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
