"""SentencePiece's trainer in a process of its own, and how far it is by what it logs.

Training holds Python's lock and hundreds of megabytes. A process of its own gives the memory back,
can be ended at any time, and leaves the program free to say how far the training is.
"""

import io
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import calibtrain
from calibtrain.process.phases import Phase

# -P: files of the folder where the user is are no modules
COMMAND = [sys.executable, "-P", "-m", "calibtrain.data.tokenizers.trainer_process"]
_PRUNED_TO = 0.75  # unigram: share of the pieces that a round keeps
_ABOVE = 1.1  # unigram: rounds end at this multiple of the size that is asked for
_FIXED = 260  # BPE: bytes, newline and special tokens
_TRAINED, _FAILED = b"trained", b"failed"  # first line of the answer
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class TrainerError(Exception):
    """What the trainer said when it failed."""


def train(options: Mapping[str, Any], lines: Iterable[str], size: int) -> bytes:
    """Returns the model that SentencePiece trains on lines, in a process of its own.

    Args:
        options: of `SentencePieceTrainer.train`, besides the lines and the model.
        lines: the text, without newlines.
        size: characters of the text, by which the reading of the lines is counted.

    Raises:
        TrainerError: when the training fails, or its process is killed.
    """
    try:
        process = subprocess.Popen(
            COMMAND,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_paths())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the trainer
        )
    except OSError as error:
        raise TrainerError(f"its process cannot be started: {error.strerror}") from None
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    log: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    found: list[bytes] = []
    readers = [
        threading.Thread(target=_pass_on, args=(stderr, log.put), daemon=True),
        threading.Thread(target=lambda: found.append(stdout.read()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        with suppress(BrokenPipeError):  # it failed, and says why
            _send(stdin, options, lines, size)
        said = _follow(options, log)
        for reader in readers:
            reader.join()
        status = process.wait()
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            stdin.close()
        for reader in readers:
            reader.join()
        stdout.close()
        stderr.close()
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory: lower tokenizer.sample_bytes" if status == -9 else ""
        raise TrainerError(f"its process was killed ({name}){hint}")
    verdict, _, answer = found[0].partition(b"\n")
    if status or verdict not in (_TRAINED, _FAILED):
        raise TrainerError((said or f"its process ended with status {status}").strip())
    if verdict == _TRAINED:
        return answer
    raise TrainerError(answer.decode("utf-8", "replace"))


def _send(pipe: IO[bytes], options: Mapping[str, Any], lines: Iterable[str], size: int) -> None:
    phase = Phase("reading the tokenizer's training text", size, "characters")
    with pipe:
        pipe.write(json.dumps(dict(options)).encode() + b"\n")
        for line in lines:
            pipe.write(line.encode() + b"\n")
            phase.add(len(line) + 1)


def _pass_on(pipe: IO[bytes], put: Callable[[bytes | None], None]) -> None:
    for line in pipe:
        put(line)
    put(None)


def _follow(options: Mapping[str, Any], log: "queue.SimpleQueue[bytes | None]") -> str:
    """Counts what is trained until the log ends; returns its last line."""
    phase = Phase("training the tokenizer", unit="rounds")
    progress = rounds(options["model_type"], options["vocab_size"])
    last = ""
    while True:
        try:
            line = log.get(timeout=0.5)
        except queue.Empty:
            phase.at(phase.done)
            continue
        if line is None:
            return last
        last = line.decode("utf-8", "replace")
        if (counted := progress(last)) is not None:
            phase.total = sum(counted)
            phase.at(counted[0])


def rounds(kind: str, vocab_size: int) -> Callable[[str], tuple[int, int] | None]:
    """Returns a function from a line of the trainer's log to what is done and what is left.

    A unigram model prunes its pieces to three quarters until the vocabulary is reached, with two
    steps of EM each time; the work of a step hardly changes. A BPE counts merges. Lines that say
    neither, as those of another version of SentencePiece may, give None.

    Example:
        >>> step = rounds("unigram", 4_096)
        >>> step("EM sub_iter=1 size=6810 obj=8.4 num_tokens=35"), step("EM sub_iter=0 size=5107 ")
        ((1, 2), (2, 1))
    """
    done, alphabet = 0, 0
    desired = int(vocab_size * _ABOVE)

    def unigram(line: str) -> tuple[int, int] | None:
        nonlocal done
        if not (found := re.search(r"EM sub_iter=(\d) size=(\d+)", line)):
            return None
        done += 1
        size = int(found[2])
        again = 0
        if size > desired:
            again = max(0, math.ceil(math.log(desired / size) / math.log(_PRUNED_TO)) - 1)
        return done, 2 * again + (1 - int(found[1]))

    def bpe(line: str) -> tuple[int, int] | None:
        nonlocal alphabet
        if found := re.search(r"Alphabet size=(\d+)", line):
            alphabet = int(found[1])
        if found := re.search(r"(?:Merged|Added): .*(?:merges|size)=(\d+)", line):
            merges = int(found[1])
            return merges, max(0, vocab_size - _FIXED - alphabet - merges)
        return None

    return unigram if kind == "unigram" else bpe


def _import_paths() -> list[str]:
    """Returns where this process finds its modules, the package itself first."""
    package = Path(calibtrain.__file__).parent.parent
    return list(dict.fromkeys([str(package), *filter(None, sys.path)]))


def main() -> None:
    """Trains on what stands on standard input; writes the model, or the error, to the output."""
    import sentencepiece

    if sys.platform == "linux":  # where the program is killed, nobody ends its trainer
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    options = json.loads(stdin.readline())
    model = io.BytesIO()

    def lines() -> Iterator[str]:
        for line in stdin:
            yield line[:-1].decode()

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(), model_writer=model, minloglevel=0, **options
        )
    except RuntimeError as error:
        stdout.write(_FAILED + b"\n" + str(error).encode())
    else:
        stdout.write(_TRAINED + b"\n" + model.getvalue())
    stdout.flush()


if __name__ == "__main__":
    main()
