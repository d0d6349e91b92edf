"""What goes wrong with an object store: understood by each store, worded in one place for all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lodestar.errors import DataError, ExternalError, LodestarError, UnreachableError

__all__ = [
    "MissingObjectError",
    "StoreError",
    "Subject",
    "Trouble",
    "Vocabulary",
    "causes",
    "worded",
]

MOST_WORDS = 300
_SECRET = re.compile(r"(?i)(sig|signature|token|key|password|secret)=[^&\s'\"]+")
_USER = re.compile(r"//[^/@\s]+@")


class Trouble(Enum):
    """What it is, as far as it matters to what is said and done about it."""

    NO_OBJECT = "there is no such object"
    NO_BUCKET = "there is no such bucket"
    CREDENTIALS = "there are no credentials, or they are not accepted"
    REFUSED = "the user may not do it"
    REGION = "the bucket is elsewhere"
    CHANGED = "the version that was asked for is not the present one"
    OVERTAKEN = "another writer was there first"
    UNSURE = "the upload is gone"
    BUSY = "it asks to slow down, or is not well"
    UNREACHABLE = "nobody answers"
    CUT = "the answer is not whole"
    OTHER = "anything else"

    @property
    def passes(self) -> bool:
        """Whether asking again may help."""
        return self in {Trouble.BUSY, Trouble.UNREACHABLE, Trouble.CUT}


class StoreError(Exception):
    """A store's error once it is understood; never leaves the adapters."""

    def __init__(self, trouble: Trouble, said: str) -> None:
        super().__init__(said)
        self.trouble = trouble
        self.said = said


@dataclass(frozen=True)
class Vocabulary:
    """How a store and its library say what is wrong: answered codes, and errors' classes by name.

    Classes are told by name, as drivers move theirs between modules; the first kind that fits counts.
    """

    codes: Mapping[Trouble, frozenset[str]]
    kinds: Mapping[Trouble, frozenset[str]]
    packages: frozenset[str]

    def of_code(self, code: str | None) -> Trouble | None:
        """What a code means; None where there is none, or it is not known."""
        return next((trouble for trouble, codes in self.codes.items() if code in codes), None)

    def of_kind(self, error: BaseException) -> Trouble:
        """What an error without a code is; one that is a bug of ours is raised as it is."""
        kinds = _kinds_in(error)
        for trouble, names in self.kinds.items():
            if kinds & names:
                return trouble
        if not _packages_in(error) & self.packages and not isinstance(error, OSError):
            raise error
        return Trouble.OTHER


class MissingObjectError(DataError):
    """The bucket has no such object."""


@dataclass(frozen=True)
class Subject:
    """What an error is about."""

    store: str
    bucket_is_called: str
    bucket: str
    uri: str
    credentials_hint: str
    attempts: int
    secrets: Sequence[str]


@dataclass(frozen=True)
class _Words:
    kind: type[LodestarError]
    what: str
    hint: str | None


_SEE = "see endpoint_url, region, attempts and timeouts in the config's data section"
_WORDS: Mapping[Trouble, _Words] = {
    Trouble.NO_OBJECT: _Words(MissingObjectError, "there is no object {uri}", "{near}"),
    Trouble.NO_BUCKET: _Words(
        DataError,
        "there is no {called} {bucket!r} in {store}",
        "see {uri} for a misspelling, and the config's data section for account and endpoint",
    ),
    Trouble.CREDENTIALS: _Words(
        ExternalError,
        "{store} has no credentials, or does not accept them: {said}",
        "{credentials}",
    ),
    Trouble.REFUSED: _Words(
        ExternalError,
        "{store} refuses {uri}: {said}",
        "grant the right to whom the credentials are of, or see whether the {called} is the right one",
    ),
    Trouble.REGION: _Words(
        ExternalError,
        "the {called} {bucket!r} is in another region than the one that was asked: {said}",
        "set region in the config's data section to the one of the {called}",
    ),
    Trouble.CHANGED: _Words(
        DataError,
        "{uri} was replaced while it was being read",
        "nothing of it was used; run it again",
    ),
    Trouble.OVERTAKEN: _Words(
        ExternalError,
        "{uri} was written by somebody else meanwhile: {said}",
        "theirs stands there whole, and nothing of this was published; run it again",
    ),
    Trouble.UNSURE: _Words(
        ExternalError,
        "the upload of {uri} is gone: {said}",
        "somebody ended it, or an answer was lost and it is complete: look whether the object is new, "
        "and run it again if it is not",
    ),
    Trouble.BUSY: _Words(
        UnreachableError, "{store} asks to slow down or is not well, asked {times}: {said}", _SEE
    ),
    Trouble.UNREACHABLE: _Words(
        UnreachableError, "{store} does not answer, asked {times}: {said}", _SEE
    ),
    Trouble.CUT: _Words(
        UnreachableError, "{store} broke off in the middle, asked {times}: {said}", _SEE
    ),
    Trouble.OTHER: _Words(ExternalError, "{store} cannot do it for {uri}: {said}", None),
}


def worded(error: StoreError, subject: Subject, *, near: str = "") -> LodestarError:
    """The error as the user meets it; nothing in it is a secret of the config."""
    words = _WORDS[error.trouble]
    values = {
        "store": subject.store,
        "called": subject.bucket_is_called,
        "bucket": subject.bucket,
        "uri": subject.uri,
        "credentials": subject.credentials_hint,
        "times": "once" if subject.attempts == 1 else f"{subject.attempts} times",
        "said": _clean(error.said, subject.secrets),
        "near": near,
    }
    hint = None if words.hint is None else words.hint.format(**values)
    return words.kind(words.what.format(**values), hint=hint)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on; one that was raised again may lead to itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _kinds_in(error: BaseException) -> set[str]:
    """The names of all classes of an error and its causes."""
    return {kind.__name__ for one in causes(error) for kind in type(one).__mro__}


def _packages_in(error: BaseException) -> set[str]:
    """The packages that an error and its causes are of; one of none of the driver's is a bug of ours."""
    return {type(one).__module__.partition(".")[0] for one in causes(error)}


def _clean(said: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        said = said.replace(secret, "***")
    return _USER.sub("//***@", _SECRET.sub(r"\1=***", said))[:MOST_WORDS]
