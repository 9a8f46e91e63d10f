"""Kubernetes through its real client, against an HTTP server that answers like the API server of four clouds."""

import json
import logging
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import certifi
import pytest
import yaml

from gnomon.topology.graph import Topology, TopologyError, hops
from gnomon.topology.sources import _kubernetes_api, ec2, kubernetes
from gnomon.topology.sources._errors import TopologySourceError
from gnomon.topology.sources._kubernetes_objects import KubernetesPod
from kubernetes_fixtures import TOKEN, api_server, write_kubeconfig


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    """Hide the machine's own kubeconfig, service account and proxy."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.fixture
def cluster(tmp_path):
    """Start a server with a recording; return it and what `read_topology` needs to reach it."""
    with ExitStack() as stack:

        def start(recording):
            server = stack.enter_context(api_server(recording))
            return server, {"kubeconfig": write_kubeconfig(tmp_path / "config", server.url)}

        yield start


def read(reach, *arguments, **options):
    return kubernetes.read_topology(*arguments, **options, **reach)


def fails(error, *words):
    for word in words:
        assert word in str(error.value)


def aws(number):
    return f"ip-10-0-12-{20 + number}.ec2.internal"


def test_aws_a_pytorchjob_on_ten_machines_below_two_spines(cluster):
    _, reach = cluster("kubernetes_aws.json")
    topology = read(reach, "llama-70b")
    assert [node.name for node in topology.job] == [aws(5), aws(0), aws(6), aws(1)]  # the master, then the workers
    assert {node.name for node in topology.nodes} == {aws(number) for number in range(10)}  # not m5, not g5
    assert len(topology.spines) == 2
    assert all(len(node.path) == 3 and node.accelerators == 8 for node in topology.nodes)
    node = topology.by_name
    assert [hops(node[aws(0)], node[aws(other)]) for other in (1, 2, 4, 6)] == [2, 4, 6, 8]
    # 3 runs another pod on two GPUs, 8 is cordoned, 9 is not ready; 2 has a pod of the job that is being deleted
    assert [number for number in range(10) if node[aws(number)].busy] == [2, 3, 8, 9]
    assert topology.source == "Kubernetes (AWS labels; 1 nodes that lack them left out)"
    labels = node[aws(5)].labels
    assert labels["instance_type"] == "p5.48xlarge"
    assert labels["instance_id"].startswith("i-0")
    assert labels["pods"] == "research/llama-70b-master-0"


def test_gke_a_jobset_whose_host_level_is_the_machine_itself(cluster):
    _, reach = cluster("kubernetes_gke.json")
    topology = read(reach, "gemma-workers")
    assert len(topology.nodes) == 8
    assert {len(node.path) for node in topology.nodes} == {2}
    zero, one, two, three = topology.job
    assert [hops(zero, other) for other in (one, two, three)] == [4, 6, 6]  # other sub-block, other block twice
    assert hops(zero, next(node for node in topology.free if node.path == zero.path)) == 2
    assert topology.source == "Kubernetes (GKE labels)"


def test_a_host_that_several_machines_share_stays_a_level(cluster):
    server, reach = cluster("kubernetes_gke.json")
    for item in server.nodes()[:2]:
        item["metadata"]["labels"]["cloud.google.com/gce-topology-host"] = "shared"
    topology = read(reach)
    assert topology.nodes[0].path[-1] == topology.nodes[1].path[-1] == "shared"


def test_aks_knows_the_placement_group_only_and_the_launcher_is_no_rank(cluster):
    _, reach = cluster("kubernetes_aks.json")
    topology = read(reach, "nccl-")
    assert [node.name[-1] for node in topology.job] == ["3", "2", "1", "0"]
    assert {node.path for node in topology.nodes} == {("ppg-a",), ("ppg-b",)}
    assert "only the proximity placement group is known" in topology.source


def test_kueue_levels_with_racks_that_are_numbered_in_each_block(cluster):
    _, reach = cluster("kubernetes_kueue.json")
    topology = read(reach, "serve-0")
    assert topology.by_name["b1-r2-n1"].path == ("b1", "b1/r2")
    assert [node.name for node in topology.job] == ["b1-r1-n1", "b2-r1-n1"]  # two pods of the job on each
    assert topology.by_name["b1-r1-n1"].accelerators == 8
    assert topology.by_name["b1-r1-n1"].labels["pods"] == "inference/serve-0, inference/serve-0-1"
    assert len(topology.free) == 6
    assert topology.source == "Kubernetes (Kueue labels)"


def test_levels_are_read_in_the_order_in_which_they_are_named(cluster):
    _, reach = cluster("kubernetes_kueue.json")
    levels = ["example.com/hall", "cloud.provider.com/topology-block", "kubernetes.io/hostname"]
    topology = read(reach, levels=levels)
    assert {node.path for node in topology.nodes} == {("north", "b1"), ("north", "b2")}
    assert topology.source == f"Kubernetes ({', '.join(levels)} labels)"
    with pytest.raises(TopologySourceError) as error:
        read(reach, levels=["cloud.provider.com/topology-blok"])
    fails(error, "No node has the label", "Did you mean 'cloud.provider.com/topology-block'?")


@pytest.mark.parametrize(
    ("labels", "path", "family"),
    [
        ({"fabric.topograph.run/tier-0": "leaf", "fabric.topograph.run/tier-2": "core"}, ("core", "leaf"), "Topograph"),
        (
            {
                "network.topology.nvidia.com/core": "c",
                "network.topology.nvidia.com/spine": "s",
                "network.topology.nvidia.com/leaf": "l",
            },
            ("c", "s", "l"),
            "Topograph",
        ),
        ({f"topology.k8s.aws/network-node-layer-{n}": f"nn-{n}" for n in (4, 2, 3, 1)}, None, "AWS"),
        (
            {
                "oci.oraclecloud.com/rdma.local_block_id": "l",
                "oci.oraclecloud.com/rdma.hpc_island_id": "i",
                "oci.oraclecloud.com/rdma.network_block_id": "n",
            },
            ("i", "n", "l"),
            "OCI",
        ),
        (
            {"ib.coreweave.cloud/leafgroup": "1", "ib.coreweave.cloud/superpod": "1", "ib.coreweave.cloud/fabric": "f"},
            ("f", "f/1", "f/1/1"),
            "CoreWeave",
        ),
        (
            {
                "topology.nebius.com/tier-1": "t1",
                "topology.nebius.com/tier-2": "t2",
                "topology.nebius.com/gpu-cluster-id": "g",
            },
            ("g", "t2", "t1"),
            "Nebius",
        ),
        ({"crusoe.ai/pod.id": "p", "crusoe.ai/ib.partition.id": "i"}, ("i", "p"), "Crusoe"),
    ],
)
def test_the_labels_of_each_vendor_from_the_farthest_to_the_nearest(cluster, labels, path, family):
    server, reach = cluster("kubernetes_kueue.json")
    for item in server.nodes():
        kept = {key: value for key, value in item["metadata"]["labels"].items() if "provider" not in key}
        item["metadata"]["labels"] = {**kept, **labels}
    topology = read(reach)
    assert {node.path for node in topology.nodes} == {path or ("nn-1", "nn-2", "nn-3", "nn-4")}
    assert topology.source == f"Kubernetes ({family} labels)"


def without_network_labels(server):
    for item in server.nodes():
        labels = item["metadata"]["labels"]
        item["metadata"]["labels"] = {key: value for key, value in labels.items() if "network-node" not in key}


def test_zone_and_region_stand_in_and_the_source_says_so(cluster):
    server, reach = cluster("kubernetes_aws.json")
    without_network_labels(server)
    topology = read(reach)
    assert {node.path for node in topology.nodes} == {("us-east-1", "us-east-1a")}
    assert "location labels; only region and zone are known, no switch" in topology.source


def test_a_cluster_that_says_nothing_about_places_is_an_error(cluster):
    server, reach = cluster("kubernetes_kueue.json")
    for item in server.nodes():
        item["metadata"]["labels"] = {"kubernetes.io/hostname": item["metadata"]["name"]}
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, "No node has a label that says where it is", "kubernetes.io/hostname")


def test_a_node_of_the_job_without_labels_is_an_error(cluster):
    server, reach = cluster("kubernetes_aws.json")
    labels = server.nodes()[5]["metadata"]["labels"]
    del labels["topology.k8s.aws/network-node-layer-1"]
    with pytest.raises(TopologyError) as error:
        read(reach, "llama-70b")
    fails(error, aws(5), "lacks what places the others", "AWS labels")


def test_ec2_is_asked_about_instances_without_labels(cluster, monkeypatch):
    server, reach = cluster("kubernetes_aws.json")
    without_network_labels(server)
    del server.nodes()[0]["spec"]["providerID"]  # its storage annotation has the id too
    calls = []

    def fake_instance_paths(instance_ids, region):
        calls.append((region, len(instance_ids)))
        return {name: ["spine", f"leaf-{name[-1]}"] for name in instance_ids if name != "i-0aaaabbbbccccddde"}

    monkeypatch.setattr(ec2, "instance_paths", fake_instance_paths)
    topology = read(reach, "llama-70b", ec2=True)
    assert calls == [("us-east-1", 11)]  # ten p5, and the g5 that EC2 has no network nodes for
    assert len(topology.nodes) == 10
    assert all(node.path == ("spine", f"leaf-{node.labels['instance_id'][-1]}") for node in topology.nodes)
    assert topology.source == "Kubernetes (network nodes of EC2; 1 nodes that lack them left out)"
    monkeypatch.setattr(ec2, "instance_paths", lambda *_: {})
    with pytest.raises(TopologySourceError, match="EC2 knows no network nodes"):
        read(reach, ec2=True)


def test_ec2_is_not_asked_where_labels_tell_and_cannot_be_asked_about_other_clouds(cluster, monkeypatch):
    monkeypatch.setattr(ec2, "instance_paths", None)
    _, reach = cluster("kubernetes_aws.json")
    assert "AWS labels" in read(reach, ec2=True).source
    server, reach = cluster("kubernetes_gke.json")
    for item in server.nodes():
        labels = item["metadata"]["labels"]
        item["metadata"]["labels"] = {key: value for key, value in labels.items() if "gce-topology" not in key}
    with pytest.raises(TopologySourceError, match="no node has an EC2 instance id"):
        read(reach, ec2=True)


def test_lists_come_in_pages(cluster, monkeypatch):
    server, reach = cluster("kubernetes_aws.json")
    whole = read(reach, "llama-70b")
    monkeypatch.setattr(_kubernetes_api, "PAGE_SIZE", 5)
    server.requests.clear()
    assert read(reach, "llama-70b") == whole
    nodes = [request for request in server.requests if request.startswith("/api/v1/nodes")]
    pods = [request for request in server.requests if request.startswith("/api/v1/pods")]
    assert (len(nodes), len(pods)) == (3, 4)  # 12 nodes, and 16 pods that are not over
    assert "continue=5" in nodes[1]


def test_one_namespace_only(cluster):
    server, reach = cluster("kubernetes_aws.json")
    topology = read(reach, "llama-70b", "research")
    assert len(topology.job) == 4
    assert not topology.by_name[aws(3)].busy  # its pod is in another namespace
    assert "of other pods only those in namespace research are seen" in topology.source
    assert any(request.startswith("/api/v1/namespaces/research/pods?") for request in server.requests)
    assert not any(request.startswith("/api/v1/pods") for request in server.requests)


def test_without_a_job_every_pod_on_accelerators_is_busy(cluster):
    _, reach = cluster("kubernetes_aws.json")
    topology = read(reach)
    assert topology.job == ()
    assert [node.name for node in topology.free] == sorted(aws(number) for number in (4, 7))


@pytest.mark.parametrize(
    ("kind", "container"),
    [
        ("containers", {"resources": {"requests": {"aws.amazon.com/neuroncore": "32"}}}),
        ("containers", {"resources": {"limits": {"aws.amazon.com/neurondevice": "4"}}}),
        ("containers", {"resources": {"limits": {"nvidia.com/mig-1g.10gb": "2"}}}),
        ("containers", {"resources": {"limits": {"nvidia.com/gpu.shared": "1"}}}),
        ("initContainers", {"restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": "8"}}}),
        ("initContainers", {"resources": {"limits": {"nvidia.com/gpu": "8"}}}),
    ],
)
def test_parts_of_accelerators_and_init_containers_keep_a_node_from_others(cluster, kind, container):
    server, reach = cluster("kubernetes_aws.json")
    assert not read(reach).by_name[aws(4)].busy
    other = next(item for item in server.pods() if item["metadata"]["name"].startswith("coredns"))
    other["spec"]["nodeName"] = aws(4)
    other["spec"].setdefault(kind, []).append({"name": "more", **container})
    topology = read(reach)
    assert topology.by_name[aws(4)].busy
    assert topology.by_name[aws(4)].accelerators == 8


def test_a_request_for_no_part_of_an_accelerator_takes_nothing(cluster):
    server, reach = cluster("kubernetes_aws.json")
    other = next(item for item in server.pods() if item["metadata"]["name"].startswith("coredns"))
    other["spec"]["nodeName"] = aws(4)
    other["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/mig-1g.10gb": 0, "nvidia.com/gpu": "0"}}
    assert not read(reach).by_name[aws(4)].busy


def test_sidecars_are_reserved_beside_the_containers_and_other_init_containers_before_them():
    def asks(count, **more):
        return {**more, "resources": {"limits": {"nvidia.com/gpu": str(count)}}}

    spec = {"initContainers": [asks(1, restartPolicy="Always"), asks(6)], "containers": [asks(2), asks(2)]}
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": spec}
    assert KubernetesPod.from_api(pod).accelerators == 7
    spec["initContainers"].pop()
    assert KubernetesPod.from_api(pod).accelerators == 5


def test_a_job_on_machines_without_accelerators_is_kept(cluster):
    server, reach = cluster("kubernetes_kueue.json")
    server.nodes()[-1]["metadata"]["labels"]["cloud.provider.com/topology-block"] = "b1"
    topology = read(reach, "cpu-sim")
    assert [(node.name, node.accelerators, node.path) for node in topology.job] == [("control-plane-1", None, ("b1",))]
    assert len(topology.nodes) == 9


@pytest.mark.parametrize(
    ("mark", "where"),
    [
        ("batch.kubernetes.io/job-completion-index", "labels"),
        ("batch.kubernetes.io/job-completion-index", "annotations"),
        ("training.kubeflow.org/replica-index", "labels"),
        ("leaderworkerset.sigs.k8s.io/worker-index", "labels"),
        ("apps.kubernetes.io/pod-index", "labels"),
    ],
)
def test_each_mark_of_a_rank_comes_before_the_number_in_the_name(cluster, mark, where):
    server, reach = cluster("kubernetes_aks.json")
    for item in server.pods()[1:]:
        number = int(item["metadata"]["name"][-1])
        item["metadata"]["labels"] = {}
        item["metadata"][where] = {mark: str((number + 1) % 4)}
    assert [node.name[-1] for node in read(reach, "nccl-worker").job] == ["0", "3", "2", "1"]


def test_the_first_mark_wins_and_the_name_comes_last(cluster):
    server, reach = cluster("kubernetes_aks.json")
    for item in server.pods()[1:]:
        number = int(item["metadata"]["name"][-1])
        item["metadata"]["labels"] = {
            "apps.kubernetes.io/pod-index": "7",
            "batch.kubernetes.io/job-completion-index": str(3 - number),
        }
    assert [node.name[-1] for node in read(reach, "nccl-worker").job] == ["0", "1", "2", "3"]
    for item in server.pods()[1:]:
        item["metadata"]["labels"] = {}
    assert [node.name[-1] for node in read(reach, "nccl-worker").job] == ["3", "2", "1", "0"]


@pytest.mark.parametrize("name", ["train-worker-{}-x0abc", "train-worker-{}-3", "train-worker-{}", "train-{}"])
def test_the_number_behind_worker_comes_before_the_one_at_the_end(cluster, name):
    server, reach = cluster("kubernetes_aks.json")
    for item in server.pods()[1:]:
        metadata = item["metadata"]
        metadata.update(labels={}, name=name.format(metadata["name"][-1]))
    assert [node.name[-1] for node in read(reach, "train").job] == ["3", "2", "1", "0"]


@pytest.mark.parametrize("name", ["nccl-worker-7k2px", "nccl-worker-"])
def test_letters_behind_a_number_are_no_rank(cluster, name):
    server, reach = cluster("kubernetes_aks.json")
    change_pod(server, "nccl-worker-2", labels={}, name=name)
    with pytest.raises(TopologyError, match=r"The rank of pod .* is not known"):
        read(reach, "nccl")


def test_a_node_of_the_job_is_not_busy_for_what_else_runs_there(cluster):
    server, reach = cluster("kubernetes_aks.json")
    for item in server.nodes():
        item["spec"]["unschedulable"] = True
    topology = read(reach, "nccl-worker")
    assert not any(node.busy for node in topology.job)
    assert topology.free == ()


def change_pod(server, pod, **metadata):
    next(item for item in server.pods() if item["metadata"]["name"] == pod)["metadata"].update(metadata)


def test_two_pods_that_claim_one_rank_are_named(cluster):
    server, reach = cluster("kubernetes_aks.json")
    change_pod(server, "nccl-worker-2", labels={"training.kubeflow.org/replica-index": "1"})
    with pytest.raises(TopologyError) as error:
        read(reach, "nccl")
    fails(error, "default/nccl-worker-1 and default/nccl-worker-2 both claim rank 1", "longer prefix")


def test_a_pod_without_a_rank_is_named(cluster):
    server, reach = cluster("kubernetes_aks.json")
    change_pod(server, "nccl-worker-2", labels={}, name="nccl-worker-x7k2p")
    with pytest.raises(TopologyError) as error:
        read(reach, "nccl")
    fails(error, "default/nccl-worker-x7k2p", "does not end in a number", "batch.kubernetes.io/job-completion-index")


def test_pods_of_one_node_must_have_consecutive_ranks(cluster):
    server, reach = cluster("kubernetes_kueue.json")
    for name, rank in (("serve-0-1", "2"), ("serve-0-2", "1")):
        change_pod(server, name, labels={"leaderworkerset.sigs.k8s.io/worker-index": rank})
    with pytest.raises(TopologyError) as error:
        read(reach, "serve-0")
    fails(error, "Node 'b1-r1-n1' runs the ranks 0, 2", "2 consecutive")


def test_a_missing_rank_is_named_when_the_job_is_asked_for(cluster):
    server, reach = cluster("kubernetes_aks.json")
    server.pods().pop()
    server.pods().pop(2)
    with pytest.raises(TopologyError, match="no node has rank 1"):
        assert read(reach, "nccl").job


def test_a_prefix_that_fits_no_pod_names_those_that_compute(cluster):
    _, reach = cluster("kubernetes_aks.json")
    with pytest.raises(TopologyError) as error:
        read(reach, "ncll")
    fails(error, "starts with 'ncll'", "Pods with accelerators: default/nccl-worker-0, default/nccl-worker-1")


def test_a_pod_without_a_node_yet_is_named(cluster):
    _, reach = cluster("kubernetes_kueue.json")
    with pytest.raises(TopologyError, match="1 of 1 pods of 'waiting' have no node yet: default/waiting-0"):
        read(reach, "waiting")


def test_a_node_that_went_away_between_the_lists(cluster):
    server, reach = cluster("kubernetes_aks.json")
    del server.nodes()[1]
    with pytest.raises(TopologyError, match="Node 'aks-ndh100-38183491-vmss000001' runs a pod of the job"):
        read(reach, "nccl")


def test_a_cluster_without_accelerators(cluster):
    server, reach = cluster("kubernetes_aks.json")
    del server.nodes()[:4]
    with pytest.raises(TopologySourceError, match=r"None of the 1 nodes offers accelerators .*amd\.com/gpu"):
        read(reach)


@pytest.mark.parametrize(
    ("path", "status", "message", "words"),
    [
        ("/api/v1/nodes", 403, "nodes is forbidden", ("403: nodes is forbidden", "list nodes and pods")),
        ("/api/v1/pods", 403, "pods is forbidden", ("403: pods is forbidden", "--namespace")),
        ("/api/v1/nodes", 500, "etcdserver: timeout", ("500: etcdserver: timeout",)),
        ("/api/v1/nodes", 503, "shutting down", ("503: shutting down",)),
        ("/api/v1/pods", 410, "continue token expired", ("expired while it was read", "Run it again")),
    ],
)
def test_what_the_server_refuses_is_one_message(cluster, path, status, message, words):
    server, reach = cluster("kubernetes_aws.json")
    server.failures[path] = (status, message)
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, server.url, *words)
    assert len(str(error.value)) < 300


def test_credentials_that_the_server_does_not_accept(cluster, tmp_path):
    server, _ = cluster("kubernetes_aws.json")
    config = write_kubeconfig(tmp_path / "old", server.url, token="expired")
    with pytest.raises(TopologySourceError, match=r"does not accept your credentials \(401: Unauthorized\)"):
        kubernetes.read_topology(kubeconfig=config)


def test_a_server_that_is_not_there(tmp_path, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        config = write_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")
        with pytest.raises(TopologySourceError) as error:
            kubernetes.read_topology(kubeconfig=config)
    fails(error, f"http://127.0.0.1:{port} cannot be reached", "refused", "VPN")
    assert caplog.records == []  # nor does the client log its retries


def test_a_server_without_the_expected_certificate(cluster, tmp_path):
    server, _ = cluster("kubernetes_aws.json")
    config = write_kubeconfig(tmp_path / "tls", server.url.replace("http:", "https:"))
    with pytest.raises(TopologySourceError, match="cannot be trusted: SSLError"):
        kubernetes.read_topology(kubeconfig=config)


def test_a_server_of_another_kind(cluster):
    server, reach = cluster("kubernetes_aws.json")
    server.answer = lambda *_: (200, b"<html>It works!</html>")
    with pytest.raises(TopologySourceError, match="does not answer like a Kubernetes server"):
        read(reach)


def set_part(server, what, *keys, value):
    """Change a part of the fourth node or pod."""
    place = server.lists[f"/api/v1/{what}"]["items"]
    for key in (3, *keys)[:-1]:
        place = place[key]
    place[(3, *keys)[-1]] = value


@pytest.mark.parametrize(
    ("what", "keys", "value", "words"),
    [
        ("nodes", (), "hello", "object 4: expected a mapping with 'metadata', found 'hello'"),
        ("nodes", (), {"spec": {}}, "object 4: 'metadata' is missing, expected a mapping"),
        ("nodes", ("metadata",), None, "object 4: 'metadata' is null, expected a mapping"),
        ("nodes", ("metadata", "name"), 5, "'name' is 5, expected text"),
        ("nodes", ("metadata", "labels"), ["a"], "'labels' is ['a'], expected a mapping"),
        ("nodes", ("metadata", "labels"), {"zone": 5}, "in 'labels', 'zone' is 5, expected text"),
        ("nodes", ("metadata", "annotations"), {"rank": []}, "in 'annotations', 'rank' is []"),
        ("nodes", ("spec",), None, "object 4: 'spec' is null, expected a mapping"),
        ("nodes", ("spec", "providerID"), 5, "'providerID' is 5, expected text"),
        ("nodes", ("status",), None, "object 4: 'status' is null, expected a mapping"),
        ("nodes", ("status", "conditions"), [{"type": "Ready"}], "'status' is missing, expected text"),
        ("nodes", ("status", "allocatable"), [8], "'allocatable' is [8], expected a mapping"),
        ("pods", ("spec",), None, "'spec' is null, expected a mapping"),
        ("pods", ("spec", "nodeName"), ["a"], "'nodeName' is ['a'], expected text"),
        ("pods", ("spec", "containers"), {"a": 1}, "'containers' is {'a': 1}, expected a list"),
        ("pods", ("spec", "containers"), ["a"], "expected a mapping with 'resources', found 'a'"),
        ("pods", ("spec", "containers"), [{"resources": {"limits": 8}}], "'limits' is 8, expected a mapping"),
    ],
)
def test_a_malformed_object_is_named_with_its_list(cluster, what, keys, value, words):
    server, reach = cluster("kubernetes_aws.json")
    set_part(server, what, *keys, value=value)
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    method = "list_node" if what == "nodes" else "list_pod_for_all_namespaces"
    fails(error, f"{server.url} does not answer like a Kubernetes server ({method}: object", words)


def test_a_pod_without_a_spec_is_named(cluster):
    server, reach = cluster("kubernetes_aws.json")
    del server.pods()[3]["spec"]
    with pytest.raises(TopologySourceError, match="'spec' is missing, expected a mapping"):
        read(reach)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"items": {"a": 1}, "metadata": {}}, "'items' is {'a': 1}, expected a list"),
        ({"items": "abc", "metadata": {}}, "'items' is 'abc', expected a list"),
        ({"items": [], "metadata": None}, "'metadata' is null, expected a mapping"),
        ({"items": [], "metadata": "x"}, "'metadata' is 'x', expected a mapping"),
        ({"items": [], "metadata": {"continue": 7}}, "'continue' is 7, expected text"),
        ({"metadata": {}}, "no list of objects"),
        ([1], "no list of objects"),
    ],
)
def test_a_malformed_list_is_named(cluster, answer, words):
    server, reach = cluster("kubernetes_aws.json")
    server.answer = lambda *_: (200, json.dumps(answer).encode())
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, f"{server.url} does not answer like a Kubernetes server (list_node: {words})")


@pytest.mark.parametrize(
    ("status", "words"), [(200, "(list_node: no JSON that can be read)"), (500, "failed (500: Internal Server Error)")]
)
def test_a_bottomless_answer_is_refused(cluster, status, words):
    server, reach = cluster("kubernetes_aws.json")
    server.answer = lambda *_: (status, b"[" * 200_000)
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, server.url, words)


def test_a_list_that_leads_back_to_a_page_is_refused(cluster):
    server, reach = cluster("kubernetes_aws.json")
    server.answer = lambda *_: (200, b'{"items": [], "metadata": {"continue": "same"}}')
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, "does not answer like a Kubernetes server (list_node: after 0 objects a page follows that was there")
    assert len(server.requests) == 2


def test_a_list_of_ever_more_pages_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(_kubernetes_api, "MAX_PAGES", 3)
    server, reach = cluster("kubernetes_aws.json")
    server.answer = lambda *_: (200, b'{"items": [], "metadata": {"continue": "%d"}}' % len(server.requests))
    with pytest.raises(TopologySourceError, match="the list goes on after 3 pages"):
        read(reach)


def test_what_a_server_says_cannot_steer_a_terminal(cluster):
    server, reach = cluster("kubernetes_aws.json")
    server.failures["/api/v1/nodes"] = (403, "no\x1b[31m")
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, r"403: no\x1b[31m")


def test_a_number_that_is_no_rank_is_passed_over(cluster):
    server, reach = cluster("kubernetes_aks.json")
    change_pod(server, "nccl-worker-2", labels={"training.kubeflow.org/replica-index": "9" * 5000})
    assert len(read(reach, "nccl").job) == 4


def with_helper(config, **helper):
    """Let the user of a kubeconfig log in with a helper instead of a token."""
    text = yaml.safe_load(config.read_text())
    text["users"][0]["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **helper}}
    config.write_text(yaml.safe_dump(text))
    return config


@pytest.mark.parametrize(
    ("helper", "reason"),
    [
        ({"command": "gnomon-test-no-such-helper"}, "No such file or directory: 'gnomon-test-no-such-helper'"),
        ({"command": "sh", "args": ["-c", "echo expired >&2; exit 3"]}, "process returned 3. expired"),
        ({"command": "sh", "args": ["-c", "echo nothing"]}, "failed to decode process output"),
    ],
)
def test_a_credential_helper_that_fails_is_named_and_nothing_is_asked(cluster, caplog, capfd, helper, reason):
    server, reach = cluster("kubernetes_aws.json")
    with_helper(reach["kubeconfig"], **helper)
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(TopologySourceError) as error:
        read(reach)
    fails(error, f"The credential helper (exec) in kubeconfig {reach['kubeconfig']} failed", reason, "log in again")
    assert server.requests == []
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_a_credential_helper_that_works(cluster):
    _, reach = cluster("kubernetes_gke.json")
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": TOKEN}}
    with_helper(reach["kubeconfig"], command="echo", args=[json.dumps(answer)])
    assert len(read(reach).nodes) == 8


def test_without_a_kubeconfig(tmp_path, monkeypatch):
    with pytest.raises(TopologySourceError) as error:
        kubernetes.read_topology(kubeconfig=tmp_path / "nope")
    fails(error, str(tmp_path / "nope"), "--kubeconfig", "KUBECONFIG")
    with pytest.raises(TopologySourceError) as error:
        kubernetes.read_topology()
    fails(error, str(Path.home() / ".kube" / "config"))


def test_the_kubeconfig_of_the_environment_and_a_context(cluster, monkeypatch, tmp_path):
    _, reach = cluster("kubernetes_gke.json")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{reach['kubeconfig']}")
    before = reach["kubeconfig"].read_bytes()
    assert len(kubernetes.read_topology(context="test").nodes) == 8
    assert reach["kubeconfig"].read_bytes() == before
    with pytest.raises(TopologySourceError, match=r"no context 'tset'\. Did you mean 'test'\?"):
        kubernetes.read_topology(context="tset")


@pytest.mark.parametrize(
    "text",
    ["", "{", "- 1", "clusters: 3", yaml.safe_dump({"current-context": "x", "contexts": []}), "current-context: x\n"],
)
def test_a_kubeconfig_that_is_damaged(tmp_path, text):
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(TopologySourceError, match=f"The kubeconfig {config} is not usable"):
        kubernetes.read_topology(kubeconfig=config)


def test_in_a_pod_the_service_account_is_used(cluster, monkeypatch, tmp_path):
    server, _ = cluster("kubernetes_gke.json")
    from kubernetes.config import incluster_config

    host, port = server.url.removeprefix("http://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    with pytest.raises(TopologySourceError, match="The service account of this pod is not usable"):
        kubernetes.read_topology()
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certifi.where())
    load = incluster_config.InClusterConfigLoader._load_config

    def load_without_tls(loader):
        load(loader)
        loader.host = server.url  # the test server has no certificate

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "_load_config", load_without_tls)
    assert len(kubernetes.read_topology().nodes) == 8


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(TopologySourceError, match=r"'kubernetes'.*pip install 'gnomon\[cloud\]'"):
        kubernetes.read_topology()


@pytest.mark.parametrize("text", ["{", "[]", '{"fsx.csi.aws.com": 3}', '{"ebs.csi.aws.com": "vol-1"}'])
def test_an_instance_id_is_never_required(cluster, text):
    server, reach = cluster("kubernetes_aws.json")
    item = server.nodes()[0]
    item["spec"].pop("providerID")
    item["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"] = text
    assert "instance_id" not in read(reach).by_name[aws(0)].labels


def test_a_quantity_that_is_no_number_of_devices_counts_none(cluster):
    server, reach = cluster("kubernetes_aws.json")
    server.nodes()[0]["status"]["allocatable"]["nvidia.com/gpu"] = "1k"
    assert len(read(reach).nodes) < len(server.nodes())


def test_the_topology_is_read_back_from_its_file(cluster, tmp_path):
    _, reach = cluster("kubernetes_aws.json")
    topology = read(reach, "llama-70b")
    assert Topology.load(topology.save(tmp_path / "topology.yaml")) == topology
    assert json.loads(topology.to_json())["source"] == topology.source
