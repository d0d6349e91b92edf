"""Who may ask: API keys, known by their sha256, and signed tokens."""

import hashlib
import hmac
from collections.abc import Callable, Mapping

from lodestar.errors import SettingsError
from lodestar.serving.problems import ProblemError
from lodestar.settings.serving import Authentication, JsonWebTokens

__all__ = ["Gate"]

BEARER = b"bearer "
ADMIN = "admin"
TOKEN_DOTS = 2
HMAC_KEY_BYTES = 32  # RFC 7518, 3.2: not shorter than the hash
WHERE = "config:serving.authentication"


class Gate:
    """Lets a caller in or not, from its headers alone.

    A key is compared with every one that is configured, always all of them, in constant time. Where no
    authentication is configured everyone may ask, and nobody is an administrator.

    Raises:
        SettingsError: the key or the algorithms of signed tokens cannot be used.
    """

    def __init__(self, settings: Authentication) -> None:
        self.required = settings.required
        self._keys = tuple(
            (bytes.fromhex(key.get_secret_value()), is_admin)
            for keys, is_admin in ((settings.api_keys, False), (settings.admin_keys, True))
            for key in keys
        )
        self._token = _token_check(settings.jwt) if settings.jwt else None

    def admit(self, fields: Mapping[bytes, bytes], *, admin: bool = False) -> bool:
        """Whether the caller is an administrator; `admin`: it has to be one.

        Raises:
            ProblemError: 401 or 403.
        """
        if not self.required:
            if admin:
                raise ProblemError(
                    403, "admin-only", "Administration needs authentication to be configured."
                )
            return False
        is_admin = self._who(fields)
        if is_admin is None:
            raise ProblemError(
                401,
                "not-authenticated",
                "Say who you are: Authorization: Bearer KEY, or X-API-Key: KEY.",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        if admin and not is_admin:
            raise ProblemError(403, "admin-only", "This needs an administrator's key.")
        return is_admin

    def _who(self, fields: Mapping[bytes, bytes]) -> bool | None:
        """Whether an administrator; None for nobody we know."""
        given = fields.get(b"x-api-key")
        if given is None:
            header = fields.get(b"authorization", b"")
            if header[: len(BEARER)].lower() != BEARER:
                return None
            given = header[len(BEARER) :].strip()
            if self._token is not None and given.count(b".") == TOKEN_DOTS:
                return self._token(given)
        return self._known(given)

    def _known(self, key: bytes) -> bool | None:
        digest = hashlib.sha256(key).digest()
        known = is_admin = False
        for one, its_admin in self._keys:
            same = hmac.compare_digest(one, digest)
            known |= same
            is_admin |= same and its_admin
        return is_admin if known else None


def _token_check(settings: JsonWebTokens) -> "Callable[[bytes], bool | None]":
    """What verifies a token: signature by the algorithms given and no other, times, audience, issuer."""
    import jwt

    key = settings.key.get_secret_value()
    _check_key(settings, key)
    algorithms = list(settings.algorithms)

    def check(token: bytes) -> bool | None:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                options={"require": ["exp"]},
            )
        except Exception:  # noqa: BLE001 -- an edge: whatever a stranger's token sets off, it is no key
            return None
        scope = claims.get("scope", ())
        words = scope.split() if isinstance(scope, str) else scope
        return isinstance(words, list) and ADMIN in words

    return check


def _check_key(settings: JsonWebTokens, key: str) -> None:
    import jwt
    from jwt.exceptions import InvalidKeyError

    for name in settings.algorithms:
        if name.lower() == "none":
            raise SettingsError.one(
                "unsigned tokens would let anyone ask", where=f"{WHERE}.jwt.algorithms"
            )
        try:
            jwt.get_algorithm_by_name(name).prepare_key(key)
        except NotImplementedError as error:
            raise SettingsError.one(
                f"the algorithm {name} is not known",
                where=f"{WHERE}.jwt.algorithms",
                hint="HS256, RS256, ES256, EdDSA and their longer kin",
            ) from error
        except (InvalidKeyError, ValueError, TypeError):
            raise SettingsError.one(
                f"the key is none for {name}", where=f"{WHERE}.jwt.key", hint=_kind_of_key(name)
            ) from None  # the library's own words may hold parts of the key
        if name.startswith("HS") and len(key) < HMAC_KEY_BYTES:
            raise SettingsError.one(
                f"a shared secret of fewer than {HMAC_KEY_BYTES} bytes can be guessed",
                where=f"{WHERE}.jwt.key",
                hint="make one with: openssl rand -hex 32",
            )


def _kind_of_key(algorithm: str) -> str:
    shared = algorithm.startswith("HS")
    return "HS… takes a shared secret" if shared else f"{algorithm} takes a public key in PEM"
