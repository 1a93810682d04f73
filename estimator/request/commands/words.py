"""The commands of a shell script as lists of words, as bash 5.2 splits them (its manual, 3.1 to 3.5); nothing is run.

Plain variables and arrays that the script itself sets are put in where it names them; what only a run knows stays as
it is written (`$NAME`), an expression is `$(...)`. Redirections, comments and here-documents are left out, but for
what `read -d ''` sets a variable to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from estimator.request.commands.pieces import pieces
from estimator.request.commands.variables import ASSIGNMENT, History, Variables

_DECLARING = ("export", "local", "declare", "readonly", "typeset")
# Commands that set variables to what the text does not say.
_SETTING = ("read", "mapfile", "readarray", "getopts", "let", "unset", "eval")
_CHANGING = re.compile(r"\+\+|--|(?<![=<>!])=(?!=)|(?:<<|>>)=")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OPENING = {"if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}"}
_HEADED = ("for", "select", "case")
_CLOSING = frozenset(_OPENING.values())
_BEFORE_A_COMMAND = ("then", "do", "!", "time", "env")
_NEXT_BRANCH = ("else", "elif")


def commands(text: str, where: str, told: Collection[str] = ()) -> list[list[str]]:
    """Words of each command, in front of them what the script exported of `told`.

    Raises UsageError where a quote is left open, or where branches are nested over forty deep.
    """
    found = list(pieces(text, where))
    reader = _Reader(told, History())
    reader.read(found)
    if reader.known.history.counts():
        reader = _Reader(told, reader.known.history)
        reader.read(found)
    return reader.done


def split_assignments(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables set in front of a command, and the command."""
    variables: dict[str, str] = {}
    for index, word in enumerate(words):
        match = ASSIGNMENT.fullmatch(word)
        if match is None:
            return variables, words[index:]
        variables[match[1]] = match[4]
    return variables, []


