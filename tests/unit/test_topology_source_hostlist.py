import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.topology.graph import TopologyError
from gnomon.topology.sources.hostlist import MAX_NAMES, compress, expand


@pytest.mark.parametrize(
    ("hostlist", "names"),
    [
        ("n1", "n1"),
        ("a[1-2]b[03-04],x,n[9-11]", "a1b03 a1b04 a2b03 a2b04 x n9 n10 n11"),  # as `scontrol show hostnames` prints it
        ("a[098-101]", "a098 a099 a100 a101"),
        ("a[1-010]", "a1 a2 a3 a4 a5 a6 a7 a8 a9 a10"),
        ("node[001-003,020]", "node001 node002 node003 node020"),
        ("a[1-2],a1", "a1 a2 a1"),
        (" n[1, 3-4] , m ", "n1 n3 n4 m"),
        ("rack[0-1]n[0-1]s", "rack0n0s rack0n1s rack1n0s rack1n1s"),
        ("ip-10-0-0-[7,12].ec2.internal", "ip-10-0-0-7.ec2.internal ip-10-0-0-12.ec2.internal"),
    ],
)
def test_expand(hostlist, names):
    assert expand(hostlist) == names.split()


@pytest.mark.parametrize(
    ("hostlist", "words"),
    [
        ("a[1-2", "does not close"),
        ("a1-2]", "never opened"),
        ("a[1[2]]", "inside a bracket"),
        ("a[3-1]", "backwards"),
        ("a[1-2,x]", "'x' in brackets"),
        ("a[]", "'' in brackets"),
        ("bgl[000x133]", "'000x133' in brackets"),
        ("a,,b", "empty name"),
        ("a,", "empty name"),
        ("  ", "empty"),
        ("a[0-999999999999]", str(MAX_NAMES)),
        ("a[0-9999]b[0-9999]", str(MAX_NAMES)),  # refused before 10^8 names are made
    ],
)
def test_a_malformed_list_is_explained(hostlist, words):
    with pytest.raises(TopologyError) as error:
        expand(hostlist)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("names", "hostlist"),
    [
        ("n9 n10 n11", "n[9-11]"),
        ("n09 n10 n11", "n[09-11]"),
        ("n9 n10 n11 n09 x", "n[9-11,09],x"),
        ("n09 n010", "n[09,010]"),
        ("node001 node002 node003 node020", "node[001-003,020]"),
        ("s0", "s0"),
        ("a a1 a2 a a", "a,a[1-2],a,a"),
    ],
)
def test_compress(names, hostlist):
    assert compress(names.split()) == hostlist


NAMES = st.lists(
    st.builds(
        "{}{}".format,
        st.sampled_from(["n", "rack1-", "gpu", "a0b"]),
        st.one_of(st.just(""), st.integers(0, 120).map(str), st.integers(0, 120).map("{:03d}".format)),
    ),
    max_size=40,
    min_size=1,
)


@given(NAMES)
def test_expanding_what_was_compressed_gives_the_names_in_their_order(names):
    assert expand(compress(names)) == names


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 5))
def test_a_range_has_every_number_once(low, length, width):
    names = expand(f"n[{low:0{width}d}-{low + length:0{width}d}]")
    assert [int(name[1:]) for name in names] == list(range(low, low + length + 1))
    assert all(len(name) - 1 >= width for name in names)
