"""Check that the machine has what the build needs; on Debian as root, install what is missing.

Usage: require.py python|node|browser. Needs nothing but the standard library. Exits 1 with one line that says what
to install when it cannot be installed here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_AT_LEAST = (3, 11)
NODE_AT_LEAST = (20, 19)  # what Vite 8 asks for
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CJK_FONT_PACKAGE = "fonts-noto-cjk"


def fail(english: str, chinese: str) -> None:
    """Print what is missing in both languages (the program's own settings are not installed yet) and end."""
    print(f"{english}\n{chinese}", file=sys.stderr)
    raise SystemExit(1)


def can_apt() -> bool:
    return Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None and os.geteuid() == 0


def apt_install(*packages: str) -> bool:
    """Install Debian packages without questions; True when apt-get ended well."""
    print(f"installing {' '.join(packages)} with apt-get …", file=sys.stderr)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = subprocess.run(["apt-get", "update", "-qq"], env=env, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    return update.returncode == 0 and subprocess.run(command, env=env, stdout=sys.stderr, check=False).returncode == 0


def require_python() -> None:
    if sys.version_info < PYTHON_AT_LEAST:
        found = ".".join(map(str, sys.version_info[:2]))
        fail(
            f"Danlu needs Python 3.11 or newer; this is {found}. Install it, then: make PYTHON=python3.11 …",
            f"丹炉需要 Python 3.11 或更高版本，当前为 {found}。请先安装，然后运行：make PYTHON=python3.11 …",
        )


def node_version() -> tuple[int, int] | None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.(\d+)", printed)
    return (int(match.group(1)), int(match.group(2))) if match else None


def require_node() -> None:
    found = node_version()
    if found is None and can_apt():
        apt_install("nodejs", "npm")
        found = node_version()
    if found is None or found < NODE_AT_LEAST:
        have = "none" if found is None else ".".join(map(str, found))
        least = ".".join(map(str, NODE_AT_LEAST))
        fail(
            f"Building the web page needs Node.js {least} or newer with npm; found {have}. "
            "Install it from nodejs.org or your system's packages, then run the command again.",
            f"构建网页需要 Node.js {least} 或更高版本（含 npm）；当前：{have}。"
            "请从 nodejs.org 或系统软件源安装后重新运行。",
        )


def require_browser() -> None:
    has_font = not can_apt() or Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc").exists()
    if any(shutil.which(name) for name in BROWSERS) and has_font:
        return
    if can_apt() and apt_install("chromium", CJK_FONT_PACKAGE):
        return
    fail(
        "The browser tests need Chromium and a Chinese font. On Debian or Ubuntu: "
        f"apt-get install chromium {CJK_FONT_PACKAGE}",
        f"浏览器测试需要 Chromium 与中文字体。Debian/Ubuntu:apt-get install chromium {CJK_FONT_PACKAGE}",
    )


CHECKS = {"python": require_python, "node": require_node, "browser": require_browser}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        fail("usage: require.py python|node|browser", "用法：require.py python|node|browser")
    CHECKS[sys.argv[1]]()
