#!/usr/bin/env python3
"""Makes docs/run.svg: the progress and the report of a real run, as a terminal shows them.

    cargo build --release && python3 docs/picture.py

Runs the email example against the simulator in a pseudo-terminal, and draws the screen in the middle of the run and at its
end. Needs Python 3.8 on Linux or macOS and no packages.
"""

import fcntl
import html
import os
import pathlib
import pty
import re
import select
import struct
import sys
import tempfile
import termios
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "pointsman"
COLUMNS, ROWS = 108, 40
# Browsers collapse other spaces, whatever `xml:space` says.
NO_BREAK = "\u00a0"
MIDDLE_OF_RUN = 3.0  # seconds
COLORS = {
    31: "#f7768e", 32: "#9ece6a", 33: "#e0af68", 34: "#7aa2f7", 35: "#bb9af7", 36: "#7dcfff",
    91: "#f7768e", 92: "#9ece6a", 93: "#e0af68", 94: "#7aa2f7", 95: "#bb9af7", 96: "#7dcfff",
}


class Screen:
    """The part of a terminal that a progress display needs: lines, colors, cursor moves and erasing."""

    TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b.|([\r\n])|([^\x1b\r\n]+)")

    def __init__(self):
        self.lines = [[]]
        self.row = 0
        self.column = 0
        self.style = ("", False, False)
        self.pending = ""

    def feed(self, text):
        text = self.pending + text
        # An escape sequence may be cut at the end of a read.
        cut = text.rfind("\x1b")
        if cut >= 0 and not re.match(r"\x1b(\[[0-9;?]*[A-Za-z]|[^\[])", text[cut:]):
            text, self.pending = text[:cut], text[cut:]
        else:
            self.pending = ""
        for match in self.TOKEN.finditer(text):
            parameters, command, line_end, plain = match.groups()
            if plain:
                self.put(plain)
            elif line_end == "\r":
                self.column = 0
            elif line_end == "\n":
                self.down(1)
            elif command:
                self.control(parameters, command)

    def put(self, text):
        for character in text:
            if self.column == COLUMNS:
                self.column = 0
                self.down(1)
            line = self.lines[self.row]
            while len(line) <= self.column:
                line.append((" ", ("", False, False)))
            line[self.column] = (character, self.style)
            self.column += 1

    def down(self, rows):
        self.row += rows
        while len(self.lines) <= self.row:
            self.lines.append([])

    def control(self, parameters, command):
        numbers = [int(number) for number in parameters.split(";") if number.isdigit()]
        count = numbers[0] if numbers else 1
        if command == "A":
            self.row = max(0, self.row - count)
        elif command == "B":
            self.down(count)
        elif command == "C":
            self.column += count
        elif command == "D":
            self.column = max(0, self.column - count)
        elif command == "G":
            self.column = count - 1
        elif command == "K":
            whole = numbers and numbers[0] == 2
            self.lines[self.row] = [] if whole else self.lines[self.row][: self.column]
        elif command == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1:]
        elif command == "m":
            self.color(numbers or [0])

    def color(self, numbers):
        color, bold, dim = self.style
        for number in numbers:
            if number == 0:
                color, bold, dim = "", False, False
            elif number == 1:
                bold = True
            elif number == 2:
                dim = True
            elif number == 22:
                bold, dim = False, False
            elif number == 39:
                color = ""
            elif number in COLORS:
                color = COLORS[number]
        self.style = (color, bold, dim)

    def snapshot(self):
        lines = [list(line) for line in self.lines]
        while lines and not "".join(character for character, _ in lines[-1]).strip():
            lines.pop()
        return lines


def record(arguments, directory):
    """Runs the program in a pseudo-terminal. Returns the screen in the middle of the run and at its end."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.chdir(directory)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execv(str(PROGRAM), [str(PROGRAM)] + arguments)
    screen = Screen()
    middle = None
    start = time.monotonic()
    while True:
        if middle is None and time.monotonic() - start > MIDDLE_OF_RUN:
            middle = screen.snapshot()
        readable, _, _ = select.select([terminal], [], [], 0.05)
        if not readable:
            continue
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:
            data = b""
        if not data:
            break
        screen.feed(data.decode("utf-8", "replace"))
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit("the run failed: " + "".join(character for line in screen.lines for character, _ in line))
    return middle, screen.snapshot()


def spans(line):
    """Joins characters of the same style."""
    joined = []
    for character, style in line:
        if joined and joined[-1][1] == style:
            joined[-1][0] += character
        else:
            joined.append([character, style])
    return joined


def draw(command, panels):
    """Draws the panels below the command line."""
    line_height, width_of_character, margin = 18, 8.0, 16
    rows = [[("$ " + command, ("#9ece6a", True, False))], []]
    shown_before = []
    for number, panel in enumerate(panels):
        # A note that stays on the screen is drawn once.
        panel = [line for line in panel if line not in shown_before]
        shown_before += panel
        rows += ([[]] if number else []) + [[tuple(span) for span in spans(line)] for line in panel]
    columns = max(len("".join(text for text, _ in row).rstrip()) for row in rows)
    width = int(columns * width_of_character + 2 * margin)
    height = len(rows) * line_height + 2 * margin
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#1a1b26"/>',
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" fill="#c0caf5" '
        'xml:space="preserve">',
    ]
    for number, row in enumerate(rows):
        y = margin + number * line_height + 13
        column = 0
        for text, (color, bold, dim) in row:
            shown = text.rstrip()
            if shown:
                attributes = f' fill="{color}"' if color else ""
                attributes += ' font-weight="bold"' if bold else ""
                attributes += ' opacity="0.6"' if dim else ""
                x = margin + column * width_of_character
                length = len(shown) * width_of_character
                out.append(f'<text x="{x:g}" y="{y}" textLength="{length:g}"{attributes}>{html.escape(shown).replace(" ", NO_BREAK)}</text>')
            column += len(text)
    return "\n".join(out + ["</g>", "</svg>", ""])


def main():
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} does not exist: run `cargo build --release` first")
    example = ROOT / "examples" / "email"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["run", str(example / "pipeline.toml"), "--items", str(example / "emails.jsonl")]
        arguments += ["--out", "results.jsonl", "--simulate", "--config", str(ROOT / "config.toml")]
        middle, end = record(arguments, folder)
    command = "pointsman run pipeline.toml --items emails.jsonl --out results.jsonl --simulate"
    (ROOT / "docs" / "run.svg").write_text(draw(command, [middle, end]), encoding="utf-8")


if __name__ == "__main__":
    main()
