"""Process group and collectives: the only package that uses torch.distributed.

Every function also works in a single process without a process group, so that no caller forks on the number of ranks.
"""

from ttc.distributed.agreement import Vote, any_rank, first_rank_first, from_first_rank
from ttc.distributed.collectives import (
    Pool,
    average_gradients,
    average_over_ranks,
    broadcast,
    gather,
    gather_json,
    gather_uneven,
    gather_with_gradient,
    mean,
    pool_of,
    sum_with_gradient,
)
from ttc.distributed.group import World, first_to_fail, lost_connection, rank, start, stop, wait, world_size

__all__ = [
    "Pool",
    "Vote",
    "World",
    "any_rank",
    "average_gradients",
    "average_over_ranks",
    "broadcast",
    "first_rank_first",
    "first_to_fail",
    "from_first_rank",
    "gather",
    "gather_json",
    "gather_uneven",
    "gather_with_gradient",
    "lost_connection",
    "mean",
    "pool_of",
    "rank",
    "start",
    "stop",
    "sum_with_gradient",
    "wait",
    "world_size",
]
