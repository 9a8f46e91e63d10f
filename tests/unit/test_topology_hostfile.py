"""Placements as the launchers read them."""

from typing import get_args

import pytest

from gnomon.topology.hostfile import PlacementFormat, openmpi_rankfile, render, slurm_nodelist
from gnomon.topology.sources.hostlist import expand

NAMES = ("node10", "node2", "gpu-a")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("hosts", "node10\nnode2\ngpu-a\n"),
        ("mpi", "node10 slots=2\nnode2 slots=2\ngpu-a slots=2\n"),
        ("slurm-hostfile", "node10\nnode10\nnode2\nnode2\ngpu-a\ngpu-a\n"),
        (
            "rankfile",
            "rank 0=node10 slot=0\nrank 1=node10 slot=1\nrank 2=node2 slot=0\nrank 3=node2 slot=1\n"
            "rank 4=gpu-a slot=0\nrank 5=gpu-a slot=1\n",
        ),
        ("slurm-nodelist", "gpu-a,node[2,10]\n"),
        (
            "torchrun",
            "node10 --nnodes=3 --node-rank=0 --nproc-per-node=2 --master-addr=node10\n"
            "node2 --nnodes=3 --node-rank=1 --nproc-per-node=2 --master-addr=node10\n"
            "gpu-a --nnodes=3 --node-rank=2 --nproc-per-node=2 --master-addr=node10\n",
        ),
    ],
)
def test_forms(form, expected):
    assert render(NAMES, form, 2) == expected


def test_every_form_is_tested():
    marks = test_forms.pytestmark[0].args[1]
    assert {form for form, _ in marks} == set(get_args(PlacementFormat))


def test_a_nodelist_is_short_and_names_every_node():
    names = [f"node{index:03d}" for index in (7, 1, 3, 2, 4)]
    assert slurm_nodelist(names) == "node[001-004,007]"
    assert sorted(expand(slurm_nodelist(names))) == sorted(names)


def test_ranks_of_a_rankfile_have_no_gaps():
    lines = openmpi_rankfile([f"n{index}" for index in range(5)], 8).splitlines()
    assert [int(line.split()[1].partition("=")[0]) for line in lines] == list(range(40))
