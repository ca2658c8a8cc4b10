//! What each metric means, for whoever looks at `/metrics`. A test finds one that is left out.

use metrics::{describe_counter, describe_gauge, describe_histogram};

const COUNTERS: &[(&str, &str)] = &[
    ("folkmoot_posts_total", "Messages acknowledged, duplicates included."),
    ("folkmoot_deliveries_total", "Events handed to connections, one an event and subscriber."),
    ("folkmoot_follows_moved_total", "Followed rooms that went on at another replica, or later."),
    ("folkmoot_forwards_total", "Requests to other nodes: commands, reads, and the time."),
    ("folkmoot_rejections_total", "Requests refused or failed, by code (docs/errors.md)."),
    ("folkmoot_http_requests_total", "REST requests, by route and status."),
    ("folkmoot_websockets_closed_total", "WebSockets closed by this node, by close code."),
    ("folkmoot_connections_accepted_total", "Client connections accepted."),
    ("folkmoot_connections_refused_total", "Client connections turned away at the limit."),
    ("folkmoot_log_written_bytes_total", "Bytes written to the Raft log."),
    ("folkmoot_snapshot_sent_bytes_total", "Bytes of snapshots sent to other nodes."),
];

const GAUGES: &[(&str, &str)] = &[
    ("folkmoot_subscribers", "Rooms followed now, over all connections."),
    ("folkmoot_sessions", "Sessions now, over gRPC and WebSocket."),
    ("folkmoot_users_present", "Users who are online or away by a device on this node."),
    ("folkmoot_websockets", "WebSockets now, signed in or not."),
    ("folkmoot_connections", "Client connections now."),
    ("folkmoot_proposals_waiting", "Commands that wait to become a log entry."),
    ("folkmoot_raft_term", "The group's term."),
    ("folkmoot_raft_is_leader", "1 where this node leads the group."),
    ("folkmoot_raft_has_leader", "1 where this node knows a leader of the group."),
    ("folkmoot_raft_last_log_index", "The last index in this node's log."),
    ("folkmoot_raft_commit_index", "The last index known to be committed."),
    ("folkmoot_raft_applied_index", "The last index that this node has applied."),
    ("folkmoot_raft_durable_index", "The last index that is in a durable checkpoint."),
    ("folkmoot_shard_size_bytes", "Size of the shard's events, as they were posted."),
    ("folkmoot_shard_overlay_bytes", "What is applied and not in the base yet."),
    ("folkmoot_disk_free_bytes", "Free space where the node keeps its data."),
    ("folkmoot_clock_offset_seconds", "This node's clock minus the others'."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("folkmoot_post_duration_seconds", "From a post's arrival to its outcome."),
    ("folkmoot_read_duration_seconds", "From a page's request to its events, without waiting."),
    ("folkmoot_log_write_duration_seconds", "A write to the Raft log and its fsync."),
    ("folkmoot_log_writes_per_fsync", "Writes of groups that one fsync made durable."),
    ("folkmoot_checkpoint_duration_seconds", "A shard's checkpoint, its fsync included."),
];

/// Tells the current recorder.
pub(super) fn describe() {
    for &(name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for &(name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for &(name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
}
