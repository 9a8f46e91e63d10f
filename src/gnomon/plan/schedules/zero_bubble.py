"""ZB-H1 and ZB-H2: 1F1B with the weight gradients put off (arXiv 2401.10241, section 2)."""

from __future__ import annotations

from gnomon.plan.schedules.program import Operation, Program


def zero_bubble(pp: int, num_microbatches: int, *, depth: int) -> list[Program]:
    """Return the program of each rank of ZB-H1 (depth 1) or ZB-H2 (depth 2).

    A rank at distance d from the last begins with `depth` d forwards and puts its first `depth` rank weight gradients
    off until its backwards by input are done. All ranks hold the same peak: depth (pp - 1) + 1 micro-batches.
    """
    programs: list[Program] = []
    for rank in range(pp):
        warmup = min(depth * (pp - 1 - rank), num_microbatches)
        delay = min(depth * rank, num_microbatches)
        program: Program = [Operation("F", 0, n) for n in range(warmup)]
        for n in range(num_microbatches):
            if n + warmup < num_microbatches:
                program.append(Operation("F", 0, n + warmup))
            program.append(Operation("B", 0, n))
            if n >= delay:
                program.append(Operation("W", 0, n - delay))
        program += [Operation("W", 0, n) for n in range(num_microbatches - delay, num_microbatches)]
        programs.append(program)
    return programs
