"""The commands of a shell script as lists of words, as bash 5.2 splits them (its manual, 3.1 to 3.5); nothing is run.

Plain variables and arrays that the script itself sets are put in where it names them; what only a run knows stays as
it is written (`$NAME`), an expression is `$(...)`. Redirections, comments and here-documents are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial

from estimator.errors import UsageError

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?[-=]([^{}]*))?\})", re.ASCII)  # ${NAME:-what it is where nobody set it}
_ARRAY = re.compile(r"\$\{(\w+)\[[@*]\]\}", re.ASCII)
_COMMENT = re.compile(r"#[^\n]*")
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_PIECE = re.compile(
    r"""(?P<space>(?:[ \t\r]|\\\r?\n|\\\Z)+) | (?P<redirection>(?:\d|&)?>{1,2}(?:&[\d-]|\|)?|<{1,3}(?=[ \t&]))
    | (?P<end>[\n;&|]+) | (?P<single>'[^']*') | (?P<double>"(?:\\.|[^"\\])*") | (?P<expression>\$\(+[^()]*\)+)
    | (?P<escaped>\\.) | (?P<list>[A-Za-z_]\w*\+?=\() | (?P<bracket>[()])
    | (?P<text>(?:\$\{[^{}\n]*\}|<[^<>\n]*>|\$\w+|\$(?!\()|[^ \t\r\n;&|'"\\$()>])+|\$|>)""",
    re.VERBOSE | re.DOTALL,
)
MAX_VALUE, MAX_WORDS = 10_000, 10_000  # of a variable and of an array: what doubles itself is left as it is written
_DECLARING = ("export", "local", "declare", "readonly")
_BRANCHING = {"if": 1, "case": 1, "fi": -1, "esac": -1}
_BEFORE_A_COMMAND = ("then", "else", "do")


def commands(text: str, where: str) -> list[list[str]]:
    """Words of each command. Raises UsageError where a quote is left open."""
    return _Reader().read(_pieces(text, where))


class _Reader:
    def __init__(self) -> None:
        self.done: list[list[str]] = [[]]
        self.word: str | None = None
        self.known: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.open_list: str | None = None  # an array whose words are gathered
        self.gathered: list[str] = []
        self.skips = False  # the next word is a redirection's file
        self.depth = 0  # of `if` and `case`

    def read(self, pieces: Iterator[tuple[str, str]]) -> list[list[str]]:
        for kind, piece in pieces:
            if kind == "list":
                self.open_list = piece.rstrip("+=(")
                self.gathered = list(self.lists.get(self.open_list, ())) if "+=" in piece else []
            elif kind == "bracket" and self.open_list is not None and piece == ")":
                self._end_word()
                if len(self.gathered) <= MAX_WORDS:
                    self.lists[self.open_list] = self.gathered
                self.open_list = None
            elif kind in ("text", "quoted"):
                self._put_in(piece, splits=kind == "text")
            elif kind == "literal" or (kind == "bracket" and self._belongs(piece)):
                self.word = (self.word or "") + piece
            else:
                self._end_word()
                self.skips = self.skips or (kind == "redirection" and piece[-1:] not in "0123456789-")
                if kind in ("end", "bracket") and self.open_list is None:
                    self._end_command()
        return self.done

    def _belongs(self, bracket: str) -> bool:
        """Whether a bracket is part of a word; else it begins or ends a subshell, or a pattern of `case`."""
        return bool(self.word) and (bracket == "(" or "(" in self.word)

    def _put_in(self, piece: str, *, splits: bool) -> None:
        """Text with its variables; outside of quotes a variable's value is split at its blanks."""
        whole = _ARRAY.fullmatch(piece)
        if whole is not None and whole[1] in self.lists:
            for word in self.lists[whole[1]]:
                self._end_word()
                self.word = word
            return
        text = _VARIABLE.sub(partial(_said, self.known), piece)
        first, *rest = text.split() if splits and text != piece and text.split() else [text]
        self.word = (self.word or "") + first
        for word in rest:
            self._end_word()
            self.word = word

    def _end_word(self) -> None:
        if self.word is not None and self.skips:
            self.skips = False
        elif self.word is not None:
            (self.done[-1] if self.open_list is None else self.gathered).append(self.word)
        self.word = None

    def _end_command(self) -> None:
        words = self.done[-1]
        self.skips = False
        self.depth += _BRANCHING.get(words[0], 0) if words else 0
        while words[:1] and words[0] in _BEFORE_A_COMMAND:
            words = words[1:]
        if words[:1] == ["for"]:
            self.known.pop(words[1] if len(words) > 1 else "", None)
        for name, value in _settings(words).items():
            differs = self.depth > 0 and self.known.get(name, value) != value
            self.known[name] = f"${name}" if differs else value  # one branch says this, another that
        self.done.append([])


def _said(known: Mapping[str, str], variable: re.Match[str]) -> str:
    """What a variable stands for; itself where nobody says so."""
    return known.get(variable[1] or variable[2], variable[0] if variable[3] is None else variable[3].strip("\"'"))


def _settings(words: list[str]) -> dict[str, str]:
    """What a line sets for those after it: nothing where a command stands behind the assignments."""
    variables, rest = split_assignments(words[1:] if words[:1] and words[0] in _DECLARING else words)
    return (
        {}
        if rest
        else {name: value for name, value in variables.items() if "$" not in value and len(value) <= MAX_VALUE}
    )


def split_assignments(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables set in front of a command, and the command."""
    variables = {}
    for index, word in enumerate(words):
        match = ASSIGNMENT.fullmatch(word)
        if match is None or word.startswith("-"):
            return variables, words[index:]
        variables[match[1]] = match[2]
    return variables, []


def _pieces(text: str, where: str) -> Iterator[tuple[str, str]]:
    """ "text", "quoted", "literal" (as it is), "space", "redirection", "list", "bracket" and "end" (of a command)."""
    at, fresh, here = 0, True, ""
    while at < len(text):
        match = _COMMENT.match(text, at) if fresh else None
        if match is None and (opening := _HERE.match(text, at)) is not None:
            here, at, fresh = opening[2], opening.end(), False
            continue
        if match is not None:
            at = match.end()
            continue
        match = _PIECE.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise UsageError(f"a quote of line {line} is left open.", where=where, way_out="close the quote")
        kind, piece = str(match.lastgroup), match[0]
        fresh, at = kind in ("space", "end"), match.end()
        if here and "\n" in piece and kind == "end":
            at, here = _behind(text, match.start() + piece.index("\n"), here), ""
        yield _as_piece(kind, piece)
    yield "end", ""


def _behind(text: str, start: int, here: str) -> int:
    """Where the here-document that begins at `start` is over."""
    closing = re.compile(rf"\n\t*{re.escape(here)}[ \t\r]*(?=\n|\Z)").search(text, start)
    return closing.end() if closing else len(text)


def _as_piece(kind: str, piece: str) -> tuple[str, str]:
    if kind == "double":
        return "quoted", re.sub(r'\\([$`"\\])', r"\1", piece[1:-1].replace("\\\n", ""))
    if kind in ("single", "escaped"):
        return "literal", piece[1:-1] if kind == "single" else piece[1:]
    return ("literal", "$(...)") if kind == "expression" else (kind, piece)
