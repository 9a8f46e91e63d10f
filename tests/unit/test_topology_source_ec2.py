"""EC2 through botocore's own stubber, which checks every parameter and answer against the model of the API."""

import subprocess
import sys

import boto3
import pytest
from botocore import exceptions
from botocore.stub import Stubber

from gnomon.topology.graph import hops
from gnomon.topology.sources import ec2
from gnomon.topology.sources._errors import TopologySourceError

TYPE = "p5.48xlarge"
ZONE = "us-east-1a"
FILTERS = [{"Name": "instance-type", "Values": [TYPE]}, {"Name": "availability-zone", "Values": [ZONE]}]


@pytest.fixture
def stub():
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def instance(number, **changes):
    """One of 250 instances below 3 spines; 10 to a leaf, 5 leaves to an aggregation."""
    leaf = number // 10
    answer = {
        "InstanceId": f"i-{number:017x}",
        "InstanceType": TYPE,
        "NetworkNodes": [f"nn-spine{leaf % 3}", f"nn-agg{leaf % 3}-{leaf // 15}", f"nn-leaf{leaf}"],
        "AvailabilityZone": ZONE,
        "ZoneId": "use1-az4",
    }
    return {key: value for key, value in {**answer, **changes}.items() if value is not None}


ALL = [instance(number) for number in range(250)]
IDS = [item["InstanceId"] for item in ALL]


def answer_types(stub, count=8, kind=TYPE):
    gpus = {"Gpus": [{"Name": "H100", "Count": count}]}
    stub.add_response(
        "describe_instance_types",
        {"InstanceTypes": [{"InstanceType": kind, "GpuInfo": gpus}]},
        {"InstanceTypes": [kind]},
    )


def answer(stub, instances, ids=None, filters=()):
    expected = {"Filters": list(filters), **({"InstanceIds": ids} if ids else {"MaxResults": 100})}
    stub.add_response("describe_instance_topology", {"Instances": instances}, expected)


def test_all_instances_of_a_type_come_in_three_pages(stub):
    for start, token in ((0, None), (100, "page2"), (200, "page3")):
        following = {0: "page2", 100: "page3"}.get(start)
        stub.add_response(
            "describe_instance_topology",
            {"Instances": ALL[start : start + 100], **({"NextToken": following} if following else {})},
            {"Filters": FILTERS, "MaxResults": 100, **({"NextToken": token} if token else {})},
        )
    answer_types(stub)
    topology = ec2.read_topology(TYPE, availability_zone=ZONE, client=stub.client)
    assert len(topology.nodes) == 250
    assert topology.spines == ("nn-spine0", "nn-spine1", "nn-spine2")
    assert topology.source == "EC2 us-east-1 us-east-1a p5.48xlarge"
    node = topology.by_name[IDS[42]]
    assert node.path == ("nn-spine1", "nn-agg1-0", "nn-leaf4")
    assert node.labels == {"instance_type": TYPE, "zone": ZONE}
    distances = [hops(topology.by_name[IDS[0]], topology.by_name[IDS[other]]) for other in (9, 30, 150, 10)]
    assert distances == [2, 4, 6, 8]  # same leaf, aggregation, spine, none


def test_ids_are_asked_for_a_hundred_at_a_time(stub):
    for start in (0, 100, 200):
        answer(stub, ALL[start : start + 100], IDS[start : start + 100])
    answer_types(stub)
    topology = ec2.read_topology(instance_ids=[*IDS, IDS[0]], client=stub.client)
    assert [node.name for node in topology.nodes] == IDS


@pytest.mark.parametrize(
    ("kind", "info", "accelerators"),
    [
        ("trn2.48xlarge", {"NeuronInfo": {"NeuronDevices": [{"Count": 16, "Name": "Trainium2"}]}}, 16),
        ("p6e-gb200.36xlarge", {"GpuInfo": {"Gpus": [{"Count": 4, "Name": "B200"}]}}, 4),
        ("hpc7a.96xlarge", {}, 1),
    ],
)
def test_accelerators_come_from_the_instance_type(stub, kind, info, accelerators):
    answer(stub, [instance(1, InstanceType=kind)])
    types = {"InstanceTypes": [{"InstanceType": kind, **info}]}
    stub.add_response("describe_instance_types", types, {"InstanceTypes": [kind]})
    assert ec2.read_topology(client=stub.client).nodes[0].accelerators == accelerators


def test_unknown_accelerators_are_said(stub):
    answer(stub, ALL[:2])
    stub.add_client_error("describe_instance_types", "UnauthorizedOperation", "not you", 403)
    topology = ec2.read_topology(client=stub.client)
    assert topology.nodes[0].accelerators is None
    assert "ec2:DescribeInstanceTypes is not allowed; accelerators per node unknown" in topology.source


def test_four_layers_and_placement_are_kept(stub):
    path = ["nn-1", "nn-2", "nn-3", "nn-4"]
    answer(stub, [instance(0, NetworkNodes=path, GroupName="cluster-a", CapacityBlockId="cr-1")])
    answer_types(stub)
    node = ec2.read_topology(client=stub.client).nodes[0]
    assert node.path == tuple(path)
    assert node.labels["placement_group"] == "cluster-a"
    assert node.labels["capacity_block"] == "cr-1"


