"""Recordings and their references, as they lie in folders.

    X.wav|flac|mp3|ogg   a recording
    X.rttm, X.uem        who spoke when in it, and which part of it is scored (all, if there is none)
    X.stm, X.json        who said what when; one of the two

RTTM, UEM and STM may hold several recordings, by their file id, and then have any name. JSON is SegLST, or an object
whose `turns` have `speaker`, `start`, `end` and `text`. Only the standard library is needed here.
"""

import json
import os
import re
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".wav", ".flac", ".mp3", ".ogg")

Turn = namedtuple("Turn", "start end speaker")
Stretch = namedtuple("Stretch", "start end")
Utterance = namedtuple("Utterance", "start end speaker words")


class Unusable(Exception):
    """What is wrong with the recordings and references that were given: one line each."""


@dataclass
class Recording:
    """A recording; None where it has no reference of that kind."""

    name: str  # its path below the folder that all recordings share, without the ending
    audio: Path
    turns: list[Turn] | None
    scored: list[Stretch] | None
    utterances: list[Utterance] | None

    @property
    def group(self):
        return self.name.rpartition("/")[0]

    @property
    def file_id(self):
        """In RTTM, UEM and SegLST: without blanks, which RTTM has not, and without what md-eval.pl cuts off or prints
        as a format."""
        return re.sub(r"[^\w/-]", "_", self.name)


def rttm(text, source):
    """Turns by file id."""
    return _by_file(text, source, lambda f: Turn(float(f[3]), _end(f[3], float(f[3]) + float(f[4])), f[7]),
                    only="SPEAKER", id_at=1)


def uem(text, source):
    """Scored stretches by file id."""
    return _by_file(text, source, lambda f: Stretch(float(f[2]), _end(f[2], f[3])))


def stm(text, source):
    """Utterances by file id. A label such as <o,f0,unknown> before the words is optional."""

    def utterance(f):
        words = f[6:] if len(f) > 5 and re.fullmatch("<.*>", f[5]) else f[5:]
        if words[:1] == ["ignore_time_segment_in_scoring"]:
            return None
        return Utterance(float(f[3]), _end(f[3], f[4]), f[2], " ".join(words))

    return _by_file(text, source, utterance)


def seglst(text, source):
    """Utterances, or None if it is JSON about something else."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and "turns" in value:
            return [_utterance(turn, "start", "end", "text") for turn in value["turns"]]
        if isinstance(value, list) and value and all(isinstance(s, dict) and "words" in s for s in value):
            return [_utterance(segment, "start_time", "end_time", "words") for segment in value]
    except (ValueError, KeyError, TypeError) as why:
        raise Unusable(f"{source}: not a reference: {type(why).__name__}: {why}") from None
    return None


def _utterance(value, start, end, words):
    if not isinstance(value[words], str):
        raise TypeError(f"{words!r} is not text")
    return Utterance(float(value[start]), _end(value[start], value[end]), str(value["speaker"]), value[words])


def _end(start, end):
    """`end`, if it can be one. Not a number is not one."""
    if not 0 <= float(start) <= float(end) < float("inf"):
        raise ValueError(f"from {start} to {end} is no stretch of time")
    return round(float(end), 6)


def _by_file(text, source, parse, only=None, id_at=0):
    files = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;") or (only and fields[0] != only):
            continue
        try:
            here = files.setdefault(fields[id_at], [])
            value = parse(fields)
        except (ValueError, IndexError) as why:
            raise Unusable(f"{source}:{number}: not a line of {source.suffix[1:].upper()}: {why}") from None
        if value:
            here.append(value)
    return files


PARSERS = {".rttm": rttm, ".uem": uem, ".stm": stm}


class Folder:
    """The references of one folder, and which of them have found their recording."""

    def __init__(self, path, files):
        self.by_file = {kind: {} for kind in PARSERS}
        self.wanting = set()
        self.json = {}
        self.problems = []
        for name in sorted(files):
            file = path / name
            kind = file.suffix.lower()
            try:
                if kind in PARSERS:
                    self.by_file[kind][file] = PARSERS[kind](file.read_text(), file)
                    self.wanting |= {(file, i) for i in self.by_file[kind][file] or [file.stem]}
                elif kind == ".json" and (utterances := seglst(file.read_text(), file)) is not None:
                    self.json[file.stem] = file, utterances
                    self.wanting.add((file, file.stem))
            except Unusable as why:
                self.problems.append(str(why))
            except UnicodeDecodeError:
                self.problems.append(f"{file}: not UTF-8")

    def take(self, kind, audio):
        """What the references of that kind say about a recording, or None."""
        own = next((f for f in self.by_file[kind] if f.stem == audio.stem), None)
        if own:
            files = self.by_file[kind][own]
            if len(files) > 1 and audio.stem not in files:
                self.problems.append(f"{own}: describes {', '.join(sorted(files))}, and none of them is {audio.stem}")
                return None
            file_id = audio.stem if audio.stem in files else next(iter(files), own.stem)
            self.wanting.discard((own, file_id))
            return files.get(file_id, [])
        holding = [f for f, files in self.by_file[kind].items() if audio.stem in files]
        if len(holding) > 1:
            self.problems.append(f"{audio}: described by {' and by '.join(map(str, holding))}")
        for file in holding:
            self.wanting.discard((file, audio.stem))
        return self.by_file[kind][holding[0]][audio.stem] if holding else None

    def take_words(self, audio):
        from_stm, (file, from_json) = self.take(".stm", audio), self.json.get(audio.stem, (None, None))
        self.wanting.discard((file, audio.stem))
        if from_stm is not None and from_json is not None:
            self.problems.append(f"{audio}: has its words both in STM and in {file.name}")
        return from_json if from_stm is None else from_stm

    def without_recording(self):
        endings = ", ".join(ENDINGS)
        return [f"{file}: describes {i!r}, and beside it there is no recording {i} ({endings})"
                for file, i in sorted(self.wanting)]


def find(paths):
    """The recordings at `paths`, folders looked through to the bottom or recordings, with their references."""
    audio, whole = _audio_below(paths)
    folders = {f: Folder(f, [e.name for e in f.iterdir() if e.is_file()]) for f in {a.parent for a in audio} | whole}
    top = os.path.commonpath([a.parent for a in audio]) if audio else ""
    recordings, problems = {}, []
    for file in audio:
        name, refs = str(file.relative_to(top).with_suffix("")), folders[file.parent]
        new = Recording(name, file, refs.take(".rttm", file), refs.take(".uem", file), refs.take_words(file))
        other = recordings.setdefault(new.file_id, new)
        if other is not new:
            problems.append(f"{other.audio} and {file} cannot be told apart: rename one")
    for path, folder in sorted(folders.items()):
        problems += folder.problems + (folder.without_recording() if path in whole else [])
    if not audio:
        problems.append(f"{', '.join(map(str, paths))}: there is no recording ({', '.join(ENDINGS)})")
    if problems:
        raise Unusable("\n".join(problems))
    return list(recordings.values())


def _audio_below(paths):
    """All recordings, each once and in order, and the folders that were given whole."""
    audio, whole = set(), set()
    for path in (Path(p).resolve() for p in paths):
        if path.is_dir():
            for folder, _, names in os.walk(path):
                whole.add(Path(folder))
                audio |= {Path(folder, n) for n in names if n.lower().endswith(ENDINGS)}
        elif path.suffix.lower() in ENDINGS and path.is_file():
            audio.add(path)
        else:
            raise Unusable(f"{path}: there is no such folder, and no recording ({', '.join(ENDINGS)}) of that name")
    return sorted(audio), whole
