//! What stands between a provider and everybody who listens: it sees each piece of a reply first and may stop the reply.

use std::sync::Arc;

/// Judges replies while they are made.
pub trait ReplyFilter: Send + Sync {
    /// Whether `piece` may be said after `so_far`, the visible text before it. It is asked for every piece, one at a time,
    /// on the task that makes the reply: it must be quick and must not block.
    fn allows(&self, so_far: &str, piece: &str) -> bool;
}

/// A filter that is shared by all replies.
pub type SharedReplyFilter = Arc<dyn ReplyFilter>;

/// Lets everything pass.
pub struct AllowAll;

impl ReplyFilter for AllowAll {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}