class _Reader:
    def __init__(self, told: Collection[str], first: History) -> None:
        self.done: list[list[str]] = []
        self.words: list[str] = []  # of the command that is read
        self.parts: list[str] | None = None  # of the word that is read
        self.bracket = False  # a bracket is open in this word
        self.known = Variables(first)
        self.told = told
        self.open_list: str | None = None  # an array whose words are gathered
        self.gathered: list[str] = []
        self.skips = False  # the next word is a redirection's file
        self.header = ""  # `for`, `select` or `case`, whose words are read
        self.names = False  # the next word is a function's name
        self.here: str | None = None  # the here-document of this command
        self.function = ""  # whose body comes next

    def read(self, found: Iterable[tuple[str, str]]) -> None:
        for kind, piece in found:
            if kind == "list":
                self.open_list, self.gathered = piece, []
            elif kind in ("text", "quoted"):
                self._put_in(piece, splits=kind == "text")
            elif kind == "literal" or (kind == "bracket" and self._belongs(piece)):
                self._add(piece)
            elif kind == "here":
                self.here = piece
            elif kind == "function":
                self._add("()")
                self._end_word()
            else:
                self._end_word()
                self.skips = self.skips or (kind == "redirection" and piece[-1:] not in "0123456789-")
                if self.open_list is not None:
                    self._end_list(piece)
                elif kind == "bracket":
                    self._bracket(piece)
                elif kind == "end":
                    self._end_command(piece)

    def _belongs(self, bracket: str) -> bool:
        """Whether a bracket is part of a word; else it begins or ends a subshell, or a pattern of `case`."""
        belongs = self.parts is not None and (bracket == "(" or self.bracket)
        self.bracket = self.bracket or belongs
        return belongs

    def _add(self, text: str) -> None:
        self.parts = self.parts or []
        self.parts.append(text)

    def _put_in(self, piece: str, *, splits: bool) -> None:
        """Text with its variables; outside of quotes a variable's value is split at its blanks."""
        if "$" not in piece:
            self._add(piece)
            return
        words = self.known.words(piece)
        text = self.known.text(piece) if words is None else ""
        if words is None and (not splits or text == piece):
            self._add(text)
            return
        if words is not None or text[:1].isspace():
            self._end_word()
        for index, word in enumerate(text.split() if words is None else words):
            if index:
                self._end_word()
            self._add(word)
        if text[-1:].isspace():
            self._end_word()

    def _end_word(self) -> None:
        if self.parts is not None and self.skips:
            self.skips = False
        elif self.parts is not None and self.open_list is not None:
            self.gathered.append("".join(self.parts))
        elif self.parts is not None:
            word = "".join(self.parts)
            if self.words or self.header or not self._structure(word):
                self.words.append(word)
        self.parts, self.bracket = None, False

    def _end_list(self, piece: str) -> None:
        if piece == ")" and self.open_list is not None:
            self.known.set_list(self.open_list.rstrip("+=("), self.gathered, more="+" in self.open_list)
            self.open_list = None

    def _bracket(self, bracket: str) -> None:
        if bracket == ")" and self.known.inside() == "esac":  # behind a pattern
            self.words, self.header, self.skips = [], "", False
            return
        self._end_command("")
        if bracket == "(":
            self.known.enter(")")
        elif self.known.inside() != "esac":
            self.known.leave(")")

    def _end_command(self, end: str) -> None:
        words, self.words, self.skips = self.words, [], False
        if self.header:
            self._loop(words)
            words, self.header = [], ""
        sets, self.here = self._set(words), None
        option = bool(words) and words[0].startswith("-")
        if words and not sets and not (option and self.known.inside() == "esac"):
            told = [f"{name}={self.known.value(name)}" for name in self.told if name in self.known.exported]
            self.done.append(words if option else told + words)
        if end.startswith(("&&", "||")):
            self.known.enter_list(certain=sets and end.startswith("&&"))
        elif not end.startswith("|"):
            self.known.end_list()
        if ";;" in end and self.known.inside() == "esac":
            self._next_branch("esac")

    def _next_branch(self, kind: str) -> None:
        self.known.leave(kind)
        self.known.enter(kind)

    def _structure(self, word: str) -> bool:
        """Whether the word is no command yet, but `if`, `then`, `{` and the like, which open and close scopes."""
        if self.names:
            self.function, self.names = word.removesuffix("()"), False
        elif word in _OPENING:
            self.known.enter(_OPENING[word], self.function if word == "{" else "")
            self.function = "" if word == "{" else self.function
            self.header = word if word in _HEADED else ""
        elif word in _CLOSING:
            self.known.leave(word)
        elif word in _NEXT_BRANCH:
            self._next_branch("fi")
        elif word == "function":
            self.names = True
        elif word.endswith("()"):
            self.function = word.removesuffix("()")
        else:
            return word in _BEFORE_A_COMMAND
        return True

    def _loop(self, words: list[str]) -> None:
        """A loop's variable is not known."""
        for name in _NAME.findall(words[0]) if words and self.header != "case" else ():
            self.known.set(name, None)

    def _set(self, words: list[str]) -> bool:
        """Whether the command does nothing but set variables; those after it then know them."""
        first = words[0] if words else ""
        if first in _DECLARING:
            self._declare(words)
            return True
        changing = first.startswith("((") and _CHANGING.search(first) is not None
        if first in _SETTING or changing or (first == "printf" and "-v" in words):
            for name in _NAME.findall(" ".join(word for word in words[not changing :] if not word.startswith("-"))):
                self.known.set(name, None)
            if words[-3:-1] == ["-d", ""] and self.here is not None:
                self.known.set(words[-1], self.known.text(self.here))
            return False
        variables, command = split_assignments(words)
        for word in words if not command else ():
            self.known.assign(word)
        if command:
            self.known.call(command[0], variables)
        return not command and bool(words)

    def _declare(self, words: list[str]) -> None:
        for word in words[1:]:
            name = word.partition("=")[0].rstrip("+")
            if words[0] == "export" or "-x" in words:
                self.known.exported.add(name)
            if not self.known.assign(word) and words[0] == "local":
                self.known.set(name, None)
