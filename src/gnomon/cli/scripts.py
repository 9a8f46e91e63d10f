"""The console scripts that carry the names of existing tools; each imports only the verb that it runs."""

from __future__ import annotations

from gnomon.cli._run import run


def three_d_training() -> None:
    """Run `3dtrn`."""
    from gnomon.cli.three_d_training import app

    run(app)


def sps2tpd() -> None:
    """Run `sps2tpd`."""
    from gnomon.cli.convert import sps2tpd_app

    run(sps2tpd_app)


def sps2mfu() -> None:
    """Run `sps2mfu`."""
    from gnomon.cli.convert import sps2mfu_app

    run(sps2mfu_app)


def ckpt_summarize() -> None:
    """Run `ckpt-summarize`."""
    from gnomon.cli.ckpt import ckpt_summarize_app

    run(ckpt_summarize_app)


def topoviz() -> None:
    """Run `topoviz`."""
    from gnomon.cli.topo import topoviz_app

    run(topoviz_app)


def topoeval() -> None:
    """Run `topoeval`."""
    from gnomon.cli.topo import topoeval_app

    run(topoeval_app)


def topoassign() -> None:
    """Run `topoassign`."""
    from gnomon.cli.topo import topoassign_app

    run(topoassign_app)