def test_instances_without_network_nodes_are_left_out_and_counted(stub):
    answer(stub, [*ALL[:2], instance(2, NetworkNodes=[]), instance(3, NetworkNodes=None)])
    answer_types(stub)
    topology = ec2.read_topology(client=stub.client)
    assert len(topology.nodes) == 2
    assert topology.source == "EC2 us-east-1 (2 instances without network nodes left out)"


def test_ids_that_have_no_network_nodes_are_named(stub):
    answer(stub, [ALL[0], instance(1, NetworkNodes=[])], IDS[:2])
    with pytest.raises(TopologySourceError, match=f"no network nodes of {IDS[1]}: not running"):
        ec2.read_topology(instance_ids=IDS[:2], client=stub.client)


def test_instance_paths_leave_out_what_has_none(stub):
    asked = IDS[:101]
    answer(stub, [*ALL[:99], instance(99, NetworkNodes=None)], asked[:100])
    answer(stub, ALL[100:101], asked[100:])
    paths = ec2.instance_paths(asked, client=stub.client)
    assert set(paths) == set(asked) - {IDS[99]}
    assert paths[IDS[42]] == ["nn-spine1", "nn-agg1-0", "nn-leaf4"]


def test_ids_that_ec2_leaves_out_are_named(stub):
    answer(stub, ALL[7:9], IDS[:9])
    with pytest.raises(TopologySourceError, match=f"has no instances {IDS[0]}, {IDS[1]}, .*, {IDS[4]} and 2 more"):
        ec2.read_topology(instance_ids=IDS[:9], client=stub.client)


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([], "found no instance"),
        ([instance(0, InstanceType="g5.xlarge", NetworkNodes=None)], "1 instances, of types without network nodes: g5"),
    ],
)
def test_a_search_that_finds_nothing_says_what_it_found(stub, instances, words):
    answer(stub, instances, filters=FILTERS)
    with pytest.raises(TopologySourceError, match=words):
        ec2.read_topology(TYPE, availability_zone=ZONE, client=stub.client)


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("UnauthorizedOperation", "You are not authorized", ("refuses ec2:DescribeInstanceTopology", "permission")),
        ("AccessDenied", "no", ("refuses ec2:DescribeInstanceTopology",)),
        ("AuthFailure", "was not able to validate", ("does not accept the credentials", "Renew")),
        ("RequestExpired", "Request has expired", ("Renew",)),
        ("RequestLimitExceeded", "Request limit exceeded", ("limits the rate", "minute")),
        ("InvalidInstanceID.NotFound", "The instance ID 'i-9' does not exist", ("i-9", "NotFound")),
        ("InternalError", "oops", ("InternalError", "oops")),
    ],
)
def test_what_aws_refuses_is_one_message(stub, code, message, words):
    stub.add_client_error("describe_instance_topology", code, message)
    with pytest.raises(TopologySourceError) as error:
        ec2.read_topology(client=stub.client)
    for word in (*words, message):
        assert word in str(error.value)


def test_a_failure_of_the_second_call_is_explained(stub):
    answer(stub, ALL[:1])
    stub.add_client_error("describe_instance_types", "RequestLimitExceeded", "slow down")
    with pytest.raises(TopologySourceError, match="limits the rate of ec2:DescribeInstanceTypes"):
        ec2.read_topology(client=stub.client)


@pytest.fixture
def bare_aws(monkeypatch, tmp_path):
    """No credentials, no region, no metadata service."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return monkeypatch


def test_without_a_region(bare_aws):
    with pytest.raises(TopologySourceError, match=r"No AWS region is set.*us-east-1"):
        ec2.read_topology(TYPE)


def test_without_credentials(bare_aws):
    with pytest.raises(TopologySourceError, match=r"No usable AWS credentials.*aws configure"):
        ec2.read_topology(TYPE, region="us-east-1")


def test_with_an_unknown_profile(bare_aws):
    bare_aws.setenv("AWS_PROFILE", "nope")
    with pytest.raises(TopologySourceError, match=r"profile \(nope\) could not be found"):
        ec2.read_topology(TYPE, region="us-east-1")


def test_an_endpoint_that_nobody_serves(bare_aws):
    bare_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    bare_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    bare_aws.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9")
    bare_aws.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with pytest.raises(TopologySourceError, match=r"cannot be reached .*127\.0\.0\.1:9"):
        ec2.read_topology(TYPE, region="us-east-1")


@pytest.mark.parametrize(
    "error",
    [
        exceptions.CredentialRetrievalError(provider="custom-process", error_msg="exit 1"),
        exceptions.TokenRetrievalError(provider="sso", error_msg="expired"),
        exceptions.UnauthorizedSSOTokenError(),
    ],
)
def test_credentials_that_cannot_be_fetched(error):
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")

    def fail(**_):
        raise error

    client.meta.events.register("before-call.ec2.DescribeInstanceTopology", fail)
    with pytest.raises(TopologySourceError, match="No usable AWS credentials"):
        ec2.read_topology(client=client)


def test_without_boto3(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(TopologySourceError, match=r"'boto3'.*pip install 'gnomon\[cloud\]'"):
        ec2.read_topology(TYPE, region="us-east-1")


def test_importing_the_sources_imports_no_client_of_a_cloud():
    code = (
        "import sys; from gnomon.topology.sources import ec2, kubernetes, slurm;"
        "print([name for name in ('boto3', 'botocore', 'kubernetes', 'networkx') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
