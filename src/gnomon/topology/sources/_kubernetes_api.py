"""Connecting to a Kubernetes API server and listing what it has, with one message for each way to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from gnomon.errors import did_you_mean
from gnomon.topology.sources._errors import TopologySourceError, missing_client

PAGE_SIZE = 500
TIMEOUT_S = (10, 30)
"""To connect, and between two pieces of an answer."""


def connect(kubeconfig: Path | None, context: str | None) -> Any:
    """Return a CoreV1Api for a kubeconfig (by default KUBECONFIG, then ~/.kube/config), or in a pod for its cluster.

    The kubeconfig is only read. Raises TopologySourceError where there is none, or it is not usable.
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
            config.load_kube_config(location, context, configuration, persist_config=False)
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


def list_items(api: Any, method: str, **options: Any) -> list[dict[str, Any]]:
    """Return all objects that a list method of CoreV1Api has, as plain JSON, a page at a time."""
    items: list[dict[str, Any]] = []
    while True:
        page = _page(api, method, {"limit": PAGE_SIZE, **options})
        items += page["items"] or []
        options["_continue"] = page.get("metadata", {}).get("continue")
        if not options["_continue"]:
            return items


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
    except ValueError:
        page = None
    if not isinstance(page, dict) or "items" not in page:
        raise TopologySourceError(f"{server} does not answer like a Kubernetes server. Check the kubeconfig.")
    return page


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
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.reason).split())
