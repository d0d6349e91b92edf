"""Keys and tokens: who may ask, who may administrate, and what refuses to start."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lodestar.errors import NotAllowedError, SettingsError
from lodestar.serving.authentication import Gate
from lodestar.serving.problems import ProblemError
from lodestar.settings.permissions import check_exposure
from lodestar.settings.serving import Authentication, Serving

KEY = "k" * 40
OTHER = "an-admins-key"
LATER = int(time.time()) + 3600


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def gate(**settings: object) -> Gate:
    return Gate(Authentication.model_validate(settings))


KEYS = {"api_keys": [digest("one"), digest("two")], "admin_keys": [digest(OTHER)]}


def who(
    found: Gate, value: str | bytes, name: bytes = b"authorization", *, admin: bool = False
) -> bool | int:
    """Whether an administrator, or the status of the refusal."""
    given = value if isinstance(value, bytes) else value.encode()
    try:
        return found.admit({name: given}, admin=admin)
    except ProblemError as problem:
        return problem.status


def test_without_authentication_everyone_may_ask_and_nobody_administrate() -> None:
    found = gate()
    assert found.admit({}) is False
    assert who(found, "Bearer x", admin=True) == 403


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        (b"authorization", "Bearer one", False),
        (b"authorization", "bEARER  two ", False),
        (b"authorization", f"Bearer {OTHER}", True),
        (b"x-api-key", "two", False),
        (b"x-api-key", OTHER, True),
        (b"x-api-key", "", 401),
        (b"authorization", "Bearer three", 401),
        (b"authorization", "Basic one", 401),
        (b"authorization", "one", 401),
        (b"authorization", "", 401),
        (b"authorization", b"Bearer \xff\x00", 401),
        (b"authorization", f"Bearer {digest('one')}", 401),
        (b"cookie", "one", 401),
    ],
)
def test_a_key_is_known_or_not(name: bytes, value: str, result: object) -> None:
    found = who(gate(**KEYS), value, name)
    assert (type(found), found) == (type(result), result)


def test_only_administrators_administrate() -> None:
    assert who(gate(**KEYS), "Bearer one", admin=True) == 403
    assert who(gate(**KEYS), f"Bearer {OTHER}", admin=True) is True


def test_a_refusal_says_how_to_ask_and_not_what_was_given() -> None:
    with pytest.raises(ProblemError) as caught:
        gate(**KEYS).admit({b"x-api-key": b"guess-1234"})
    assert (b"www-authenticate", b"Bearer") in caught.value.headers
    assert "guess" not in caught.value.detail


def test_all_keys_are_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared = []
    real = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for key in ("one", "two", OTHER, "nobody"):
        compared.clear()
        who(gate(**KEYS), f"Bearer {key}")
        assert len(compared) == 3


def token(
    claims: dict[str, object] | None = None,
    key: Any = KEY,  # noqa: ANN401 -- text, or any private key
    algorithm: str = "HS256",
) -> str:
    return jwt.encode({"exp": LATER, **(claims or {})}, key, algorithm)


def shared(**more: object) -> Gate:
    return gate(jwt={"key": KEY, **more})


def test_a_token_of_ours_is_let_in_and_its_scope_makes_an_administrator() -> None:
    assert who(shared(), f"Bearer {token()}") is False
    assert who(shared(), f"Bearer {token({'scope': 'read admin'})}") is True
    assert who(shared(), f"Bearer {token({'scope': ['admin']})}") is True
    assert who(shared(), f"Bearer {token({'scope': 'administrator'})}") is False
    assert who(shared(), f"Bearer {token({'scope': 5})}") is False
    assert who(shared(), f"Bearer {token({'scope': {'admin': 1}})}") is False


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "never"},
        {"nbf": LATER},
        {"aud": "others"},
        {"exp": 1e400},
    ],
)
def test_a_token_out_of_its_time_or_for_others_is_refused(claims: dict[str, object]) -> None:
    assert who(shared(), f"Bearer {token(claims)}") == 401


def test_a_token_for_ever_is_refused() -> None:
    forever = jwt.encode({"scope": "admin"}, KEY, "HS256")
    assert who(shared(), f"Bearer {forever}") == 401


def test_audience_and_issuer_are_demanded_where_they_are_configured() -> None:
    strict = shared(audience="shop", issuer="us")
    assert who(strict, f"Bearer {token({'aud': 'shop', 'iss': 'us'})}") is False
    wrong: list[dict[str, object]] = [{"aud": "shop"}, {"iss": "us"}, {"aud": "x", "iss": "us"}, {}]
    for claims in wrong:
        assert who(strict, f"Bearer {token(claims)}") == 401


def test_only_the_configured_algorithms_count() -> None:
    assert who(shared(algorithms=["HS512"]), f"Bearer {token()}") == 401
    assert who(shared(), f"Bearer {token(key=None, algorithm='none')}") == 401


def test_a_public_key_is_no_shared_secret() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = gate(jwt={"key": pem.decode(), "algorithms": ["RS256"]})
    assert who(found, f"Bearer {token(key=private, algorithm='RS256')}") is False
    forged = base64.urlsafe_b64encode(json.dumps({"exp": LATER}).encode()).decode().rstrip("=")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    mac = hashlib.sha256(pem + f"{head}.{forged}".encode()).digest()
    signed = base64.urlsafe_b64encode(mac).decode().rstrip("=")
    assert who(found, f"Bearer {head}.{forged}.{signed}") == 401
    with pytest.raises(SettingsError, match="the key is none for HS256"):
        gate(jwt={"key": pem.decode(), "algorithms": ["RS256", "HS256"]})


def test_elliptic_keys_work_too() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = gate(jwt={"key": pem.decode(), "algorithms": ["EdDSA"]})
    assert who(found, f"Bearer {token(key=private, algorithm='EdDSA')}") is False


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 5_000,
        b'{"alg":' + b"[" * 5_000,
        b'{"alg":{"HS256":1}}',
        b'{"alg":["HS256"]}',
        b'{"alg":null,"crit":7}',
        b'{"alg":"HS256","kid":' + b"9" * 5_000 + b"}",
        b"\xff\xfe",
        b"",
    ],
)
def test_nothing_that_a_stranger_writes_into_a_token_gets_through(head: bytes) -> None:
    part = base64.urlsafe_b64encode(head)
    assert who(shared(), b"Bearer " + part + b".e30.c2ln") == 401
    assert who(shared(), b"Bearer ..") == 401
    assert who(shared(), b"Bearer \xff.\x00.\xff") == 401


def test_keys_and_tokens_live_side_by_side() -> None:
    found = gate(jwt={"key": KEY}, api_keys=[digest("one"), digest("a.b.c")])
    assert who(found, "Bearer one") is False
    assert who(found, f"Bearer {token()}") is False
    assert who(found, "Bearer a.b.c") == 401
    assert who(found, "a.b.c", b"x-api-key") is False


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "short"}, "can be guessed"),
        ({"key": KEY, "algorithms": ["none"]}, "unsigned"),
        ({"key": KEY, "algorithms": ["XS1"]}, "XS1 is not known"),
        ({"key": KEY, "algorithms": ["RS256"]}, "none for RS256"),
    ],
)
def test_tokens_that_could_not_be_trusted_refuse_to_start(
    settings: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        gate(jwt=settings)
    assert settings["key"] not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_the_loopback_needs_no_authentication(host: str) -> None:
    check_exposure(Serving(host=host))


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.4", "example.com", "127.0.0.1.nip.io"],  # noqa: S104 -- refused
)
def test_any_other_address_does(host: str) -> None:
    with pytest.raises(NotAllowedError, match="authentication") as caught:
        check_exposure(Serving(host=host))
    assert "api_keys" in str(caught.value.hint)
    keys = Authentication.model_validate({"api_keys": [digest("one")]})
    check_exposure(Serving(host=host, authentication=keys))
