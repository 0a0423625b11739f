"""A real Ray cluster on this machine, told by stdin what becomes of its nodes: `add`, `remove`; its end shuts it down.

A process of its own: a run joins and leaves clusters, and pytest's process stays out of them. All of it listens on
loopback only, by Ray's own switch for machines that shall not form clusters with others.
"""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# A lost node is noticed in some seconds, not in half a minute: one that is away refuses the connection at once, and one
# that is only slow has three times three seconds.
os.environ |= {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}

# One CPU, so that two engines are on two nodes, and share the cores of this machine as replicas do.
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 100 << 20}


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    nodes = [cluster.add_node(**NODE)]
    try:
        say(f"{cluster.address} {cluster.head_node.get_session_dir_path()}")
        for command in map(str.strip, sys.stdin):
            if command == "add":
                nodes.append(cluster.add_node(**NODE))
            elif command == "remove":
                # As a machine goes that loses its power.
                cluster.remove_node(nodes.pop(), allow_graceful=False)
            say(command)
    finally:
        cluster.shutdown()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
