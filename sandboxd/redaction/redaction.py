"""What is taken out of all that leaves one execution: its streams, its files, the texts about it, and its record.

Counts what it finds in what the program made. Never lets a file go whose name holds a match. Made by `execution`; used
by `supervise`, `span` and `mediation`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from sandboxd.model import Agent, ArgvProgram, CodeProgram, Collected, ExecuteRequest, Outcome, OutputFile
from sandboxd.redaction.document import redacted
from sandboxd.redaction.patterns import Catalogue, Patterns, marker
from sandboxd.redaction.search import covered
from sandboxd.redaction.stream import StreamRedactor

DIGITS = 16  # of a digest, in hex: 64 bits
PIECE_BYTES = 16 * 1024  # of a file at once, so that others get their turn
NAMED = "its name held what is redacted"
GROWN = "no more than output_files_bytes are returned, and its markers make it longer"


class Redaction:
    """With `digest`, which is keyed, each marker that comes on record tells equal values by the start of theirs."""

    def __init__(self, patterns: Patterns, digest: Callable[[bytes], str] | None = None) -> None:
        self._patterns = patterns
        self._digest = digest
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """How many matches of which pattern were in what the program made."""
        return tuple(sorted(self._counts.items()))

    def stream(self) -> StreamRedactor:
        """For one stream of the program's."""
        return StreamRedactor(self._patterns, self._count)

    def text(self, value: str) -> str:
        """The same if nothing is in it. Counts nothing: it is about the program, or says again what is counted."""
        return self._searched(value)[0]

    def document(self, value: bytes) -> bytes:
        """Of canonical JSON."""
        if b"\\" not in value and self._clean(value) and self._clean(value.replace(b'","', b" ")):
            return value  # nothing in it is escaped, so each of its texts stands there as it is, and the words of lists
        return redacted(value, lambda text: ", ".join(self._searched(text)[1]))

    def request(self, request: ExecuteRequest) -> ExecuteRequest:
        """With its texts redacted, to be told of and not to be run."""
        program: ArgvProgram | CodeProgram = request.program
        if isinstance(program, ArgvProgram):
            # As one text: what is shown of it is joined, and a match may begin in one argument and end in the next.
            program = ArgvProgram((self.text(" ".join(program.argv)),))
        else:
            program = CodeProgram(self.text(program.language), self.text(program.source))
        agent = request.agent
        return replace(
            request,
            program=program,
            profile=self.text(request.profile),
            labels=tuple((self.text(name), self.text(value)) for name, value in request.labels),
            agent=Agent(*map(self.text, (agent.name, agent.session_id, agent.tool_name, agent.tool_use_id))),
        )

    def outcome(self, outcome: Outcome) -> Outcome:
        """With its texts redacted and the counts; its files have been collected by `collected`."""
        return replace(
            outcome,
            violations=tuple(replace(one, detail=self.text(one.detail)) for one in outcome.violations),
            message_for_agent=self.text(outcome.message_for_agent),
            redactions=self.counts,
        )

    async def collected(self, collected: Collected, max_bytes: int) -> Collected:
        """`max_bytes` is for all files together."""
        files: list[OutputFile] = []
        skipped = [(self.text(path), self.text(why)) for path, why in collected.skipped]
        room = max_bytes
        limit_reached = collected.limit_reached
        for file in collected.files:
            path, names = self._searched(file.path)
            if names:
                self._counts.update(names)
                skipped.append((path, NAMED))
                continue
            content = await self._content(file.content)
            if len(content) > room:
                skipped.append((path, GROWN))
                limit_reached = True
                continue
            room -= len(content)
            files.append(replace(file, content=content))
        return Collected(tuple(files), tuple(skipped), limit_reached)

    async def _content(self, content: bytes) -> bytes:
        redactor = self.stream()
        pieces = []
        for at in range(0, len(content), PIECE_BYTES):
            pieces.append(redactor.feed(content[at : at + PIECE_BYTES]))
            await asyncio.sleep(0)
        return b"".join((*pieces, redactor.finish()))

    def _searched(self, value: str) -> tuple[str, list[str]]:
        """The text without what is in it, and what that was."""
        data = value.encode("utf-8", "surrogatepass")
        if self._clean(data):
            return value, []
        rest, names = [], []
        at = 0
        for start, end, pattern in covered(data, self._patterns):
            name = pattern.name if self._digest is None else f"{pattern.name}:{self._digest(data[start:end])[:DIGITS]}"
            rest += [data[at:start], marker(name)]
            names.append(name)
            at = end
        return b"".join((*rest, data[at:])).decode("utf-8", "backslashreplace"), sorted(set(names))

    def _clean(self, text: bytes) -> bool:
        """Whether one look can tell that nothing is in it."""
        return self._patterns.any is not None and self._patterns.any.found.search(text, 0, len(text)) is None

    def _count(self, name: str) -> None:
        self._counts[name] += 1


class Redactions:
    """What this node can take out, and what (`requests`) it takes out of the record of every request."""

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        requests: tuple[str, ...] = (),
        digest: Callable[[bytes], str] | None = None,
    ) -> None:
        self.known = catalogue or Catalogue()
        self._requests = requests
        self._digest = digest
        self.of_requests = Redaction(self.known.patterns(requests), digest) if requests else None

    def demanded(self, names: Iterable[str]) -> Redaction:
        """For the output of one execution; names that are not known are left out."""
        return Redaction(self.known.patterns(names))

    def on_record(self, names: Iterable[str]) -> Redaction:
        """For the record of one of which policy has demanded that."""
        return Redaction(self.known.patterns((*names, *self._requests)), self._digest)
