"""What the program of the npm package starts Python with: is it one that will do? If so, run ws-manager.

    python -I -S -X utf8 launch.py ARGUMENT ...

The version is checked first, so this file is written in what Python 2.7 and the first Python 3 can read too.

Until then nobody is to see what a Python that will not do has to say. So stderr is a socket to the program that has
started us, and the real stdout and stderr are two higher files. A zero byte on that socket means: it will do. From
then on the socket is how we learn that the program has ended, even if it was killed: then we end too.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
STDOUT, STDERR = 90, 91


def main():
    if sys.version_info < (3, 9):
        sys.exit("it is Python %d.%d.%d" % sys.version_info[:3])
    # A worker of `serve --workers` is started by its parent, which has these files already.
    if "--as-worker" not in sys.argv:
        take_over()
    newer = [os.path.join(HERE, "newer")] if sys.version_info >= (3, 10) else []
    # The folder of this file was put first by Python; what is here is not to be imported by name.
    sys.path[0:1] = newer + [os.path.join(HERE, "common")]
    sys.meta_path.append(Extras)
    keep_compiled()
    sys.argv[0] = "ws-manager"
    from ws_manager.__main__ import main as run

    run()


def take_over():
    """Say that this Python will do, and take the real stdout and stderr."""
    import _thread

    if sys.platform == "win32":
        life = 3
    else:
        life = os.dup(2)
        os.dup2(STDOUT, 1)
        os.dup2(STDERR, 2)
        os.close(STDOUT)
        os.close(STDERR)
        # The old one remembers that it could be sought in, and whether it was a terminal.
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    try:
        os.set_inheritable(life, False)
        os.write(life, b"\0")
    except OSError:
        return
    _thread.start_new_thread(end_with, (life, _thread.get_ident()))


def end_with(life, main_thread):
    """Wait until the program that has started us has ended, and end as if we had been asked to."""
    import signal

    if sys.platform != "win32":
        # Signals are for the main thread, which may be waiting in a call that they must interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        while os.read(life, 1):
            pass
    except OSError:
        pass
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        signal.pthread_kill(main_thread, signal.SIGTERM)


class Extras:
    """Finds what is not in the package and may be installed beside it, in the site-packages of this Python."""

    names = ("uvloop", "stripe")

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Return where a module is, or None."""
        if name not in cls.names:
            return None
        from importlib.machinery import PathFinder

        # Last on the path: what the package has is never taken from there.
        sys.path.extend(folder for folder in site_packages() if folder not in sys.path)
        return PathFinder.find_spec(name)


def site_packages():
    """Return where pip installs for this Python: in its virtual environment, or beside its library."""
    environment = os.path.dirname(os.path.dirname(sys.executable or ""))
    if not os.path.exists(os.path.join(environment, "pyvenv.cfg")):
        environment = sys.prefix
    if sys.platform == "win32":
        return [os.path.join(environment, "Lib", "site-packages")]
    version = "python%d.%d" % sys.version_info[:2]
    return [os.path.join(environment, "lib", version, "site-packages")]


def keep_compiled():
    """Have compiled files kept in a folder of the user's; where there can be none, have none written."""
    sys.dont_write_bytecode = True
    try:
        with open(os.path.join(HERE, "build.txt")) as file:
            build = file.read().strip()
        for folder in cache_folders():
            if belongs_to_us(folder):
                sys.pycache_prefix = os.path.join(folder, build)
                sys.dont_write_bytecode = False
                return
    except OSError:
        pass


def cache_folders():
    """Return where compiled files may be kept, the best first."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if base and os.path.isabs(base):
        yield os.path.join(base, "ws-manager")
    import tempfile

    user = "" if sys.platform == "win32" else "-%d" % os.geteuid()
    yield os.path.join(tempfile.gettempdir(), "ws-manager-cache" + user)


def belongs_to_us(folder):
    """Make the folder if need be, and tell whether nobody else can write into it: what is in it will be run."""
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(folder)
    except OSError:
        return False
    if sys.platform == "win32":
        return True
    import stat

    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return ours and os.access(folder, os.W_OK)


if __name__ == "__main__":
    main()
