"""Connecting to a Kubernetes API server and listing what it has, with one message for each way to fail."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gnomon.errors import did_you_mean
from gnomon.topology.sources._errors import TopologySourceError, missing_client
from gnomon.topology.sources._kubernetes_fields import FieldError, field

T = TypeVar("T")

PAGE_SIZE = 500
MAX_PAGES = 10_000
"""More than any cluster has."""

TIMEOUT_S = (10, 30)
"""To connect, and between two pieces of an answer."""


def connect(kubeconfig: Path | None, context: str | None) -> Any:
    """Return a CoreV1Api for a kubeconfig (by default KUBECONFIG, then ~/.kube/config), or in a pod for its cluster.

    The kubeconfig is only read. Raises TopologySourceError where there is none, it is not usable, or the credential
    helper that it names fails.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise missing_client("kubernetes", "Reading a topology from Kubernetes") from None
    configuration = client.Configuration()
    files = _kubeconfigs(kubeconfig)
    found = [file for file in files if file.is_file()]
    try:
        if found:
            location = os.pathsep.join(map(str, found))
            _check_context(location, context)
            with _root_errors() as failures:
                config.load_kube_config(location, context, configuration, persist_config=False)
            if failures:
                raise TopologySourceError(
                    f"The credential helper (exec) in kubeconfig {location} failed: {' '.join(failures[0].split())}. "
                    "Install it, or log in again with it, as the operator of the cluster says."
                )
        elif kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(configuration)
        else:
            raise TopologySourceError(
                f"No kubeconfig at {', '.join(map(str, files))}. Give one with --kubeconfig, or set KUBECONFIG."
            )
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        where = f"kubeconfig {', '.join(map(str, found))}" if found else "service account of this pod"
        raise TopologySourceError(f"The {where} is not usable: {' '.join(str(error).split())}") from None
    configuration.retries = False  # urllib3 would repeat and log each failure
    return client.CoreV1Api(client.ApiClient(configuration))


@contextmanager
def _root_errors() -> Iterator[list[str]]:
    """Collect what is logged on the root logger, where the client reports a failed credential helper and goes on."""
    found: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        found.append(record.getMessage())
        return False

    root, silent = logging.getLogger(), logging.NullHandler()
    root.addFilter(collect)
    root.addHandler(silent)  # without any, logging would install one that prints
    try:
        yield found
    finally:
        root.removeHandler(silent)
        root.removeFilter(collect)


def list_objects(api: Any, method: str, read: Callable[[Any], T], **options: Any) -> list[T]:
    """Return all objects that a list method of CoreV1Api has, each as `read` makes it of its JSON, a page at a time.

    Raises TopologySourceError for a server that cannot be asked, that answers in another form (`read` raises
    FieldError), or whose list does not end.
    """
    objects: list[T] = []
    places: set[str] = set()
    place = None
    for _ in range(MAX_PAGES):
        page = _page(api, method, {"limit": PAGE_SIZE, "_continue": place, **options})
        try:
            for item in field(page, "items", list, []):
                objects.append(_read(item, len(objects) + 1, read))
            place = field(field(page, "metadata", dict), "continue", str, "")
        except FieldError as error:
            raise _not_kubernetes(api, method, str(error)) from None
        if not place:
            return objects
        if place in places:
            raise _not_kubernetes(api, method, f"after {len(objects)} objects a page follows that was there before")
        places.add(place)
    raise _not_kubernetes(api, method, f"the list goes on after {MAX_PAGES} pages")


def _read(item: Any, number: int, read: Callable[[Any], T]) -> T:
    try:
        return read(item)
    except FieldError as error:
        raise FieldError(f"object {number}: {error}") from None


def _kubeconfigs(kubeconfig: Path | None) -> list[Path]:
    if kubeconfig is not None:
        return [kubeconfig]
    names = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return [Path(name).expanduser() for name in names or ["~/.kube/config"]]


def _check_context(location: str, context: str | None) -> None:
    from kubernetes import config

    if context is None:
        return
    names = [entry["name"] for entry in config.list_kube_config_contexts(location)[0]]
    if context not in names:
        hint = did_you_mean(context, names)
        raise TopologySourceError(f"The kubeconfig {location} has no context '{context}'. {hint}")


def _page(api: Any, method: str, options: dict[str, Any]) -> dict[str, Any]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    server = api.api_client.configuration.host
    try:
        # building the client's models takes fifty times as long as reading the JSON
        answer = getattr(api, method)(**options, _preload_content=False, _request_timeout=TIMEOUT_S)
        page = json.loads(answer.data)
    except ApiException as error:
        raise _explain(error, server, method) from None
    except AttributeError as error:  # the client trips over the missing body of its own TLS error
        if not isinstance(error.__context__, ApiException):
            raise
        raise _explain(error.__context__, server, method) from None
    except HTTPError as error:
        raise TopologySourceError(
            f"The Kubernetes server {server} cannot be reached: {error}. Check the kubeconfig, VPN and proxy."
        ) from None
    except (ValueError, RecursionError):
        raise _not_kubernetes(api, method, "no JSON that can be read") from None
    if not isinstance(page, dict) or "items" not in page:
        raise _not_kubernetes(api, method, "no list of objects")
    return page


def _not_kubernetes(api: Any, method: str, found: str) -> TopologySourceError:
    server = api.api_client.configuration.host
    return TopologySourceError(
        f"{server} does not answer like a Kubernetes server ({method}: {found}). Check the kubeconfig, VPN and proxy."
    )


def _explain(error: Any, server: str, method: str) -> TopologySourceError:
    message = _message(error)
    if error.status == 401:
        return TopologySourceError(f"{server} does not accept your credentials (401: {message}). Log in again.")
    if error.status == 403:
        own = " Or read only your own namespace with --namespace." if method == "list_pod_for_all_namespaces" else ""
        return TopologySourceError(
            f"{server} forbids it (403: {message}). Ask for a role that may list nodes and pods.{own}"
        )
    if error.status == 410:
        return TopologySourceError(f"The list of {server} expired while it was read (410: {message}). Run it again.")
    if error.status == 0:
        return TopologySourceError(f"{server} cannot be trusted: {message}. Check the certificate in the kubeconfig.")
    return TopologySourceError(f"{server} failed ({error.status}: {message}). Try again, or ask its operator.")


def _message(error: Any) -> str:
    """Return the message in the Status object of an answer, or what HTTP says."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError, RecursionError):
        return " ".join(str(error.reason).split())
