"""What boto3 raises, as one message each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gnomon.topology.sources._errors import TopologySourceError

T = TypeVar("T")

REFUSED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
_EXPIRED = {"AuthFailure", "ExpiredToken", "RequestExpired", "InvalidClientTokenId", "UnrecognizedClientException"}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException"}


def ask(call: Callable[[], T], action: str) -> T:
    """Return what `call` returns; turn what boto3 raises into one TopologySourceError. `action` is the permission."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except (BotoCoreError, ClientError) as error:
        raise explain(error, action) from None


def explain(error: Exception, action: str) -> TopologySourceError:
    """Return what was refused, and what to do about it."""
    from botocore import exceptions

    if isinstance(error, exceptions.NoRegionError):
        return TopologySourceError("No AWS region is set. Give one, such as us-east-1, or set AWS_REGION.")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.TokenRetrievalError
        | exceptions.SSOError,
    ):
        return TopologySourceError(f"No usable AWS credentials ({error}). Run 'aws configure' or 'aws sso login'.")
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return TopologySourceError(f"EC2 cannot be reached ({error}). Check the region's name and the network.")
    if not isinstance(error, exceptions.ClientError):
        return TopologySourceError(f"boto3 cannot ask EC2: {error}")
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code in REFUSED:
        return TopologySourceError(f"AWS refuses {action} ({message}). Ask for this permission.")
    if code in _EXPIRED:
        return TopologySourceError(f"AWS does not accept the credentials ({message}). Renew them.")
    if code in _THROTTLED:
        return TopologySourceError(f"AWS limits the rate of {action} ({message}). Try again in a minute.")
    return TopologySourceError(f"EC2 answered {code}: {message}")
