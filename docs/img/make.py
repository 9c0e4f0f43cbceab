"""Make the pictures of the README and the guides from a real run on the demo model: `make pictures`. It needs Chromium.

report.png shows the top of the HTML report, terminal.svg the output of two commands, and service.png the web page of
the service after a click on an example. The run takes a few minutes and needs neither a GPU nor the network. The
figures in the pictures are those of the machine that runs it.
"""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Columns of the terminal: as many as the widest table needs.
WIDTH = 124
# Size of the browser window for the report, in pixels. It shows the verdict, the table and the first plots.
WINDOW = (1280, 1500)
# Size of the browser window for the service's page, in pixels. It shows the whole page.
SERVICE_WINDOW = (720, 880)
# Colours in a PNG. The pages have few colours, so a small palette makes a small file and loses little.
COLOURS = 128
BUNDLE = "sentiment-int8"
PREPARED = (
    f"build -m demo --task demo --precision int8 --calib-method auto --max-drop 1 -o {BUNDLE}",
    f"eval {BUNDLE} --backend torch",
    f"eval {BUNDLE} --file model.int8.onnx",
)
SHOWN = (f"eval {BUNDLE}", f"compare {BUNDLE} --max-drop 1")


def main() -> int:
    """Run the commands in a temporary folder, and write the three pictures beside this file."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not browser:
        sys.exit("Chromium is not installed. Install it: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command in PREPARED:
            toolchain(command, folder)
        terminal([(command, toolchain(command, folder)) for command in SHOWN], HERE / "terminal.svg")
        toolchain(f"report {BUNDLE} -o report.html", folder)
        screenshot(browser, folder / "report.html", HERE / "report.png")
        service(browser, folder, HERE / "service.png")
    return 0


def toolchain(command: str, folder: Path) -> str:
    """Run a command of the toolchain in `folder`, and return its stdout.

    The command writes to a pseudo-terminal, so that it prints bold headings as in a real one.
    """
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "toolchain", *command.split(), "-q"]
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=writer)
    os.close(writer)
    chunks = []
    with open(reader, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(65536)
            except OSError:  # Linux reports the end of a terminal as an error
                break
            if not chunk:
                break
            chunks.append(chunk)
    if process.wait():
        sys.exit(f"toolchain {command} ended with exit code {process.returncode}")
    return b"".join(chunks).decode().replace("\r\n", "\n")


def terminal(runs: list[tuple[str, str]], file: Path) -> None:
    """Write an SVG picture of a terminal to `file`. `runs` has pairs of a command and its output."""
    lines = []
    for command, output in runs:
        lines += [f"$ toolchain {command}", *output.rstrip().split("\n"), ""]
    width = max(len(Text.from_ansi(line).plain.rstrip()) for line in lines)
    console = Console(record=True, file=io.StringIO(), width=width + 1, force_terminal=True)
    for line in lines[:-1]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="toolchain")
    # A page that shows the picture must not fetch fonts from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    file.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


def screenshot(browser: str, page: Path, file: Path) -> None:
    """Open the HTML file `page` in the browser, and write the top of it to `file` as PNG."""
    made = page.with_name("page.png")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={made}"]
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    subprocess.run([*command, size, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    _shrink(made, file)


def _shrink(made: Path, file: Path) -> None:
    Image.open(made).convert("RGB").quantize(COLOURS).save(file, optimize=True)


def service(chromium: str, folder: Path, file: Path) -> None:
    """Serve the bundle in `folder`, click the first example of its web page, and write the page to `file` as PNG."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.chromium import browser

    options = ["--name", "sentiment", "--http-port", "0", "--no-grpc", "--drain", "0", "--json", "--log", "off"]
    command = [sys.executable, "-m", "toolchain", "serve", BUNDLE, *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["http"]
            with browser(chromium, folder) as tab:
                width, height = SERVICE_WINDOW
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                tab.call("Emulation.setDeviceMetricsOverride", **size)
                tab.call("Page.navigate", url=url)
                click = "document.querySelector('.example')?.click() || Boolean(document.querySelector('.example'))"
                for condition in (click, "!document.getElementById('answer').hidden"):
                    while not tab.evaluate(condition):
                        time.sleep(0.1)
                made = folder / "service.png"
                tab.screenshot(made)
            _shrink(made, file)
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
