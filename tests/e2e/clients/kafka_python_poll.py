"""Polling with kafka-python 3.0, whose members can lose their assignment.

Where the wait of a `poll` ends while the member's SyncGroup is on its way, kafka-python drops the answer that comes then: the member
goes on with heartbeats, owns nothing, and does not ask again. The assignment of one that asked for the metadata of no topic before it
subscribed is empty in the same way.
"""

import time

NOTHING_ASSIGNED_S = 4


def poll(client, timeout_ms, **options):
    """`client.poll`; a member that has owned nothing for a while subscribes anew."""
    found, now = client.poll(timeout_ms, **options), time.monotonic()
    subscribed = client.subscription()
    if not subscribed or client.assignment() or not hasattr(client, "idle_since"):
        client.idle_since = now
    elif now - client.idle_since > NOTHING_ASSIGNED_S:
        client.unsubscribe()
        client.subscribe(list(subscribed))
        client.idle_since = now
    return found
